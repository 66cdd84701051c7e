"""Acting on what was received: events in their order, one at a time.

Messages of one read are handed over together. A queueing connection puts them into its inbox and
wakes the thread that receives at most once. An event-driven one calls its observer for each of
them; it stops where the outbox is full (the peer does not take our answers: let it wait) and goes
on when the outbox is empty again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from securews.connection.inbox import Message
from securews.protocol.events import Close, Event, Ping, Pong
from securews.protocol.frames import Opcode

if TYPE_CHECKING:
    from securews.connection.connection import Connection
    from securews.connection.interfaces import Observer

__all__ = ["Dispatcher"]


class Dispatcher:
    """The events of one connection. Loop thread only."""

    __slots__ = (
        "_bound",
        "_channel",
        "_connection",
        "_event_driven",
        "_ignores",
        "_message_received",
        "events",
        "last",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.channel
        self._bound = connection.options.outbox_bytes
        self._ignores = connection.options.max_queue == 0
        """Messages of the peer do not matter here."""
        self._event_driven = False
        self._message_received: Callable[[Message], None]
        self.events: list[Event] = []
        """What was received and not acted on yet."""
        self.last = False
        """Nothing more will be read: what is here is delivered to the end."""

    def start(self, observer: Observer) -> None:
        """From now on there is somebody to tell."""
        self._event_driven = observer.event_driven
        self._message_received = observer.message_received

    def run(self) -> tuple[int, int]:
        """Act until there is nothing left or the outbox is full.

        Returns:
            How many messages, and how many control frames that nobody had asked for.
        """
        connection, outbox = self._connection, self._channel.outbox
        events, self.events = self.events, []
        queued: list[Message] = []
        messages = control = 0
        for index, event in enumerate(events):
            if self._event_driven and outbox.size >= self._bound and self._must_wait():
                self.events = events[index:]
                break
            if isinstance(event, (str, bytes)):
                messages += 1
                if self._ignores or (outbox.closed and not self.last):
                    continue  # having said our last word, we await only the peer's Close
                if self._event_driven:
                    self._message_received(event)
                else:
                    queued.append(event)
            elif isinstance(event, Ping):
                control += 1
                self._answer(event)
            elif isinstance(event, Pong):
                control += not self._note_pong(event)  # what we asked for is no flood
            else:
                self._hand_over(queued)
                queued = []
                if isinstance(event, Close):
                    connection.close_received(event)
                else:
                    connection.fail(event.error)
        self._hand_over(queued)
        return messages, control

    def _must_wait(self) -> bool:
        """Event-driven: whether the peer must take our answers before it is given more."""
        if self._channel.outbox.closed:
            return False
        self._channel.flush_early()
        return self._channel.outbox.size >= self._bound

    def _hand_over(self, queued: list[Message]) -> None:
        if not queued:
            return
        with self._channel.lock:
            told = self._connection.receiving.queue(queued)
        if told:
            self._connection.observer.messages_queued()

    def _answer(self, ping: Ping) -> None:
        frame = self._connection.sending.frame(Opcode.PONG, ping.payload)
        with self._channel.lock:
            if self._channel.outbox.closed:
                return
            if self._channel.blocked:
                self._channel.outbox.set_pong(frame)
            else:
                self._channel.outbox.append_urgent(frame)
            mark = self._channel.mark_to_send_locked()
        if mark:
            self._channel.loop.schedule(self._channel)

    def _note_pong(self, pong: Pong) -> bool:
        """Whether it answers a ping of ours."""
        answered = self._connection.keepalive.pong(pong.payload)
        if any(waiter.by_user for waiter in answered):
            with self._channel.lock:
                self._connection.receiving.set_pong(pong)
        return bool(answered)
