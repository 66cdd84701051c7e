import ssl

import pytest
from transport_helpers import Files

from securews.common.errors import ConfigurationError, HandshakeError
from securews.testing.socket_handler_contract import receive, shake_hands, tcp_sockets
from securews.transport.mutual_tls import MutualTLSSocketHandler
from securews.transport.socket_handler import TLSError
from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_client import TLSClientSocketHandler, system_trust


@pytest.fixture
def joined():
    """Connect two handlers; both ends are closed at the end."""
    ends = []

    def make(client_handler, server_handler, name="localhost"):
        server, client = tcp_sockets()
        ends.append(server_handler.accept(server, client.getsockname()))
        ends.append(client_handler.connect(client, name))
        shake_hands(*ends[-2:])
        return ends[-1]

    yield make
    for end in ends:
        end.close()


@pytest.fixture(scope="module")
def server(shared_files):
    return TLSSocketHandler(*shared_files.server())


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_ca_file_is_trusted_for_names_and_addresses(shared_files, server, joined, name):
    stream = joined(TLSClientSocketHandler(shared_files.ca), server, name)
    assert stream.info.server_name == name
    assert stream.info.alpn == "http/1.1"
    assert stream.info.version == "TLSv1.3"


def test_another_name_is_refused(shared_files, server, joined):
    with pytest.raises(HandshakeError, match="certificate is refused: Hostname mismatch"):
        joined(TLSClientSocketHandler(shared_files.ca), server, "example.org")


@pytest.mark.parametrize("handler", [TLSClientSocketHandler(), system_trust()])
def test_the_system_does_not_trust_our_ca(server, joined, handler):
    with pytest.raises(HandshakeError, match="certificate is refused: "):
        joined(handler, server)


def test_another_ca_is_refused(files, server, joined):
    with pytest.raises(HandshakeError, match="certificate is refused: "):
        joined(TLSClientSocketHandler(files.ca), server)


def test_a_users_context_is_used(shared_files, server, joined):
    joined(TLSClientSocketHandler(shared_files.client_context()), server)


def test_a_certificate_is_shown_where_one_is_asked_for(shared_files, joined):
    mutual = MutualTLSSocketHandler(*shared_files.server(), client_ca=shared_files.ca)
    joined(TLSClientSocketHandler(shared_files.ca, client_cert=shared_files.client()), mutual)


def test_a_missing_certificate_is_told_at_the_first_read(shared_files, joined):
    mutual = MutualTLSSocketHandler(*shared_files.server(), client_ca=shared_files.ca)
    server_socket, client_socket = tcp_sockets()
    client = TLSClientSocketHandler(shared_files.ca).connect(client_socket, "localhost")
    server = mutual.accept(server_socket, client_socket.getsockname())
    with pytest.raises(HandshakeError):
        shake_hands(client, server)
    shake_hands(client)  # TLS 1.3: the client believes that it is connected
    with pytest.raises(TLSError, match="requires a certificate of us"):
        receive(client, 1)
    client.close()
    server.close()


def without_verification():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("trust", [False, 0, (), without_verification()])
def test_verification_cannot_be_turned_off(trust):
    with pytest.raises(ConfigurationError, match="verif"):
        TLSClientSocketHandler(trust)


def test_nor_later(shared_files, server, joined):
    context = shared_files.client_context()
    handler = TLSClientSocketHandler(context)
    context.check_hostname = False
    server_socket, client_socket = tcp_sockets()
    with (
        server_socket,
        client_socket,
        pytest.raises(ConfigurationError, match="does not verify the server"),
    ):
        handler.connect(client_socket, "localhost")


def test_a_context_brings_its_own_certificate(shared_files):
    with pytest.raises(ConfigurationError, match=r"load_cert_chain\(\)"):
        TLSClientSocketHandler(shared_files.client_context(), client_cert=shared_files.client())


def test_files_that_are_wrong_are_told(files):
    with pytest.raises(ConfigurationError, match=r"CA file .* does not exist"):
        TLSClientSocketHandler(files.directory / "none.pem")
    cert, key = files.client()
    with pytest.raises(ConfigurationError, match="swapped"):
        TLSClientSocketHandler(files.ca, client_cert=(key, cert))


@pytest.mark.parametrize("name", ["", ".example.org", "a" * 70 + ".org"])
def test_a_name_that_is_none(shared_files, name):
    server_socket, client_socket = tcp_sockets()
    with (
        server_socket,
        client_socket,
        pytest.raises(ConfigurationError, match="is no host name"),
    ):
        TLSClientSocketHandler(shared_files.ca).connect(client_socket, name)


def test_a_client_serves_nobody(shared_files):
    with pytest.raises(ConfigurationError, match="connects only"):
        TLSClientSocketHandler(shared_files.ca).accept(None, ("127.0.0.1", 1))


def test_a_server_without_the_name_in_its_sans_is_refused(tmp_path, joined):
    from cryptography import x509

    files = Files(tmp_path)
    server = TLSSocketHandler(
        *files.client("localhost", usages=None, names=[x509.DNSName("other.example")])
    )
    with pytest.raises(HandshakeError, match="certificate is refused: "):
        joined(TLSClientSocketHandler(files.ca), server)
