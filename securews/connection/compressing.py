"""How a connection sends compressed messages: in its context, or each by itself.

Theory of operation
-------------------
Without context takeover a message is compressed by a fresh compressor, outside of every lock, and
the bytes are the same for every connection of the same shape: a broadcast is made once.

With takeover a message refers to those that were compressed before it, so compressed messages
have to leave in the order in which they were made. Hence one rule: *who makes a compressed frame
holds the context's lock until the frame is in the queue*. The lock is taken before the link's and
never the other way round; under it is nothing but CPU work, and whoever waits for room or sends
does so without it. On the I/O thread and in a broadcast, where nothing may wait, a context that
is busy means that the message goes out uncompressed: that is legal at any time (RFC 7692, section
6), and the peer's window does not notice.

A message by itself (a broadcast, a message stream) is legal within a context too, but it moves
the peer's window on past our own. So the context ends where it goes in, and the next message
begins a new one; what queues behind an open stream belongs to the new one, for all of the stream
leaves before it. The context ends also where a message that was compressed in it is dropped.
"""

from __future__ import annotations

import threading
from typing import Protocol

from securews.common.deadlines import Deadline
from securews.protocol.deflate import Deflate, Deflater
from securews.protocol.frames import Opcode, encode_frame

__all__ = ["Compressing", "SharedMessage"]


class Sender(Protocol):
    """What compressing asks of the connection's `Sender`."""

    @property
    def waits(self) -> bool:
        """Whether the calling thread may wait for room."""

    @property
    def has_room(self) -> bool:
        """Whether a message may be taken now."""

    def frame(
        self, opcode: Opcode, payload: bytes | bytearray, fin: bool = True, compressed: bool = False
    ) -> bytes:
        """Encode a frame."""

    def send(self, frame: bytes, timeout: float | None = None) -> None:
        """Send an encoded message."""

    def make_room(self) -> None:
        """Offer the socket what waits."""

    def put(self, frame: bytes) -> bool:
        """Queue an encoded message, if there is room."""

    def sent(self) -> None:
        """A message was put."""

    def refused(self) -> None:
        """A message was not: the peer is slow."""

    def wait_for_room(self, timeout: float | None) -> None:
        """Wait until a message may be taken."""

    def begin_stream(self) -> None:
        """Let other messages queue behind the one that begins."""

    def begin_stream_now(self) -> bool:
        """Begin a message stream; False if another one is open."""

    def wait_for_streams(self) -> None:
        """Wait until no message stream is open."""


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
    """The compressed messages of one connection. Any thread.

    `sender` is always the connection's own. (It has this object, so this one does not have it: what
    refers to each other stays in memory.)
    """

    __slots__ = ("_context", "_deflate", "_lock", "min_size")

    def __init__(self, deflate: Deflate) -> None:
        self._deflate = deflate
        self._lock = threading.Lock() if deflate.outgoing_takeover else None
        self._context: Deflater | None = None
        self.min_size = max(1, deflate.min_size)
        """Bytes of a message from which on it is compressed: never an empty one."""

    def send(
        self, sender: Sender, opcode: Opcode, payload: bytes | bytearray, timeout: float | None
    ) -> None:
        """Send a message; raises as `Sender.send`."""
        if self._lock is None:
            sender.send(self._by_itself(sender, opcode, payload), timeout)
        elif sender.waits:
            self._send_in_context(self._lock, sender, opcode, payload, timeout)
        else:
            self._offer_in_context(self._lock, sender, opcode, payload)

    def offer_shared(self, sender: Sender, message: SharedMessage) -> bool:
        """Send a message that others get, too, without waiting; as `Sender.offer`."""
        sender.make_room()
        if self._lock is None:
            taken = sender.put(message.compressed(self._deflate))
        elif not self._lock.acquire(blocking=False):
            taken = sender.put(message.plain)
        else:
            try:
                self._context = None
                taken = sender.put(message.compressed(self._deflate))
            finally:
                self._lock.release()
        if not taken:
            sender.refused()
        return taken

    def begin_stream(self, sender: Sender) -> Deflater | None:
        """Begin a message stream as `Sender.begin_stream`.

        Returns:
            What compresses it; None where it has to go out uncompressed.
        """
        if self._lock is None:
            sender.begin_stream()
            return self._deflate.deflater()
        while True:
            sender.wait_for_streams()
            if not self._lock.acquire(blocking=sender.waits):
                sender.begin_stream()
                return None
            try:
                if sender.begin_stream_now():
                    self._context = None
                    return self._deflate.deflater()
            finally:
                self._lock.release()

    # -- internal --------------------------------------------------------------------------

    def _by_itself(self, sender: Sender, opcode: Opcode, payload: bytes | bytearray) -> bytes:
        packed = self._deflate.deflater().compress(payload)
        if len(packed) >= len(payload):
            return sender.frame(opcode, payload)
        return sender.frame(opcode, packed, compressed=True)

    def _in_context(self, sender: Sender, opcode: Opcode, payload: bytes | bytearray) -> bytes:
        """With the context's lock held."""
        if self._context is None:
            self._context = self._deflate.deflater()
        return sender.frame(opcode, self._context.compress(payload), compressed=True)

    def _send_in_context(
        self,
        lock: threading.Lock,
        sender: Sender,
        opcode: Opcode,
        payload: bytes | bytearray,
        timeout: float | None,
    ) -> None:
        deadline = Deadline(timeout)
        while True:
            sender.wait_for_room(deadline.remaining())
            with lock:
                if not sender.has_room:
                    continue  # another thread was faster: wait again
                if sender.put(self._in_context(sender, opcode, payload)):
                    return
                self._context = None  # another one, with a message that needs no context

    def _offer_in_context(
        self, lock: threading.Lock, sender: Sender, opcode: Opcode, payload: bytes | bytearray
    ) -> None:
        sender.make_room()
        if not lock.acquire(blocking=False):
            taken = sender.put(sender.frame(opcode, payload))
        else:
            try:
                taken = sender.put(self._in_context(sender, opcode, payload))
                if not taken:
                    self._context = None
            finally:
                lock.release()
        if taken:
            sender.sent()
        else:
            sender.refused()
