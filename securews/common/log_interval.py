"""How often a line is logged that a peer can cause again and again."""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["LOG_INTERVAL", "LogInterval"]

LOG_INTERVAL = 10.0
"""Seconds."""


class LogInterval:
    """Lets one line through each `LOG_INTERVAL`. Any thread; holds its lock for a moment only."""

    __slots__ = ("_last", "_lock")

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._last = float("-inf")

    def is_over(self, now: float) -> bool:
        """Whether the line may be logged at `now` (monotonic seconds); if so, it was."""
        with self._lock:
            if now - self._last < LOG_INTERVAL:
                return False
            self._last = now
            return True
