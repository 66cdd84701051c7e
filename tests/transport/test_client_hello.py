import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.transport.client_hello import ClientHello, ClientHelloReader, fatal_alert


def openssl_hello(server_name=None, alpn=()):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


REAL = openssl_hello("Example.ORG", ["h2", "http/1.1"])
READ = ClientHello("example.org", ("h2", "http/1.1"))


def hello(extensions):
    """A ClientHello with just these extensions, in one record."""
    raw = b"".join(
        kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for kind, body in extensions
    )
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(raw).to_bytes(2, "big") + raw
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def server_name(name):
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    return (0, len(entry).to_bytes(2, "big") + entry)


def test_names_and_protocols_of_a_real_client():
    assert ClientHelloReader().feed(REAL) == READ
    assert ClientHelloReader().feed(openssl_hello()) == ClientHello(None, ())


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_any_chunking_reads_the_same(sizes):
    reader = ClientHelloReader()
    position, found = 0, None
    while found is None:
        for size in sizes:
            if found is None:
                found = reader.feed(REAL[position : position + size])
                position += size
    assert found == READ
    assert REAL.startswith(bytes(reader.received))


@given(st.integers(1, 100))
def test_a_hello_in_many_records_reads_the_same(size):
    message = REAL[5:]
    records = b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
        for start in range(0, len(message), size)
        if (part := message[start : start + size])
    )
    assert ClientHelloReader().feed(records) == READ


@given(st.binary(max_size=200))
def test_nonsense_is_a_value_error_or_not_complete(data):
    try:
        assert ClientHelloReader().feed(data) is None
    except ValueError:
        pass


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_that(position, value):
    changed = bytearray(REAL)
    changed[position] = value
    try:
        found = ClientHelloReader().feed(bytes(changed))
    except ValueError:
        return
    if found is not None and found.server_name is not None:
        assert found.server_name.isascii()
        assert found.server_name.isprintable()


def test_a_name_is_lower_case_without_its_last_dot():
    assert ClientHelloReader().feed(hello([server_name(b"A.Example.")])).server_name == "a.example"


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"a b", b"a\nb", b"\x1b[31m", b"a" * 256])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError):
        ClientHelloReader().feed(hello([server_name(name)]))


def test_a_list_of_two_names_is_refused():
    _, one = server_name(b"a.example")
    two = (0, (2 * len(one) - 4).to_bytes(2, "big") + one[2:] + one[2:])
    with pytest.raises(ValueError, match="one host name"):
        ClientHelloReader().feed(hello([two]))


def test_other_extensions_are_passed_over():
    found = ClientHelloReader().feed(
        hello([(51, b"key"), server_name(b"a.example"), (0xFAFA, b"")])
    )
    assert found == ClientHello("a.example", ())


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x2e\x01",  # SSL 2
        b"\x15\x03\x01",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x01\x00\x00",
    ],
)
def test_what_no_hello_can_come_of_is_refused_at_once(data):
    with pytest.raises(ValueError):
        ClientHelloReader().feed(data)


def test_the_smallest_records_byte_by_byte_cost_little():
    message = b"\x01\x00\x30\x00" + bytes(5000)
    wire = b"".join(b"\x16\x03\x01\x00\x01" + bytes((byte,)) for byte in message)
    reader, begun = ClientHelloReader(), time.process_time()
    for position in range(len(wire)):
        assert reader.feed(wire[position : position + 1]) is None
    assert time.process_time() - begun < 1


def test_so_many_records_are_refused():
    with pytest.raises(ValueError):
        ClientHelloReader().feed(b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\x00" * 6000)


def test_an_alert_in_the_clear():
    assert fatal_alert(112).hex() == "15030300020270"
