"""A bucket of tokens that fills up by itself: so many at once, then so many a second."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Bucket"]


class Bucket:
    """Holds `burst` tokens when it is full, and gets `rate` back a second. One thread at a time.

    Args:
        rate: tokens per second.
        burst: tokens that may be taken at once.
        clock: monotonic time, in seconds.
    """

    __slots__ = ("_burst", "_clock", "_rate", "_tokens", "_when")

    def __init__(
        self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._when = clock()

    def take(self) -> float:
        """Take a token: 0. Where there is none, the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0

    def give_back(self, tokens: float) -> None:
        """Put back what was taken, or a part of it."""
        self._tokens = min(self._burst, self._tokens + tokens)
