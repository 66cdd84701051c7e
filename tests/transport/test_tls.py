import logging
import shutil
import ssl
import threading
from pathlib import Path

import pytest
from transport_helpers import DAY, NOW, ODD_NAMES, Files, private_file

from securews.common.errors import ConfigurationError, HandshakeError
from securews.testing.socket_handler_contract import receive, shake_hands, tcp_sockets
from securews.transport.key_files import DEVELOPMENT_CA_ORGANIZATION
from securews.transport.socket_handler import Want
from securews.transport.stream import TransformStream
from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_transform import TLSTransform

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Session:
    """A client by Python's own ssl module, so that it can resume."""

    def __init__(self, handler, context, server_name="localhost", session=None):
        server, client = tcp_sockets()
        self.stream = handler.accept(server, client.getsockname())
        self.error = None
        self.tls = None

        def connect():
            try:
                client.settimeout(10)
                self.tls = context.wrap_socket(client, server_hostname=server_name, session=session)
                self.tls.sendall(b"x")
                self.tls.recv(1)  # and with it the tickets
            except OSError as exc:
                self.error = exc
                (self.tls or client).close()

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            shake_hands(self.stream)
            assert receive(self.stream, 1) == b"x"
            assert self.stream.send(b"y") is Want.NOTHING
        except (HandshakeError, OSError):
            self.stream.shutdown()
            self.stream.close()
            thread.join(10)
            if self.tls is not None:
                self.tls.close()
            raise
        thread.join(10)
        assert self.error is None
        self.info = self.stream.info
        self.session = self.tls.session
        self.certificate = self.tls.getpeercert(binary_form=True)

    def close(self):
        self.stream.close()
        self.tls.close()


@pytest.fixture
def connect():
    """Make a Session; it is closed at the end."""
    sessions = []

    def make(*args, **options):
        sessions.append(Session(*args, **options))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def der_of(path):
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text().partition("\n-----BEGIN")[0] + "\n")


@pytest.fixture
def handler(files):
    return TLSSocketHandler(*files.server())


def test_the_facts_of_a_connection(handler, files, connect):
    info = connect(handler, files.client_context(), "LOCALHOST").info
    assert (info.version, info.server_name, info.alpn) == ("TLSv1.3", "localhost", None)
    assert info.cipher in {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"}
    assert (info.resumed, info.client_certificate) == (False, None)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_client_may_resume(handler, files, connect, version):
    context = files.client_context(version)
    first = connect(handler, context)
    assert connect(handler, context, session=first.session).info.resumed


@pytest.mark.promise(13)
@pytest.mark.promise(14)
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_nothing_resumes_after_a_reload_and_everything_works(handler, files, connect, version):
    context = files.client_context(version)
    first = connect(handler, context)
    handler.reload()
    again = connect(handler, context, session=first.session)
    assert not again.info.resumed
    assert connect(handler, context, session=again.session).info.resumed


@pytest.mark.promise(13)
def test_ticket_keys_are_renewed_by_themselves(handler, files, connect, monkeypatch):
    context = files.client_context()
    first = connect(handler, context)
    monkeypatch.setattr(handler._contexts, "_due", 0)
    handler.renew_if_due()
    again = connect(handler, context, session=first.session)
    assert not again.info.resumed
    handler.renew_if_due()
    assert connect(handler, context, session=again.session).info.resumed


@pytest.mark.promise(21)
def test_reload_serves_the_new_certificate_and_leaves_open_connections_alone(
    handler, files, connect
):
    context = files.client_context()
    before = connect(handler, context)
    cert, _ = files.server()  # over the old files
    handler.reload()
    after = connect(handler, context)
    assert after.certificate == der_of(cert)
    assert after.certificate != before.certificate
    before.tls.sendall(b"still here")
    assert receive(before.stream, 10) == b"still here"


def wrong_key(files):
    shutil.copy(files.server(file="other")[1], files.directory / "server-key.pem")


def truncated(files):
    path = files.directory / "server.pem"
    path.write_bytes(path.read_bytes()[:300])


def expired(files):
    for new, old in zip(files.client(not_after=NOW - DAY), files.served, strict=True):
        private_file(Path(old), Path(new).read_bytes())


def readable(files):
    (files.directory / "server-key.pem").chmod(0o644)


def gone(files):
    (files.directory / "server.pem").unlink()


@pytest.mark.promise(21)
@pytest.mark.parametrize("spoil", [wrong_key, truncated, expired, readable, gone])
def test_a_reload_that_fails_says_so_and_keeps_the_old_certificate(files, connect, spoil):
    files.served = files.server()
    handler = TLSSocketHandler(*files.served)
    before = connect(handler, files.client_context()).certificate
    spoil(files)
    with pytest.raises(ConfigurationError, match="reload failed, the old certificate stays: "):
        handler.reload()
    assert connect(handler, files.client_context()).certificate == before


@pytest.mark.promise(21)
def test_no_handshake_fails_during_reloads(handler, files, connect):
    done = threading.Event()

    def reload():
        for _ in range(30):
            handler.reload()
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    context, count = files.client_context(), 0
    while not done.is_set() or count < 10:
        connect(handler, context).close()
        count += 1
    thread.join(10)


def test_the_development_ca_is_known(files):
    development = Files(files.directory / "development", DEVELOPMENT_CA_ORGANIZATION)
    assert TLSSocketHandler(*development.server()).issued_by_development_ca
    assert not TLSSocketHandler(*files.server()).issued_by_development_ca
    mixed = TLSSocketHandler(
        *files.server(), certificates={"a.example": development.server("a.example", file="a")}
    )
    assert mixed.issued_by_development_ca


@pytest.fixture
def hosts(files):
    """A handler for three names, and who has which certificate."""
    paths = {
        "default": files.server("localhost"),
        "a.example": files.server("a.example", file="a"),
        "*.b.example": files.server("*.b.example", file="b"),
    }

    def make(**options):
        return TLSSocketHandler(
            *paths["default"],
            certificates={
                "A.Example.": paths["a.example"],
                "*.b.example": paths["*.b.example"],
            },
            **options,
        )

    return make, {name: der_of(cert) for name, (cert, _) in paths.items()}


@pytest.mark.parametrize(
    ("asked", "served"),
    [("localhost", "default"), ("a.example", "a.example"), ("x.b.example", "*.b.example")],
)
def test_each_host_gets_its_certificate(hosts, files, connect, asked, served):
    make, certificates = hosts
    session = connect(make(), files.client_context(), asked)
    assert session.certificate == certificates[served]
    assert session.info.server_name == asked


def unverified(files):
    context = files.client_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize("asked", ["other.example", "y.x.b.example", None])
def test_other_hosts_get_the_default(hosts, files, connect, asked):
    make, certificates = hosts
    session = connect(make(), unverified(files), asked)
    assert session.certificate == certificates["default"]


@pytest.mark.promise(14)
def test_a_session_of_one_host_does_not_resume_at_another(hosts, files, connect):
    make, _ = hosts
    handler, context = make(), files.client_context(TLS13)
    first = connect(handler, context, "localhost")
    assert not connect(handler, context, "a.example", session=first.session).info.resumed


@pytest.mark.promise(16)
@pytest.mark.parametrize("asked", ["other.example", "y.x.b.example"])
def test_unknown_hosts_are_refused_where_that_was_asked_for(hosts, files, connect, asked):
    make, _ = hosts
    handler = make(sni_unknown="alert")
    with pytest.raises(HandshakeError, match=f"asks for '{asked}', unknown here"):
        connect(handler, files.client_context(), asked)
    for known in ("localhost", "a.example", "x.b.example"):
        connect(handler, files.client_context(), known)


@pytest.mark.promise(16)
def test_a_certificate_without_names_serves_the_names_that_it_was_given_for(files, connect):
    nameless = files.client("server", usages=None, names=[])
    handler = TLSSocketHandler(
        *nameless, certificates={"a.example": files.server("a.example")}, sni_unknown="alert"
    )
    connect(handler, files.client_context(), "a.example")
    with pytest.raises(HandshakeError, match="unknown here"):
        connect(handler, unverified(files), "b.example")


def test_a_certificate_whose_names_cannot_be_read_is_no_list_of_names(files, connect):
    odd = files.client("server", usages=None, raw_names=ODD_NAMES["EDI party name"])
    connect(TLSSocketHandler(*odd), unverified(files), "b.example")
    with pytest.raises(ConfigurationError, match="names of the certificate of O=Works,CN=server"):
        TLSSocketHandler(*odd, sni_unknown="alert")


@pytest.mark.promise(16)
def test_unknown_hosts_get_the_alert_of_that_name(hosts, files):
    make, _ = hosts
    server = TLSTransform.server(make(sni_unknown="alert")._contexts.current())
    client = TLSTransform.client(files.client_context(), "other.example")
    client.handshake(b"")
    with pytest.raises(HandshakeError):
        server.handshake(client.take_outgoing())
    with pytest.raises(HandshakeError, match="does not serve that name"):
        client.handshake(server.take_outgoing())


def users_context(files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS12
    context.load_cert_chain(*files.server())
    return context


def test_a_users_context_is_taken_as_it_is(files, connect):
    context, asked = users_context(files), []
    context.set_servername_callback(lambda _tls, name, _context: asked.append(name))
    options, callback = context.options, context.sni_callback
    handler = TLSSocketHandler(context)
    assert connect(handler, files.client_context()).info.server_name == "localhost"
    assert asked[-1] == "localhost", "its own callback is called"
    assert (context.options, context.sni_callback) == (options, callback)


@pytest.mark.promise(16)
def test_a_users_callback_that_fails_closes(files, connect, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    context, told = users_context(files), []
    handler = TLSSocketHandler(context)
    context.sni_callback = fail
    monkeypatch.setattr("sys.unraisablehook", told.append)  # where Python's ssl module tells it
    with pytest.raises(HandshakeError):
        connect(handler, files.client_context())
    assert told[0].exc_type is ZeroDivisionError


def test_a_users_context_cannot_be_reloaded_nor_mixed_with_paths(files):
    context, (cert, key) = users_context(files), files.server()
    with pytest.raises(ConfigurationError, match="cannot be read again"):
        TLSSocketHandler(context).reload()
    for mixed in (
        {"key": key},
        {"password": "x"},
        {"certificates": {"a.example": (cert, key)}},
        {"sni_unknown": "alert"},
    ):
        with pytest.raises(ConfigurationError, match="brings its own certificate"):
            TLSSocketHandler(context, **mixed)


def test_a_users_context_without_a_certificate_is_told_at_once():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = TLS12
    with pytest.raises(ConfigurationError, match="is a certificate loaded"):
        TLSSocketHandler(context)


@pytest.mark.promise(9)
@pytest.mark.d(53)
def test_minimum_version_is_kept(files, connect):
    handler = TLSSocketHandler(*files.server(), minimum_version=TLS13)
    with pytest.raises(HandshakeError, match="only TLS versions that are refused"):
        connect(handler, files.client_context(TLS12))
    with pytest.raises(ConfigurationError, match="RFC 8996"):
        TLSSocketHandler(*files.server(), minimum_version=ssl.TLSVersion.TLSv1_1)


@pytest.mark.d(53)
def test_files_are_read_once_and_not_for_each_connection(handler, files, connect):
    for path in ("server.pem", "server-key.pem"):
        (files.directory / path).unlink()
    connect(handler, files.client_context())


@pytest.mark.parametrize("given", [None, 5, True, ("a", "b")])
def test_other_things_are_no_certificate(given):
    with pytest.raises(ConfigurationError, match="takes the paths of"):
        TLSSocketHandler(given)


def test_a_wrong_word_for_unknown_hosts(files):
    with pytest.raises(ConfigurationError, match="'default' or 'alert'"):
        TLSSocketHandler(*files.server(), sni_unknown="refuse")


def test_it_may_be_served_anywhere(handler):
    handler.check("0.0.0.0")


def test_it_connects_by_the_systems_trust(handler):
    server, client = tcp_sockets()
    ends = handler.connect(client, "localhost"), handler.accept(server, client.getsockname())
    with pytest.raises(HandshakeError, match="certificate is refused: "):
        shake_hands(*ends)
    for end in ends:
        end.close()


@pytest.mark.promise(25)
def test_a_peer_writes_nothing_on_stderr_nor_in_the_log(handler, files, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    server, client = tcp_sockets()
    stream = handler.accept(server, client.getsockname())
    peer = TransformStream(
        client, server.getsockname(), TLSTransform.client(files.client_context(), "localhost")
    )
    peer.handshake()
    # A name that is not ASCII: Python's own callback would print a traceback of it.
    hello = bytearray(server.recv(4096))
    start = hello.index(b"localhost")
    hello[start : start + 9] = b"\xff" * 9
    transform = TLSTransform.server(handler._contexts.current())
    with pytest.raises(HandshakeError, match="not visible ASCII"):
        transform.handshake(bytes(hello))
    peer.close()
    stream.close()
    assert capfd.readouterr().err == ""
    assert caplog.records == []
