"""One message to many connections: encoded once, and nobody waits for anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from securews.application.communicator import Communicator
from securews.application.messages import BytesLike, encode_message
from securews.ground.errors import ConnectionClosed
from securews.protocol.frames import encode_frame

__all__ = ["broadcast", "chosen"]


def chosen(
    connections: list[Communicator],
    to: str | Iterable[Communicator] | Callable[[Communicator], bool] | None,
) -> list[Communicator]:
    """The receivers that `to` names: a path, some Communicators, a predicate, or all."""
    if to is None:
        return connections
    if isinstance(to, str):
        return [ws for ws in connections if ws.request.path == to]
    if callable(to):
        return [ws for ws in connections if to(ws)]
    return list(to)


def broadcast(message: str | BytesLike, receivers: Iterable[Communicator]) -> list[Communicator]:
    """Send to all; returns those that were skipped.

    A server's frames carry no mask (RFC 6455, section 5.1), so all receivers share one.
    """
    frame = encode_frame(*encode_message(message))
    skipped = []
    for ws in receivers:
        try:
            if not ws._connection.sending.offer(frame):
                skipped.append(ws)
        except ConnectionClosed:
            skipped.append(ws)
    return skipped
