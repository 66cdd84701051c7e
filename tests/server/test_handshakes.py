"""Handshake workers: what is reported, who is called, and that none of them ends."""

from __future__ import annotations

import asyncio
import ctypes
import threading

import pytest
from support import TIMEOUT, Happened, eventually, tracebacks_in

import securews
from securews.common.errors import HandshakeError
from securews.server.handshakes import HandshakeWorkers
from securews.transport.socket_handler import Want


class Loop:
    """Calls back at once, on the thread that asks."""

    def call_soon(self, callback):
        callback()
        return True


class Stream:
    """A handshake that does what it is told."""

    def __init__(self, step=lambda: Want.NOTHING):
        self.handshake = step


class Gate(Stream):
    """A handshake that waits for `go_on`."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def handshake(self):
        self.begun.set()
        assert self.go_on.wait(TIMEOUT)
        return Want.NOTHING


@pytest.fixture
def make():
    """Make HandshakeWorkers; they end with the test."""
    made = []

    def make_workers(workers=1, limit=64):
        made.append(HandshakeWorkers(workers, limit))
        return made[-1]

    yield make_workers
    for workers in made:
        workers.close()


def raising(error):
    def step():
        raise error

    return Stream(step)


def test_a_step_is_reported(make):
    workers, reports = make(), Happened()
    for want in (Want.READ, Want.NOTHING):
        workers.submit(Stream(lambda want=want: want), Loop(), reports)
    assert reports.wait(2) == [Want.READ, Want.NOTHING]


def test_what_a_failed_step_reports_holds_no_frames(make):
    workers, reports = make(), Happened()

    def fail():
        try:
            raise ConnectionResetError("gone")
        except OSError as error:
            raise HandshakeError("failed") from error

    workers.submit(Stream(fail), Loop(), reports)
    (error,) = reports.wait()
    assert isinstance(error, HandshakeError)
    assert error.__traceback__ is error.__cause__.__traceback__ is None


ANYTHING = [
    SystemExit(1),
    GeneratorExit(),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    ZeroDivisionError("a bug"),
]


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_a_step_raises_ends_its_handshake_and_no_worker(make, caplog, error):
    workers, reports = make(), Happened()
    for _ in range(3):
        workers.submit(raising(error), Loop(), reports)
    workers.submit(Stream(), Loop(), reports)
    *failed, done = reports.wait(4)
    assert done is Want.NOTHING
    assert {type(each) for each in failed} == {HandshakeError}
    assert len(tracebacks_in(caplog)) == 3
    assert workers.threads[0].name == "securews-handshake-1"


def end_from_outside(thread):
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


def test_a_worker_that_is_ended_while_it_sleeps_is_replaced(make, caplog):
    workers, reports = make(), Happened()
    workers.submit(Stream(), Loop(), reports)
    reports.wait()
    for count in range(2, 5):
        (worker,) = workers.threads
        end_from_outside(worker)  # it sleeps, and finds out when the next step wakes it
        workers.submit(Stream(), Loop(), reports)
        assert reports.wait(count) == [Want.NOTHING] * count
        worker.join(TIMEOUT)
        assert not worker.is_alive()
    assert len(workers.threads) == 1
    assert len(tracebacks_in(caplog)) == 3


def test_a_worker_that_is_ended_in_a_step_goes_on(make):
    workers, reports, gate = make(), Happened(), Gate()
    workers.submit(gate, Loop(), reports)
    assert gate.begun.wait(TIMEOUT)
    end_from_outside(workers.threads[0])
    gate.go_on.set()
    workers.submit(Stream(), Loop(), reports)
    _, second = reports.wait(2)
    assert second is Want.NOTHING


def test_it_knows_its_own_threads(make):
    workers, others, reports = make(), make(), Happened()
    workers.submit(Stream(lambda: (workers.has_caller(), others.has_caller())), Loop(), reports)
    assert reports.wait() == [(True, False)]
    assert not workers.has_caller()


def test_there_are_as_many_workers_as_are_needed_and_no_more(make):
    workers, reports = make(workers=2), Happened()
    for count in (1, 2):
        workers.submit(Stream(), Loop(), reports)
        reports.wait(count)
        eventually(lambda: workers._running == 0)
    assert len(workers.threads) == 1
    gates = [Gate(), Gate(), Gate()]
    for gate in gates:
        workers.submit(gate, Loop(), reports)
    assert gates[0].begun.wait(TIMEOUT)
    assert gates[1].begun.wait(TIMEOUT)
    assert len(workers.threads) == 2
    assert not gates[2].begun.is_set()
    for gate in gates:
        gate.go_on.set()
    reports.wait(5)


def test_room_is_told_once_there_is_some(make):
    workers, reports, room = make(limit=2), Happened(), Happened()
    gate = Gate()
    workers.submit(gate, Loop(), reports)
    assert gate.begun.wait(TIMEOUT)
    workers.when_room(Loop(), lambda: room("at once"))
    assert room.items == ["at once"]
    for _ in range(2):
        workers.submit(Stream(), Loop(), reports)
    assert workers.busy
    workers.when_room(Loop(), lambda: room("later"))
    assert room.items == ["at once"]
    gate.go_on.set()
    assert room.wait(2) == ["at once", "later"]
    reports.wait(3)


def test_where_no_thread_can_be_started_the_handshake_fails(make, monkeypatch):
    def no_threads(_):
        raise RuntimeError("can't start new thread")

    workers, reports = make(), Happened()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_threads)
        workers.submit(Stream(), Loop(), reports)
    (error,) = reports.wait()
    assert str(error) == "can't start new thread"
    workers.submit(Stream(), Loop(), reports)
    assert reports.wait(2)[1] is Want.NOTHING


def test_the_workers_end_after_what_is_queued(make):
    workers, reports, gate = make(), Happened(), Gate()
    workers.submit(gate, Loop(), reports)
    workers.submit(Stream(), Loop(), reports)
    (worker,) = workers.threads
    workers.close()
    gate.go_on.set()
    reports.wait(2)
    worker.join(TIMEOUT)
    assert not worker.is_alive()


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_authorize_may_raise_anything(certificates, caplog, error):
    raises = threading.Event()
    raises.set()

    def authorize(_):
        if raises.is_set():
            raise error
        return True

    tls = securews.MutualTLSSocketHandler(
        *certificates.server, client_ca=certificates.ca_file, authorize=authorize
    )

    def connect():
        return securews.connect(
            server.url, tls=certificates.ca_file, client_cert=certificates.client
        )

    with securews.serve(0, echo, tls=tls, handshake_workers=1) as server:
        for _ in range(3):
            with pytest.raises((securews.SecureWSError, OSError)):
                connect()
        assert len(tracebacks_in(caplog)) == 3
        raises.clear()
        with connect() as ws:
            ws.send("others are served")
            assert ws.recv(TIMEOUT) == "others are served"


def echo(ws):
    for message in ws:
        ws.send(message)
