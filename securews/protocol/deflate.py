"""permessage-deflate: one message compressed, one inflated (RFC 7692, section 7.2).

A message is raw DEFLATE that ends in a sync flush, without the four bytes that every such flush
ends in. A `Deflater` or `Inflater` that goes on from message to message keeps its window, which
is the "context"; a fresh one for each message has none. Both make their zlib object with the
first byte and an `Inflater` without context gives it back after each message, so an idle
connection holds memory only for contexts in use.

Sections 7.2.1 and 7.2.2 are the algorithm; nothing here knows frames, roles or the negotiation.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from securews.common.errors import ProtocolError

__all__ = ["Deflate", "Deflater", "Inflater", "compressed_bound"]

_TAIL = b"\x00\x00\xff\xff"
"""What a sync flush ends in: the length of an empty stored block (section 7.2.1)."""
_LAST_BLOCK = b"\x03\x00"
"""An empty final block: a decompressor between two blocks ends with it, no other does."""

MAX_FINAL_BLOCKS = 16
"""Blocks with BFINAL in one message at most. One has a meaning (section 7.2.3.4); each costs a
new decompressor and a copy of what follows, so a message made of them would cost its square."""

_NOT_DEFLATE = "a compressed message is no valid DEFLATE data"


def compressed_bound(max_size: int) -> int:
    """Bytes that a message of `max_size` bytes may have in compressed form.

    zlib adds at most an eighth to what it cannot compress (in its smallest blocks). What is
    longer is made of blocks without content.
    """
    return max_size + (max_size >> 3) + 64


@dataclass(frozen=True, slots=True)
class Deflate:
    """What was agreed, seen from one end, and how this end makes use of it.

    Window bits are 9 to 15: the window has 2 ** bits bytes.
    """

    incoming_takeover: bool
    """Whether the peer's messages may refer to its earlier ones."""
    incoming_window_bits: int
    outgoing_takeover: bool
    """Whether our messages refer to our earlier ones."""
    outgoing_window_bits: int
    level: int
    memory_level: int
    min_size: int
    """Bytes of a message from which on we compress it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the bytes of a message without context depend on: equal here, equal bytes."""
        return self.level, self.memory_level, self.outgoing_window_bits

    def deflater(self) -> Deflater:
        """A compressor without context."""
        return Deflater(*self.shape)

    def inflater(self) -> Inflater:
        """The decompressor of a connection."""
        return Inflater(self.incoming_window_bits, takeover=self.incoming_takeover)


class Deflater:
    """Compresses messages, each with those before it as context. One thread at a time."""

    __slots__ = ("_stream",)

    def __init__(self, level: int, memory_level: int, window_bits: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, -window_bits, memory_level)

    def add(self, data: bytes | bytearray) -> bytes:
        """Take the next piece of a message; what has come out so far, often nothing."""
        return self._stream.compress(data)

    def finish(self) -> bytes:
        """The end of the message, which has to have had a byte."""
        return self._stream.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]

    def compress(self, message: bytes | bytearray) -> bytes:
        """A whole message of at least one byte."""
        return self.add(message) + self.finish()


class Inflater:
    """Inflates messages, and never to more than it is told. One thread at a time.

    Args:
        window_bits: at least those that the peer compresses with.
        takeover: whether messages may refer to earlier ones.
    """

    __slots__ = ("_fed", "_final_blocks", "_stream", "_takeover", "_window_bits")

    def __init__(self, window_bits: int, *, takeover: bool) -> None:
        self._window_bits = window_bits
        self._takeover = takeover
        self._stream: zlib._Decompress | None = None  # typeshed's name; there is no other
        self._fed = False  # a byte of the present message has come
        self._final_blocks = 0

    def inflate(self, data: bytes, limit: int, *, last: bool = False) -> bytes:
        """What a piece of a message inflates to.

        Args:
            data: the piece, cut anywhere.
            limit: bytes that may come out.
            last: whether the message ends with this piece.

        Raises:
            ProtocolError: 1009 where more than `limit` would come out; 1007 for what is no
                DEFLATE data or ends in the middle. RFC 7692 names no code; as with text that is
                no UTF-8, the frames are right and their content is not (RFC 6455, 7.4.1).
        """
        try:
            out = self._take(data, limit + 1)
            if last:
                out += self._finish(limit + 1 - len(out))
        except zlib.error:
            raise ProtocolError(_NOT_DEFLATE, 1007) from None
        if len(out) > limit:
            raise ProtocolError("the message is larger than the limit, inflated", 1009)
        return out

    def _take(self, data: bytes, room: int) -> bytes:
        """Inflate `data`, to `room` bytes at most. zlib takes 0 for no limit: stop before."""
        out = b""
        while data and room > 0:
            self._fed = True
            if self._stream is None:
                self._stream = zlib.decompressobj(-self._window_bits)
            out += self._stream.decompress(data, room - len(out))
            if not self._stream.eof:
                break
            # A block with BFINAL: what follows is a new stream (section 7.2.3.4).
            self._final_blocks += 1
            if self._final_blocks > MAX_FINAL_BLOCKS:
                raise ProtocolError("a compressed message has too many final blocks", 1007)
            data = self._stream.unused_data
            self._stream = None
            if len(out) >= room:
                break
        return out

    def _finish(self, room: int) -> bytes:
        """The end of the message: put back what the sender cut off, see that it is complete."""
        out = b""
        # A message without a byte, or one that a final block ended, needs no tail.
        if self._fed and self._stream is not None:
            out = self._take(_TAIL, room)
            if len(out) < room:
                self._check_complete()
        self._fed = False
        self._final_blocks = 0
        if not self._takeover:
            self._stream = None
        return out

    def _check_complete(self) -> None:
        """With the tail the message has to end between two blocks."""
        if self._stream is None:
            raise ProtocolError(_NOT_DEFLATE, 1007)  # the tail was part of something else
        probe = self._stream.copy() if self._takeover else self._stream
        probe.decompress(_LAST_BLOCK, 1)
        if not probe.eof:
            raise ProtocolError("a compressed message is not complete", 1007)
