"""What the parts of a connection ask of those around them.

A channel gives its bytes to a `Consumer` and takes from it what is to be sent. A connection is such
a consumer, and tells an `Observer` what happens.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Consumer", "Message", "Observer"]

Message = str | bytes
"""A message as the user gets it."""


class Consumer:
    """Who is given the bytes of a channel, and has some for it. All on the loop's thread.

    A base class and no Protocol: what is compiled calls it as C does.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        raise NotImplementedError

    def end_received(self) -> None:
        """The peer will send nothing more, and ended in order."""
        raise NotImplementedError

    def peer_finished(self) -> None:
        """Reading is paused, and the peer has ended its side or is gone."""

    def next_piece(self, limit: int) -> bytes | memoryview | None:  # noqa: ARG002
        """Give up the next bytes to send, at most so many; None where nothing waits."""
        return None

    def scheduled(self) -> None:
        """Another thread has scheduled a turn: do what it asks for."""

    def continue_work(self) -> None:
        """Take one bounded step of what `Channel.continue_later` was asked for."""

    def flushed(self) -> None:
        """A turn is over, and what could be sent was sent."""

    def drained(self) -> None:
        """Everything was sent after the socket had been full."""

    def finished(self) -> None:
        """After `Channel.finish`: everything was sent, the end of TLS and TCP too."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; after `finished` this does not come."""
        raise NotImplementedError


class Observer(Protocol):
    """Who is told what happens on a connection: on the loop's thread, one call at a time."""

    event_driven: bool
    """Whether messages go to `message_received`; else they queue for `Link.take`."""

    def connection_opened(self) -> None:
        """It begins, and messages can be sent; before everything else."""

    def message_received(self, message: Message) -> None:
        """One message came."""

    def messages_queued(self) -> None:
        """At least one message of a read was queued."""

    def dispatched(self, began: float) -> None:
        """All calls that one read led to, from `began` (monotonic) on, have returned."""

    def connection_closed(self) -> None:
        """It is over; exactly once, after everything else."""

    def callback_name(self) -> str:
        """What the log calls the callback that runs at present."""
