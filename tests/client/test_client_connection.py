"""From an open stream to a Communicator on the clients' loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hostile import Peer, scripted
from support import TIMEOUT, Happened, eventually, held, tracebacks_in

import securews
from securews.client import client_connection
from securews.client import client_loop as client_loop_module
from securews.client.client_loop import client_loop
from securews.loop.loop import Loop

WHATEVER = [ValueError, SystemExit, GeneratorExit, asyncio.CancelledError, KeyboardInterrupt]


@pytest.mark.parametrize("error", WHATEVER)
def test_what_on_receive_message_raises_is_logged_once_and_harms_nobody(error, caplog):
    told = Happened()

    def callback(ws):
        told()
        raise error

    with (
        held() as (server_ws, _),
        securews.connect(server_ws.server.url) as ws,
        securews.connect(server_ws.server.url) as other,
    ):
        (end,) = (c for c in server_ws.server.connections if c.remote_address == ws.local_address)
        ws.on_receive_message = callback
        end.send("one")
        told.wait()
        eventually(lambda: tracebacks_in(caplog))
        assert ws.recv(TIMEOUT) == "one"
        ws.on_receive_message = None
        end.send("two")
        assert ws.recv(TIMEOUT) == "two"
        other.ping().wait(TIMEOUT)
        assert len(tracebacks_in(caplog)) == 1
        assert "on_receive_message raised" in tracebacks_in(caplog)[0]


@pytest.mark.parametrize("error", WHATEVER)
def test_what_on_close_raises_is_logged_once_and_harms_nobody(error, caplog):
    def callback(ws):
        raise error

    with held() as (server_ws, _), securews.connect(server_ws.server.url) as other:
        ws = securews.connect(server_ws.server.url)
        ws.on_close = callback
        ws.close()
        eventually(lambda: tracebacks_in(caplog))
        other.ping().wait(TIMEOUT)
        assert len(tracebacks_in(caplog)) == 1
        assert "on_close raised" in tracebacks_in(caplog)[0]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_raises_while_it_is_made_closes_the_socket_and_releases_the_loop(error, monkeypatch):
    def made(*args, **kwargs):
        raise error

    monkeypatch.setattr(client_connection, "Connection", made)
    with scripted(Peer.switch) as url, pytest.raises(error):  # the script waits for our end
        securews.connect(url, timeout=TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name == "securews-client-io" and _outlives(t)]


def _outlives(thread: threading.Thread) -> bool:
    thread.join(TIMEOUT)
    return thread.is_alive()


def test_an_interrupt_behind_the_handover_aborts_the_connection(monkeypatch):
    started = threading.Event()

    class Interrupted(Loop):
        def call_soon(self, callback):
            answer = super().call_soon(callback)
            if threading.current_thread() is threading.main_thread() and not started.is_set():
                super().call_soon(started.set)
                assert started.wait(TIMEOUT)
                raise KeyboardInterrupt
            return answer

    monkeypatch.setattr(client_loop_module, "Loop", Interrupted)
    with scripted(Peer.switch) as url, pytest.raises(KeyboardInterrupt):  # the script waits
        securews.connect(url, timeout=TIMEOUT)


def test_a_loop_that_has_ended_meanwhile_is_an_error_with_words(monkeypatch):
    ended = Loop()
    ended.enter()
    ended.leave()
    monkeypatch.setattr(client_loop, "acquire", lambda: ended)
    with (
        scripted(Peer.switch) as url,
        pytest.raises(OSError, match="the I/O thread of the clients has ended"),
    ):
        securews.connect(url, timeout=TIMEOUT)
