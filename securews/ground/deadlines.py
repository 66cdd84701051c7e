"""Deadlines: one structure for all timers of a loop, on the monotonic clock.

`Timers` belongs to one thread (the loop's) and has no lock. Cancelled timers stay in the heap
until they surface or outnumber the living, so that cancelling is O(1); coarse deadlines are
rounded up to a shared tick so that a thousand connections wake the loop once, not a thousand
times.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable

__all__ = ["Deadline", "Timer", "Timers", "rounded_up"]


def rounded_up(when: float, tick: float) -> float:
    """The first multiple of `tick` seconds that is not before `when`."""
    return math.ceil(when / tick) * tick


class Deadline:
    """A point in time that several waits share. None never comes."""

    __slots__ = ("_when",)

    def __init__(self, timeout: float | None) -> None:
        self._when = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never below 0; None where there is no deadline."""
        return None if self._when is None else max(0.0, self._when - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._when is not None and time.monotonic() >= self._when


class Timer:
    """A call that is due at `when`; `cancel()` takes it back."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], None]) -> None:
        self._timers: Timers | None = timers
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back. Harmless when it is over already."""
        if self._timers is not None:
            self._timers._cancelled += 1
            self._timers = None
        self.callback = None


class Timers:
    """A heap of timers. Loop thread only."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at `when` (time.monotonic() seconds) or soon after."""
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
        timer = Timer(self, when, callback)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """When the next timer is due; None where there is none."""
        while self._heap:
            when, _, timer = self._heap[0]
            if timer.callback is not None:
                return when
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return None

    def take_due(self, now: float) -> list[Callable[[], None]]:
        """Remove and return the callbacks whose time has come, in order."""
        due: list[Callable[[], None]] = []
        while (when := self.next_due()) is not None and when <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.callback is not None:
                due.append(timer.callback)
                timer._timers = None
                timer.callback = None
        return due
