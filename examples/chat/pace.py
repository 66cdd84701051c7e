"""How fast one connection may speak: a bucket of messages that fills up by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """`burst` messages at once, then `rate` a second. One thread at a time.

    Args:
        rate: messages per second.
        burst: messages that may come at once.
        patience: messages refused in a row before the peer is one that does not listen.
        clock: monotonic time, in seconds.
    """

    __slots__ = ("_burst", "_clock", "_patience", "_rate", "_refused", "_tokens", "_when")

    def __init__(
        self,
        *,
        rate: float = 5.0,
        burst: int = 20,
        patience: int = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._patience = patience
        self._clock = clock
        self._tokens = float(burst)
        self._refused = 0
        self._when = clock()

    def wait(self) -> float:
        """0 for a message that may pass; else the seconds until one may."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            self._refused = 0
            return 0.0
        self._refused += 1
        return (1.0 - self._tokens) / self._rate

    @property
    def ignored(self) -> bool:
        """Whether the peer was told to wait again and again and does not."""
        return self._refused > self._patience
