"""`server.ready`: what a probe is told while a server begins, serves and ends."""

from __future__ import annotations

import threading

import pytest
from support import TIMEOUT, Happened, RawClient, eventually

import securews


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def plain(handler=None, **options):
    return securews.serve(0, Echo() if handler is None else handler, tls=False, **options)


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_it_is_ready_from_its_start_until_its_stop():
    server = plain()
    assert not server.ready
    with server:
        assert server.ready
        securews.connect(server.url).close()
        assert server.ready
    assert not server.ready


def test_a_server_that_is_stopped_before_its_start_is_never_ready():
    server = plain()
    server.stop()
    assert not server.ready


def test_a_handler_sees_that_the_end_has_begun():
    seen = Happened()

    class Looks(securews.EventWebSocketHandler):
        def on_open(self, ws):
            seen(ws.server.ready)

        def on_close(self, ws, code, reason):
            seen(ws.server.ready)

    with plain(Looks()) as server, securews.connect(server.url):
        seen.wait(1)
        server.stop()
    assert seen.wait(2) == [True, False]


def test_it_is_not_ready_once_the_loop_thread_is_asked_to_stop():
    with plain() as server:
        server._core.loop.call_soon(lambda: server._signalled(1))  # what SIGTERM does
        eventually(lambda: not server.ready)


@pytest.mark.promise(57)
def test_another_port_tells_of_a_server_that_drains():
    """The way of docs/deployment.md: the page is on a server of its own, which goes last."""
    chat = plain()
    health = securews.serve(0, tls=False)

    @health.page("/readyz")
    def readyz(request):
        return securews.Response(200 if chat.ready else 503)

    def probe():
        with RawClient(health.address, upgrade=False) as client:
            client.send_raw(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return int(client.read_head().split()[1])

    with health:
        assert probe() == 503
        chat.start_background()
        assert probe() == 200
        with RawClient(chat.address) as client:
            stopping = in_thread(chat.stop)
            assert client.read_close().close_code == 1001
            assert probe() == 503
            with pytest.raises(ConnectionRefusedError):
                RawClient(chat.address, upgrade=False)
            client.send_close(1001)
        stopping.join(TIMEOUT)
        assert not stopping.is_alive()
        assert probe() == 503
