"""All timers of a loop in one heap.

It belongs to one thread (the loop's) and has no lock. Cancelled timers stay in the heap until they
surface or outnumber the living, so that cancelling is O(1).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["Timer", "Timers"]


class Timer:
    """A call that is due at `when`; `cancel()` takes it back."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], None]) -> None:
        self._timers: Timers | None = timers
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back, not even if it is due already. Harmless when it is over."""
        if self._timers is not None:
            self._timers._cancelled += 1
            self._timers = None
        self.callback = None

    def take_callback(self) -> Callable[[], None] | None:
        """What to call now, once; None if it was cancelled."""
        callback, self.callback = self.callback, None
        return callback


class Timers:
    """A heap of timers. Loop thread only."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at `when` (seconds of the loop's clock) or soon after."""
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

    def take_due(self, now: float) -> list[Timer]:
        """Remove and return the timers whose time has come, in order.

        Ask each for its callback when its turn comes: one that is called before may cancel it.
        """
        due: list[Timer] = []
        while (when := self.next_due()) is not None and when <= now:
            timer = heapq.heappop(self._heap)[2]
            timer._timers = None  # it is in the heap no more
            due.append(timer)
        return due
