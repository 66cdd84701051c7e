"""One WebSocket over one channel: where the protocol and the transport meet.

Theory of operation
-------------------
The loop's thread feeds the protocol and acts on its events; any thread may send, ping, close and
abort. Both meet under the channel's lock, which guards outbox, inbox and closing, and which is
never held over a system call, a wait or user code.

Whoever closes first wins: `close_code` is that of the first Close frame, ours or the peer's, and
1006 where the connection broke before both were exchanged (RFC 6455, section 7.1.5). What was
received before the end is delivered before the end.
"""

from __future__ import annotations

import logging
import time

from securews.common.errors import (
    ConnectionClosed,
    Initiator,
    ProtocolError,
    connection_closed,
)
from securews.common.options import ConnectionOptions, Limits
from securews.connection.budget import Budget
from securews.connection.channel import Channel
from securews.connection.dispatcher import Dispatcher
from securews.connection.interfaces import Observer
from securews.connection.keepalive import MAX_UNANSWERED, Keepalive
from securews.connection.peer_limits import PeerLimits
from securews.connection.receiving import Receiving
from securews.connection.sending import Sending
from securews.loop.loop import Loop
from securews.loop.timers import Timer
from securews.protocol.close_codes import cut_reason
from securews.protocol.deflate import Deflate
from securews.protocol.events import Close, Event
from securews.protocol.frames import Opcode
from securews.protocol.websocket import Role, WebSocketProtocol

__all__ = ["Connection"]

log = logging.getLogger("securews.server")


class Connection:
    """One end of a WebSocket connection, the consumer of its channel."""

    __slots__ = (
        "_budget",
        "_close_timer",
        "_dispatcher",
        "_ending",
        "_held",
        "_peer_gone",
        "channel",
        "close_code",
        "close_reason",
        "deflate",
        "ended",
        "initiator",
        "keepalive",
        "limits",
        "loop",
        "name",
        "observer",
        "options",
        "peer_limits",
        "protocol",
        "receiving",
        "role",
        "sending",
    )

    def __init__(
        self,
        channel: Channel,
        role: Role,
        options: ConnectionOptions,
        *,
        limits: Limits,
        budget: Budget,
        name: str,
        deflate: Deflate | None = None,
    ) -> None:
        """Prepare it in any thread; nothing moves before `start`.

        Args:
            channel: its bytes.
            role: which end we are.
            options: of this connection.
            limits: of the server.
            budget: of the server: what all its connections may hold together.
            name: what log lines call it.
            deflate: what was agreed on about compression; None where nothing was.
        """
        self.channel = channel
        self.loop: Loop = channel.loop
        self.role = role
        self.options = options
        self.limits = limits
        self.name = name
        self.deflate = deflate
        self.observer: Observer
        self.protocol = WebSocketProtocol(
            role,
            max_size=options.max_size,
            max_fragments=limits.max_fragments,
            max_control=limits.control_burst + MAX_UNANSWERED,
            deflate=deflate,
        )
        self.sending = Sending(self)
        self.receiving = Receiving(self)
        self.keepalive = Keepalive(self, options.ping_interval, options.ping_timeout)
        self.peer_limits = PeerLimits(self)
        self.ended = False
        """Under the lock: both sides are done, or the connection is lost."""
        self.close_code: int | None = None
        self.close_reason = ""
        self.initiator: Initiator = "network"
        self._ending: tuple[int, str, Initiator] | None = None
        self._dispatcher = Dispatcher(self)
        self._peer_gone = False
        """The peer has ended while we did not read: nothing holds up what it left."""
        self._close_timer: Timer | None = None
        self._budget = budget
        self._held = 0

    # -- any thread ------------------------------------------------------------------------

    def refuse_on_loop(self, what: str) -> None:
        """Raise RuntimeError on an I/O thread, where `what` could never return."""
        if self.loop.on_io_thread():
            raise RuntimeError(
                f"{what} would block the I/O thread that serves all connections; in an event "
                "handler, use on_message(), or a WebSocketHandler, which has a thread of its own"
            )

    @property
    def closing(self) -> bool:
        """Whether our Close frame was queued, or nothing can be sent any more."""
        return self.channel.outbox.closed

    def closed_error(self) -> ConnectionClosed:
        """The error that says how it ended, or how it is about to end."""
        code = 1006 if self.close_code is None else self.close_code
        return connection_closed(code, self.close_reason, self.initiator)

    def send_ping(self, payload: bytes) -> None:
        """Send a Ping frame."""
        self.sending.send_urgent(self.sending.frame(Opcode.PING, payload))

    def start_close(self, code: int | None, reason: str = "", *, discard: bool = False) -> bool:
        """Queue our Close frame. False if one is on its way already: the first code wins.

        Args:
            code: None for a frame without one.
            reason: cut to 123 bytes of UTF-8.
            discard: whether messages that have not begun to leave are given up.

        Raises:
            ValueError: a code that may not be sent (RFC 6455, section 7.4).
        """
        with self.channel.lock:
            if self.closing:
                return False
            frame = self.protocol.close(code, cut_reason(reason))
            if self.close_code is None:
                self.close_code = 1005 if code is None else code
                self.close_reason, self.initiator = reason, "us"
            if discard:
                self.channel.outbox.drop_unsent()
            self.channel.outbox.append_last(frame)
            if self.channel.room is not None:
                self.channel.room.notify_all()
            mark = self.channel.mark_locked()
        if mark:
            self.loop.schedule(self.channel)
        return True

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait for the peer's Close at most `close_timeout` (not on an I/O thread)."""
        self.start_close(code, reason)
        if not self.loop.on_io_thread():
            self.receiving.wait_closed(self.options.close_timeout, discard=False)

    def abort(self) -> None:
        """End it at once, without a Close frame."""
        with self.channel.lock:
            if not self.closing:
                self.channel.outbox.closed = True
                self.close_code, self.close_reason, self.initiator = 1006, "aborted", "us"
        self.channel.abort(ConnectionAbortedError("aborted by us"))

    # -- the loop's thread: the life of a connection ---------------------------------------

    def start(self, observer: Observer, leftover: bytes = b"") -> None:
        """The opening is over: begin to read. `leftover` came behind the opening."""
        self.observer = observer
        self._dispatcher.start(observer)
        # A quick handler may have filled the socket already, under the opening's timeout.
        self.channel.set_write_timeout(self.options.write_timeout)
        self.channel.consumer = self
        self.keepalive.start()
        if leftover:
            self.data_received(leftover)
        self._read_or_pause()

    def continue_work(self) -> None:
        """Nothing is left over."""

    def turn(self) -> None:
        """Another thread wants something: our Close is queued, or the inbox has room."""
        if self.closing:
            if self._close_timer is None and self.options.close_timeout is not None:
                due = self.loop.now + self.options.close_timeout
                self._close_timer = self.loop.timers.call_at(due, self._close_timed_out)
            with self.channel.lock:
                self.receiving.discard()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        events = self.protocol.receive(data, self.receiving.room)
        if self.protocol.in_message:
            self.peer_limits.message_unfinished(another=_has_message(events))
        else:
            self.peer_limits.message_finished()
        self._dispatcher.events.extend(events)
        self._dispatch(self.loop.now)

    def end_received(self) -> None:
        """The peer's side ended; a Close frame would have ended it before."""
        self._take_the_rest()
        if self._ending is None:
            self._ending = (1006, "the peer went away without a Close frame", "network")
            with self.channel.lock:
                self.channel.outbox.drop_unsent()
            self._closed()
            self.channel.finish()

    def peer_finished(self) -> None:
        """The peer is gone while reading was paused: read what it left, to the end.

        That is at most what the kernel holds for us.
        """
        self._peer_gone = True
        self.channel.set_reading(True)

    def turned(self) -> None:
        """Tell the server's budget what is held now."""
        if self.ended:
            return
        held = self.channel.outbox.size + self.receiving.inbox.size + self.protocol.unfinished
        if held != self._held:
            self._held = held
            self._budget.account(self, held)
            self.receiving.curbed = self._budget.short
        if self._dispatcher.events:  # the outbox was full; perhaps it is not any more
            self._go_on()

    def drained(self) -> None:
        """The outbox is empty again."""
        self.sending.drained()
        self._go_on()

    def finished(self) -> None:
        """Everything was sent, the transport's goodbye too."""
        self._closed()

    def lost(self, error: Exception | None) -> None:
        """The transport broke, or was given up."""
        if self._ending is None:
            self._take_the_rest()
        if self._ending is None:
            by_us = isinstance(error, ConnectionAbortedError)
            self._ending = (1006, str(error or ""), "us" if by_us else "network")
        self._closed()

    def fail(self, error: ProtocolError) -> None:
        """The peer broke a rule: say so, and end (RFC 6455, section 7.1.7)."""
        log.debug("%s: closed with %d: %s", self.name, error.close_code, error)
        self.start_close(error.close_code, str(error))
        self._dispatcher.events.clear()
        self._ending = (error.close_code, str(error), "us")
        self.channel.finish()

    def tell_queued(self) -> None:
        """Give the observer a notice of what is queued already, if it still is."""
        if self.receiving.inbox.messages:
            self.observer.messages_queued()

    def give_up(self, reason: str) -> None:
        """The peer is gone: end without waiting for it."""
        self.channel.abort(TimeoutError(reason))

    def close_received(self, close: Close) -> None:
        """Answer with the same code (RFC 6455, section 5.5.1), unless ours went first."""
        if self.close_code is None:
            self.close_code, self.close_reason = close.code, close.reason
            self.initiator = "peer"
        self.start_close(None if close.code == 1005 else close.code)
        self._ending = (self.close_code, self.close_reason, self.initiator)
        self.channel.finish()

    # -- the loop's thread: reading, and the end -------------------------------------------

    def _dispatch(self, began: float) -> None:
        """Act on what was received, and see whether more of it is wanted.

        Args:
            began: now, or a moment ago (monotonic).
        """
        messages, control = self._dispatcher.run()
        if self._ending is None and (control or self.peer_limits.counts_messages):
            try:
                self.peer_limits.count(control=control, messages=messages)
            except ProtocolError as error:
                self.fail(error)
        self._read_or_pause()
        self.observer.dispatched(began)

    def _go_on(self) -> None:
        """Continue what had to wait: parsing, dispatching, reading."""
        if self.protocol.paused and not self.receiving.paused and not self._dispatcher.events:
            self._dispatcher.events.extend(self.protocol.receive(b"", self.receiving.room))
        if self._dispatcher.events:
            self._dispatch(time.monotonic())
        else:
            self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self._ending is not None or self._dispatcher.last:
            return
        read = (self._peer_gone and not self.protocol.paused) or not (
            self.receiving.paused
            or self.protocol.paused
            or self._dispatcher.events
            or (self.receiving.curbed and self._budget.curbs(self))
        )
        if read is not self.channel.reading:
            self.channel.set_reading(read)
            if read:
                self.peer_limits.reading_resumed()
        if self.protocol.paused and not (self.receiving.paused or self._dispatcher.events):
            # Only the room of this pass was used up (a read can inflate to a thousand times its
            # size): nobody else will ask for more, and other connections have a turn between.
            self.channel.mark()

    def _take_the_rest(self) -> None:
        """Nothing more will come: deliver what is here, however full the queues are."""
        if self.closing:
            return
        with self.channel.lock:
            self.channel.outbox.closed = True
        self._dispatcher.last = True
        # What is compressed may become a thousand times as large: once more the queue's bound.
        room = None if self.deflate is None else self.options.max_queue_bytes
        self._dispatcher.events.extend(self.protocol.receive(b"", room))
        self._dispatch(time.monotonic())

    def _close_timed_out(self) -> None:
        self.give_up(f"no answer to our Close frame within {self.options.close_timeout:g} s")

    def _closed(self) -> None:
        """The end, once."""
        if self.ended:
            return
        assert self._ending is not None
        with self.channel.lock:
            self.close_code, self.close_reason, self.initiator = self._ending
            self.channel.outbox.closed = self.ended = True
            self.receiving.notify()
            if self.channel.room is not None:
                self.channel.room.notify_all()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self.peer_limits.stop()
        self.keepalive.stop()
        self._budget.account(self, 0)
        self.observer.connection_closed()


def _has_message(events: list[Event]) -> bool:
    return any(isinstance(event, (str, bytes)) for event in events)
