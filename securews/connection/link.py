"""The lock of one connection, its one closing state, and the two queues that the lock guards.

Theory of operation
-------------------
The loop's thread and all other threads meet here and nowhere else. Each method takes the lock, asks
the closing state whether it may, has a queue do the work, and gives the lock back; it is never held
over a system call, a wait or user code. The queues know no lock, and whoever calls the link knows
none either. What runs for every message says `acquire` and `release`: compiled, a `with` statement
costs four times as much.

The closing state (`Closing`) is driven by the tables of `protocol/closing.py`: whether something
may still be sent or received is asked there.

Something new is made known to the loop by scheduling the channel, at most once until its next
turn. A thread that receives is woken through the loop's relay, once for all messages of a read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from securews.common.deadlines import Deadline
from securews.common.errors import (
    ConnectionClosed,
    ConnectionClosedError,
    connection_closed,
)
from securews.common.locks import Lock
from securews.common.options import ConnectionOptions
from securews.connection.interfaces import Message
from securews.connection.receive_queue import ReceiveQueue
from securews.connection.send_queue import SendQueue
from securews.loop.loop import Loop, Owner
from securews.loop.relay import RelayedCondition
from securews.protocol.closing import Closing
from securews.protocol.events import Pong

__all__ = ["HARD_BOUND", "Link"]

_T = TypeVar("_T")

HARD_BOUND = 4
"""Times `outbox_bytes`: so much is kept where nothing may wait."""

_DROPPED = "its unread messages were dropped, for max_buffered is reached"


class Link:
    """What the threads of one connection share. Any thread, except where said.

    Args:
        owner: is scheduled on the loop.
        loop: the owner's.
        options: of the connection.
        answer: the answer to the opening request, which leaves first.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_changed",
        "_dropped",
        "_lock",
        "_loop",
        "_out_of_time",
        "_owner",
        "_patience",
        "_room",
        "_scheduled",
        "abort_error",
        "aborted",
        "blocked",
        "closing",
        "ended",
        "receiving",
        "report_takes",
        "sending",
    )

    def __init__(
        self, owner: Owner, loop: Loop, options: ConnectionOptions, answer: bytes = b""
    ) -> None:
        self._lock = Lock()
        self._owner = owner
        self._loop = loop
        self._patience = options.write_timeout
        self.sending = SendQueue(options.outbox_bytes, answer)
        self.receiving = ReceiveQueue(options.max_queue, options.max_queue_bytes)
        self.closing = Closing()
        self.aborted = False
        """Somebody wants the connection dropped; the loop does it at its next turn."""
        self.abort_error: OSError | None = None
        self.ended = False
        """Both sides are done, or the connection is lost, and everybody was told."""
        self.blocked = False
        """Written by the loop: the socket was offered what waits, and is full."""
        self.report_takes = False
        """Written by the loop: it wants to know of every message that is taken."""
        self._dropped = False
        self._out_of_time = False
        self._scheduled = False
        self._asked = False
        """The loop is to look what others want of the connection, not only to send."""
        self._room: threading.Condition | None = None
        self._changed: threading.Condition | None = None
        self._arrived: RelayedCondition | None = None

    def refuse_on_loop(self, what: str) -> None:
        """Raise RuntimeError on an I/O thread, where `what` could never return."""
        if self._loop.on_io_thread():
            raise RuntimeError(
                f"{what} would block the I/O thread that serves all connections; in an event "
                "handler, use on_message(), or a WebSocketHandler, which has a thread of its own"
            )

    # -- closing ---------------------------------------------------------------------------

    def closed_error(self) -> ConnectionClosed:
        """The error that says how it ended, or how it is about to end."""
        if self._dropped:
            return ConnectionClosedError(1013, _DROPPED, "us")
        closing = self.closing
        return connection_closed(closing.code or 1006, closing.reason, closing.initiator)

    def close(
        self, frame: bytes, code: int | None, reason: str = "", *, discard: bool = False
    ) -> bool:
        """Queue our Close frame. False if it is on its way already, or nothing can be sent.

        Args:
            frame: the Close frame.
            code: that is in it; None for none.
            reason: that is in it.
            discard: whether messages that have not begun to leave are given up.
        """
        with self._lock:
            if not self.closing.state.may_send_close:
                return False
            self.closing.close_sent(1005 if code is None else code, reason)
            if discard:
                self.sending.drop_unsent()
            self.sending.append_last(frame)
            self._wake_senders()
            schedule = self._ask()
        if schedule:
            self._loop.schedule(self._owner)
        return True

    def abort(self, error: OSError | None = None) -> None:
        """Have the connection dropped at the loop's next turn, without a Close frame.

        Args:
            error: what broke it; None: we want it.
        """
        with self._lock:
            if not self.aborted:
                self.aborted, self.abort_error = True, error
            if error is None:
                self.closing.transport_ended("aborted", "us")
                if self.closing.state.may_receive:  # nor is what came before looked at
                    self.closing.transport_ended("aborted", "us")
                self._wake_senders()
            schedule = self._ask()
        if schedule:
            self._loop.schedule(self._owner)

    def peer_closed(self, code: int, reason: str) -> None:
        """Loop thread: the peer's Close came."""
        with self._lock:
            self.closing.close_received(code, reason)

    def peer_failed(self, code: int, reason: str) -> None:
        """Loop thread: the peer broke a rule (RFC 6455, section 7.1.7)."""
        with self._lock:
            self.closing.fault_received(code, reason)

    def transport_ended(self, reason: str, *, out_of_time: bool = False) -> None:
        """Loop thread: no byte goes in or out any more; again once all that came was delivered.

        Args:
            reason: says how the connection ended, unless both sides had closed it.
            out_of_time: the peer took nothing for `write_timeout`: whoever waits to send is told.
        """
        with self._lock:
            self._out_of_time = self._out_of_time or out_of_time
            self.closing.transport_ended(reason, "network")
            self._wake_senders()

    def finish(self) -> None:
        """Loop thread: it is over. What is queued can still be taken."""
        with self._lock:
            self.ended = True
            self.sending.clear()
            self._wake_senders()
            self._wake_receivers()

    # -- turns of the loop -----------------------------------------------------------------

    def schedule(self) -> None:
        """Have the loop look what is wanted of the connection."""
        with self._lock:
            schedule = self._ask()
        if schedule:
            self._loop.schedule(self._owner)

    def hold_schedule(self) -> None:
        """Loop thread: a turn follows anyway, so nobody needs to ask for one."""
        self._scheduled = True  # without the lock: at worst another thread schedules in vain

    def begin_turn(self) -> bool:
        """Loop thread: whether others want more of this turn than sending."""
        self._lock.acquire()
        self._scheduled = False
        asked, self._asked = self._asked, False
        self._lock.release()
        return asked

    def _ask(self) -> bool:
        """With the lock held: True if the caller must then schedule the owner."""
        self._asked = True
        return self._ask_to_send()

    def _ask_to_send(self) -> bool:
        if self._scheduled:
            return False
        self._scheduled = True
        return True

    # -- sending ---------------------------------------------------------------------------

    def next_piece(self, limit: int) -> bytes | memoryview | None:
        """Loop thread: give up the next bytes to send; None where none are ready."""
        # Without the lock: whoever adds something now schedules, so another turn follows.
        if not self.sending.ready:
            return None
        self._lock.acquire()
        try:
            piece = self.sending.take(limit)
            if self._room is not None:
                self._room.notify_all()
        finally:
            self._lock.release()
        return piece

    def send(self, frame: bytes, timeout: float | None) -> None:
        """Queue an encoded message; waits for room, so not on an I/O thread.

        Raises:
            TimeoutError: no room within `timeout` seconds, or the peer took nothing within
                `write_timeout`; nothing was sent.
            ConnectionClosed: the connection is closing or closed.
        """
        self._lock.acquire()
        try:
            self._check_open()
            if self.sending.size >= self.sending.bound:
                self._wait_while(self._is_full, timeout)
            self.sending.append(frame)
            schedule = self._ask_to_send()
        finally:
            self._lock.release()
        if schedule:
            self._loop.schedule(self._owner)

    def offer(self, frame: bytes, bound: int) -> bool:
        """Queue an encoded message if fewer than `bound` bytes wait; whether it was.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        self._lock.acquire()
        try:
            self._check_open()
            taken = self.sending.size < bound
            if taken:
                self.sending.append(frame)
            schedule = self._ask_to_send()
        finally:
            self._lock.release()
        if schedule:
            self._loop.schedule(self._owner)
        return taken

    def send_control(self, frame: bytes) -> None:
        """Queue a Ping before the data that waits; raises as `offer`."""
        with self._lock:
            self._check_open()
            self.sending.append_urgent(frame)
            schedule = self._ask_to_send()
        if schedule:
            self._loop.schedule(self._owner)

    def answer_ping(self, frame: bytes) -> None:
        """Loop thread: queue a Pong; where the socket is full, in place of the last one."""
        with self._lock:
            if not self.closing.may_send:
                return
            if self.blocked:
                self.sending.set_pong(frame)
            else:
                self.sending.append_urgent(frame)
            schedule = self._ask_to_send()
        if schedule:
            self._loop.schedule(self._owner)

    def wait_for_room(self, timeout: float | None) -> None:
        """Wait until a message may be taken; raises as `send`."""
        with self._lock:
            self._check_open()
            self._wait_while(self._is_full, timeout)

    def begin_stream(self, *, wait: bool) -> bool:
        """Let other messages queue behind the one that begins; False if another one is open.

        Raises:
            TimeoutError: another stream stayed open for `write_timeout`.
            ConnectionClosed: the connection is closing or closed.
        """
        with self._lock:
            self._check_open()
            if wait:
                self._wait_while(self._is_streaming, None)
            elif self._is_streaming():
                return False
            self.sending.streaming = True
            return True

    def wait_for_streams(self) -> None:
        """Wait until no message stream is open; raises as `begin_stream`."""
        with self._lock:
            self._check_open()
            self._wait_while(self._is_streaming, None)

    def send_fragment(self, frame: bytes, *, last: bool, bound: int | None) -> bool:
        """Queue the next frame of the message stream that is open; whether there was room.

        Args:
            frame: the frame.
            last: whether it ends the message.
            bound: bytes that may wait before it; None waits until there is room.

        Raises:
            TimeoutError: the peer took nothing within `write_timeout`.
            ConnectionClosed: the connection is closing or closed.
        """
        with self._lock:
            self._check_open()
            if bound is None:
                self._wait_while(self._is_full_before_stream, None)
            elif self.sending.ready >= bound:
                return False
            self.sending.append_fragment(frame)
            if last:
                self.sending.end_stream()
                self._wake_senders()
            schedule = self._ask_to_send()
        if schedule:
            self._loop.schedule(self._owner)
        return True

    def _check_open(self) -> None:
        if not self.closing.may_send:
            raise self.closed_error()

    def _is_full(self) -> bool:
        return self.sending.full

    def _is_full_before_stream(self) -> bool:
        return self.sending.full_before_stream

    def _is_streaming(self) -> bool:
        return self.sending.streaming

    def _wait_while(self, unready: Callable[[], bool], timeout: float | None) -> None:
        """With the lock held, which is given up meanwhile."""
        if not unready():
            return
        if self._loop.on_io_thread():
            raise RuntimeError("this would wait, and an I/O thread must not; use another thread")
        if self._room is None:
            self._room = threading.Condition(self._lock)
        deadline = Deadline(timeout)
        patience, taken = Deadline(self._patience), self.sending.taken
        while unready():
            limits = [left for d in (deadline, patience) if (left := d.remaining()) is not None]
            self._room.wait(min(limits, default=None))
            if self._out_of_time:
                raise TimeoutError(f"no progress for {self._patience:g} s; nothing was sent")
            self._check_open()
            # While the socket is full the channel judges the peer, by what the kernel passes on.
            if self.sending.taken != taken or self.blocked:
                patience, taken = Deadline(self._patience), self.sending.taken
            if deadline.passed and unready():
                raise TimeoutError(f"no room to send within {timeout:g} s; nothing was sent")
            if patience.passed and unready():
                raise TimeoutError(f"no progress for {self._patience:g} s; nothing was sent")

    def _wake_senders(self) -> None:
        if self._room is not None:
            self._room.notify_all()

    # -- receiving -------------------------------------------------------------------------

    def deliver(self, messages: list[Message]) -> bool:
        """Loop thread: queue the messages of one read; False if nobody wants any."""
        self._lock.acquire()
        wanted = not self.receiving.discards
        if wanted:
            self.receiving.extend(messages)
            self._wake_receivers()
        self._lock.release()
        return wanted

    def deliver_pong(self, pong: Pong) -> None:
        """Loop thread: keep the newest Pong that the user asked for."""
        with self._lock:
            self.receiving.pong = pong
            self._wake_receivers()

    def discard_messages(self) -> None:
        """Throw away what comes from now on."""
        with self._lock:
            self.receiving.discard()

    def drop_unread(self, *, tell: bool) -> None:
        """Forget what is queued and what comes.

        Args:
            tell: whoever receives is told by a ConnectionClosedError; loop thread only.
        """
        with self._lock:
            self.receiving.clear()
            self.receiving.discard()
            if tell:
                self._dropped = True
                self._wake_receivers()

    def take(
        self, what: str, find: Callable[[ReceiveQueue], _T | None], timeout: float | None
    ) -> _T:
        """Wait until `find` gives something.

        Raises:
            TimeoutError: nothing within `timeout` seconds.
            ConnectionClosed: the connection ended, and everything received was taken.
            RuntimeError: on an I/O thread, or while another thread waits here.
        """
        self.refuse_on_loop(what)
        self._lock.acquire()
        try:
            if self._arrived is not None and self._arrived.waiter is not None:
                raise RuntimeError(
                    f"{what}: another thread is receiving on this connection already; let one "
                    "thread receive and hand the messages on, for example by a queue.Queue"
                )
            found = find(self.receiving)
            if found is None:
                found = self._wait_for(what, find, timeout)
            schedule = self._make_room()
        finally:
            self._lock.release()
        if schedule:
            self._loop.schedule(self._owner)
        return found

    def look(self, find: Callable[[ReceiveQueue], _T]) -> _T:
        """Do something with what is queued, without waiting."""
        with self._lock:
            found = find(self.receiving)
            schedule = self._make_room()
        if schedule:
            self._loop.schedule(self._owner)
        return found

    def wait_closed(self, timeout: float | None, *, discard: bool) -> bool:
        """Wait until the connection has ended; whether it has. `discard` drops what comes."""
        deadline = Deadline(timeout)
        with self._lock:
            schedule = False
            if discard:
                self.receiving.clear()
                self.receiving.discard()
                schedule = self._ask()
        if schedule:
            self._loop.schedule(self._owner)
        with self._lock:
            if self._changed is None:
                self._changed = threading.Condition(self._lock)
            while not self.ended:
                if deadline.passed:
                    return False
                self._changed.wait(deadline.remaining())
        return True

    def _wake_receivers(self) -> None:
        """Loop thread, with the lock held: something came, or the end."""
        if self._arrived is not None:
            self._arrived.notify()
        if self._changed is not None:
            self._changed.notify_all()

    def _wait_for(
        self, what: str, find: Callable[[ReceiveQueue], _T | None], timeout: float | None
    ) -> _T:
        deadline = Deadline(timeout)
        if self._arrived is None:
            self._arrived = RelayedCondition(self._lock, self._loop.relay)
        self._arrived.waiter = threading.get_ident()
        try:
            while (found := find(self.receiving)) is None:
                if self.ended or self._dropped:
                    raise self.closed_error()
                if deadline.passed:
                    raise TimeoutError(f"{what}: nothing came within {timeout:g} s")
                self._arrived.wait(deadline.remaining())
        finally:
            self._arrived.waiter = None
        return found

    def _make_room(self) -> bool:
        """With the lock held: whether the owner must be scheduled, for something was taken."""
        if self.receiving.make_room() or self.report_takes:
            return self._ask()
        return False
