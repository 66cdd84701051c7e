"""What the parts of a connection ask of those around them.

A channel gives its bytes to a `Consumer`. A connection is such a consumer, and tells an `Observer`
what happens.
"""

from __future__ import annotations

from typing import Protocol

from securews.connection.inbox import Message

__all__ = ["Consumer", "Observer"]


class Consumer(Protocol):
    """Who is given the bytes of a channel. All on the loop's thread."""

    def data_received(self, data: bytes) -> None:
        """Bytes came."""

    def end_received(self) -> None:
        """The peer will send nothing more, and ended in order."""

    def peer_finished(self) -> None:
        """Reading is paused, and the peer has ended its side or is gone."""

    def continue_work(self) -> None:
        """It asked for `Channel.continue_later`: take one bounded step."""

    def turn(self) -> None:
        """Another thread marked the channel: look what it wants."""

    def turned(self) -> None:
        """A turn is over, and what could be sent was sent."""

    def drained(self) -> None:
        """The outbox is empty again after the socket was full."""

    def finished(self) -> None:
        """After `finish`: everything was sent, the goodbye too."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; after `finished` this does not come."""


class Observer(Protocol):
    """Who is told what happens on a connection: on the loop's thread, one call at a time."""

    event_driven: bool
    """Whether messages go to `message_received`; else they queue for `Receiving.take`."""

    def message_received(self, message: Message) -> None:
        """One message came."""

    def messages_queued(self) -> None:
        """At least one message of a read was queued."""

    def dispatched(self, began: float) -> None:
        """All calls that one read led to, from `began` (monotonic) on, have returned."""

    def connection_closed(self) -> None:
        """It is over; exactly once, after everything else."""
