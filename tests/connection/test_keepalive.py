"""Who is said to be the cause where nothing more is read."""

import threading

import pytest
from support import RawClient, eventually, held, masked

import securews
from securews.protocol.frames import Opcode


def about_unread(caplog):
    return [line for line in caplog.messages if "unread" in line]


def test_a_handler_that_leaves_its_queue_full_is_named_once(caplog):
    with held(max_queue=2, ping_interval=0.1) as (_, client):
        client.send_raw(masked(Opcode.TEXT, b"unwanted") * 5)
        eventually(lambda: about_unread(caplog), "the warning")
        assert "its handler has left 5 messages unread for 0.1 s" in about_unread(caplog)[0]


@pytest.mark.timeout(120)
def test_a_handler_that_reads_all_the_while_is_not_named(caplog):
    """The queue is full whenever somebody looks, but never for long."""
    messages, done, pause = 500, threading.Event(), threading.Event()

    def slow(ws):
        for _ in range(messages):
            ws.recv()
            pause.wait(0.003)
        done.set()

    with (
        securews.serve(0, slow, tls=False, max_queue=1, ping_interval=0.5) as server,
        RawClient(server.address) as client,
    ):
        payload = b"x" * 60_000  # a read has one of them or two
        for _ in range(messages):
            client.send(Opcode.BINARY, payload)
        assert done.wait(60)
    assert about_unread(caplog) == []
