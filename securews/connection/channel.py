"""Bytes between one SocketStream and one consumer: the floor under HTTP and WebSocket alike.

Theory of operation
-------------------
A channel belongs to the thread of its loop, and every method runs there. It has no lock and no
queue: what is to be sent it takes from its consumer, piece by piece. Encrypting and sending are one
step of one thread, so TLS records leave in the order in which they were made.

The phases follow the closing table of the design: OPEN -> FINISHING (what waits is sent) ->
DRAINING (close_notify and FIN are out; what comes is read and thrown away) -> CLOSED. A close()
with unread input would make the kernel reset the connection, and the reset can destroy what the
peer has not read yet (RFC 1122, 4.2.2.13): hence DRAINING, at most 2 s and 256 KiB.

A peer is judged by what the kernel has passed on to it, not by when the socket has room again:
the kernel says so only when a third of its buffer is free, and a steady reader at 5 kB/s takes
minutes for that (`progress.py`).

A consumer that ends lets go of itself here, so whoever calls it holds it in a name of its own: what
is compiled borrows what an attribute refers to, and the consumer would be freed inside its method.

The descriptor is closed at the end of the loop's turn, never in the middle of one: its number
could be given to a new connection while events of the old one are still in hand.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from securews.common.errors import without_frames
from securews.connection.interfaces import Consumer
from securews.connection.progress import bytes_in_kernel
from securews.loop.loop import Loop, Owner
from securews.loop.poller import HANGUP, READABLE, WRITABLE
from securews.loop.timers import Timer
from securews.transport.socket_handler import MAX_SEND, SocketStream, Want

__all__ = ["MIN_PROGRESS", "Channel", "NoProgressError", "Phase"]

DRAIN_SECONDS = 2.0
DRAIN_BYTES = 256 << 10
IDLE_READS = 1000
IDLE_READS_SECONDS = 10.0
"""So many reads in a row that yield ciphertext but no plaintext, within these seconds: a flood."""
MIN_PROGRESS = 1024
"""Bytes that a peer whose socket is full has to take in each `write_timeout`."""
LOOKS = 20
"""So often in each `write_timeout` the kernel is asked what the peer has taken."""


class NoProgressError(TimeoutError):
    """The peer has not taken what the socket holds for it: no other wait that was too long."""


class Phase(enum.IntEnum):
    """Where a channel is in its life."""

    OPEN = 0
    FINISHING = 1
    DRAINING = 2
    CLOSED = 3


# Names of the module are found faster than members of an enum.
OPEN, FINISHING, DRAINING, CLOSED = Phase
WANT_WRITE = Want.WRITE


class _Nobody(Consumer):
    """The consumer of a channel that is over."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Throw it away."""

    def end_received(self) -> None:
        """Throw it away."""

    def lost(self, error: Exception | None) -> None:
        """Nobody minds."""


NOBODY = _Nobody()


class Channel(Owner):
    """One SocketStream on one loop. Loop thread only."""

    __slots__ = (
        "_blocked",
        "_continuing",
        "_drain_left",
        "_idle_reads",
        "_idle_since",
        "_in_kernel",
        "_phase_timer",
        "_progress_at",
        "_reading",
        "_released",
        "_was_blocked",
        "_watched",
        "_write_timer",
        "blocked_at",
        "consumer",
        "loop",
        "phase",
        "received_at",
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
            write_timeout: seconds in which a peer has to take `MIN_PROGRESS` bytes.
            released: called once when the descriptor is closed.
        """
        self.stream = stream
        self.fd = stream.fileno()
        self.loop = loop
        self.consumer: Consumer = NOBODY
        self.phase = OPEN
        self.write_timeout = write_timeout
        self.received_at = loop.now
        """When the peer last said something, or we began to listen again."""
        self.blocked_at = 0.0
        """When the socket was found full, while it is."""
        self._progress_at = 0.0
        """When its peer was last seen to take something, or the socket was found full."""
        self._released: Callable[[Channel], None] | None = released
        self._reading = False
        self._watched: tuple[bool, bool] | None = None
        self._blocked = False
        self._was_blocked = False
        self._continuing = False
        self._in_kernel = 0
        self._write_timer: Timer | None = None
        self._phase_timer: Timer | None = None
        self._drain_left = DRAIN_BYTES
        self._idle_reads = 0
        self._idle_since = 0.0

    # -- what the consumer asks for --------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether bytes are wanted."""
        return self._reading

    @property
    def blocked(self) -> bool:
        """Whether the socket is full, so that nothing can be sent at present. Any thread."""
        return self._blocked

    def set_reading(self, reading: bool) -> None:
        """Want bytes, or let them wait in the kernel (back-pressure)."""
        if reading and not self._reading:
            self.received_at = self.loop.now  # no deadline ran while we did not read
        self._reading = reading
        self._update_interest()
        if reading and self.stream.bytes_available:
            self.continue_later()

    def set_write_timeout(self, seconds: float | None) -> None:
        """Change the time in which the peer has to take something; also while it takes nothing."""
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

    def continue_later(self) -> None:
        """Have the consumer's `continue_work` called, or the stream read that has bytes left."""
        if not self._continuing:
            self._continuing = True
            self.loop.continue_later(self)

    def flush(self) -> None:
        """Send until nothing waits or the socket is full."""
        if self._blocked or self.phase is CLOSED:
            return
        try:
            if self._send_waiting():
                self._all_sent()
            else:
                self._wait_until_writable()
        except OSError as error:
            self._break(error)

    def flush_in_callback(self) -> OSError | None:
        """As `flush`, inside a callback of the user: what follows from it waits for the turn.

        It tries a full socket, too: the peer may have taken something since.

        Returns:
            What broke the connection; the caller has it aborted.
        """
        if self.phase is not OPEN:
            return None
        try:
            if self._blocked and self._is_still_full():
                return None
            if not self._send_waiting():
                self._wait_until_writable()
        except OSError as error:
            return error
        return None

    def finish(self, within: float | None) -> None:
        """Send what waits, end TLS and TCP, and close without harming what is under way.

        Args:
            within: seconds after which it is given up.
        """
        if self.phase is not OPEN:
            return
        self.phase = FINISHING
        self._reading = False
        if within is not None:
            self._phase_timer = self.loop.call_later(within, self._give_up)
        self.flush()
        self._update_interest()

    def abort(self, error: Exception | None = None) -> None:
        """Drop everything and close the descriptor; not inside a callback of the user."""
        if self.phase is not CLOSED:
            self._break(error)

    def forget_consumer(self) -> None:
        """Let go of the consumer, which is over: the two refer to each other."""
        self.consumer = NOBODY

    # -- what the loop tells ---------------------------------------------------------------

    def flush_scheduled(self) -> None:
        """Do what other threads asked for, then send."""
        consumer = self.consumer
        consumer.scheduled()
        self.flush()
        consumer.flushed()

    def continue_work(self) -> None:
        """Go on with what is received already."""
        self._continuing = False
        if self._reading and self.stream.bytes_available:
            self._read()
        else:
            consumer = self.consumer
            consumer.continue_work()
        self.flush_scheduled()

    def on_ready(self, mask: int) -> None:
        """Read, or send."""
        if self.phase is CLOSED:
            return
        if self._blocked and mask & (WRITABLE | HANGUP):
            self._blocked = False
        if self._reading:
            # What a read has left over in the stream goes on in slices, and not with every event.
            if mask & (READABLE | HANGUP) and not self._continuing:
                self._read()
        elif mask & HANGUP and self.phase is OPEN:
            consumer = self.consumer
            consumer.peer_finished()
        self.flush_scheduled()

    def release(self) -> None:
        """Close the descriptor: the loop calls this at the end of a turn."""
        try:
            self.stream.close()
        finally:  # also where a stream of the user's raises: a place is given back
            if self._released is not None:
                released, self._released = self._released, None
                released(self)

    # -- internal: sending -----------------------------------------------------------------

    def _send_waiting(self) -> bool:
        """Whether everything that waited was sent."""
        stream, consumer = self.stream, self.consumer
        blocked = bool(stream.bytes_pending) and stream.flush() is WANT_WRITE
        while not blocked:
            piece = consumer.next_piece(MAX_SEND)
            if piece is None:
                break
            blocked = stream.send(piece) is WANT_WRITE
        self._blocked = blocked
        return not blocked

    def _is_still_full(self) -> bool:
        """Offer a full socket what is pending; what it takes now counts for its peer's deadline."""
        before = self.stream.bytes_pending
        full = self.stream.flush() is WANT_WRITE
        self._in_kernel += before - self.stream.bytes_pending
        return full

    def _all_sent(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.phase is FINISHING:
            self._end_sending()
        elif self._was_blocked and self.phase is OPEN:
            self._was_blocked = False
            self._update_interest()
            consumer = self.consumer
            consumer.drained()

    def _end_sending(self) -> None:
        try:
            if self.stream.shutdown() is WANT_WRITE:
                self._blocked = True
                self._wait_until_writable()
                return
        except OSError as error:
            self._break(error)
            return
        self.phase = DRAINING
        if self._phase_timer is not None:
            self._phase_timer.cancel()
        self._phase_timer = self.loop.call_later(DRAIN_SECONDS, self._close)
        consumer = self.consumer
        consumer.finished()
        if self.phase is DRAINING:
            self._reading = True
            self._update_interest()
            if self.stream.bytes_available:
                self.continue_later()

    def _wait_until_writable(self) -> None:
        """The socket has just been found full."""
        self._was_blocked = True
        self.blocked_at = self.loop.now
        self._update_interest()
        if self.write_timeout is not None:
            self._in_kernel = bytes_in_kernel(self.fd)
            self._progress_at = self.loop.clock()  # a callback may have taken long
            if self._write_timer is None:
                self._judge_later(self.write_timeout)

    def _judge_later(self, seconds: float) -> None:
        # Not once in `seconds`: what the peer took at the beginning would count at the end.
        when = min(self.loop.clock() + seconds / LOOKS, self._progress_at + seconds)
        self._write_timer = self.loop.timers.call_at(when, self._judge_progress)

    def _judge_progress(self) -> None:
        """Give up a peer whose socket has been full for `write_timeout` without progress."""
        self._write_timer = None
        now, seconds = self.loop.now, self.write_timeout
        if not self._blocked or seconds is None:
            return
        # While the socket is full nothing is added to what the kernel holds.
        in_kernel = bytes_in_kernel(self.fd)
        if self._in_kernel - in_kernel >= MIN_PROGRESS:
            self._in_kernel, self._progress_at = in_kernel, now
        if now < self._progress_at + seconds:
            self._judge_later(seconds)
        else:
            self._break(
                NoProgressError(f"the peer took less than {MIN_PROGRESS} bytes in {seconds:g} s")
            )

    # -- internal: receiving ---------------------------------------------------------------

    def _read(self) -> None:
        """One read: at most one system call."""
        consumer = self.consumer
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
                consumer.data_received(data)
            else:
                self._reading = False  # an end stays readable: do not ask again
                self._update_interest()
                consumer.end_received()
        else:
            self._count_idle_read()
        if self._reading and self.stream.bytes_available:
            self.continue_later()

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

    # -- internal: the end -----------------------------------------------------------------

    def _update_interest(self) -> None:
        wanted = (self._reading, self._blocked)
        if wanted != self._watched and self.phase is not CLOSED:
            self._watched = wanted
            self.loop.watch(self, read=self._reading, write=self._blocked)

    def _give_up(self) -> None:
        self._break(TimeoutError("what waited to be sent was not taken in time"))

    def _break(self, error: Exception | None) -> None:
        """It is over; what was not sent is lost."""
        tell = self.phase in (OPEN, FINISHING)
        self._close()
        if error is not None:
            without_frames(error)  # they refer to everything that was at work, and so to us
        if tell:
            consumer = self.consumer
            consumer.lost(error)

    def _close(self) -> None:
        if self.phase is CLOSED:
            return
        self.phase = CLOSED
        self._reading = self._blocked = False
        for timer in (self._write_timer, self._phase_timer):
            if timer is not None:
                timer.cancel()
        self._write_timer = self._phase_timer = None
        self.loop.close_later(self)
