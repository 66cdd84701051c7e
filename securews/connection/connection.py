"""One WebSocket over one channel: where the protocol and the transport meet.

Theory of operation
-------------------
The loop's thread feeds the parser and acts on its events, in their order and one at a time
(`intake.py`); any thread may send, ping, close and abort. Both meet in the link, which has the
lock, the closing state and the two queues. This class wires the parts: it says what an event, a
deadline, the end of the transport or a verdict of the budget leads to, and reports what is held.

What was received before the end is delivered before the end. When it is over, the connection lets
go of everything: the parts refer to each other, and memory is not to wait for a garbage collector.
"""

from __future__ import annotations

import logging
import threading
from sys import getsizeof

from securews.common.errors import ProtocolError
from securews.common.options import ConnectionOptions, Limits
from securews.connection.budget import Budget, Verdict
from securews.connection.channel import Channel, NoProgressError, Phase
from securews.connection.intake import Intake
from securews.connection.interfaces import Observer
from securews.connection.link import Link
from securews.connection.pings import MAX_UNANSWERED, Pings, PingWaiter
from securews.connection.sender import Sender
from securews.connection.watchdog import Action, Facts, Watchdog
from securews.loop.timers import Timer
from securews.protocol.close_codes import cut_reason
from securews.protocol.deflate import Deflate
from securews.protocol.events import Close, Event, Pong
from securews.protocol.parser import Role, WebSocketParser
from securews.transport.socket_handler import MAX_SEND

__all__ = ["Connection"]

log = logging.getLogger("securews.server")

FULL = "the server is full; try again later"
_first_ping = threading.Lock()
"""Held while a connection's `Pings` are made: two threads may send the first ping at once."""

_first_ping = threading.Lock()
"""Two threads may ping first; a waiter of pings that nobody else knows would wait for ever."""


class Connection(Intake):
    """One end of a WebSocket connection, the consumer of its channel."""

    __slots__ = (
        "_budget",
        "_close_timer",
        "_finished",
        "_held",
        "_pings",
        "_watch_timer",
        "name",
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
        answer: bytes = b"",
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
            answer: to the opening request; it is sent first.
            deflate: what was agreed on about compression; None where nothing was.
        """
        link = Link(channel, channel.loop, options, answer)
        super().__init__(
            channel,
            link,
            Sender(link, channel, options, role=role, deflate=deflate, name=name),
            options,
            parser=WebSocketParser(
                role,
                max_size=options.max_size,
                max_fragments=limits.max_fragments,
                max_control=limits.control_burst + MAX_UNANSWERED,
                deflate=deflate,
            ),
            watchdog=Watchdog(options, limits, channel.loop.now),
        )
        self.name = name
        self._watch_timer: Timer | None = None
        self._close_timer: Timer | None = None
        self._pings: Pings | None = None
        self._finished = False
        self._budget = budget
        self._held = 0

    # -- any thread ------------------------------------------------------------------------

    def start_close(self, code: int | None, reason: str = "", *, discard: bool = False) -> bool:
        """Queue our Close frame. False if one is on its way already: the first code wins.

        Args:
            code: None for a frame without one.
            reason: cut to 123 bytes of UTF-8.
            discard: whether messages that have not begun to leave are given up.

        Raises:
            ValueError: a code that may not be sent (RFC 6455, section 7.4).
        """
        return self.sender.close(code, cut_reason(reason), discard=discard)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait for the peer's Close at most `close_timeout` (not on an I/O thread)."""
        self.start_close(code, reason)
        if not self.loop.on_io_thread():
            self.link.wait_closed(self.options.close_timeout, discard=False)

    def ping(self, payload: bytes) -> PingWaiter:
        """Send a Ping; raises as `Communicator.ping`."""
        return self._some_pings().ping(payload, self.loop.clock())

    @property
    def latency(self) -> float | None:
        """Seconds that the newest answered ping took; None before the first."""
        return None if self._pings is None else self._pings.latency

    def _some_pings(self) -> Pings:
        if self._pings is None:
            with _first_ping:
                if self._pings is None:
                    self._pings = Pings(self.link, self.sender)
        return self._pings

    def handler_done(self) -> None:
        """The handler has returned: what it has not read nobody will read."""
        self.link.drop_unread(tell=False)
        self.loop.call_soon(self._report_held)

    # -- the loop's thread: the life of a connection ---------------------------------------

    def start(self, observer: Observer, leftover: bytes = b"") -> None:
        """The opening is over: say so, and begin to read. `leftover` came behind the opening."""
        self.observer = observer
        self._event_driven = observer.event_driven
        self._message_received = observer.message_received
        self.channel.consumer = self
        # A quick handler may have filled the socket already, under the opening's timeout.
        self.channel.set_write_timeout(self.options.write_timeout)
        observer.connection_opened()
        self._watch_later()
        if leftover:
            self.data_received(leftover)
        else:
            self._read_or_pause()
        # What was asked for meanwhile, in callbacks too, has scheduled no turn of its own.
        self.channel.flush_scheduled()

    def never_start(self, observer: Observer, reason: str) -> None:
        """The opening has ended in another way, when the handler had been told already."""
        self.observer = observer
        self._event_driven = observer.event_driven
        self._end(reason)

    def end_received(self) -> None:
        """End it: a Close frame would have come before the peer's end."""
        self._no_more_bytes("the peer went away without a Close frame")

    def peer_finished(self) -> None:
        """Read what the peer left, to the end: at most what the kernel holds for us."""
        self._gone = True
        self._read_or_pause()

    def scheduled(self) -> None:
        """See what other threads want: to send, to close, or more messages."""
        asked = self.link.begin_turn()
        if self.link.aborted and self.channel.phase is not Phase.CLOSED:
            self.channel.abort(self.link.abort_error)
            return
        if asked:
            if not self.link.closing.may_send:
                self._await_close()
            self._read_or_pause()

    def flushed(self) -> None:
        """Report what is held now, and go on if the send queue has room again."""
        if self._finished:
            return
        self.link.blocked = self.channel._blocked
        self._report_held()
        if self._events and self._event_driven and self.link.sending.size < self.sender._bound:
            self.channel.continue_later()

    def finished(self) -> None:
        """Everything was sent, the transport's end too."""
        self._end("")

    def lost(self, error: Exception | None) -> None:
        """The transport broke, or was given up."""
        self._no_more_bytes(str(error or ""), out_of_time=isinstance(error, NoProgressError))

    def fail(self, error: ProtocolError, *, discard: bool = False) -> None:
        """Say that the peer broke a rule, and end (RFC 6455, section 7.1.7)."""
        log.debug("%s: closed with %d: %s", self.name, error.close_code, error)
        self._events = []
        reason = cut_reason(str(error))
        self.link.peer_failed(error.close_code, reason)
        self._last_words(error.close_code, reason, discard=discard)

    def tell_queued(self) -> None:
        """Give the observer a notice of what is queued already, if it still is."""
        if self.observer is not None and self.link.receiving.messages:
            self.observer.messages_queued()

    # -- the loop's thread: what comes -----------------------------------------------------

    def _pong_received(self, pong: Pong) -> bool:
        """Whether it answers a ping: what was asked for is no flood."""
        return self._pings is not None and self._pings.pong(pong, self.loop.clock())

    def _count(self, control: int, messages: int) -> None:
        try:
            self._watchdog.count(self.loop.now, control=control, messages=messages)
        except ProtocolError as error:
            self.fail(error)

    # -- the loop's thread: time and memory ------------------------------------------------

    def _watch_later(self) -> None:
        """Look again when the watchdog wants to."""
        due = self._watchdog.due
        timer = self._watch_timer
        if timer is not None:
            if due is not None and timer.when <= due:
                return  # it looks early, and arms again
            timer.cancel()
        self._watch_timer = None if due is None else self.loop.timers.call_at(due, self._watch)

    def _watch(self) -> None:
        self._watch_timer = None
        if self._over or self._end_reason is not None:
            return
        while (action := self._watchdog.check(self.loop.now, self._facts())) is not None:
            if action is Action.FAIL:
                words = f"a message was not complete after {self.options.message_timeout:g} s"
                self.fail(ProtocolError(words, close_code=1008))
                return
            if action is Action.WARN:
                self._warn_of_full_queue()
            elif not self.link.closing.may_send:
                continue  # only the peer's Close is awaited, under a deadline of its own
            elif action is Action.PING:
                self._some_pings().ask_for_life(self.loop.now)
            else:
                self.channel.abort(TimeoutError(f"no pong in {self.options.ping_timeout:g} s"))
                return
        self._watch_later()

    def _facts(self) -> Facts:
        return Facts(
            self.channel.received_at,
            self.channel.reading,
            self.link.receiving.full,
            self.parser.message_received,
        )

    def _warn_of_full_queue(self) -> None:
        log.warning(
            "%s: its handler has left %d messages unread for %g s, so nothing more is read; "
            "receive faster, or use max_queue=0 if messages do not matter",
            self.name,
            len(self.link.receiving.messages),
            self.options.ping_interval,
        )

    def _report_held(self) -> None:
        """Tell the budget what is held, if that has changed."""
        held = self._memory_held()
        if held != self._held:
            self._account(held)

    def _memory_held(self) -> int:
        link = self.link
        held = link.sending.memory() + link.receiving.size + self.parser.unfinished
        if self.channel._blocked and not self._finished:
            # Behind our end it is the channel's, for `close_timeout`, and nobody would report that
            # it has gone.
            held += self.channel.stream.bytes_pending
        if self._events:
            held += _memory_of(self._events)
        return held

    def _account(self, held: int) -> None:
        """Tell the budget what is held, and do what it wants done."""
        link, self._held = self.link, held
        movable = 0 if self._finished else link.sending.ready + link.receiving.size
        for holder, verdict in self._budget.account(self, held, movable, self._finished):
            holder.obey(verdict)

    def obey(self, verdict: Verdict) -> None:
        """Do what the budget wants done. Loop thread."""
        if verdict is Verdict.PAUSE or verdict is Verdict.RESUME:
            self._paused = self.link.report_takes = verdict is Verdict.PAUSE
            self.link.schedule()
            return
        before = self._held
        self._report_held()
        if self._held < before:
            return  # it has given some up meanwhile, and the budget has judged again
        log.warning("%s: %s, for max_buffered is reached: %s", self.name, *self._sentence(verdict))
        self.link.drop_unread(tell=True)
        if verdict is Verdict.CLOSE:
            if not self._over:
                self.fail(ProtocolError(FULL, close_code=1013), discard=True)
            if self.link.sending.memory() > MAX_SEND:
                # The rest of a frame, or what waited before our Close: too much to wait for.
                self.channel.abort(TimeoutError(FULL))
        self._report_held()

    def _sentence(self, verdict: Verdict) -> tuple[str, str]:
        if verdict is Verdict.DROP:
            return "its unread messages were dropped", "its peer is gone, and its handler is busy"
        link = self.link
        return "dropped while it closes" if self._over else "closed with 1013", (
            f"it holds most, {self._held} bytes ({link.sending.size} to be sent, "
            f"{link.receiving.size} unread, {self.parser.unfinished} of an unfinished message)"
        )

    # -- the loop's thread: the end --------------------------------------------------------

    def _await_close(self) -> None:
        """Our Close is queued: nothing but the peer's is awaited, and not for ever."""
        if self._close_timer is None and self.options.close_timeout is not None:
            seconds = self.options.close_timeout
            self._close_timer = self.loop.call_later(seconds, self._close_timed_out)
        self.link.discard_messages()

    def _close_timed_out(self) -> None:
        seconds = self.options.close_timeout
        self.channel.abort(TimeoutError(f"no answer to our Close frame within {seconds:g} s"))

    def _close_received(self, close: Close) -> None:
        """Answer with the same code (RFC 6455, section 5.5.1), unless ours went first."""
        self.link.peer_closed(close.code, close.reason)
        self._last_words(None if close.code == 1005 else close.code, "")

    def _last_words(self, code: int | None, reason: str, *, discard: bool = False) -> None:
        """Send our Close if it was not sent, and then end the transport."""
        self.sender.close(code, reason, discard=discard)
        self._over = True
        self.parser.forget()
        if self._end_reason is not None or self.channel.phase is not Phase.OPEN:
            self._end("")
        else:
            self.channel.finish(self.options.close_timeout)

    def _no_more_bytes(self, reason: str, *, out_of_time: bool = False) -> None:
        """The transport has ended: deliver what is here, and then the end."""
        self.link.transport_ended(reason, out_of_time=out_of_time)
        if self._over or self.link.closing.state.is_closed:
            self._end(reason)
        elif self._end_reason is None:
            self._end_reason = reason
            self._gone = True
            self._read_or_pause()

    def _end(self, reason: str) -> None:
        """It is over, once: tell everybody, and let go of everything."""
        if self._finished:
            return
        self._over = self._finished = True
        self.link.transport_ended(reason)
        self.link.transport_ended(reason)
        self.link.finish()
        for timer in (self._close_timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        if self._pings is not None:
            self._pings.end()
        self.parser.forget()
        self._events = []
        observer, self.observer, self._message_received = self.observer, None, None
        if self._event_driven:
            self.link.drop_unread(tell=False)
        self._account(self._memory_held())  # also where only this has changed: its peer is gone
        if observer is not None:
            observer.connection_closed()
        if self.channel.consumer is self:
            self.channel.forget_consumer()
            self.channel.finish(self.options.close_timeout)


def _memory_of(events: list[Event]) -> int:
    return sum(getsizeof(event) for event in events)
