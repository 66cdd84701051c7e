"""One end of a WebSocket without I/O: bytes in, events out; messages in, frames out.

How receiving works
-------------------
A read is parsed in one pass. Between messages, `take_messages` takes every unfragmented message
that stands complete in the read, in one tight loop. What it leaves is taken one frame at a time
by `_take_frame`, and then the loop gets its turn again. So whatever is rare or wrong is judged in
one place, and the loop can be compiled without a rule in it.

Nothing is kept of a read but what cannot be used yet: an incomplete header or control frame (131
bytes at most), or, when parsing pauses, the read itself with the position reached. The payload of
an incomplete data frame is unmasked, checked and stored as it comes: once for every byte, however
the bytes are cut, and in memory that follows what has come and not what was announced.

Threads
-------
The receiving half (`receive` and what it is asked afterwards) belongs to one thread at a time, the
sending half (`encode`, `close`) likewise; the two may be different threads at the same moment.
Each half writes its own attributes only, and `state` is made of both (see `closing.py`).
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from sys import getsizeof, maxsize

from securews.common.errors import ProtocolError
from securews.protocol.close_codes import encode_close_payload, parse_close_payload
from securews.protocol.closing import Act, ClosingState, require_may_send, state_after
from securews.protocol.codec import apply_mask, take_messages
from securews.protocol.deflate import Deflate
from securews.protocol.events import Close, Event, Failure, Ping, Pong
from securews.protocol.frames import (
    MAX_CONTROL_SIZE,
    FrameHeader,
    Opcode,
    encode_frame,
    read_header,
)
from securews.protocol.messages import IncomingMessage

__all__ = ["Role", "WebSocketProtocol"]

_FIRST_CONTROL = Opcode.CLOSE  # a global is found faster than the member of an enum

_MEMORY_PER_BYTE = 32
"""Bytes of memory that one received byte can become, at most: an empty text message takes 49 for
its 2-byte frame, text with an emoji 4 per byte and 76 once. Where the room is larger than that, no
message needs to be measured (`getsizeof` would be a sixth of the time that a small one takes)."""


class Role(enum.Enum):
    """Which end this is. A client masks what it sends (RFC 6455, section 5.1)."""

    SERVER = "server"
    CLIENT = "client"


def _four_random_bytes() -> bytes:
    return os.urandom(4)


class WebSocketProtocol:
    """One end of a WebSocket.

    Args:
        role: which end.
        max_size: the largest message to receive, in bytes (text: of UTF-8).
        max_fragments: frames of one received message at most.
        max_control: control frames that one call of `receive` takes; more are a fault (1008), so
            that a read full of them costs no more than so many. None is any number.
        random_key: gives the masking key of each frame that a client sends: four bytes that
            nobody can foresee (RFC 6455, section 10.3).
        deflate: what was agreed about compression; None where nothing was.

    Attributes, as the last `receive` left them; for the receiving thread only:
        paused: whether the room was used up before the bytes were.
        in_message: whether a frame or message has begun and is not complete. Bytes that wait
            because of a pause do not count: they are no delay of the peer.
        unfinished: bytes of memory held for what is incomplete or waits; 0 if nothing is.
    """

    __slots__ = (
        "_close_sent",
        "_control_left",
        "_end_received",
        "_frame_fin",
        "_frame_key",
        "_frame_left",
        "_kept",
        "_kept_from",
        "_masked",
        "_max_control",
        "_max_size",
        "_message",
        "_random_key",
        "in_message",
        "paused",
        "unfinished",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_size: int,
        max_fragments: int = 1024,
        max_control: int | None = None,
        random_key: Callable[[], bytes] = _four_random_bytes,
        deflate: Deflate | None = None,
    ) -> None:
        # The sending half.
        self._random_key = random_key if role is Role.CLIENT else None
        self._close_sent = False
        # The receiving half.
        self._masked = role is Role.SERVER
        self._max_size = max_size
        self._max_control = maxsize if max_control is None else max_control
        self._control_left = self._max_control
        self._end_received: Act | None = None
        self._message = IncomingMessage(
            max_size=max_size,
            max_fragments=max_fragments,
            inflater=None if deflate is None else deflate.inflater(),
        )
        self._frame_left = 0  # bytes of payload to come; not 0 only within a data frame
        self._frame_fin = False
        self._frame_key: bytes | None = None  # turned to begin with the next byte to come
        self._kept = b""
        self._kept_from = 0
        self.paused = False
        self.in_message = False
        self.unfinished = 0

    @property
    def state(self) -> ClosingState:
        """How far the closing has come. Any thread."""
        return state_after(close_sent=self._close_sent, end_received=self._end_received)

    # -- receiving ------------------------------------------------------------------------------

    @property
    def message_received(self) -> int:
        """Bytes of the unfinished message that have come, before they were inflated.

        Receiving thread only.
        """
        return self._message.received + len(self._kept)

    def receive(self, data: bytes, room: int | None = None) -> list[Event]:
        """Parse what was read. Receiving thread only.

        Args:
            data: the bytes that came, in any cut.
            room: bytes of memory (`sys.getsizeof` of each) that the messages may take; the one
                that reaches it is the last. Then parsing pauses: the rest is kept, `paused` is
                True, and `receive(b"", room)` goes on. Read nothing more from the peer before.
                None is any amount.

        Returns:
            What came, in its order. After a `Close` or a `Failure`, which are always the last,
            everything more is discarded.
        """
        events: list[Event] = []
        if self._end_received is not None:
            return events
        self._control_left = self._max_control
        position = 0
        if self._kept:
            if data:
                data = self._kept[self._kept_from :] + data
            else:
                data, position = self._kept, self._kept_from
        try:
            position = self._parse(data, position, events, room)
        except ProtocolError as error:
            # The fault is the peer's: where it was found is of no interest, and a traceback
            # would keep this frame, and the data, alive.
            error.__context__ = None
            events.append(Failure(error.with_traceback(None)))
            self._end_received = Act.FAULT
        if self._end_received is not None:
            self.paused = False
            self._message.clear()
            position = len(data)
        self._keep(data, position)
        self.in_message = self._message.begun
        self.unfinished = self._message.memory()
        if self._kept:
            self.in_message = self.in_message or not self.paused
            self.unfinished += getsizeof(self._kept)
        return events

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the rest of `data`.

        While paused without a copy: each of many resumptions would cost one.
        """
        if position == len(data):
            self._kept, self._kept_from = b"", 0
        elif self.paused:
            self._kept, self._kept_from = data, position
        else:
            self._kept, self._kept_from = data[position:], 0

    def _parse(self, data: bytes, position: int, events: list[Event], room: int | None) -> int:
        """Take all that can be taken from `position` on; return where the rest begins."""
        self.paused = False
        end = len(data)
        if room is not None and self._message.max_compressed is None:
            most = _MEMORY_PER_BYTE * (end - position + self._message.memory())
            room = None if room > most else room
        while position < end:
            if room is not None and room <= 0:
                self.paused = True
                break
            before = position
            if not self._message.begun:
                position, room = take_messages(
                    data,
                    position,
                    events,
                    masked=self._masked,
                    max_size=self._max_size,
                    room=room,
                )
                if position > before:
                    continue  # to the two questions above
            count = len(events)
            position = self._take_frame(data, position, events)
            if position == before or self._end_received is not None:
                break
            if room is not None and len(events) > count and isinstance(events[-1], str | bytes):
                room -= getsizeof(events[-1])
        return position

    def _take_frame(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take one frame, or what has come of a data frame; return where the next byte is.

        An incomplete header or control frame is not touched: `position` is returned.
        """
        if not self._frame_left:
            header = read_header(
                data,
                position,
                masked=self._masked,
                max_size=self._message.size_left,
                max_compressed=self._message.max_compressed,
            )
            if header is None:
                return position
            if header.opcode >= _FIRST_CONTROL:
                return self._take_control(data, position, header, events)
            self._message.begin_frame(header)
            self._frame_left = header.size
            self._frame_fin = header.fin
            self._frame_key = header.key
            position = header.payload_at

        piece = data[position : position + self._frame_left]
        size = len(piece)
        self._frame_left -= size
        if self._frame_key is not None:
            piece = apply_mask(piece, self._frame_key)
            turn = size & 3
            self._frame_key = self._frame_key[turn:] + self._frame_key[:turn]
        if self._frame_fin and not self._frame_left:
            events.append(self._message.finish(piece))
        else:
            self._message.add(piece)
        return position + size

    def _take_control(
        self, data: bytes, position: int, header: FrameHeader, events: list[Event]
    ) -> int:
        end = header.payload_at + header.size
        if end > len(data):
            return position
        payload = data[header.payload_at : end]
        if header.key is not None:
            payload = apply_mask(payload, header.key)
        self._control_left -= 1
        if self._control_left < 0:
            raise ProtocolError(
                f"more than {self._max_control} control frames at once", close_code=1008
            )
        if header.opcode is Opcode.PING:
            events.append(Ping(payload))
        elif header.opcode is Opcode.PONG:
            events.append(Pong(payload))
        else:
            events.append(Close(*parse_close_payload(payload)))
            self._end_received = Act.CLOSE
        return end

    # -- sending --------------------------------------------------------------------------------

    def encode(
        self,
        opcode: Opcode,
        payload: bytes | bytearray | memoryview,
        *,
        fin: bool = True,
        compressed: bool = False,
    ) -> bytes:
        """The frame that carries `payload`. Sending thread only.

        The caller keeps the frames of a message in order (TEXT or BINARY, then CONTINUATION, the
        last with `fin`) and others out from between them (RFC 6455, section 5.4). `compressed`
        goes with the first frame of a message that a `Deflater` made.

        Raises:
            RuntimeError: the closing has come too far for it; ask `state` first.
            ValueError: a control frame over 125 bytes or without `fin`, or a Close frame, which
                is for `close`.
        """
        # Nothing has ended: the state is OPEN, in which everything may be sent.
        if self._close_sent or self._end_received is not None:
            act = Act.CONTROL if opcode >= _FIRST_CONTROL else Act.MESSAGE
            require_may_send(self.state, act)
        if opcode >= _FIRST_CONTROL:
            if opcode == Opcode.CLOSE:
                raise ValueError("a Close frame is made by close()")
            if not fin:
                raise ValueError("a control frame cannot be fragmented")
            payload = bytes(payload)
            if len(payload) > MAX_CONTROL_SIZE:
                raise ValueError(
                    f"a ping or pong carries at most {MAX_CONTROL_SIZE} bytes, not {len(payload)}"
                )
        key = None if self._random_key is None else self._random_key()
        return encode_frame(opcode, payload, fin=fin, masking_key=key, compressed=compressed)

    def close(self, code: int | None, reason: str = "") -> bytes:
        """Our Close frame, the last that we send. Sending thread only.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; None for a frame without payload, the answer
                to one of the peer's without a code.
            reason: at most 123 bytes of UTF-8; `close_codes.cut_reason` makes it fit.

        Raises:
            RuntimeError: it was sent already.
            ValueError: a code or reason that may not be sent; nothing has changed then.
        """
        require_may_send(self.state, Act.CLOSE)
        payload = encode_close_payload(code, reason)
        self._close_sent = True
        key = None if self._random_key is None else self._random_key()
        return encode_frame(Opcode.CLOSE, payload, masking_key=key)
