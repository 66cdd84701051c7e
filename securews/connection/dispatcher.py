"""Acting on what was received: events in their order, one at a time.

Messages of one read are handed over together. A queueing connection puts them into its inbox and
wakes the thread that receives at most once. An event-driven one calls its observer for each of
them; it stops where the outbox is full (the peer does not take our answers: let it wait) and goes
on when the outbox is empty again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from securews.connection.inbox import Message
from securews.protocol.events import Close, Event, Ping, Pong
from securews.protocol.frames import Opcode

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["Dispatcher"]


class Dispatcher:
    """The events of one connection. Loop thread only."""

    __slots__ = ("_connection", "events", "last")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.events: deque[Event] = deque()
        """What was received and not acted on yet."""
        self.last = False
        """Nothing more will be read: what is here is delivered to the end."""

    def run(self) -> tuple[int, int]:
        """Act until there is nothing left or the outbox is full.

        Returns:
            How many messages, and how many control frames that nobody had asked for.
        """
        connection = self._connection
        events, queued = self.events, []
        messages = control = 0
        while events and not self._must_wait():
            event = events.popleft()
            if isinstance(event, (str, bytes)):
                messages += 1
                if connection.closing and not self.last:
                    continue  # we have said our last word; only the peer's Close is awaited
                if connection.options.max_queue == 0:
                    continue  # messages of the peer do not matter here
                if connection.observer.event_driven:
                    connection.observer.message_received(event)
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
        if not self._connection.observer.event_driven or self._connection.closing:
            return False
        outbox = self._connection.channel.outbox
        if outbox.size >= self._connection.options.outbox_bytes:
            self._connection.channel.flush_early()
        return outbox.size >= self._connection.options.outbox_bytes

    def _hand_over(self, queued: list[Message]) -> None:
        with self._connection.channel.lock:
            told = self._connection.receiving.queue(queued)
        if told:
            self._connection.observer.messages_queued()

    def _answer(self, ping: Ping) -> None:
        frame = self._connection.sending.frame(Opcode.PONG, ping.payload)
        with self._connection.channel.lock:
            if self._connection.closing:
                return
            if self._connection.channel.blocked:
                self._connection.channel.outbox.set_pong(frame)
            else:
                self._connection.channel.outbox.append_urgent(frame)

    def _note_pong(self, pong: Pong) -> bool:
        """Whether it answers a ping of ours."""
        answered = self._connection.keepalive.pong(pong.payload)
        if any(waiter.by_user for waiter in answered):
            with self._connection.channel.lock:
                self._connection.receiving.set_pong(pong)
        return bool(answered)
