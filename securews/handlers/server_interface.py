"""What a handler may ask of the server that it runs in: `ws.server`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from securews.handlers.messages import BytesLike

__all__ = ["Server"]

Ws = TypeVar("Ws")
"""The Ws, whose module imports this one."""


class Server(Protocol[Ws]):
    """What a handler may ask of the server that it runs in."""

    @property
    def ready(self) -> bool:
        """Whether it takes connections: False from the moment that a stop begins."""

    @property
    def connections(self) -> list[Ws]:
        """The open connections, as they are now."""

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""

    def broadcast(
        self,
        message: str | BytesLike,
        to: str | Iterable[Ws] | Callable[[Ws], bool] | None = None,
        *,
        compress: bool = True,
    ) -> list[Ws]:
        """Send to many; returns those that were skipped."""

    def close_where(
        self, predicate: Callable[[Ws], bool], code: int = 1000, reason: str = ""
    ) -> int:
        """Begin to close those that match; returns how many."""

    def stop(self, grace: float = 10.0, *, jitter: float = 0.0, code: int = 1001) -> None:
        """End the server."""
