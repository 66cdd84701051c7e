import pytest

from securews.common.errors import ConfigurationError
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketHandler, is_loopback
from securews.transport.stream import PlainTransform, TransformStream


class OfAUser(SocketHandler):
    def accept(self, sock, address):
        return TransformStream(sock, address, PlainTransform())


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "/run/securews.sock",
        "\0abstract",
        None,
    ],
)
def test_hosts_that_only_this_machine_reaches(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "192.0.2.1",
        "::ffff:192.0.2.1",
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "127.1",
        "*",
    ],
)
def test_hosts_that_others_may_reach(host):
    assert not is_loopback(host)


@pytest.mark.promise(23)
@pytest.mark.parametrize("handler", [PlainSocketHandler(), OfAUser()])
def test_what_does_not_encrypt_stays_on_loopback(handler):
    handler.check("127.0.0.1")
    with pytest.raises(ConfigurationError, match="write insecure=True"):
        handler.check("0.0.0.0")


@pytest.mark.promise(23)
def test_plain_is_served_anywhere_where_that_was_written():
    PlainSocketHandler(insecure=True).check("0.0.0.0")


def test_the_defaults_of_a_users_handler():
    handler = OfAUser()
    handler.reload()
    assert handler.on_connect_query(("192.0.2.1", 1)) is True
    assert handler.issued_by_development_ca is False
    with pytest.raises(ConfigurationError, match="OfAUser serves only"):
        handler.connect(None, "localhost")
