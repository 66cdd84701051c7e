"""What the parts of a connection ask of those around them.

A channel runs on an `IOLoop` and gives its bytes to a `Consumer`. A connection is such a
consumer, and tells an `Observer` what happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from securews.connection.inbox import Message
from securews.connection.relay import Relay
from securews.ground.deadlines import Timers

if TYPE_CHECKING:
    from securews.connection.channel import Channel

__all__ = ["Consumer", "IOLoop", "Observer"]


class IOLoop:
    """What a channel needs of its loop: `server/loop.py` has it, a floor above.

    A base class and no Protocol: what is compiled calls it as C does.
    """

    __slots__ = ("now", "relay", "timers")

    now: float
    """Seconds on the monotonic clock, when the loop last looked."""
    relay: Relay
    """Wakes the threads that receive."""
    timers: Timers

    def mark(self, channel: Channel) -> None:
        """Any thread: call `channel.turn()` soon, and wake the loop if it sleeps."""
        raise NotImplementedError

    def call_soon(self, callback: Callable[[], None]) -> bool:
        """Any thread: call back on the loop's thread. False if the loop has ended."""
        raise NotImplementedError

    def watch(self, channel: Channel, *, read: bool, write: bool) -> None:
        """Loop thread: wait for these; while neither is wanted, for the peer's end alone."""
        raise NotImplementedError

    def unwatch(self, channel: Channel) -> None:
        """Loop thread: wait for nothing (another thread has the stream now)."""
        raise NotImplementedError

    def close_later(self, channel: Channel) -> None:
        """Loop thread: close the descriptor at the end of this turn."""
        raise NotImplementedError

    def on_loop_thread(self) -> bool:
        """Any thread: whether it is the loop's own."""
        raise NotImplementedError

    def on_io_thread(self) -> bool:
        """Any thread: whether it is any loop's own: connections of others would wait with it."""
        raise NotImplementedError


class Consumer(Protocol):
    """Who is given the bytes of a channel. All on the loop's thread."""

    def data_received(self, data: bytes) -> None:
        """Bytes came."""

    def end_received(self) -> None:
        """The peer will send nothing more, and ended in order."""

    def peer_finished(self) -> None:
        """Reading is paused, and the peer has ended its side or is gone."""

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
