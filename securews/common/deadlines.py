"""Deadlines on the monotonic clock."""

from __future__ import annotations

import math
import time

__all__ = ["Deadline", "rounded_up"]


def rounded_up(when: float, tick: float) -> float:
    """The first multiple of `tick` seconds that is not before `when`.

    Coarse deadlines are rounded up to a tick that they share, so that a thousand connections wake
    the loop once and not a thousand times.
    """
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
