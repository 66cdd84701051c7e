"""Fuzz target: the frame decoder, in both roles.

Whatever comes, in whatever cut and with whatever room: the same events, a Close or a Failure last
and nothing after it, memory that follows what came and keeps below the limits. What was received
can be encoded and received again.
"""

from __future__ import annotations

from collections.abc import Iterable

from fuzz_input import FuzzInput

from securews.protocol.close_codes import cut_reason, encode_close_payload
from securews.protocol.events import Close, Event, Failure, Ping, Pong
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

SIZES = (None, 1024, 1 << 16, 1 << 20)
"""None is the size of the third piece: many inputs then come near their limit."""
ROOMS = (None, 1, 200, 5000)
CODES = {1000, 1001, 1002, 1003, 1005, *range(1007, 1015), *range(3000, 5000)}
FAILURES = {1002, 1007, 1008, 1009}


def check_frames(data: bytes) -> None:
    """Decode one input in one piece and in many."""
    given = FuzzInput.of(data)
    role = Role.CLIENT if given.flags & 1 else Role.SERVER
    max_size = given.choose(1, SIZES) or given.sizes[2]
    max_fragments = given.choose(3, (4, 1024))
    room = given.choose(4, ROOMS)
    assert max_fragments is not None

    def decoder() -> WebSocketParser:
        return WebSocketParser(role, max_size=max_size, max_fragments=max_fragments)

    whole = received(decoder(), [given.payload], None, max_size)
    assert received(decoder(), given.pieces(), room, max_size) == whole
    check_events(whole, max_size)
    check_round_trip(whole, role, max_size)


def received(
    decoder: WebSocketParser, pieces: Iterable[bytes], room: int | None, max_size: int
) -> list[object]:
    """All events; a Failure, which holds an exception, as its code and text."""
    events: list[Event] = []
    came = 0
    for piece in pieces:
        came += len(piece)
        events += decoder.receive(piece, room)
        while decoder.paused:
            assert room is not None, "paused, and there was room"
            more = decoder.receive(b"", room)
            assert more or not decoder.paused, "paused, and going on does nothing"
            events += more
        # A control frame or header that is not complete, an object's own bytes, and a buffer
        # that grows by eighths.
        assert decoder.unfinished <= 400 + 9 * min(came, max_size) // 8
    if events and isinstance(events[-1], Close | Failure):
        assert decoder.receive(b"\x81\x00\x81\x80\0\0\0\0") == [], "an event behind the end"
        assert not decoder.unfinished
        assert not decoder.in_message
    return [
        (event.error.close_code, str(event.error)) if isinstance(event, Failure) else event
        for event in events
    ]


def check_events(events: list[object], max_size: int) -> None:
    """Each keeps the limits, and the end is the last."""
    for number, event in enumerate(events, 1):
        if isinstance(event, str | bytes):
            assert len(event.encode() if isinstance(event, str) else event) <= max_size
        elif isinstance(event, Ping | Pong):
            assert len(event.payload) <= 125
        else:
            assert number == len(events), "an event behind the end"
            if isinstance(event, Close):
                assert event.code in CODES
                assert cut_reason(event.reason) == event.reason
            else:
                assert isinstance(event, tuple)
                assert event[0] in FAILURES


def check_round_trip(events: list[object], role: Role, max_size: int) -> None:
    """Encode what was received, and receive it again."""
    key = None if role is Role.CLIENT else b"\x01\x80\xfe\x37"  # of the other end
    wire, sent = b"", []
    for event in events:
        if isinstance(event, str):
            wire += encode_frame(Opcode.TEXT, event.encode(), masking_key=key)
        elif isinstance(event, bytes):
            wire += encode_frame(Opcode.BINARY, event, masking_key=key)
        elif isinstance(event, Ping):
            wire += encode_frame(Opcode.PING, event.payload, masking_key=key)
        elif isinstance(event, Pong):
            wire += encode_frame(Opcode.PONG, event.payload, masking_key=key)
        elif isinstance(event, Close):
            code = None if event.code == 1005 else event.code
            payload = encode_close_payload(code, event.reason)
            wire += encode_frame(Opcode.CLOSE, payload, masking_key=key)
        else:
            break
        sent.append(event)
    decoder = WebSocketParser(role, max_size=max_size)
    assert received(decoder, [wire], None, max_size) == sent
