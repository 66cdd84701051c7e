"""The message that is being received: payload goes in piece by piece, one `str` or `bytes` out.

A compressed one is inflated as it comes, so that its limit and its text are judged at the first
byte that is wrong, and never more is held than `max_size`.
"""

from __future__ import annotations

import codecs
from sys import getsizeof

from securews.common.errors import ProtocolError
from securews.protocol.deflate import Inflater, compressed_bound
from securews.protocol.frames import FrameHeader, Opcode

__all__ = ["MAX_EMPTY_FRAGMENTS", "IncomingMessage"]

MAX_EMPTY_FRAGMENTS = 16
"""Frames of one message that carry nothing and do not end it. They are legal and of no use."""

_NOT_UTF8 = "a text message is not valid UTF-8"

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class IncomingMessage:
    """A message that comes in several frames or reads, and the limits it has to keep.

    What has come is held as raw bytes in one growing buffer: never more than was received (plus
    an eighth), whatever length was announced, and whatever the size of the pieces. Text is
    checked as it comes, so that the first wrong byte fails it (RFC 6455, section 8.1), and decoded
    once at the end.

    Args:
        max_size: bytes of a message at most, inflated.
        max_fragments: frames of a message at most.
        inflater: for compressed messages; None where none may come.
    """

    __slots__ = (
        "_buffer",
        "_decoder",
        "_empty",
        "_frames",
        "_inflater",
        "_max_fragments",
        "_max_size",
        "_received",
        "_text",
        "begun",
        "compressed",
        "max_compressed",
    )

    def __init__(
        self, *, max_size: int, max_fragments: int, inflater: Inflater | None = None
    ) -> None:
        self._max_size = max_size
        self._max_fragments = max_fragments
        self._inflater = inflater
        self.max_compressed = None if inflater is None else compressed_bound(max_size)
        """Bytes that a compressed message may have as it comes; None where none may come."""
        self.clear()

    def clear(self) -> None:
        """Forget the message."""
        self._buffer = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = False
        self.begun = False
        """Whether the first frame's header has come and the last frame's end has not."""
        self._frames = 0
        self._empty = 0
        self.compressed = False
        """Whether what comes is inflated."""
        self._received = 0  # bytes of payload, as they came

    @property
    def size_left(self) -> int:
        """Bytes that the next frame may have: the limit is for the sum of all frames."""
        if self.compressed and self.max_compressed is not None:
            return self.max_compressed - self._received
        return self._max_size - len(self._buffer)

    @property
    def received(self) -> int:
        """Bytes of payload that have come, before they were inflated."""
        return self._received

    def memory(self) -> int:
        """Bytes of memory that the message holds; 0 where there is none."""
        return getsizeof(self._buffer) if self.begun else 0

    def begin_frame(self, header: FrameHeader) -> None:
        """The next data frame begins.

        Raises:
            ProtocolError: 1002 where it does not belong here (RFC 6455, section 5.4), 1008 for
                too many frames or too many empty ones.
        """
        if header.opcode is Opcode.CONTINUATION:
            if not self.begun:
                raise ProtocolError("a continuation frame comes without a message to continue")
        elif self.begun:
            raise ProtocolError("a message begins inside another one")
        else:
            self._text = header.opcode is Opcode.TEXT
            self.compressed = header.compressed
        self.begun = True
        self._frames += 1
        if self._frames > self._max_fragments:
            raise ProtocolError(f"a message has more than {self._max_fragments} frames", 1008)
        if not header.size and not header.fin:
            self._empty += 1
            if self._empty > MAX_EMPTY_FRAGMENTS:
                raise ProtocolError("a message has too many empty fragments", 1008)

    def add(self, piece: bytes) -> None:
        """Take a piece of the payload after which more will come.

        Raises:
            ProtocolError: 1007 for text that cannot become valid UTF-8, and for what is not
                compressed as it should be; 1009 for what inflates to more than `max_size`.
        """
        self._received += len(piece)
        if self.compressed:
            piece = self._inflated(piece)
        if self._text:
            if self._decoder is None:
                self._decoder = _utf8_decoder()
            try:
                self._decoder.decode(piece)  # what it returns is decoded again at the end
            except UnicodeDecodeError:
                raise ProtocolError(_NOT_UTF8, 1007) from None
            # Python's decoder waits for the third byte of a surrogate (U+D800-U+DFFF: ED A0 to
            # ED BF) before it refuses it. Its second byte is wrong already (RFC 3629, section 4).
            if b"\xed\xa0" <= self._decoder.getstate()[0] < b"\xee":
                raise ProtocolError(_NOT_UTF8, 1007)
        self._buffer += piece

    def finish(self, piece: bytes) -> str | bytes:
        """Take the last piece of the payload; give the message and forget it.

        Raises:
            ProtocolError: as `add`.
        """
        if self.compressed:
            piece = self._inflated(piece, last=True)
        whole: bytes | bytearray = piece  # a message in one piece is not copied
        if self._buffer:
            self._buffer += piece
            whole = self._buffer
        try:
            message = whole.decode() if self._text else bytes(whole)
        except UnicodeDecodeError:
            raise ProtocolError(_NOT_UTF8, 1007) from None
        self.clear()
        return message

    def _inflated(self, piece: bytes, *, last: bool = False) -> bytes:
        assert self._inflater is not None  # or read_header() had refused the frame
        return self._inflater.inflate(piece, self._max_size - len(self._buffer), last=last)
