"""Waking the threads that receive: one after another, as long as they are quick.

Theory of operation
-------------------
One turn of the loop often has messages for many threads. Only one of them can hold the GIL: woken
all at once, the others wake up in vain and queue for it, and so does the loop, which is asked to
send the first answer already. That costs more than all the rest of a message. So the loop wakes
the first and waits; each wakes the next when it is about to wait for its next message, and the
last wakes the loop, which then finds all answers together.

A thread that computes for long, or waits for something else, must not hold up the others: after
`PATIENCE` the loop wakes all that are left, and where the threads were not `QUICK` it wakes all at
once for the next `DISTRUST` seconds. Without a GIL it always does.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from securews.common.interpreter import gil_enabled
from securews.common.locks import Lock, hand_over

__all__ = ["Relay", "RelayedCondition"]

PATIENCE = 0.001
"""Seconds that the loop waits, at most."""
QUICK = 50e-6
"""Seconds that a thread may take, in the mean, for what it received."""
DISTRUST = 0.1
"""Seconds in which all are woken at once."""
SIGNAL_SECONDS = 0.5
"""The main thread looks so often whether a signal came: one that comes just before a wait for a
lock, or to another thread, does not end that wait."""


class Relay:
    """The threads to be woken by one loop."""

    __slots__ = ("_distrust_until", "_lock", "_over", "_to_wake", "_under_way", "_waiting")

    def __init__(self) -> None:
        self._lock = Lock()
        self._to_wake: list[Lock] = []
        self._waiting: deque[Lock] = deque()
        """Under the lock: who is woken by others."""
        self._under_way = False
        """Under the lock: the loop waits for `_over`."""
        self._over = Lock()
        self._over.acquire()
        self._distrust_until = 0.0 if gil_enabled() else float("inf")

    def add(self, wake_up: Lock) -> None:
        """Loop thread: at the end of this turn wake who waits for `wake_up`."""
        self._to_wake.append(wake_up)

    def wake(self, now: float) -> None:
        """Loop thread: wake all that were added; waits for them while they are quick."""
        if not self._to_wake:
            return
        to_wake, self._to_wake = self._to_wake, []
        if len(to_wake) == 1 or now < self._distrust_until:
            _wake_at_once(to_wake)
            return
        began = monotonic()
        with self._lock:
            self._waiting.extend(to_wake)
            self._under_way = True
        hand_over(self._next(), self._over, PATIENCE)
        with self._lock:
            rest = list(self._waiting)
            self._waiting.clear()
            self._under_way = False
        _wake_at_once(rest)
        ended = monotonic()
        if ended - began > QUICK * len(to_wake):
            self._distrust_until = ended + DISTRUST

    def wait(self, wake_up: Lock, seconds: float | None) -> None:
        """Any thread: let the next one run, and wait for `wake_up`, at most so many seconds."""
        # Without the lock: at worst the loop waits in vain.
        hand_over(self._next() if self._under_way else None, wake_up, seconds)

    def _next(self) -> Lock | None:
        """Whose turn it is: the next thread's, or that of the loop."""
        self._lock.acquire()  # not `with`: see loop.py
        try:
            if self._waiting:
                return self._waiting.popleft()
            if not self._under_way:
                return None
            self._under_way = False
            return self._over
        finally:
            self._lock.release()


def _wake_at_once(wake_ups: list[Lock]) -> None:
    for wake_up in wake_ups:
        try:
            wake_up.release()
        except RuntimeError:
            pass  # it is not held: who waited has given up


class RelayedCondition:
    """A condition for one thread at a time, which a loop wakes through its relay.

    Cheaper than a `threading.Condition`: who waits holds a lock that is given back to wake it.

    Args:
        lock: held by whoever calls `wait` and `notify`, as with `threading.Condition`.
        relay: of the loop.
    """

    __slots__ = ("_lock", "_relay", "_waiting", "_wake_up", "waiter")

    def __init__(self, lock: Lock, relay: Relay) -> None:
        self._lock = lock
        self._relay = relay
        self._wake_up = Lock()
        self._wake_up.acquire()
        self._waiting = False
        """It waits, and was not woken yet."""
        self.waiter: int | None = None
        """The thread that may wait; it says so itself, and when it is done."""

    def notify(self) -> None:
        """Loop thread: wake who waits, at the end of this turn."""
        if self._waiting:
            self._waiting = False
            self._relay.add(self._wake_up)

    def wait(self, seconds: float | None) -> None:
        """Wait at most so many seconds. May return for nothing: ask again what there is."""
        if self.waiter == threading.main_thread().ident:
            seconds = SIGNAL_SECONDS if seconds is None else min(seconds, SIGNAL_SECONDS)
        self._waiting = True
        self._lock.release()
        try:
            self._relay.wait(self._wake_up, seconds)
        finally:
            self._lock.acquire()
            self._waiting = False
