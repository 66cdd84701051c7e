"""What a server holds for all its peers together is bounded, and the bound hits who holds most."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

import securews
from securews.connection.budget import Budget

CHUNK = b"x" * 100_000


@pytest.mark.promise(52)
def test_over_max_buffered_the_slow_clients_go_and_the_others_notice_nothing():
    everybody, gone = threading.Semaphore(0), threading.Semaphore(0)

    class Push(securews.EventWebSocketHandler):
        def on_open(self, ws):
            everybody.release()

        def on_close(self, ws, code, reason):
            gone.release()

    limit = 3 << 20
    server = securews.serve(
        0, Push(), tls=False, max_buffered=limit, outbox_bytes=2 << 20, close_timeout=0.1
    )
    with server:
        # max_queue=1: each takes one message and leaves the rest to the kernel, then to us.
        lazy = [securews.connect(server.url, max_queue=1) for _ in range(4)]
        with securews.connect(server.url) as good:
            for _ in range(5):
                assert everybody.acquire(timeout=5)
            for _ in range(2000):
                server.broadcast(CHUNK)
                assert good.recv(5) == CHUNK
                assert server._core.io.first.budget.total < 2 * limit
                if len(server.connections) == 1:
                    break
            for _ in lazy:
                assert gone.acquire(timeout=5)
            assert [ws.open for ws in server.connections] == [True]
        for ws in lazy:
            ws.abort()


def test_over_max_buffered_full_queues_are_not_filled_further_and_small_ones_are_read():
    release, served = threading.Event(), []

    def stuck(ws):
        release.wait(20)
        served.extend(ws)

    server = securews.serve(0, stuck, tls=False, max_buffered=4 << 20, max_queue=1000)

    @server.route("/echo")
    def echo(ws):
        for message in ws:
            ws.send(message)

    def flood(ws):
        for _ in range(30):
            ws.send(CHUNK)
        ws.close()

    with server:
        floods = [securews.connect(server.url) for _ in range(3)]
        senders = [threading.Thread(target=flood, args=(ws,)) for ws in floods]
        for sender in senders:
            sender.start()
        with securews.connect(server.url + "echo") as good:
            for _ in range(50):
                good.send("ping")
                assert good.recv(5) == "ping"
        assert server._core.io.first.budget.total < 4 << 20
        release.set()
        for sender in senders:
            sender.join(20)
    assert len(served) == 90


def test_who_holds_nothing_any_more_is_read_from_again():
    marked = []

    class Holder:
        closing = False

        def __init__(self, name):
            self.channel = SimpleNamespace(blocked=False, mark=lambda: marked.append(name))
            self.protocol = SimpleNamespace(unfinished=0)
            self.receiving = SimpleNamespace(curbed=False)

    budget = Budget(1000)
    one, other = Holder("one"), Holder("other")
    budget.account(one, 450)
    budget.account(other, 600)
    assert budget.curbs(other)
    assert one.receiving.curbed
    assert "one" in marked  # what its handler has taken meanwhile is to be known
    marked.clear()
    budget.account(one, 950)  # so the sum stays where nobody is relieved
    budget.account(other, 0)
    assert not budget.curbs(other)
    assert "other" in marked


def test_over_max_buffered_unfinished_messages_do_not_hold_the_memory_for_ever():
    def echo(ws):
        for message in ws:
            ws.send(message)

    server = securews.serve(0, echo, tls=False, max_buffered=300_000, message_timeout=None)
    with server:
        hoarders = [securews.connect(server.url) for _ in range(5)]
        streams = [ws.write_message(securews.MessageType.BINARY, 50_000) for ws in hoarders]
        for stream in streams:
            stream.write(CHUNK)
            stream.write(CHUNK)
        codes = [ws.close_code for ws in hoarders if ws.wait_closed(0.5)]
        assert codes
        assert set(codes) == {1013}
        with securews.connect(server.url) as good:
            good.send("served")
            assert good.recv(5) == "served"
        for ws in hoarders:
            ws.abort()
