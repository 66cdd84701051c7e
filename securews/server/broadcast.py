"""One message to many connections: encoded once, and nobody waits for a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from securews.common.errors import ConnectionClosed
from securews.connection.compressing import SharedMessage
from securews.handlers.communicator import Communicator
from securews.handlers.messages import BytesLike, encode_message
from securews.loop.loop import on_io_thread

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


def broadcast(
    message: str | BytesLike, receivers: Iterable[Communicator], *, compress: bool = True
) -> list[Communicator]:
    """Send to all; returns those that were skipped.

    All receivers share one frame, and those that agreed on compression one for each shape of it.
    """
    opcode, payload = encode_message(message)
    shared = SharedMessage(opcode, payload, compress=compress)
    may_wait = not on_io_thread()
    skipped, behind = [], []
    for ws in receivers:
        sender = ws._connection.sender
        if may_wait and sender.needs_turn:
            behind.append(ws)
            continue
        try:
            if not sender.offer_shared(shared):
                skipped.append(ws)
        except ConnectionClosed:
            skipped.append(ws)
    return skipped + _broadcast_behind(shared, behind)


def _broadcast_behind(message: SharedMessage, behind: list[Communicator]) -> list[Communicator]:
    """Much waits for these: before one is called slow, its loop has to have offered it."""
    for loop in {ws._connection.loop for ws in behind}:
        loop.wait_for_turn()
    skipped = []
    for ws in behind:
        try:
            if not ws._connection.sender.offer_shared(message):
                skipped.append(ws)
        except ConnectionClosed:
            skipped.append(ws)
    return skipped
