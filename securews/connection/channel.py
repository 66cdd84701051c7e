"""Bytes between one SocketStream and one consumer: the floor under HTTP and WebSocket alike.

Theory of operation
-------------------
A channel belongs to the thread of its loop. Every method runs there, except `mark` and `abort`,
which any thread may call; the outbox is shared, under `lock`. No lock is held over a system
call: `flush` takes up to 68 KiB of frames under the lock, then encrypts and sends them without
it. Encrypting and sending are one step of one thread, so TLS records leave in the order in which
they were made. What runs for every message says `acquire` and `release`: compiled, a `with`
statement costs four times as much.

The phases follow the closing table of the design: OPEN -> FINISHING (what waits is sent) ->
DRAINING (close_notify and FIN are out; what comes is read and thrown away) -> CLOSED. A close()
with unread input would make the kernel reset the connection, and the reset can destroy what the
peer has not read yet (RFC 1122, 4.2.2.13): hence DRAINING, at most 2 s and 256 KiB.

The descriptor is closed at the end of the loop's turn, never in the middle of one: its number
could be given to a new connection while events of the old one are still in hand.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from securews.common.locks import Lock
from securews.connection.interfaces import Consumer
from securews.connection.outbox import Outbox
from securews.loop.loop import Loop, Owner
from securews.loop.poller import HANGUP, READABLE, WRITABLE
from securews.loop.timers import Timer
from securews.transport.socket_handler import MAX_SEND, SocketStream, Want

__all__ = ["Channel", "Phase"]

DRAIN_SECONDS = 2.0
DRAIN_BYTES = 256 << 10
IDLE_READS = 1000
IDLE_READS_SECONDS = 10.0
"""So many reads in a row that yield ciphertext but no plaintext, within these seconds: a flood."""


class Phase(enum.IntEnum):
    """Where a channel is in its life."""

    OPEN = 0
    FINISHING = 1
    DRAINING = 2
    CLOSED = 3


# Names of the module are found faster than members of an enum.
OPEN, FINISHING, DRAINING, CLOSED = Phase
WANT_WRITE = Want.WRITE


class Channel(Owner):
    """One SocketStream on one loop."""

    __slots__ = (
        "_abort_error",
        "_aborted",
        "_asked",
        "_blocked",
        "_blocked_at",
        "_drain_left",
        "_idle_reads",
        "_idle_since",
        "_marked",
        "_phase_timer",
        "_reading",
        "_released",
        "_was_blocked",
        "_watched",
        "_write_timer",
        "consumer",
        "lock",
        "loop",
        "outbox",
        "phase",
        "received_at",
        "room",
        "stream",
        "write_timeout",
    )

    def __init__(
        self,
        stream: SocketStream,
        loop: Loop,
        *,
        write_timeout: float | None,
        released: Callable[[Channel], None],
    ) -> None:
        """Take over a stream.

        Args:
            stream: owned by the loop's thread from now on.
            loop: the loop.
            write_timeout: seconds that the peer may take no byte at all.
            released: called once, on the loop's thread, when the descriptor is closed.
        """
        self.stream = stream
        self.fd = stream.fileno()
        self.loop = loop
        self.lock = Lock()
        self.outbox = Outbox()
        self.room: threading.Condition | None = None
        self.consumer: Consumer
        self.phase = OPEN
        self.write_timeout = write_timeout
        self.received_at = loop.now
        self._released = released
        self._reading = False
        self._watched: tuple[bool, bool] | None = None
        self._blocked = False
        self._was_blocked = False
        self._blocked_at = 0.0
        self._marked = False
        self._asked = False
        """Under the lock: the consumer is to look what others want of it."""
        self._aborted = False
        self._abort_error: Exception | None = None
        self._write_timer: Timer | None = None
        self._phase_timer: Timer | None = None
        self._drain_left = DRAIN_BYTES
        self._idle_reads = 0
        self._idle_since = 0.0

    # -- any thread ------------------------------------------------------------------------

    def mark(self) -> None:
        """Ask for a turn of the loop, the consumer's too. Any thread; not under `lock`."""
        with self.lock:
            mark = self.mark_locked()
        if mark:
            self.loop.schedule(self)

    def mark_locked(self) -> bool:
        """As `mark`, with `lock` held: True if the caller must then call `loop.schedule(self)`."""
        self._asked = True
        return self.mark_to_send_locked()

    def mark_to_send_locked(self) -> bool:
        """As `mark_locked`, for a turn that only sends what is in the outbox."""
        if self._marked:
            return False
        self._marked = True
        return True

    def abort(self, error: Exception | None = None) -> None:
        """Drop everything and close the descriptor. Any thread."""
        with self.lock:
            self._aborted = True
            self._abort_error = self._abort_error or error
        self.mark()

    # -- the loop's thread -----------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether bytes are wanted."""
        return self._reading

    @property
    def blocked(self) -> bool:
        """Whether the socket is full, so that nothing can be sent at present."""
        return self._blocked

    def set_reading(self, reading: bool) -> None:
        """Want bytes, or let them wait in the kernel (back-pressure)."""
        if reading and not self._reading:
            self.received_at = self.loop.now  # no deadline ran while we did not read
        self._reading = reading
        self._update_interest()
        if reading and self.stream.bytes_available:
            self.loop.call_soon(self._read_available)

    def set_write_timeout(self, seconds: float | None) -> None:
        """Change how long the peer may take no byte; also if it takes none at this moment."""
        self.write_timeout = seconds
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self._blocked:
            self._wait_until_writable()

    def hand_over(self) -> None:
        """Another thread is given the stream: wait for nothing until `set_reading`."""
        self._reading = False
        self._watched = None
        self.loop.unwatch(self)

    def turn(self) -> None:
        """Do what other threads asked for, then send."""
        self.lock.acquire()
        self._marked = False
        asked, self._asked = self._asked, False
        aborted = self._aborted
        self.lock.release()
        if self.phase is CLOSED:
            return
        if aborted:
            self._break(self._abort_error)
            return
        if asked and self.phase is OPEN:
            self.consumer.turn()
        self.flush()
        self.consumer.turned()

    def flush_scheduled(self) -> None:
        """As `turn`."""
        self.turn()

    def continue_later(self) -> None:
        """Have the consumer take one more step of its work, in a slice of a turn."""
        self.loop.continue_later(self)

    def continue_work(self) -> None:
        """Its slice has come."""
        if self.phase is OPEN:
            self.consumer.continue_work()

    def on_ready(self, mask: int) -> None:
        """The poller's news."""
        if self.phase is CLOSED:
            return
        if self._blocked and mask & (WRITABLE | HANGUP):
            self._blocked = False
            self._blocked_at = self.loop.now
        if self._reading:
            if mask & (READABLE | HANGUP):
                self._read_once()
                return
        elif mask & HANGUP and self.phase is OPEN:
            self.consumer.peer_finished()
        self.turn()

    def flush(self) -> None:
        """Send until the outbox is empty or the socket is full."""
        if self._blocked or self.phase is CLOSED:
            return
        try:
            if self._send_waiting():
                self._flushed()
            else:
                self._wait_until_writable()
        except OSError as error:
            self._break(error)

    def flush_early(self) -> None:
        """As `flush`, inside a callback of the user: what follows from it waits for `turn`."""
        if self._blocked or self.phase is not OPEN:
            return
        try:
            if not self._send_waiting():
                self._wait_until_writable()
        except OSError as error:
            self.abort(error)

    def finish(self) -> None:
        """Send what waits, say goodbye, and close without harming what the peer has not read."""
        if self.phase is OPEN:
            self.phase = FINISHING
            self._reading = False
            self.flush()

    # -- internal --------------------------------------------------------------------------

    def _send_waiting(self) -> bool:
        """Whether everything that waited was sent."""
        stream, outbox = self.stream, self.outbox
        blocked = bool(stream.bytes_pending) and stream.flush() is WANT_WRITE
        # Without the lock: whoever adds something now marks the channel, so a turn follows.
        while outbox.ready and not blocked:
            self.lock.acquire()
            try:
                piece = outbox.take(MAX_SEND)
                if self.room is not None:
                    self.room.notify_all()
            finally:
                self.lock.release()
            if piece is not None:
                blocked = stream.send(piece) is WANT_WRITE
        self._blocked = blocked
        return not blocked

    def _read_available(self) -> None:
        if self._reading and self.phase is not CLOSED:
            self._read_once()

    def _read_once(self) -> None:
        """Read, then the turn that follows: what callbacks send meanwhile needs no mark."""
        self._marked = True  # without the lock: at worst another thread marks in vain
        try:
            self._read()
        finally:
            self.turn()

    def _read(self) -> None:
        """One read: at most one system call."""
        try:
            data = self.stream.recv()
        except OSError as error:
            self._break(error)
            return
        if isinstance(data, bytes):
            self._idle_reads = 0
            self.received_at = self.loop.now
            if self.phase is DRAINING:
                self._drain_left -= len(data)
                if not data or self._drain_left <= 0:
                    self._close()
            elif data:
                self.consumer.data_received(data)
            else:
                self._reading = False  # an end stays readable: do not ask again
                self._update_interest()
                self.consumer.end_received()
        else:
            self._count_idle_read()
        if self._reading and self.stream.bytes_available:
            self.loop.call_soon(self._read_available)

    def _count_idle_read(self) -> None:
        """A read brought no plaintext: a record in pieces, or one of those that say nothing.

        TLS allows empty records and key updates without end, each of which costs us work.
        """
        if self._idle_reads == 0:
            self._idle_since = self.loop.now
        self._idle_reads += 1
        if self._idle_reads >= IDLE_READS:
            if self.loop.now - self._idle_since < IDLE_READS_SECONDS:
                self._break(OSError(f"{IDLE_READS} reads without a byte of plaintext"))
            self._idle_reads = 0

    def _flushed(self) -> None:
        """Nothing waits to be sent."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.phase is FINISHING:
            self._say_goodbye()
        elif self._was_blocked and self.phase is OPEN:
            self._was_blocked = False
            self._update_interest()
            self.consumer.drained()

    def _say_goodbye(self) -> None:
        try:
            if self.stream.shutdown() is Want.WRITE:
                self._blocked = True
                self._wait_until_writable()
                return
        except OSError as error:
            self._break(error)
            return
        self.phase = DRAINING
        self._phase_timer = self.loop.timers.call_at(self.loop.now + DRAIN_SECONDS, self._close)
        self.consumer.finished()
        self._reading = True
        self._update_interest()
        if self.stream.bytes_available:
            self.loop.call_soon(self._read_available)

    def _wait_until_writable(self) -> None:
        self._was_blocked = True
        self._update_interest()
        if self._write_timer is None and self.write_timeout is not None:
            self._blocked_at = self.loop.now
            self._write_timer = self.loop.timers.call_at(
                self._blocked_at + self.write_timeout, self._check_progress
            )

    def _check_progress(self) -> None:
        self._write_timer = None
        if not self._blocked or self.write_timeout is None:
            return
        due = self._blocked_at + self.write_timeout
        if due > self.loop.now:
            self._write_timer = self.loop.timers.call_at(due, self._check_progress)
        else:
            self._break(TimeoutError(f"the peer took no byte for {self.write_timeout:g} s"))

    def _update_interest(self) -> None:
        wanted = (self._reading, self._blocked)
        if wanted != self._watched and self.phase is not CLOSED:
            self._watched = wanted
            self.loop.watch(self, read=self._reading, write=self._blocked)

    def _break(self, error: Exception | None) -> None:
        """It is over; what was not sent is lost."""
        tell = self.phase in (OPEN, FINISHING)
        self._close()
        if tell:
            self.consumer.lost(error)

    def _close(self) -> None:
        if self.phase is CLOSED:
            return
        self.phase = CLOSED
        self._reading = False
        for timer in (self._write_timer, self._phase_timer):
            if timer is not None:
                timer.cancel()
        self._write_timer = self._phase_timer = None
        with self.lock:
            self.outbox.drop_unsent()
            if self.room is not None:
                self.room.notify_all()
        self.loop.close_later(self)

    def release(self) -> None:
        """Close the descriptor: the loop calls this at the end of a turn."""
        self.stream.close()
        self._released(self)
