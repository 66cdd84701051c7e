"""What a handler may ask of the server that it runs in: `ws.server`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from securews.handlers.messages import BytesLike

if TYPE_CHECKING:
    from securews.handlers.communicator import Communicator

__all__ = ["Server"]


class Server(Protocol):
    """What a handler may ask of the server that it runs in."""

    @property
    def ready(self) -> bool:
        """Whether it takes connections: False from the moment that a stop begins."""

    @property
    def connections(self) -> list[Communicator]:
        """The open connections, as they are now."""

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""

    def broadcast(
        self,
        message: str | BytesLike,
        to: str | Iterable[Communicator] | Callable[[Communicator], bool] | None = None,
        *,
        compress: bool = True,
    ) -> list[Communicator]:
        """Send to many; returns those that were skipped."""

    def close_where(
        self, predicate: Callable[[Communicator], bool], code: int = 1000, reason: str = ""
    ) -> int:
        """Begin to close those that match; returns how many."""

    def stop(self, grace: float = 10.0, *, jitter: float = 0.0, code: int = 1001) -> None:
        """End the server."""
