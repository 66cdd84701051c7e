"""The receiving half of a WebSocket without I/O: bytes in, events out.

How it works
------------
A read is parsed in one pass or in several. Between messages, `take_messages` takes every
unfragmented message that stands complete in the read, in one tight loop. What it leaves is taken
one frame at a time by `_take_frame`, and then the loop goes on. So whatever is rare or wrong is
judged in one place, and the loop can be compiled without a rule in it.

A pass ends where its share of work is used up, or its room in memory: a peer chooses what its bytes
cost us, and others are not to wait for it. A frame of one byte costs as much as 8 small messages
that the loop takes; a message that is inflated costs by what comes out.

Nothing is kept of a read but what cannot be used yet: an incomplete header or control frame (131
bytes at most), or, when parsing pauses, the read itself with the position reached. The payload of
an incomplete data frame is unmasked, checked and stored as it comes: once for every byte, however
the bytes are cut, and in memory that follows what has come and not what was announced.
"""

from __future__ import annotations

import enum
from sys import getsizeof, maxsize

from securews.common.errors import ProtocolError
from securews.protocol.close_codes import parse_close_payload
from securews.protocol.codec import apply_mask, take_messages
from securews.protocol.deflate import Deflate
from securews.protocol.events import Close, Event, Failure, Ping, Pong
from securews.protocol.frames import FrameHeader, Opcode, read_header
from securews.protocol.messages import IncomingMessage

__all__ = ["WORK", "Role", "WebSocketParser"]

_FIRST_CONTROL = Opcode.CLOSE  # a global is found faster than the member of an enum

_MEMORY_PER_BYTE = 32
"""Bytes of memory that one received byte can become, at most: an empty text message takes 49 for
its 2-byte frame, text with an emoji 4 per byte and 76 once. Where the room is larger than that, no
message needs to be measured (`getsizeof` would be a sixth of the time that a small one takes)."""
_CHARACTER, _MESSAGE = 4, 76
"""The same where the work of a pass allows only so many messages."""


WORK = 256
"""What one pass may cost: so many small messages, or a share of others (see below)."""
_FRAME_WORK = 8
"""Of a frame that is taken by itself."""
_INFLATED_WORK = 4 << 10
"""Bytes inflated that cost as much as a small message."""
_COMPRESSED_PIECE = 4 << 10
"""Bytes that are inflated at once: they may become a thousand times as many."""


class Role(enum.Enum):
    """Which end this is. A client masks what it sends (RFC 6455, section 5.1)."""

    SERVER = "server"
    CLIENT = "client"


class WebSocketParser:
    """Parses what one end of a WebSocket receives. One thread at a time.

    Args:
        role: which end we are.
        max_size: the largest message to receive, in bytes (text: of UTF-8).
        max_fragments: frames of one received message at most.
        max_control: control frames that one call of `receive` takes; more are a fault (1008), so
            that a read full of them costs no more than so many. None is any number.
        deflate: what was agreed about compression; None where nothing was.

    Attributes, as the last `receive` left them:
        paused: whether room or work was used up before the bytes were.
        in_message: whether a frame or message has begun and is not complete. Bytes that wait
            because of a pause do not count: they are no delay of the peer.
        unfinished: bytes of memory held for what is incomplete or waits; 0 if nothing is.
    """

    __slots__ = (
        "_control_left",
        "_ended",
        "_frame_fin",
        "_frame_key",
        "_frame_left",
        "_kept",
        "_kept_from",
        "_masked",
        "_max_control",
        "_max_size",
        "_message",
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
        deflate: Deflate | None = None,
    ) -> None:
        self._masked = role is Role.SERVER
        self._max_size = max_size
        self._max_control = maxsize if max_control is None else max_control
        self._control_left = self._max_control
        self._ended = False
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
    def message_received(self) -> int:
        """Bytes of the unfinished message that have come, before they were inflated."""
        return self._message.received + len(self._kept)

    def receive(self, data: bytes, room: int | None = None, work: int = maxsize) -> list[Event]:
        """Parse what was read.

        Args:
            data: the bytes that came, in any cut.
            room: bytes of memory (`sys.getsizeof` of each) that the messages may take; the one
                that reaches it is the last. None is any amount.
            work: what the pass may cost; see `WORK`.

        Where either is used up parsing pauses: the rest is kept, `paused` is True, and
        `receive(b"", ...)` goes on. Read nothing more from the peer before.

        Returns:
            What came, in its order. After a `Close` or a `Failure`, which are always the last,
            everything more is discarded.
        """
        events: list[Event] = []
        if self._ended:
            return events
        self._control_left = self._max_control
        position = 0
        if self._kept:
            if data:
                data = self._kept[self._kept_from :] + data
            else:
                data, position = self._kept, self._kept_from
        try:
            position = self._parse(data, position, events, room, work)
        except ProtocolError as error:
            # The fault is the peer's: where it was found is of no interest, and a traceback
            # would keep this frame, and the data, alive.
            error.__context__ = None
            events.append(Failure(error.with_traceback(None)))
            self._ended = True
        if self._ended:
            self.forget()
        else:
            self._keep(data, position)
            self.in_message = self._message.begun
            self.unfinished = self._message.memory()
            if self._kept:
                self.in_message = self.in_message or not self.paused
                self.unfinished += getsizeof(self._kept)
        return events

    def forget(self) -> None:
        """Nothing more is of interest: let go of what is incomplete, and discard what comes."""
        self._ended = True
        self._message.clear()
        self._kept, self._kept_from = b"", 0
        self.paused = self.in_message = False
        self.unfinished = 0

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

    def _parse(
        self, data: bytes, position: int, events: list[Event], room: int | None, work: int
    ) -> int:
        """Take all that can be taken from `position` on; return where the rest begins."""
        self.paused = False
        end = len(data)
        if room is not None and self._message.max_compressed is None:
            count = end - position + self._message.memory()
            most = _CHARACTER * count + _MESSAGE * min(work, count)
            room = None if room > min(most, _MEMORY_PER_BYTE * count) else room
        while position < end:
            if work <= 0 or (room is not None and room <= 0):
                self.paused = True
                break
            before, count = position, len(events)
            if not self._message.begun:
                position, room = take_messages(
                    data,
                    position,
                    events,
                    masked=self._masked,
                    max_size=self._max_size,
                    room=room,
                    most=work,
                )
                work -= len(events) - count
                if position > before:
                    continue  # to the two questions above
            memory = self._message.memory()
            position = self._take_frame(data, position, events)
            if position == before or self._ended:
                break
            work -= _FRAME_WORK
            message = events[-1] if len(events) > count else None
            if isinstance(message, str | bytes):
                if room is not None:
                    room -= getsizeof(message)
                work -= len(message) // _INFLATED_WORK
            else:
                work -= max(0, self._message.memory() - memory) // _INFLATED_WORK
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

        most = self._frame_left
        if self._message.compressed and most > _COMPRESSED_PIECE:
            most = _COMPRESSED_PIECE
        piece = data[position : position + most]
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
            self._ended = True
        return end
