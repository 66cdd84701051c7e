import ssl
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport_helpers import join, server_transform

from securews.common.errors import HandshakeError
from securews.transport.client_hello import Alert, ClientHelloError, fatal_alert
from securews.transport.socket_handler import PlainHTTPError, TLSError, TruncatedError
from securews.transport.tls_policy import server_context
from securews.transport.tls_transform import GROUP, PIECE, SHARE, TLSTransform

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def context(shared_files):
    made = server_context(ssl.TLSVersion.TLSv1_2)
    made.load_cert_chain(*shared_files.server())
    return made


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def pair(request, context, shared_files):
    client = TLSTransform.client(shared_files.client_context(request.param), "localhost")
    server = server_transform(context)
    join(client, server)
    return client, server


def in_chunks(data, sizes):
    """Cut `data` at the given sizes, over and over."""
    position = 0
    while position < len(data):
        for size in sizes:
            if position < len(data):
                yield data[position : position + size]
                position += size


def collect(transform, chunks):
    """What a reader sees: the bytes, then an end or an error."""
    received = b""
    for chunk in chunks:
        try:
            part = transform.receive(chunk)
            while part != b"" and transform.bytes_available:
                received += part or b""
                part = transform.receive(b"")
        except TLSError as exc:
            return received, type(exc)
        if part == b"":
            return received, "end"
        received += part or b""
    try:
        assert transform.receive_eof() == b""
    except TLSError as exc:
        return received, type(exc)
    return received, "end"


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    messages=st.lists(st.binary(min_size=1, max_size=40000), min_size=1, max_size=3)
    | st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=300),
)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_any_chunking_gives_the_same_bytes(context, shared_files, version, sizes, messages):
    client = TLSTransform.client(shared_files.client_context(version), "localhost")
    server = server_transform(context)
    for _ in range(5):
        for chunk in in_chunks(server.take_outgoing(), sizes):
            if client.ready:
                client.receive(chunk)
            else:
                client.handshake(chunk)
        if not client.ready:
            client.handshake(b"")
        for chunk in in_chunks(client.take_outgoing(), sizes):
            server.handshake(chunk)
    wire = b"".join(client.send(message) for message in messages) + client.close()
    assert collect(server, in_chunks(wire, sizes)) == (b"".join(messages), "end")


@pytest.mark.promise(26)
def test_a_cut_at_any_byte_is_a_truncation(context, shared_files):
    client = TLSTransform.client(shared_files.client_context(), "localhost")
    server = server_transform(context)
    join(client, server)
    wire = client.send(b"first") + client.send(b"second")
    # Each cut needs a session of its own; the ends and the middles of records are what differs.
    for cut in (0, 1, 4, 5, 6, len(wire) // 2 - 1, len(wire) // 2, len(wire) - 1, len(wire)):
        client = TLSTransform.client(shared_files.client_context(), "localhost")
        server = server_transform(context)
        join(client, server)
        wire = (client.send(b"first") + client.send(b"second"))[:cut]
        received, end = collect(server, [wire] if wire else [])
        assert end is TruncatedError
        assert b"firstsecond".startswith(received)


def test_close_notify_is_an_end_even_with_the_data_in_one_read(pair):
    client, server = pair
    wire = client.send(b"data") + client.close()
    assert server.receive(wire) == b"data"
    assert server.bytes_available
    assert server.receive(b"") == b""
    assert not server.bytes_available
    assert server.receive_eof() == b""


def test_what_came_before_a_bad_record_is_read_before_the_error(pair):
    client, server = pair
    good, bad = client.send(b"good"), bytearray(client.send(b"bad"))
    bad[-1] ^= 1
    assert server.receive(good + bytes(bad)) == b"good"
    assert server.bytes_available
    with pytest.raises(TLSError, match="bad record mac"):
        server.receive(b"")
    assert not server.bytes_available
    assert server.take_outgoing(), "the alert that says so"


def test_64_kib_are_read_in_one_call(pair):
    client, server = pair
    data = bytes(range(256)) * 128
    wire = client.send(data) + client.send(data)
    assert len(wire) > 2 * PIECE
    assert server.receive(wire) == data + data
    assert server.bytes_available == 0


def test_small_records_are_decrypted_in_shares(pair):
    client, server = pair
    wire = b"".join(client.send(b"x") for _ in range(1000))
    received = [server.receive(wire)]
    while server.bytes_available:
        received.append(server.receive(b""))
    assert max(map(len, received)) == SHARE
    assert b"".join(received) == b"x" * 1000
    # What was kept leaves nothing behind: the next message is read as ever.
    assert server.receive(client.send(b"next")) == b"next"


def test_small_records_behind_the_handshake_are_decrypted_in_shares(context, shared_files):
    client = TLSTransform.client(shared_files.client_context(ssl.TLSVersion.TLSv1_3), "localhost")
    server = server_transform(context)
    client.handshake(b"")
    server.handshake(client.take_outgoing())
    client.handshake(server.take_outgoing())
    early = b"".join(client.send(b"x") for _ in range(2 * SHARE))
    assert server.handshake(client.take_outgoing() + early)
    assert server.receive(b"") == b"x" * SHARE
    assert server.bytes_available
    assert server.receive(b"") == b"x" * SHARE
    assert not server.bytes_available


def test_the_end_behind_many_records_comes_after_them(pair):
    client, server = pair
    wire = b"".join(client.send(b"x") for _ in range(2 * SHARE)) + client.close()
    assert server.receive(wire) == b"x" * SHARE
    assert server.receive(b"") == b"x" * SHARE
    assert server.bytes_available
    assert server.receive(b"") == b""
    assert not server.bytes_available


class Decrypter:
    """OpenSSL's reading of records that are not encrypted: "empty" ones are passed over."""

    def __init__(self, incoming):
        self.incoming = incoming
        self.begun = b""
        self.records = 0

    def read(self, size):
        while True:
            self.begun += self.incoming.read(max(0, 5 - len(self.begun)))
            end = 5 + int.from_bytes(self.begun[3:5]) if len(self.begun) >= 5 else 5
            self.begun += self.incoming.read(end - len(self.begun))
            if len(self.begun) < end or end == 5:
                raise ssl.SSLWantReadError
            record, self.begun = self.begun[5:], b""
            self.records += 1
            if record != b"empty":
                assert len(record) <= size
                return record


def record(data):
    return b"\x17\x03\x03" + len(data).to_bytes(2) + data


@pytest.fixture
def decrypter(pair):
    """The server of a pair whose records are not encrypted, and what decrypts them."""
    _, server = pair
    decrypter = Decrypter(server._incoming)
    server._read = decrypter.read
    return server, decrypter


def test_records_that_say_nothing_are_dearer(decrypter):
    # Each key update is a dozen times the work of a record with data, and of the same size.
    server, openssl = decrypter
    assert server.receive(record(b"empty") * 1000) is None
    assert openssl.records == GROUP
    assert server.bytes_available
    openssl.records = 0
    assert server.receive(record(b"data") + record(b"empty") * 7) is None  # first the older ones
    assert openssl.records == GROUP


@pytest.mark.promise(2)
def test_records_that_say_nothing_end_the_session_at_64_kib(decrypter):
    server, openssl = decrypter
    with pytest.raises(TLSError, match="without a byte of data"):
        for _ in range(10):
            assert server.receive(record(b"empty") * 1000) is None
            while server.bytes_available:
                assert server.receive(b"") is None
    assert openssl.records * 10 <= (64 << 10) + GROUP * 10


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 11, 1000])
def test_records_are_counted_wherever_a_read_cuts_them(decrypter, size):
    server, openssl = decrypter
    messages = [b"a", b"empty", b"b" * 300, b"c", b"d" * 16000, b"empty", b"e"]
    wire = b"".join(map(record, messages))
    assert collect_all(server, [wire[i : i + size] for i in range(0, len(wire), size)]) == (
        b"a" + b"b" * 300 + b"c" + b"d" * 16000 + b"e"
    )
    assert openssl.records == 7
    assert server._missing == 0


def collect_all(transform, chunks):
    received = b""
    for chunk in chunks:
        received += transform.receive(chunk) or b""
        while transform.bytes_available:
            received += transform.receive(b"") or b""
    return received


def test_half_a_record_is_nothing_yet(pair):
    client, server = pair
    wire = client.send(b"whole")
    assert server.receive(wire[:10]) is None
    assert server.receive(wire[10:]) == b"whole"


def test_data_behind_the_handshake_is_available(context, shared_files):
    client = TLSTransform.client(shared_files.client_context(ssl.TLSVersion.TLSv1_3), "localhost")
    server = server_transform(context)
    client.handshake(b"")
    server.handshake(client.take_outgoing())
    client.handshake(server.take_outgoing())
    finished = client.take_outgoing()
    assert server.handshake(finished + client.send(b"GET"))
    assert server.bytes_available
    assert server.receive(b"") == b"GET"
    assert not server.bytes_available


def test_closing_sends_close_notify_once_and_before_it_what_was_there(pair):
    client, server = pair
    assert client.receive(server.close()) == b""
    assert server.close() == b""


def test_nothing_is_made_for_a_silent_peer(context):
    server = server_transform(context)
    assert server.handshake(b"") is False
    assert server._tls is None
    assert server.take_outgoing() == b""
    assert server.close() == b""


def client_hello(files, protocols=()):
    """The first bytes of a client of OpenSSL's."""
    offering = files.client_context()
    if protocols:
        offering.set_alpn_protocols(protocols)
    client = TLSTransform.client(offering, "localhost")
    client.handshake(b"")
    return client.take_outgoing()


def of_18_kib(files):
    return client_hello(files, ["http/1.1", *(f"{number:0255}" for number in range(72))])


def of_a_name_that_is_not_ascii(files):
    return client_hello(files).replace(b"localhost", b"\xff" * 9)


@pytest.mark.promise(72)
@pytest.mark.parametrize(
    ("made", "alert"),
    [
        (of_18_kib, Alert.ILLEGAL_PARAMETER),
        (of_a_name_that_is_not_ascii, Alert.UNRECOGNIZED_NAME),
    ],
)
def test_what_is_not_read_of_a_hello_openssl_does_not_get(context, shared_files, made, alert):
    hello = made(shared_files)
    taken = ssl.MemoryBIO()
    taken.write(hello)
    with pytest.raises(ssl.SSLWantReadError):  # OpenSSL would take it
        context.wrap_bio(taken, ssl.MemoryBIO(), server_side=True).do_handshake()
    server = server_transform(context)
    with pytest.raises(ClientHelloError) as raised:
        server.handshake(hello)
    assert raised.value.alert is alert
    assert server.take_outgoing() == fatal_alert(alert)
    assert server.close() == b""


@pytest.mark.parametrize("size", [1, 7, 100, 16 << 10])
def test_a_hello_in_records_of_any_size_makes_a_session(context, shared_files, size):
    client = TLSTransform.client(shared_files.client_context(), "localhost")
    server = server_transform(context)
    client.handshake(b"")
    message = client.take_outgoing()[5:]
    for start in range(0, len(message), size):
        part = message[start : start + size]
        for byte in b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part:
            assert not server.handshake(bytes((byte,)))
    join(client, server)
    assert server.info.server_name == "localhost"


@pytest.mark.promise(24)
@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n", b"P", b"OPTIONS * HTTP/1.1\r\n"])
def test_plain_http_is_told_apart_by_its_first_byte(context, request_line):
    with pytest.raises(PlainHTTPError) as raised:
        server_transform(context).handshake(request_line)
    assert raised.value.status == 400


def test_a_client_certificate_that_cannot_be_read_is_refused(shared_files, monkeypatch):
    from securews.transport.tls_info import ClientCertificate

    def refuse(_):
        raise ValueError("an extension of no known form")

    monkeypatch.setattr(ClientCertificate, "from_der", refuse)
    asking = server_context(ssl.TLSVersion.TLSv1_3)
    asking.load_cert_chain(*shared_files.server())
    asking.load_verify_locations(shared_files.ca)
    asking.verify_mode = ssl.CERT_REQUIRED
    client_context = shared_files.client_context(cert=shared_files.client())
    client, server = TLSTransform.client(client_context, "localhost"), server_transform(asking)
    with pytest.raises(HandshakeError, match="cannot be read"):
        join(client, server)
    assert not server.ready


def test_a_server_that_speaks_no_tls_is_said_so(shared_files):
    client = TLSTransform.client(shared_files.client_context(), "localhost")
    client.handshake(b"")
    with pytest.raises(HandshakeError, match=r"does not speak TLS|plain HTTP"):
        client.handshake(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_old_versions_get_an_alert(context, shared_files):
    old = shared_files.client_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    client, server = TLSTransform.client(old, "localhost"), server_transform(context)
    client.handshake(b"")
    with pytest.raises(HandshakeError, match="only TLS versions that are refused"):
        server.handshake(client.take_outgoing())
    with pytest.raises(HandshakeError, match="no TLS version that we do"):
        client.handshake(server.take_outgoing())


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_the_facts_of_a_session(context, shared_files, version):
    client = TLSTransform.client(shared_files.client_context(version), "localhost")
    server = server_transform(context)
    join(client, server)
    assert server.info.version == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert server.info.cipher == client.info.cipher
    assert server.info.server_name == client.info.server_name == "localhost"
    assert server.info.alpn is None
    assert server.info.resumed is False
    assert server.info.client_certificate is None


def test_http_1_1_is_agreed_where_the_client_offers_it(context, shared_files):
    offering = shared_files.client_context()
    offering.set_alpn_protocols(["h2", "http/1.1"])
    client, server = TLSTransform.client(offering, "localhost"), server_transform(context)
    join(client, server)
    assert server.info.alpn == "http/1.1"


@pytest.mark.promise(27)
def test_a_client_that_offers_other_protocols_only_is_told_so(context, shared_files):
    offering = shared_files.client_context()
    offering.set_alpn_protocols(["h2"])
    client, server = TLSTransform.client(offering, "localhost"), server_transform(context)
    client.handshake(b"")
    with pytest.raises(HandshakeError, match="speaks only 'h2'"):
        server.handshake(client.take_outgoing())
    with pytest.raises(HandshakeError, match=r"no HTTP/1\.1"):
        client.handshake(server.take_outgoing())
