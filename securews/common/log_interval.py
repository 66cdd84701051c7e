"""How often a line is logged that a peer can cause again and again."""

from __future__ import annotations

__all__ = ["LOG_INTERVAL", "LogInterval"]

LOG_INTERVAL = 10.0
"""Seconds."""


class LogInterval:
    """The time since such a line was logged. One thread at a time: its owner has the lock."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = float("-inf")

    def is_over(self, now: float) -> bool:
        """Whether the line may be logged at `now` (monotonic seconds)."""
        return now - self._begun >= LOG_INTERVAL

    def begin(self, now: float) -> None:
        """The line is logged at `now`."""
        self._begun = now
