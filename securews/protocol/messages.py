"""The message that is being received: payload goes in piece by piece, one `str` or `bytes` out."""

from __future__ import annotations

import codecs
from sys import getsizeof

from securews.ground.errors import ProtocolError
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
    """

    __slots__ = ("_buffer", "_decoder", "_empty", "_frames", "_max_fragments", "_max_size", "_text")

    def __init__(self, *, max_size: int, max_fragments: int) -> None:
        self._max_size = max_size
        self._max_fragments = max_fragments
        self.clear()

    def clear(self) -> None:
        """Forget the message."""
        self._buffer = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = False
        self._frames = 0
        self._empty = 0

    @property
    def begun(self) -> bool:
        """Whether the first frame's header has come and the last frame's end has not."""
        return self._frames > 0

    @property
    def size_left(self) -> int:
        """Bytes that the next frame may have: `max_size` is for the sum of all frames."""
        return self._max_size - len(self._buffer)

    @property
    def memory(self) -> int:
        """Bytes of memory that the message holds; 0 where there is none."""
        return getsizeof(self._buffer) if self._frames else 0

    def begin_frame(self, header: FrameHeader) -> None:
        """The next data frame begins.

        Raises:
            ProtocolError: 1002 where it does not belong here (RFC 6455, section 5.4), 1008 for
                too many frames or too many empty ones.
        """
        if header.opcode is Opcode.CONTINUATION:
            if not self._frames:
                raise ProtocolError("a continuation frame comes without a message to continue")
        elif self._frames:
            raise ProtocolError("a message begins inside another one")
        else:
            self._text = header.opcode is Opcode.TEXT
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
            ProtocolError: 1007 for text that cannot become valid UTF-8.
        """
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
            ProtocolError: 1007 for text that is not valid UTF-8.
        """
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
