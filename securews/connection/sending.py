"""The sending half of a connection: whole messages, bounded memory, any thread.

A message is taken when the outbox is below its bound before it, so one message of any size fits
into an empty outbox. A thread waits for room before its message is taken: a TimeoutError means
that nothing of it was sent. On an I/O thread, and in a broadcast, nothing may wait: there a
peer whose full outbox falls by less than 1 KiB/s is slow, and `slow_client` decides. One that
does take its bytes may run over the bound, up to four times it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from securews.common.deadlines import Deadline
from securews.connection.compressing import Compressing, SharedMessage
from securews.protocol.deflate import Deflater
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.websocket import Role

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["Sending"]

MIN_RATE = 1024
"""Bytes per second below which a peer is called slow."""
HARD_BOUND = 4
"""Times `outbox_bytes`: more is not kept for a peer that takes its bytes, either."""
EARLY_BYTES = 64 << 10
EARLY_SECONDS = 0.001
"""A callback that sends more, or takes longer, does not keep the peer waiting for its end."""


class Sending:
    """Frames into the outbox of one connection."""

    __slots__ = (
        "_bound",
        "_channel",
        "_connection",
        "_drop",
        "_full_at",
        "_full_taken",
        "_masked",
        "_patience",
        "compressing",
    )

    def __init__(self, connection: Connection) -> None:
        options = connection.options
        self._connection = connection
        self._channel = connection.channel
        self._masked = connection.role is Role.CLIENT
        self._bound = options.outbox_bytes
        self._patience = options.write_timeout
        self._drop = options.slow_client == "drop"
        self._full_at: float | None = None
        self._full_taken = 0
        deflate = connection.deflate
        self.compressing = None if deflate is None else Compressing(self, deflate)
        """None where no compression was agreed on."""

    def frame(
        self,
        opcode: Opcode,
        payload: bytes | bytearray | memoryview,
        fin: bool = True,
        compressed: bool = False,
    ) -> bytes:
        """Encode a frame, masked if we are the client (RFC 6455, section 5.3)."""
        key = os.urandom(4) if self._masked else None
        return encode_frame(opcode, payload, fin=fin, masking_key=key, compressed=compressed)

    def send_message(
        self,
        opcode: Opcode,
        payload: bytes | bytearray | memoryview,
        timeout: float | None = None,
        *,
        compress: bool = True,
    ) -> None:
        """Any thread: send a message, compressed where that was agreed on; raises as `send`."""
        if compress and self.compressing is not None:
            if isinstance(payload, memoryview):
                payload = payload.tobytes()  # of any item size and any stride
            if len(payload) >= self.compressing.min_size:
                self.compressing.send(opcode, payload, timeout)
                return
        self.send(self.frame(opcode, payload), timeout)

    def send(self, frame: bytes, timeout: float | None = None) -> None:
        """Any thread: send an encoded message.

        Raises:
            TimeoutError: no room within `timeout` seconds, or no progress within
                `write_timeout`; nothing was sent.
            ConnectionClosed: the connection is closing or closed.
        """
        channel = self._channel
        if channel.loop.on_loop_thread():
            if self.offer(frame):
                self._flush_early()
            return
        if channel.loop.on_io_thread():  # of another loop: only this channel's own may flush
            self.offer(frame)
            return
        channel.lock.acquire()  # see channel.py
        try:
            self._check_open()
            if self._is_full():
                self._wait_while(self._is_full, timeout)
            channel.outbox.append(frame)
            mark = channel.mark_to_send_locked()
        finally:
            channel.lock.release()
        if mark:
            channel.loop.schedule(channel)

    def offer(self, frame: bytes) -> bool:
        """Any thread: send an encoded message without waiting. False if it was dropped.

        Raises:
            ConnectionClosed: the connection is closing or closed; also when this peer has just
                been found too slow, and `slow_client` is "close".
        """
        channel = self._channel
        channel.lock.acquire()  # see channel.py
        try:
            self._check_open()
            slow = self._is_full() and self._is_slow()
            if not slow:
                channel.outbox.append(frame)
            mark = channel.mark_to_send_locked()
        finally:
            channel.lock.release()
        if mark:
            channel.loop.schedule(channel)
        if slow and not self._drop:
            self._connection.start_close(1013, "too slow", discard=True)
            raise self._connection.closed_error()
        return not slow

    def offer_shared(self, message: SharedMessage) -> bool:
        """Any thread: as `offer`, for a message that others get, too."""
        compressing = self.compressing
        if compressing is None or not message.compress or message.size < compressing.min_size:
            return self.offer(message.plain)
        return compressing.offer_shared(message)

    def send_urgent(self, frame: bytes) -> None:
        """Any thread: send a control frame, before the data that waits."""
        self._put(frame, urgent=True)

    # -- message streams -------------------------------------------------------------------

    def begin_message_stream(self, *, compress: bool) -> Deflater | None:
        """Any thread: as `begin_stream`; what compresses the message, None where nothing does."""
        if compress and self.compressing is not None:
            return self.compressing.begin_stream()
        self.begin_stream()
        return None

    def begin_stream(self) -> None:
        """Any thread: from now on other messages queue behind the one that begins.

        Raises:
            TimeoutError: another stream stayed open for `write_timeout`.
            ConnectionClosed: the connection is closing or closed.
        """
        channel = self._channel
        with channel.lock:
            self._check_open()
            self._wait_while(self._is_streaming, None)
            channel.outbox.streaming = True

    def send_fragment(self, frame: bytes, *, last: bool) -> None:
        """Any thread: the next frame of the stream that is open."""
        channel = self._channel
        on_loop = self.on_loop
        with channel.lock:
            self._check_open()
            if not on_loop:
                self._wait_while(self._is_full_before_stream, None)
            elif self._is_full_before_stream() and self._is_slow():
                raise TimeoutError("the peer is too slow for this message, which is cut off")
            channel.outbox.append_fragment(frame)
            if last:
                channel.outbox.end_stream()
                if channel.room is not None:
                    channel.room.notify_all()
            mark = channel.mark_to_send_locked()
        if mark:
            channel.loop.schedule(channel)
        if on_loop:
            self.flush_early()

    def drained(self) -> None:
        """Loop thread: the outbox is empty."""
        self._full_at = None

    def flush_early(self) -> None:
        """I/O thread: send at once what is much, or comes late in a callback; if it is our own."""
        if self._channel.loop.on_loop_thread():
            self._flush_early()

    def _flush_early(self) -> None:
        channel = self._channel
        late = monotonic() - channel.loop.now
        if late > EARLY_SECONDS or channel.outbox.size > EARLY_BYTES:
            channel.flush_early()

    # -- the steps of a message in a context (see compressing.py); any thread ---------------

    @property
    def on_loop(self) -> bool:
        """Whether the calling thread must not wait."""
        return self._channel.loop.on_io_thread()

    @property
    def has_room(self) -> bool:
        """Whether a message may be taken now."""
        with self._channel.lock:
            return not self._is_full()

    def wait_for_room(self, timeout: float | None) -> None:
        """Wait until a message may be taken; raises as `send`."""
        with self._channel.lock:
            self._check_open()
            self._wait_while(self._is_full, timeout)

    def append(self, frame: bytes) -> None:
        """Send an encoded message for which there was room; ConnectionClosed at the end."""
        self._put(frame, urgent=False)

    def _put(self, frame: bytes, *, urgent: bool) -> None:
        """Into the outbox without a condition, and have the loop send it."""
        channel = self._channel
        with channel.lock:
            self._check_open()
            if urgent:
                channel.outbox.append_urgent(frame)
            else:
                channel.outbox.append(frame)
            mark = channel.mark_to_send_locked()
        if mark:
            channel.loop.schedule(channel)

    def wait_for_streams(self) -> None:
        """Wait until no message stream is open; raises as `begin_stream`."""
        with self._channel.lock:
            self._check_open()
            self._wait_while(self._is_streaming, None)

    def begin_stream_now(self) -> bool:
        """Begin a message stream; False if another one is open."""
        with self._channel.lock:
            self._check_open()
            if self._is_streaming():
                return False
            self._channel.outbox.streaming = True
            return True

    # -- internal, with the lock held ------------------------------------------------------

    def _check_open(self) -> None:
        if self._channel.outbox.closed:
            raise self._connection.closed_error()

    def _is_full(self) -> bool:
        return self._channel.outbox.size >= self._bound

    def _is_full_before_stream(self) -> bool:
        """What waits behind a stream does not hold up the stream, or both would wait for ever."""
        return self._channel.outbox.ready >= self._bound

    def _is_streaming(self) -> bool:
        return self._channel.outbox.streaming

    def _wait_while(self, unready: Callable[[], bool], timeout: float | None) -> None:
        if not unready():
            return
        channel = self._channel
        if self.on_loop:
            raise RuntimeError("this would wait, and an I/O thread must not; use another thread")
        outbox = channel.outbox
        if channel.room is None:
            channel.room = threading.Condition(channel.lock)
        deadline = Deadline(timeout)
        patience, taken = Deadline(self._patience), outbox.taken
        while unready():
            limits = [left for d in (deadline, patience) if (left := d.remaining()) is not None]
            channel.room.wait(min(limits, default=None))
            self._check_open()
            if outbox.taken != taken:
                patience, taken = Deadline(self._patience), outbox.taken
            if deadline.passed and unready():
                raise TimeoutError(f"no room to send within {timeout:g} s; nothing was sent")
            if patience.passed and unready():
                raise TimeoutError(f"no progress for {self._patience:g} s; nothing was sent")

    def _is_slow(self) -> bool:
        """Whether the peer is to blame: what waits for the end of a stream of ours does not count.

        Only the hard bound asks for no reason.
        """
        outbox = self._channel.outbox
        now = monotonic()
        if self._full_at is None:
            self._full_at, self._full_taken = now, outbox.taken
        seconds = now - self._full_at
        fallen = outbox.taken - self._full_taken
        return outbox.size >= HARD_BOUND * self._bound or (
            self._is_full_before_stream() and seconds >= 1.0 and fallen < MIN_RATE * seconds
        )
