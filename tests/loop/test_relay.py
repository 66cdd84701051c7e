"""Which of the threads that wait for messages are woken, and when."""

import threading
import time

import pytest
from support import TIMEOUT, Happened

from securews.common.locks import Lock
from securews.loop import relay as module
from securews.loop.relay import DISTRUST, Relay


@pytest.fixture
def relay(monkeypatch):
    """As with a GIL, whatever this interpreter has."""
    monkeypatch.setattr(module, "gil_enabled", lambda: True)
    return Relay()


@pytest.fixture
def patience(monkeypatch):
    """The loop waits for as long as it takes, and finds everybody quick."""
    monkeypatch.setattr(module, "PATIENCE", TIMEOUT)
    monkeypatch.setattr(module, "QUICK", TIMEOUT)


def held():
    lock = Lock()
    lock.acquire()
    return lock


class Receivers:
    """Threads that wait, do `work(number)` when they are woken, and wait for the next time."""

    def __init__(self, relay, count, work):
        self._relay, self._work, self._over = relay, work, False
        self._wake_ups = [held() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._receive, args=(number,)) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _receive(self, number):
        while True:
            self._relay.wait(self._wake_ups[number], TIMEOUT)
            if self._over:
                return
            self._work(number)

    def wake(self, now=None):
        for wake_up in self._wake_ups:
            self._relay.add(wake_up)
        self._relay.wake(time.monotonic() if now is None else now)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._over = True
        for wake_up, thread in zip(self._wake_ups, self._threads, strict=True):
            if wake_up.locked():
                wake_up.release()
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def make_distrustful(relay, monkeypatch):
    """Two threads, each of which waits for the other: to wake the first is not enough."""
    with monkeypatch.context() as impatient:
        impatient.setattr(module, "PATIENCE", 0.001)
        impatient.setattr(module, "QUICK", 0.0)
        together = threading.Barrier(3)
        with Receivers(relay, 2, lambda number: together.wait(TIMEOUT)) as receivers:
            receivers.wake()
            together.wait(TIMEOUT)


def test_each_wakes_the_next_and_the_last_wakes_the_loop(relay, patience):
    woken = Happened()
    with Receivers(relay, 20, woken) as receivers:
        receivers.wake()
        assert woken.items == list(range(20))
        receivers.wake()
        assert woken.items == [*range(20), *range(20)]


def test_one_that_waits_for_something_else_holds_up_neither_the_others_nor_the_loop(relay):
    woken, go_on = Happened(), threading.Event()

    def work(number):
        woken(number)
        assert number or go_on.wait(TIMEOUT)

    with Receivers(relay, 5, work) as receivers:
        receivers.wake()
        assert sorted(woken.wait(5)) == [0, 1, 2, 3, 4]
        go_on.set()


def test_after_a_slow_one_all_are_woken_at_once(relay, patience, monkeypatch):
    make_distrustful(relay, monkeypatch)
    together = threading.Barrier(4)
    with Receivers(relay, 3, lambda number: together.wait(TIMEOUT)) as receivers:
        receivers.wake(now=0.0)
        together.wait(TIMEOUT)


def test_they_are_trusted_again_after_a_while(relay, patience, monkeypatch):
    make_distrustful(relay, monkeypatch)
    woken = Happened()
    with Receivers(relay, 3, woken) as receivers:
        receivers.wake(now=time.monotonic() + DISTRUST)
        assert woken.items == [0, 1, 2]


def test_the_loop_does_not_wait_for_a_single_one(relay, patience):
    go_on = threading.Event()
    woken = Happened()

    def work(number):
        woken(number)
        assert go_on.wait(TIMEOUT)

    with Receivers(relay, 1, work) as receivers:
        receivers.wake()
        assert woken.wait() == [0]
        go_on.set()


@pytest.mark.parametrize("gone", [held, Lock])
def test_one_that_has_given_up_is_passed_over(relay, gone):
    woken = Happened()
    with Receivers(relay, 2, woken) as receivers:
        relay.add(gone())
        receivers.wake()
        assert sorted(woken.wait(2)) == [0, 1]


def test_without_a_gil_all_are_woken_at_once(monkeypatch, patience):
    monkeypatch.setattr(module, "gil_enabled", lambda: False)
    together = threading.Barrier(4)
    with Receivers(Relay(), 3, lambda number: together.wait(TIMEOUT)) as receivers:
        receivers.wake()
        together.wait(TIMEOUT)
