"""How fast one connection may speak, and when it is one that does not listen."""

from __future__ import annotations

import time
from collections.abc import Callable

from examples.chat.bucket import Bucket

__all__ = ["Pace"]


class Pace:
    """`burst` messages at once, then `rate` a second. One thread at a time.

    Args:
        rate: messages per second.
        burst: messages that may come at once.
        patience: messages refused in a row before the peer is one that does not listen.
        clock: monotonic time, in seconds.
    """

    __slots__ = ("_bucket", "_patience", "_refused")

    def __init__(
        self,
        *,
        rate: float = 5.0,
        burst: int = 20,
        patience: int = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = Bucket(rate=rate, burst=burst, clock=clock)
        self._patience = patience
        self._refused = 0

    def wait(self) -> float:
        """0 for a message that may pass; else the seconds until one may."""
        seconds = self._bucket.take()
        self._refused = self._refused + 1 if seconds else 0
        return seconds

    @property
    def ignored(self) -> bool:
        """Whether the peer was told to wait again and again and does not."""
        return self._refused > self._patience
