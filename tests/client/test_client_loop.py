"""The loop that all clients share: its thread starts, ends, and fails to do either."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from support import TIMEOUT, Happened, eventually, held, tracebacks_in

import securews
from securews.client.client_loop import ClientLoop
from securews.loop.poller import EndedPoller

NAME = "securews-client-io"


def runs(loop) -> bool:
    ran = threading.Event()
    return loop.call_soon(ran.set) and ran.wait(TIMEOUT)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_the_loop_is_one_for_all_and_ends_with_the_last():
    shared = ClientLoop()
    loop = shared.acquire()
    assert shared.acquire() is loop
    assert len(threads()) == 1
    shared.release(loop)
    assert runs(loop)
    (thread,) = threads()
    shared.release(loop)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    later = shared.acquire()
    assert later is not loop
    assert runs(later)
    shared.release(later)


def test_two_that_start_it_at_the_same_time_share_one(monkeypatch):
    shared = ClientLoop()
    start = shared._start
    others = []

    def slowly():
        loop = start()
        monkeypatch.undo()
        others.append(shared.acquire())
        return loop

    monkeypatch.setattr(shared, "_start", slowly)
    loop = shared.acquire()
    assert others == [loop]
    eventually(lambda: len(threads()) == 1, "the end of the loop that nobody needs")
    shared.release(loop)
    assert runs(loop)
    shared.release(loop)


def test_a_thread_that_cannot_be_started_fails_this_connect_and_not_the_next(monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == NAME:
            raise RuntimeError("can't start new thread")
        start(thread)

    with held(lambda ws: ws.send("hello")) as (ws, _):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(OSError, match="the client's I/O thread cannot be started: can't"):
                securews.connect(ws.server.url, timeout=TIMEOUT)
        with securews.connect(ws.server.url, timeout=TIMEOUT) as client:
            assert client.recv(TIMEOUT) == "hello"


def test_a_thread_that_ends_by_an_error_is_logged_and_replaced(caplog):
    shared = ClientLoop()
    loop = shared.acquire()
    (thread,) = threads()

    class BrokenPoller(EndedPoller):
        def poll(self, timeout):
            raise OSError("broken")

    def break_the_loop():
        loop._poller = BrokenPoller()  # None in place of a typed attribute would end the process

    loop.call_soon(break_the_loop)
    thread.join(TIMEOUT)
    assert [text for text in tracebacks_in(caplog) if "has ended" in text]
    another = shared.acquire()
    assert another is not loop
    assert runs(another)
    shared.release(loop)  # by connections of the one that is gone
    assert runs(another)
    shared.release(another)


def test_an_interrupt_while_the_thread_starts_leaves_no_thread(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    shared = ClientLoop()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shared.acquire()
    eventually(lambda: not threads(), "the end of the thread")
    loop = shared.acquire()
    assert runs(loop)
    shared.release(loop)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_loop_of_its_own_whoever_held_the_lock():
    program = """
import os, threading
from securews.client.client_loop import client_loop

loop = client_loop.acquire()
client_loop._lock.acquire()
child = os.fork()
if child == 0:
    own, ran = client_loop.acquire(), threading.Event()
    os._exit(0 if own is not loop and own.call_soon(ran.set) and ran.wait(10) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
    )
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.promise(74)
@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("pass", 0), ("1 / 0", 1)])
def test_a_client_that_is_open_when_its_program_ends_closes_with_1001(end, code):
    closed = Happened()

    class Server(securews.EventWebSocketHandler):
        def on_close(self, ws, code, reason):
            closed(code)

    with securews.serve(0, Server(), tls=False) as server:
        program = f"import securews, sys; ws = securews.connect({server.url!r}); {end}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
        )
        assert closed.wait() == [1001]
    assert done.returncode == code
    assert "ZeroDivisionError" in done.stderr if code == 1 else done.stderr == ""
