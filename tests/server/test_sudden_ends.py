"""Ends that nobody asked for: an I/O thread that failed, and a program that just ends."""

import logging
import subprocess
import sys
import threading

import pytest
from support import TIMEOUT, Happened, RawClient, eventually

import securews
from securews.protocol.frames import Opcode
from securews.server import io_threads


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


# -- an I/O thread that failed ---------------------------------------------------------------


class BrokenPoller:
    """The poller of a running loop, until it breaks."""

    def __init__(self, loop):
        self.poller = loop._poller
        loop._poller = self
        self.error = None
        self._loop = loop

    def break_with(self, error):
        self.error = error
        self._loop.wake()

    def poll(self, timeout):
        ready = self.poller.poll(timeout)
        if self.error is not None:
            raise self.error
        return ready

    def __getattr__(self, name):
        return getattr(self.poller, name)


def criticals(caplog):
    return [record for record in caplog.records if record.levelno == logging.CRITICAL]


def refuses(server):
    try:
        RawClient(server.address, upgrade=False).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("method", securews.AcceptingMethod)
def test_serve_forever_raises_when_an_io_thread_has_failed(method, caplog):
    ends, raised = Happened(), Happened()

    def handler(ws):
        try:
            ws.recv()
        except securews.ConnectionClosed as closed:
            ends(closed.code)

    server = securews.serve(0, handler, tls=False, accepting_method=method)
    poller = BrokenPoller(server._core.loop)

    def serve():
        try:
            server.serve_forever()
        except RuntimeError as error:
            raised(error)

    thread = threading.Thread(target=serve)
    thread.start()
    with RawClient(server.address) as client:
        poller.break_with(MemoryError("no more"))
        (error,) = raised.wait()
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_frame()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert "I/O thread securews-io of the server has failed (MemoryError: no more)" in str(error)
    assert "start a new process" in str(error)
    assert isinstance(error.__cause__, MemoryError)
    assert ends.wait() == [1006]  # who waited for a message was not left alone
    assert refuses(server)
    assert not server.ready
    (record,) = criticals(caplog)
    assert "securews-io has failed" in record.getMessage()
    assert record.exc_info


def test_with_raises_what_ended_the_server_and_stop_does_not(caplog):
    server = securews.serve(0, Echo(), tls=False)
    poller = BrokenPoller(server._core.loop)
    with pytest.raises(RuntimeError, match="has failed"), server:
        poller.break_with(OSError(9, "Bad file descriptor"))
        eventually(lambda: not server.ready)
        server.stop()
        server.stop(grace=0)
    assert len(criticals(caplog)) == 1


def test_what_the_program_raises_goes_before_what_ended_the_server():
    server = securews.serve(0, Echo(), tls=False)
    poller = BrokenPoller(server._core.loop)
    with pytest.raises(KeyError), server:
        poller.break_with(OSError(9, "Bad file descriptor"))
        eventually(lambda: not server.ready)
        raise KeyError


def test_sending_to_a_connection_of_a_failed_thread_raises_connection_closed():
    communicators = Happened()

    class Noted(Echo):
        def on_open(self, ws):
            communicators(ws)

    server = securews.serve(0, Noted(), tls=False)
    poller = BrokenPoller(server._core.loop)
    with pytest.raises(RuntimeError), server, RawClient(server.address):
        (ws,) = communicators.wait()
        poller.break_with(MemoryError())
        assert ws.wait_closed(TIMEOUT)
        with pytest.raises(securews.ConnectionClosed):
            ws.send("hello")


@pytest.mark.parametrize("broken", [0, 1])
def test_the_failure_of_one_io_thread_ends_the_others(broken, monkeypatch, caplog):
    monkeypatch.setattr(io_threads, "gil_enabled", lambda: False)
    server = securews.serve(0, Echo(), tls=False, io_threads=2)
    poller = BrokenPoller(server._core.io.every[broken].loop)
    with (
        pytest.raises(RuntimeError),
        server,
        RawClient(server.address) as one,
        RawClient(server.address) as other,
    ):
        poller.break_with(MemoryError())
        for client in (one, other):
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_frame()
        eventually(lambda: refuses(server), "closed listeners")
    assert len(criticals(caplog)) == 1


def test_a_server_that_gets_no_thread_frees_its_port(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    server = securews.serve(0, Echo(), tls=False)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            server.start_background()
    assert not server.ready
    assert refuses(server)
    server.stop()


# -- a program that just ends ------------------------------------------------------------------

PROGRAM = """
import atexit, os, sys, threading, time, warnings
import securews

opened, last = threading.Event(), []

def at_the_very_end():  # registered before the server starts, so it is called after its end
    file = open(sys.argv[1], "wb")  # gets the lowest number that is free
    last.append(file)
    time.sleep(0.05)

atexit.register(at_the_very_end)

class Events(securews.EventWebSocketHandler):
    def on_open(self, ws):
        opened.set()

def receiving(ws):
    opened.set()
    ws.recv()

def sending(ws):
    opened.set()
    while True:
        ws.send("x" * 1000)

def busy(ws):
    opened.set()
    while True:
        time.sleep(0.01)

def broadcasting(server):
    while True:
        server.broadcast("tick")

kind, end, method = sys.argv[2:5]
handler = {"events": Events(), "broadcast": Events()}.get(kind) or globals()[kind]
server = securews.serve(0, handler, tls=False, accepting_method=securews.AcceptingMethod(method))
server.start_background()
if kind == "broadcast":
    threading.Thread(target=broadcasting, args=(server,), daemon=True).start()
print(server.address[1], flush=True)
assert opened.wait(10)
if end == "sys.exit":
    sys.exit(3)
if end == "raise":
    raise KeyError("of the program")
if end == "in with":
    with securews.serve(0, handler, tls=False):
        sys.exit(3)
if end == "fork":
    warnings.simplefilter("ignore")  # of Python 3.12: this process has threads
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    time.sleep(0.05)
    assert server.ready and len(server.connections) == 1
"""

CODES = {"returns": 0, "sys.exit": 3, "raise": 1, "in with": 3, "fork": 0}


def last_frames(client):
    """The code of the Close that comes, and whether anything comes behind it."""
    close = client.read_close()
    client.send(Opcode.CLOSE, close.payload)
    return close.close_code, client.read_to_end()


def run_to_its_end(tmp_path, kind, end, method, *, answers=True):
    written = tmp_path / "written"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(written), kind, end, method],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = int(process.stdout.readline())
            with RawClient(("127.0.0.1", port)) as client:
                if answers:
                    code, rest = last_frames(client)
                    client.close()
                else:
                    code, rest = client.read_close().close_code, b""
                _, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (code, rest) == (1001, b"")
    assert written.read_bytes() == b""
    assert process.returncode == CODES[end]
    return errors


@pytest.mark.parametrize("method", securews.AcceptingMethod)
@pytest.mark.parametrize("kind", ["receiving", "sending"])
def test_a_program_with_handlers_at_work_ends_cleanly(tmp_path, kind, method):
    assert run_to_its_end(tmp_path, kind, "returns", method.value) == ""


@pytest.mark.parametrize("kind", ["events", "broadcast", "busy"])
@pytest.mark.parametrize("end", ["returns", "sys.exit"])
def test_a_program_that_ends_without_stop_ends_cleanly(tmp_path, kind, end):
    assert run_to_its_end(tmp_path, kind, end, "pool") == ""


def test_an_exit_inside_with_keeps_its_code_and_ends_the_other_servers_too(tmp_path):
    assert run_to_its_end(tmp_path, "events", "in with", "pool") == ""


def test_a_child_that_was_forked_and_exits_does_not_end_its_parents_servers(tmp_path):
    assert run_to_its_end(tmp_path, "receiving", "fork", "pool") == ""


def test_an_uncaught_exception_leaves_its_own_traceback_alone(tmp_path):
    errors = run_to_its_end(tmp_path, "receiving", "raise", "pool")
    assert errors.count("Traceback") == 1
    assert errors.splitlines()[-1] == "KeyError: 'of the program'"


def test_a_client_that_does_not_answer_does_not_hold_up_the_exit(tmp_path):
    assert run_to_its_end(tmp_path, "events", "returns", "pool", answers=False) == ""
