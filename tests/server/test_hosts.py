"""Which hosts a plain server on loopback answers, and what is said of the others."""

from __future__ import annotations

import logging
import socket

import pytest
from support import RawClient

import securews
from securews import ConfigurationError
from securews.common import log_interval
from securews.server.hosts import named_hosts

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
ANSWERED = [
    "localhost",
    "LocalHost.:8443",
    "app.localhost",
    "127.0.0.1",
    "127.8.9.1:80",
    "[::1]:8443",
    "[::ffff:127.0.0.1]",
    f"{socket.gethostname()}:8443",
    "chat.example.org",  # a handler's
    "CHAT.example.org.:80",
    "proxied.example.org:8443",  # an allowed one
    "[2001:db8::1]",
]
REFUSED = [
    "evil.example",
    "evil.example:8443",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "evil.chat.example.org",
    "192.0.2.1",
    "0.0.0.0",
    "[2001:db8::2]",
]


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


@pytest.fixture(scope="module")
def server():
    with plain(Echo(), allowed_hosts=["PROXIED.example.org.", "2001:DB8:0::1"]) as server:
        server.register_handler("chat.example.org", "*", Echo(), default_path=True)
        server.page("/healthz")(lambda request: "ok")
        server.page("/form", methods=("POST",))(lambda request: "taken")
        yield server


def plain(handler=None, **options):
    return securews.serve(0, handler or Echo(), **{"tls": False} | options)


def status(server, host, first="GET / HTTP/1.1", fields=UPGRADE, context=None):
    with RawClient(server.address, upgrade=False, context=context) as client:
        client.send_raw(
            f"{first}\r\nHost: {host}\r\nOrigin: http://{host}\r\n{fields}\r\n".encode()
        )
        client.head = client.read_head()
        return client.status


@pytest.mark.promise(71)
@pytest.mark.parametrize(
    ("host", "answered"),
    [(host, True) for host in ANSWERED] + [(host, False) for host in REFUSED],
)
def test_a_host_that_is_not_of_this_machine_is_421_for_websockets_and_pages(server, host, answered):
    seen = {
        status(server, host),
        status(server, host, first=f"GET http://{host}/ HTTP/1.1"),
        status(server, host, first="GET /healthz HTTP/1.1", fields=""),
        status(server, host, first="POST /form HTTP/1.1", fields="Content-Length: 0\r\n"),
    }
    assert seen == ({101, 200} if answered else {421})


@pytest.mark.promise(71)
def test_a_default_host_names_no_other_one():
    with plain(Echo()) as server:  # "*", with default_host
        assert status(server, "evil.example") == 421
    server = securews.serve(0, tls=False)
    server.register_handler("chat.example.org", "*", Echo(), default_host=True, default_path=True)
    with server:
        assert status(server, "chat.example.org") == 101
        assert status(server, "evil.example") == 421


class Reached(securews.PlainSocketHandler):
    """Streams that say by what address they were reached."""

    def __init__(self, address):
        super().__init__()
        self._address = address

    def accept(self, sock, address):
        stream = super().accept(sock, address)
        stream.local_address = self._address
        return stream


@pytest.mark.promise(71)
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 8443), 421),
        (("127.3.2.1", 8443), 421),
        (("::1", 8443, 0, 0), 421),
        (("::ffff:127.0.0.1", 8443, 0, 0), 421),
        (("192.0.2.1", 8443), 101),
        (("::ffff:192.0.2.1", 8443, 0, 0), 101),
        ("/run/chat.sock", 101),
        ("", 101),
    ],
)
def test_the_address_that_a_client_has_reached_decides(address, expected):
    with plain(tls=Reached(address)) as server:
        assert status(server, "evil.example") == expected


def test_over_tls_the_client_judges_the_host_by_the_certificate(certificates):
    server = plain(tls=certificates.server)
    server.page("/page")(lambda request: "ok")
    with server:
        first, context = "GET /page HTTP/1.1", certificates.context()
        assert status(server, "evil.example", first=first, fields="", context=context) == 200


def test_any_host_may_be_allowed():
    with plain(allowed_hosts=["*"]) as server:
        assert status(server, "evil.example") == 101


def test_the_host_of_the_url_is_answered():
    with socket.create_server(("127.0.0.1", 0)) as ready:
        options = {"sockets": [ready], "host": "dev.test"}
        with securews.serve(None, Echo(), tls=False, **options) as server:
            assert server.url.startswith("ws://dev.test:")
            assert status(server, "dev.test") == 101


# -- what the log says -----------------------------------------------------------------------------


def test_one_warning_in_a_while_names_the_option(caplog, monkeypatch):
    with plain() as server:
        for number in range(5):
            assert status(server, f"evil-{number}.example") == 421
        assert len(caplog.records) == 1
        monkeypatch.setattr(log_interval, "LOG_INTERVAL", 0.0)
        assert status(server, "x" * 255) == 421
    first, second = caplog.records
    assert first.levelno == logging.WARNING
    assert "write allowed_hosts=['evil-0.example']" in first.getMessage()
    assert "\n" not in second.getMessage()
    assert len(second.getMessage()) < 800


# -- the option ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["Chat.Example.ORG.:8443"], {"chat.example.org"}),
        (("[2001:DB8::1]:80", "2001:db8:0::2"), {"2001:db8::1", "2001:db8::2"}),
        ({"*"}, {"*"}),
        ((), set()),
    ],
)
def test_hosts_are_allowed_without_case_port_trailing_dot_and_brackets(
    allowed, expected, monkeypatch
):
    monkeypatch.setattr(socket, "gethostname", lambda: "Workshop")
    assert named_hosts(allowed, "::1") == expected | {"workshop", "::1"}
    assert named_hosts(allowed, "fe80::1%eth0") == expected | {"workshop"}


@pytest.mark.parametrize(
    ("allowed", "says"),
    [
        ("chat.example.org", r"write allowed_hosts=\['chat.example.org'\]"),
        (None, "is a list of str, not None"),
        ([b"chat.example.org"], "is a list of str, not"),
        ([""], "'' in allowed_hosts is no host name"),
        (["https://chat.example.org"], "write one such as 'chat.example.org'"),
        (["*.example.org"], r"or '\*' for any"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused_before_anything_listens(allowed, says):
    with pytest.raises(ConfigurationError, match=says):
        plain(allowed_hosts=allowed)
