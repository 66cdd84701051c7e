"""How a connection sends compressed messages: in its context, or each by itself.

Theory of operation
-------------------
Without context takeover a message is compressed by a fresh compressor, outside of every lock, and
the bytes are the same for every connection of the same shape: a broadcast is made once.

With takeover a message refers to those that were compressed before it, so compressed messages
have to leave in the order in which they were made. Hence one rule: *who makes a compressed frame
holds the context's lock until the frame is in the outbox*. The lock is taken before the channel's
and never the other way round; under it is nothing but CPU work, and whoever waits for room does
so before taking it. On the I/O thread and in a broadcast, where nothing may wait, a context that
is busy means that the message goes out uncompressed: that is legal at any time (RFC 7692, section
6), and the peer's window does not notice.

A message by itself (a broadcast, a message stream) is legal within a context too, but it moves
the peer's window on past our own. So the context ends where it goes in, and the next message
begins a new one; what queues behind an open stream belongs to the new one, for all of the stream
leaves before it. The context ends also where a message that was compressed in it is dropped.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from securews.common.deadlines import Deadline
from securews.protocol.deflate import Deflate, Deflater
from securews.protocol.frames import Opcode, encode_frame

if TYPE_CHECKING:
    from securews.connection.sending import Sending

__all__ = ["Compressing", "SharedMessage"]


class SharedMessage:
    """One message for many connections, encoded once for each form in which it leaves.

    For the server's end, whose frames carry no mask (RFC 6455, section 5.1). One thread at a time.

    Args:
        opcode: of the message.
        payload: of the message; a memoryview is read at once.
        compress: whether it may be compressed where that was agreed.
    """

    __slots__ = ("_compressed", "_opcode", "_payload", "compress", "plain", "size")

    def __init__(
        self, opcode: Opcode, payload: bytes | bytearray | memoryview, *, compress: bool
    ) -> None:
        self._opcode = opcode
        self._payload = payload.tobytes() if isinstance(payload, memoryview) else payload
        self._compressed: dict[tuple[int, int, int], bytes] = {}
        self.compress = compress
        self.size = len(self._payload)
        self.plain = encode_frame(opcode, self._payload)
        """The uncompressed frame."""

    def compressed(self, deflate: Deflate) -> bytes:
        """The compressed frame; the uncompressed one where that is shorter."""
        frame = self._compressed.get(deflate.shape)
        if frame is None:
            packed = deflate.deflater().compress(self._payload)
            frame = self.plain
            if len(packed) < self.size:
                frame = encode_frame(self._opcode, packed, compressed=True)
            self._compressed[deflate.shape] = frame
        return frame


class Compressing:
    """The compressed messages of one connection. Any thread."""

    __slots__ = ("_context", "_deflate", "_lock", "_sending", "min_size")

    def __init__(self, sending: Sending, deflate: Deflate) -> None:
        self._sending = sending
        self._deflate = deflate
        self._lock = threading.Lock() if deflate.outgoing_takeover else None
        self._context: Deflater | None = None
        self.min_size = max(1, deflate.min_size)
        """Bytes of a message from which on it is compressed: never an empty one."""

    def send(self, opcode: Opcode, payload: bytes | bytearray, timeout: float | None) -> None:
        """Send a message; raises as `Sending.send`."""
        sending = self._sending
        if self._lock is None:
            sending.send(self._by_itself(opcode, payload), timeout)
        elif sending.on_loop:
            if self._offer_in_context(self._lock, opcode, payload):
                sending.flush_early()
        else:
            self._send_in_context(self._lock, opcode, payload, timeout)

    def offer_shared(self, message: SharedMessage) -> bool:
        """Send a message that others get, too, without waiting; as `Sending.offer`."""
        sending = self._sending
        if self._lock is None:
            return sending.offer(message.compressed(self._deflate))
        if not self._lock.acquire(blocking=False):
            return sending.offer(message.plain)
        try:
            self._context = None
            return sending.offer(message.compressed(self._deflate))
        finally:
            self._lock.release()

    def begin_stream(self) -> Deflater | None:
        """Begin a message stream as `Sending.begin_stream`.

        Returns:
            What compresses it; None where it has to go out uncompressed.
        """
        sending = self._sending
        if self._lock is None:
            sending.begin_stream()
            return self._deflate.deflater()
        while True:
            sending.wait_for_streams()
            if not self._lock.acquire(blocking=not sending.on_loop):
                sending.begin_stream()
                return None
            try:
                if sending.begin_stream_now():
                    self._context = None
                    return self._deflate.deflater()
            finally:
                self._lock.release()

    # -- internal --------------------------------------------------------------------------

    def _by_itself(self, opcode: Opcode, payload: bytes | bytearray) -> bytes:
        packed = self._deflate.deflater().compress(payload)
        if len(packed) >= len(payload):
            return self._sending.frame(opcode, payload)
        return self._sending.frame(opcode, packed, compressed=True)

    def _in_context(self, opcode: Opcode, payload: bytes | bytearray) -> bytes:
        """With the context's lock held."""
        if self._context is None:
            self._context = self._deflate.deflater()
        return self._sending.frame(opcode, self._context.compress(payload), compressed=True)

    def _send_in_context(
        self,
        lock: threading.Lock,
        opcode: Opcode,
        payload: bytes | bytearray,
        timeout: float | None,
    ) -> None:
        sending = self._sending
        deadline = Deadline(timeout)
        while True:
            sending.wait_for_room(deadline.remaining())
            with lock:
                if sending.has_room:  # else another thread was faster: wait again
                    sending.append(self._in_context(opcode, payload))
                    return

    def _offer_in_context(
        self, lock: threading.Lock, opcode: Opcode, payload: bytes | bytearray
    ) -> bool:
        """False if it was dropped."""
        sending = self._sending
        if not lock.acquire(blocking=False):
            return sending.offer(sending.frame(opcode, payload))
        try:
            taken = sending.offer(self._in_context(opcode, payload))
            if not taken:
                self._context = None
            return taken
        finally:
            lock.release()
