import pytest

from examples.proxy_protocol import ProxyProtocolHandler, parse
from securews.common.errors import ConfigurationError, HandshakeError
from securews.testing.socket_handler_contract import receive, shake_hands, tcp_sockets, wait
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import Want

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n"


@pytest.fixture
def handler():
    return ProxyProtocolHandler(PlainSocketHandler(), {"127.0.0.1"})


@pytest.fixture
def ends(handler):
    server, client = tcp_sockets()
    client.settimeout(10)
    stream = handler.accept(server, client.getsockname())
    with client:
        yield stream, client
    stream.close()


def test_the_client_is_who_the_header_says(ends):
    stream, client = ends
    client.sendall(HEADER + b"data")
    shake_hands(stream)
    assert stream.remote_address == ("192.0.2.7", 56324)
    assert receive(stream, 4) == b"data"


def test_a_header_byte_by_byte(ends):
    stream, client = ends
    for position in range(len(HEADER)):
        assert stream.handshake() is Want.READ
        client.sendall(HEADER[position : position + 1])
        wait({stream: Want.READ})
    assert stream.handshake() is Want.NOTHING
    assert stream.remote_address == ("192.0.2.7", 56324)


def test_the_proxys_own_connection_keeps_its_address(ends):
    stream, client = ends
    client.sendall(b"PROXY UNKNOWN\r\n")
    shake_hands(stream)
    assert stream.remote_address == client.getsockname()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"PROXY " * 30, HEADER[:-2] + b" x\r\n"])
def test_anything_else_is_refused(ends, sent):
    stream, client = ends
    client.sendall(sent)
    with pytest.raises(HandshakeError, match="no PROXY header") as raised:
        shake_hands(stream)
    assert stream.last_error is raised.value


def test_a_peer_that_leaves_is_refused(ends):
    stream, client = ends
    client.close()
    with pytest.raises(HandshakeError, match="no PROXY header"):
        shake_hands(stream)


def test_only_proxies_are_let_in(handler):
    assert handler.on_connect_query(("127.0.0.1", 1))
    assert not handler.on_connect_query(("192.0.2.1", 1))


def test_the_inner_handler_decides_where_it_is_served(handler):
    with pytest.raises(ConfigurationError):
        handler.check("0.0.0.0")


def test_ipv6_addresses():
    assert parse(b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n") == ("2001:db8::1", 1000)
    with pytest.raises(HandshakeError):
        parse(b"PROXY TCP6 nonsense 2001:db8::2 1000 443\r\n")
