"""What comes in on a connection: parsed, acted on in its order, and when more of it is read.

What one turn does for a connection is bounded: a pass of the parser by its work, callbacks of the
user by time. The rest goes on in a slice of this turn or the next (`Channel.continue_later`), and
nothing more is read meanwhile.

Messages of one pass are handed over together: a queueing connection puts them into the receive
queue and wakes the thread that receives at most once. An event-driven one calls its observer for
each; it stops where the send queue is full (the peer does not take our answers: let it wait), and
goes on when that is empty again.
"""

from __future__ import annotations

from collections.abc import Callable

from securews.common.errors import ProtocolError
from securews.common.options import ConnectionOptions
from securews.connection.channel import Channel
from securews.connection.interfaces import Consumer, Message, Observer
from securews.connection.link import Link
from securews.connection.sender import Sender
from securews.connection.watchdog import Watchdog
from securews.loop.loop import Loop
from securews.protocol.events import Close, Event, Failure, Ping, Pong
from securews.protocol.frames import Opcode
from securews.protocol.parser import WORK, WebSocketParser

__all__ = ["Intake"]

CALLBACK_SECONDS = 0.001
"""Callbacks of one connection that take longer go on later, if there are more."""
EVENT_ROOM = 320 << 10
"""Bytes of messages that one pass may parse for callbacks: they wait in memory for their turn. More
than one read can become without compression, so that those need not be measured."""


class Intake(Consumer):
    """The receiving half of a connection. Loop thread only; `Connection` is the rest."""

    __slots__ = (
        "_end_reason",
        "_event_driven",
        "_events",
        "_gone",
        "_ignores",
        "_message_received",
        "_over",
        "_paused",
        "_watchdog",
        "channel",
        "link",
        "loop",
        "observer",
        "options",
        "parser",
        "sender",
    )

    def __init__(
        self,
        channel: Channel,
        link: Link,
        sender: Sender,
        options: ConnectionOptions,
        *,
        parser: WebSocketParser,
        watchdog: Watchdog,
    ) -> None:
        self.channel = channel
        self.loop: Loop = channel.loop
        self.link = link
        self.sender = sender
        self.parser = parser
        self.options = options
        self.observer: Observer | None = None
        self._watchdog = watchdog
        self._event_driven = False
        self._message_received: Callable[[Message], None] | None = None
        self._ignores = options.max_queue == 0
        """Messages of the peer do not matter here."""
        self._events: list[Event] = []
        """What was parsed and not acted on yet."""
        self._paused = False
        """The budget does not want it read from."""
        self._gone = False
        """The peer has ended while we did not read: nothing holds up what it left."""
        self._end_reason: str | None = None
        """The transport has ended, for this reason; what came before is still delivered."""
        self._over = False
        """Nothing more that comes is looked at."""

    # -- what an event leads to: see Connection --------------------------------------------

    def fail(self, error: ProtocolError, *, discard: bool = False) -> None:
        """The peer broke a rule."""
        raise NotImplementedError

    def _close_received(self, close: Close) -> None:
        raise NotImplementedError

    def _pong_received(self, pong: Pong) -> bool:
        """Whether somebody had asked for it."""
        raise NotImplementedError

    def _count(self, control: int, messages: int) -> None:
        """So many have come in one pass."""
        raise NotImplementedError

    def _watch_later(self) -> None:
        """The watchdog has another deadline."""
        raise NotImplementedError

    def _end(self, reason: str) -> None:
        """All that came before the transport's end was delivered."""
        raise NotImplementedError

    # -- from the channel ------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came, and act on it."""
        self.link.hold_schedule()
        self._receive(data)

    def continue_work(self) -> None:
        """Go on with what was left over."""
        self.link.hold_schedule()
        self._go_on()

    def drained(self) -> None:
        """Go on: the send queue is empty again."""
        self._read_or_pause()

    def next_piece(self, limit: int) -> bytes | memoryview | None:
        """Give the channel what waits to be sent."""
        return self.link.next_piece(limit)

    # -- parsing and acting ----------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        room = EVENT_ROOM if self._event_driven else self.link.receiving.room
        events = self.parser.receive(data, room, WORK)
        if self.parser.in_message:
            now = self.loop.now
            if self._watchdog.message_unfinished(now, another=_has_message(events)):
                self._watch_later()
        else:
            self._watchdog.message_finished()
        if self._events:
            self._events.extend(events)
        else:
            self._events = events
        self._dispatch(self.loop.now)
        self._read_or_pause()

    def _go_on(self) -> None:
        """Continue what had to wait: callbacks, parsing, reading."""
        if self._events:
            if not self._must_wait():
                self._dispatch(self.loop.clock())
        elif self.parser.paused and not self._queue_full():
            self._receive(b"")
            return
        self._read_or_pause()

    def _queue_full(self) -> bool:
        """Whether the handler must take something before more is parsed or read.

        What a peer has left behind is taken in, so that its end is seen; but compressed it may
        become a thousand times as large: once more the queue's bound.
        """
        receiving = self.link.receiving
        return receiving.overfull if self._gone else receiving.full

    def _dispatch(self, began: float) -> None:
        """Act on events until none is left, the send queue is full, or it has taken too long.

        Args:
            began: now, or a moment ago (monotonic).
        """
        events, self._events = self._events, []
        event_driven = self._event_driven
        sending = self.link.sending
        call_back = None if self._ignores else self._message_received
        queued: list[Message] = []
        messages = control = 0
        until = began + CALLBACK_SECONDS
        self.loop.caller = self.observer
        for index, event in enumerate(events):
            if event_driven and (
                (sending.size >= sending.bound and self._must_wait())
                or (index & 7 == 7 and self._is_late(until))
            ):
                self._events = events[index:]
                break
            if isinstance(event, (str, bytes)):
                messages += 1
                if not self.link.closing.may_send and self._end_reason is None:
                    continue  # having said our last word, we await only the peer's Close
                if not event_driven:
                    queued.append(event)
                elif call_back is not None:
                    call_back(event)
            else:
                if not isinstance(event, (Ping, Pong)):  # the last one: what came before goes first
                    self._deliver(queued)
                    queued = []
                control += self._control_received(event)
        self._deliver(queued)
        if (control or self._watchdog.counts_messages) and not self._over:
            self._count(control, messages)
        if self.observer is not None:
            self.observer.dispatched(began)
        self.loop.caller = None

    def _control_received(self, event: Ping | Pong | Close | Failure) -> int:
        """Act on it; 1 for a frame that counts against the peer's rate."""
        if isinstance(event, Ping):
            self.link.answer_ping(self.sender.frame(Opcode.PONG, event.payload))
            return 1
        if isinstance(event, Pong):
            return int(not self._pong_received(event))  # what was asked for is no flood
        if isinstance(event, Close):
            self._close_received(event)
        else:
            self.fail(event.error)
        return 0

    def _is_late(self, until: float) -> bool:
        now = self.loop.clock()
        return now >= until

    def _must_wait(self) -> bool:
        """Event-driven: whether the peer must take our answers before it is given more."""
        if not self._event_driven or not self.link.closing.may_send or self.link.aborted:
            return False
        self.sender.make_room()
        return self.link.sending.full

    def _deliver(self, queued: list[Message]) -> None:
        if queued and self.link.deliver(queued) and self.observer is not None:
            self.observer.messages_queued()

    def _read_or_pause(self) -> None:
        """See whether more is wanted of the peer, or of what is here."""
        if self._over:
            return
        if self._end_reason is not None:
            if self._events or (self.parser.paused and not self._queue_full()):
                self.channel.continue_later()
            else:
                self._end(self._end_reason)
            return
        left_over = bool(self._events) or self.parser.paused
        read = not left_over and not self._queue_full() and (self._gone or not self._paused)
        if read is not self.channel._reading:
            self.channel.set_reading(read)
            if read:
                self._watchdog.reading_resumed(self.loop.now)
        if left_over and not (self._must_wait() if self._events else self._queue_full()):
            self.channel.continue_later()


def _has_message(events: list[Event]) -> bool:
    return any(isinstance(event, (str, bytes)) for event in events)
