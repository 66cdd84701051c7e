import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.transport.client_hello import (
    MAX_HELLO,
    MAX_RECORD,
    Alert,
    ClientHello,
    ClientHelloError,
    ClientHelloReader,
    fatal_alert,
)


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


def hello(extensions, behind=b""):
    """A ClientHello with just these extensions, in full records."""
    raw = b"".join(
        kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for kind, body in extensions
    )
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(raw).to_bytes(2, "big") + raw + behind
    return in_records(b"\x01" + len(body).to_bytes(3, "big") + body)


def in_records(message, size=MAX_RECORD):
    return b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
        for start in range(0, len(message), size)
        if (part := message[start : start + size])
    )


def refusal(data):
    """The alert that these bytes get."""
    with pytest.raises(ClientHelloError, match=r"^the peer ") as raised:
        ClientHelloReader().feed(data)
    return raised.value.alert


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
    assert ClientHelloReader().feed(in_records(REAL[5:], size)) == READ


# Shares of every ML-KEM group, hybrid and not, and of the curves (bytes; RFC 8446, section 4.2.8).
KEY_SHARES = (1216, 1249, 1665, 800, 1184, 1568, 32, 56, 65, 97, 133)
LARGE = hello(
    [
        (51, b"".join(bytes(4 + size) for size in KEY_SHARES)),
        (0xFE0D, bytes(2048)),  # Encrypted ClientHello, with a whole hello inside
        server_name(b"a.example"),
        (41, bytes(2048)),  # a ticket
    ]
)


@pytest.mark.parametrize("size", [100, 1400, 16 << 10])
def test_there_is_room_for_every_post_quantum_key_at_once(size):
    assert len(LARGE) > 12_000
    records = in_records(LARGE[5:], size)
    assert ClientHelloReader().feed(records) == ClientHello("a.example", ())


@pytest.mark.promise(72)
def test_a_hello_is_read_up_to_16_kib_and_a_longer_one_refused_by_its_length():
    def padded(size):
        return hello([server_name(b"a.example"), (21, bytes(size))])

    rest = MAX_HELLO - int.from_bytes(padded(0)[6:9], "big")
    assert ClientHelloReader().feed(padded(rest)) == ClientHello("a.example", ())
    longer = padded(rest + 1)
    assert refusal(longer) is Alert.ILLEGAL_PARAMETER
    assert refusal(in_records(longer[5:9])) is Alert.ILLEGAL_PARAMETER


def test_what_comes_behind_a_hello_does_not_count():
    reader = ClientHelloReader()
    assert reader.feed(REAL + b"\x17\x03\x03" + bytes(64 << 10)) == READ
    assert len(reader.received) == len(REAL) + 3 + (64 << 10)  # OpenSSL gets it


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_not_complete(data):
    try:
        assert ClientHelloReader().feed(data) is None
    except ClientHelloError:
        pass


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_that(position, value):
    changed = bytearray(REAL)
    changed[position] = value
    try:
        found = ClientHelloReader().feed(bytes(changed))
    except ClientHelloError:
        return
    if found is not None and found.server_name is not None:
        assert found.server_name.isascii()
        assert found.server_name.isprintable()


def test_a_name_is_lower_case_without_its_last_dot():
    assert ClientHelloReader().feed(hello([server_name(b"A.Example.")])).server_name == "a.example"


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"a b", b"a\nb", b"\x1b[31m", b"a" * 256])
def test_a_name_that_is_none_is_refused(name):
    assert refusal(hello([server_name(name)])) is Alert.UNRECOGNIZED_NAME


def test_an_extension_that_comes_twice_is_refused():
    """One reader could take the first and another one the last."""
    two = [server_name(b"a.example"), server_name(b"b.example")]
    assert refusal(hello(two)) is Alert.ILLEGAL_PARAMETER


NAME = server_name(b"a.example")[1]


@pytest.mark.parametrize(
    "extension",
    [
        (0, (2 * len(NAME) - 4).to_bytes(2, "big") + NAME[2:] + NAME[2:]),  # two names
        (0, NAME[:2] + b"\x01" + NAME[3:]),  # of another kind
        (0, NAME + b"\x00"),
        (0, NAME[:-1]),
        (0, b""),
        (16, b"\x00\x03\x02h2\x00"),
        (16, b"\x00\x04\x02h2\x00"),  # a protocol without a name
        (16, b"\x00\x03\x03h2"),
    ],
)
def test_an_extension_whose_lengths_do_not_fit_is_refused(extension):
    assert refusal(hello([extension])) is Alert.DECODE_ERROR


def test_bytes_behind_the_extensions_are_refused():
    assert refusal(hello([server_name(b"a.example")], behind=b"\x00")) is Alert.DECODE_ERROR


def test_other_extensions_are_passed_over():
    found = ClientHelloReader().feed(
        hello([(51, b"key"), server_name(b"a.example"), (0xFAFA, b"")])
    )
    assert found == ClientHello("a.example", ())


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x80\x2e\x01", Alert.UNEXPECTED_MESSAGE),  # SSL 2
        (b"\x15\x03\x01", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x02", Alert.PROTOCOL_VERSION),
        (b"\x16\x03\x01\x00\x00", Alert.DECODE_ERROR),
        (b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", Alert.ILLEGAL_PARAMETER),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", Alert.DECODE_ERROR),
    ],
)
def test_what_no_hello_can_come_of_is_refused_at_once(data, alert):
    assert refusal(data) is alert


def test_the_smallest_records_byte_by_byte_cost_little():
    message = b"\x01\x00\x30\x00" + bytes(5000)
    wire = b"".join(b"\x16\x03\x01\x00\x01" + bytes((byte,)) for byte in message)
    reader, begun = ClientHelloReader(), time.process_time()
    for position in range(len(wire)):
        assert reader.feed(wire[position : position + 1]) is None
    assert time.process_time() - begun < 1


def test_so_many_records_are_refused():
    message = b"\x01\x00\x30\x00" + bytes(6000)
    assert refusal(in_records(message, 1)) is Alert.ILLEGAL_PARAMETER


def test_an_alert_in_the_clear():
    assert fatal_alert(Alert.UNRECOGNIZED_NAME).hex() == "15030300020270"
