"""How many requests run user code at once, and which wait: the places of `accept()` and pages.

A request asks for a place with `enter`. It waits, is granted one in its order, and uses it in a
`with`, on the thread that runs the code; whatever that code raises, the end of the `with` gives the
place to the next. As long as its code has not begun, a request can be withdrawn, at a fixed cost,
and then nothing of it is left here.

    waits -> granted -> in use -> over
      |---------|--- withdraw() ---^
"""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

from securews.loop.loop import Loop

__all__ = ["Place", "RequestGate"]


class State(enum.Enum):
    """Of a place, under the lock of its gate."""

    WAITS = "for one of the places"
    GRANTED = "its code is about to run"
    IN_USE = "its code runs"
    OVER = "given back, or withdrawn"


class Place:
    """One request's place, or its wait for one. Made by `RequestGate.enter`; any thread."""

    __slots__ = ("_gate", "_loop", "_start", "_state")

    def __init__(self, gate: RequestGate, loop: Loop, start: Callable[[], None]) -> None:
        self._gate = gate
        self._loop = loop
        self._start: Callable[[], None] | None = start
        self._state = State.WAITS

    def withdraw(self) -> bool:
        """Give it up, unless its code runs or has run. Whether that was so."""
        return self._gate._end(self, State.WAITS, State.GRANTED)

    def withdraw_wait(self) -> bool:
        """Give it up if it was not granted yet. Whether that was so."""
        return self._gate._end(self, State.WAITS)

    def give_back(self) -> None:
        """Its code has ended. At the latest the end of the `with` does this; again is harmless."""
        self._gate._end(self, State.IN_USE)

    def __enter__(self) -> bool:
        """On the thread that runs the code; False: it was withdrawn, and nothing is to run."""
        with self._gate._lock:
            if self._state is not State.GRANTED:
                return False
            self._state = State.IN_USE
            return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back()

    def _begin(self) -> None:
        """On the loop's thread: it was granted."""
        with self._gate._lock:
            start, self._start = self._start, None
        if start is not None:  # else it was withdrawn
            start()


class RequestGate:
    """Grants places in the order of `enter`.

    Args:
        limit: places that are granted at once.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Any thread: how many wait for a place."""
        return len(self._waiting)

    def enter(self, loop: Loop, start: Callable[[], None]) -> Place:
        """Any thread: ask for a place. Once it is granted, `start` is called on the loop's thread.

        `start` has the code run in some thread, under `with place`; where that cannot be, it
        withdraws the place.
        """
        place = Place(self, loop, start)
        with self._lock:
            self._waiting[place] = None
        self._grant()
        return place

    def _grant(self) -> None:
        """Give every place that is free to who has waited longest."""
        while True:
            with self._lock:
                if not self._free or not self._waiting:
                    return
                place, _ = self._waiting.popitem(last=False)
                place._state = State.GRANTED
                self._free -= 1
            if not place._loop.call_soon(place._begin):  # that loop has ended
                with self._lock:
                    self._give_up(place)

    def _end(self, place: Place, *states: State) -> bool:
        """End a place that is in one of `states`."""
        with self._lock:
            if place._state not in states:
                return False
            self._give_up(place)
        self._grant()
        return True

    def _give_up(self, place: Place) -> None:
        """With the lock held."""
        if place._state is State.WAITS:
            del self._waiting[place]
        elif place._state is not State.OVER:
            self._free += 1
        place._state = State.OVER
        place._start = None
