"""Which of the threads that wait for messages are woken, and when."""

import threading
import time

import pytest
from support import TIMEOUT, Happened, eventually

from securews.common.locks import Lock
from securews.loop import relay as module
from securews.loop.relay import DISTRUST, Relay, RelayedCondition


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


# -- the condition ---------------------------------------------------------------------------------


class Waiter:
    """A thread that waits until something is there, as a receiver does."""

    def __init__(self, relay, seconds=TIMEOUT):
        self.lock = Lock()
        self.condition = RelayedCondition(self.lock, relay)
        self.items = []
        self.got = Happened()
        self.seconds = seconds
        self._thread = threading.Thread(target=self._wait)

    def _wait(self):
        with self.lock:
            self.condition.waiter = threading.get_ident()
            while not self.items:
                self.condition.wait(self.seconds)
            self.condition.waiter = None
            self.got(self.items.pop())

    def is_waiting(self):
        with self.lock:
            return self.condition._waiting

    def __enter__(self):
        self._thread.start()
        eventually(self.is_waiting)
        return self

    def __exit__(self, *error):
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def test_a_condition_is_woken_at_the_end_of_the_turn_and_not_before(relay):
    with Waiter(relay) as waiter:
        with waiter.lock:
            waiter.items.append("one")
            waiter.condition.notify()
            waiter.condition.notify()  # once is enough
        assert len(relay._to_wake) == 1
        assert waiter.got.items == []
        relay.wake(time.monotonic())
        assert waiter.got.wait() == ["one"]


def test_a_condition_that_nobody_waits_for_is_not_woken(relay):
    lock = Lock()
    condition = RelayedCondition(lock, relay)
    with lock:
        condition.notify()
    assert relay._to_wake == []
    with lock:
        condition.wait(0.0)  # returns, and holds the lock again
        assert lock.locked()
        condition.notify()
    assert relay._to_wake == []


def test_who_has_given_up_before_it_was_woken_may_wake_for_nothing_and_loses_nothing(relay):
    lock = Lock()
    condition = RelayedCondition(lock, relay)
    with lock:
        condition._waiting = True  # as if it waited
        condition.notify()
        condition._waiting = False  # and its time had passed
    relay.wake(time.monotonic())
    with lock:
        condition.wait(TIMEOUT)  # for nothing: the wake-up was for the wait before
        condition.wait(0.0)
    with Waiter(relay) as waiter, waiter.lock:
        waiter.items.append("one")
        waiter.condition.notify()
        relay.wake(time.monotonic())


def test_the_main_thread_looks_often_whether_a_signal_came():
    asked = []

    class Notes(Relay):
        def wait(self, wake_up, seconds):
            asked.append(seconds)

    lock = Lock()
    condition = RelayedCondition(lock, Notes())
    with lock:
        condition.wait(None)
        condition.waiter = threading.main_thread().ident
        condition.wait(None)
        condition.wait(100.0)
        condition.wait(0.1)
    assert asked == [None, module.SIGNAL_SECONDS, module.SIGNAL_SECONDS, 0.1]


def test_a_wait_that_is_interrupted_holds_the_lock_again_and_is_not_woken(relay):
    class Interrupted(Relay):
        def wait(self, wake_up, seconds):
            raise KeyboardInterrupt

    lock = Lock()
    condition = RelayedCondition(lock, Interrupted())
    with lock:
        with pytest.raises(KeyboardInterrupt):
            condition.wait(None)
        assert lock.locked()
        condition.notify()
    assert not condition._waiting
