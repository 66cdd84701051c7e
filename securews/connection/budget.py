"""What one server holds for all its peers together: queues, unfinished messages, what waits.

Each connection has bounds of its own; a thousand of them filled at once would still be more than a
machine has. Two things keep the sum under the limit, and each follows from what is held alone:

- Who holds more than two fifths of what is still free, and of an even share, is not read from until
  its handler or its peer has taken something. An unfinished message does not count here: without
  reading it would never be complete.
- Over the limit room is made: first unread messages are dropped whose peers are gone, then who
  holds most is closed, of whatever kind that is, until the rest fits. Who holds most holds more
  than an even share, so who holds little notices nothing.

The budget returns what is to be done and calls nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from math import inf
from typing import Protocol

__all__ = ["Budget", "Verdict"]

PAUSE = 0.4
"""Of what is free, or of an even share, whichever is more: who holds more is not read from."""
RELIEF = 0.5
"""Of the mark at which it was paused: who holds less than this share of it is read from again."""


class Verdict(enum.Enum):
    """What is to be done with a holder."""

    PAUSE = "do not read from it"
    RESUME = "read from it again"
    DROP = "drop its unread messages: its peer is gone"
    CLOSE = "close it with 1013: it holds most"


class Holder(Protocol):
    """Somebody who holds bytes, and does what the verdicts on them say."""

    def obey(self, verdict: Verdict) -> None:
        """Do it."""


class Budget:
    """Bytes that the connections of one loop hold. Loop thread only.

    Args:
        limit: bytes; None is no limit.
    """

    __slots__ = ("_condemned", "_gone", "_held", "_limit", "_paused", "total")

    def __init__(self, limit: int | None) -> None:
        self._limit = inf if limit is None else float(limit)
        self._held: dict[Holder, int] = {}
        self._gone: set[Holder] = set()
        self._paused: dict[Holder, float] = {}
        self._condemned: dict[Holder, int] = {}
        self.total = 0

    def account(
        self, holder: Holder, held: int, movable: int = 0, gone: bool = False
    ) -> list[tuple[Holder, Verdict]]:
        """Note what a connection holds now, 0 at its end; what is to be done, in this order.

        Args:
            holder: the connection.
            held: bytes, all kinds together.
            movable: of these, what its handler or its peer can take while we do not read.
            gone: its peer is gone: only unread messages are left.
        """
        if self._limit == inf:
            return []
        self.total += held - self._held.get(holder, 0)
        self._condemned.pop(holder, None)
        if held:
            self._held[holder] = held
        else:
            self._held.pop(holder, None)
        if gone and held:
            self._gone.add(holder)
        else:
            self._gone.discard(holder)
        verdicts = self._pause_or_resume(holder, 0 if gone else movable)
        if self.total > self._limit:
            verdicts += self._make_room()
        return verdicts

    def _pause_or_resume(self, holder: Holder, movable: int) -> list[tuple[Holder, Verdict]]:
        if holder in self._paused:
            if movable > RELIEF * self._paused[holder]:
                return []
            del self._paused[holder]
            return [(holder, Verdict.RESUME)]
        mark = PAUSE * max(self._limit - self.total, self._limit / max(1, len(self._held)))
        if movable <= mark:
            return []
        self._paused[holder] = mark
        return [(holder, Verdict.PAUSE)]

    def _make_room(self) -> list[tuple[Holder, Verdict]]:
        verdicts = []
        excess = self.total - sum(self._condemned.values()) - self._limit
        while excess > 0:
            most = self._who_holds_most(self._gone)
            if most is None:
                most = self._who_holds_most(self._held)
            if most is None:
                break
            self._condemned[most] = self._held[most]
            excess -= self._held[most]
            verdicts.append((most, Verdict.DROP if most in self._gone else Verdict.CLOSE))
        return verdicts

    def _who_holds_most(self, holders: Iterable[Holder]) -> Holder | None:
        alive = [holder for holder in holders if holder not in self._condemned]
        return max(alive, key=self._held.__getitem__, default=None)
