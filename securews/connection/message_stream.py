"""A message written piece by piece: `with ws.write_message(MessageType.TEXT) as stream`."""

from __future__ import annotations

import enum
from types import TracebackType
from typing import Self

from securews.common.errors import ConnectionClosed
from securews.connection.connection import Connection
from securews.protocol.deflate import Deflater
from securews.protocol.frames import Opcode

__all__ = ["MessageStream", "MessageType"]


class MessageType(enum.Enum):
    """What `write_message` sends."""

    TEXT = "text"
    BINARY = "binary"
    PING = "ping"


_OPCODES = {
    MessageType.TEXT: Opcode.TEXT,
    MessageType.BINARY: Opcode.BINARY,
    MessageType.PING: Opcode.PING,
}


class MessageStream:
    """One outgoing message as a file-like object, for `with`.

    It leaves in frames of at most `max_frame_length` bytes (RFC 6455, section 5.4), which are cut
    after it was compressed (RFC 7692, section 6.1). Used by one thread at a time; other threads'
    messages queue behind it. Where the message cannot be completed, because it is left by an
    exception or the peer does not take it, the connection is closed with 1011, and the stream is
    over: a frame that is lost or sent twice would be another message.
    """

    def __init__(
        self,
        connection: Connection,
        kind: MessageType,
        max_frame_length: int,
        *,
        compress: bool = True,
    ) -> None:
        if not isinstance(kind, MessageType):
            raise TypeError(f"the type is MessageType.TEXT, BINARY or PING, not {kind!r}")
        if max_frame_length < 1:
            raise ValueError(f"max_frame_length is at least 1 byte, not {max_frame_length}")
        self._connection = connection
        self._kind = kind
        self._limit = max_frame_length
        self._opcode = _OPCODES[kind]
        self._buffer = bytearray()
        self._deflater: Deflater | None = None
        self._compressed = False  # decided before the first frame leaves, which says so
        self._undecided_below = 0
        self.closed = False
        if kind is not MessageType.PING:
            sender = connection.sender
            self._deflater = sender.begin_message_stream(compress=compress)
            if self._deflater is not None and sender.compressing is not None:
                self._undecided_below = sender.compressing.min_size

    def write(self, data: str | bytes | bytearray | memoryview) -> int:
        """Add to the message; returns the length of `data`.

        Raises:
            TypeError: not str for a text message, not bytes-like for another.
            ValueError: the stream is closed, or a ping is longer than 125 bytes.
            TimeoutError: the peer took nothing for `write_timeout`; the message was broken off,
                and the connection is closed with 1011.
            ConnectionClosed: the connection has ended.
        """
        if self.closed:
            raise ValueError("the message is over; begin another with write_message()")
        if isinstance(data, str) is not (self._kind is MessageType.TEXT):
            wanted = "str" if self._kind is MessageType.TEXT else "bytes"
            raise TypeError(
                f"a {self._kind.value} message takes {wanted}, not {type(data).__name__}"
            )
        if isinstance(data, str):
            piece: bytes | bytearray = data.encode()
        else:
            piece = data.tobytes() if isinstance(data, memoryview) else data
        if self._kind is MessageType.PING and len(self._buffer) + len(piece) > 125:
            raise ValueError("a ping carries at most 125 bytes (RFC 6455, section 5.5)")
        self._add(piece)
        if self._kind is not MessageType.PING and (self._compressed or self._deflater is None):
            self._send_full_frames()
        return len(data)

    def writable(self) -> bool:
        """Always true: what `print(..., file=stream)` and the like ask."""
        return True

    def flush(self) -> None:
        """Nothing to do: full frames leave by themselves, and the last one at `close`."""

    def close(self) -> None:
        """Complete the message. Closing twice is harmless."""
        if self.closed:
            return
        self.closed = True
        if self._kind is MessageType.PING:
            self._connection.ping(bytes(self._buffer))
            return
        if self._deflater is not None and self._compressed:
            self._buffer += self._deflater.finish()
        self._send_full_frames()
        self._send(bytes(self._buffer), last=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif not self.closed:
            self._break_off()

    def _break_off(self) -> None:
        """What was begun cannot be completed, and nothing else may follow it."""
        self.closed = True
        self._buffer.clear()
        if self._kind is not MessageType.PING:
            self._connection.start_close(1011, "a message was broken off")

    def _add(self, data: bytes | bytearray) -> None:
        """Into the buffer, compressed once it is clear that the message is not too small."""
        if self._deflater is None:
            self._buffer += data
        elif self._compressed:
            self._buffer += self._deflater.add(bytes(data))
        else:
            self._buffer += data
            if len(self._buffer) >= self._undecided_below:
                self._compressed = True
                self._buffer[:] = self._deflater.add(self._buffer)

    def _send_full_frames(self) -> None:
        """Keep at least one byte back: the last frame is known only at the end."""
        while len(self._buffer) > self._limit:
            frame = bytes(self._buffer[: self._limit])
            del self._buffer[: self._limit]  # before it is sent: it is sent once, if at all
            self._send(frame, last=False)

    def _send(self, payload: bytes, *, last: bool) -> None:
        sender = self._connection.sender
        compressed = self._compressed and self._opcode is not Opcode.CONTINUATION
        frame = sender.frame(self._opcode, payload, fin=last, compressed=compressed)
        try:
            sender.send_fragment(frame, last=last)
        except TimeoutError:
            self._break_off()
            raise TimeoutError(
                "the peer does not take the message, which is broken off; the connection is "
                "closed with 1011"
            ) from None
        except ConnectionClosed:
            raise
        except BaseException:  # Ctrl-C while it waits: the frame is neither here nor in the queue
            self._break_off()
            raise
        self._opcode = Opcode.CONTINUATION
