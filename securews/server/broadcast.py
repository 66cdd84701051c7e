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
    if on_io_thread():
        return _offer(shared, receivers)
    ready: list[Communicator] = []
    behind: list[Communicator] = []
    for ws in receivers:
        (behind if ws._connection.sender.needs_turn else ready).append(ws)
    skipped = _offer(shared, ready)
    # Much waits for the others: before one is called slow, its loop has to have offered it.
    for loop in {ws._connection.loop for ws in behind}:
        loop.wait_for_turn()
    return skipped + _offer(shared, behind)


def _offer(message: SharedMessage, receivers: Iterable[Communicator]) -> list[Communicator]:
    """Send to each without waiting; those that were skipped."""
    skipped = []
    for ws in receivers:
        try:
            if not ws._connection.sender.offer_shared(message):
                skipped.append(ws)
        except ConnectionClosed:
            skipped.append(ws)
    return skipped
