"""Fuzz targets: compressed messages, and the header that agrees on them.

Whatever is said to be compressed, in whatever cut: messages within `max_size`, equal to what zlib
makes of them, or a failure; and of whatever offer an answer that the grammar allows, or none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from fuzz_input import FuzzInput

from securews.common.options import Compression
from securews.protocol.deflate import Deflate
from securews.protocol.deflate_negotiation import DeflateOffer, accept_offer
from securews.protocol.events import Failure
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

SIZES = (100, 4096, 1 << 16, 1 << 20)
WINDOWS = (9, 10, 12, 15)
FAILURES = {1007, 1009}
COMPRESSIONS = (
    Compression(),
    Compression(
        server_window_bits=15,
        client_window_bits=15,
        server_context_takeover=True,
        client_context_takeover=True,
    ),
)
_COMPRESSED = 0x40
"""RSV1 in the first byte of a frame (RFC 7692, section 6)."""


def check_inflate(data: bytes) -> None:
    """The payload as one compressed message or two, in one piece and in many."""
    given = FuzzInput.of(data)
    max_size = given.choose(0, SIZES)
    window_bits = given.choose(2, WINDOWS)
    assert max_size is not None
    assert window_bits is not None
    takeover, text = bool(given.flags & 16), bool(given.flags & 32)
    first = given.sizes[0] if given.flags & 64 else len(given.payload)
    payloads = [part for part in (given.payload[:first], given.payload[first:]) if part]
    opcode = Opcode.TEXT if text else Opcode.BINARY
    wire = b"".join(compressed_frame(opcode, payload) for payload in payloads)
    deflate = Deflate(
        incoming_takeover=takeover,
        incoming_window_bits=window_bits,
        outgoing_takeover=False,
        outgoing_window_bits=15,
        level=1,
        memory_level=1,
        min_size=0,
    )

    def messages(pieces: Iterable[bytes]) -> list[object]:
        decoder = WebSocketParser(Role.SERVER, max_size=max_size, deflate=deflate)
        return received(decoder, pieces, max_size)

    whole = messages([wire])
    assert messages(FuzzInput(given.flags, given.sizes, wire).pieces()) == whole
    if whole and isinstance(whole[0], bytes):
        check_against_zlib(payloads[0], whole[0], window_bits)


def compressed_frame(opcode: Opcode, payload: bytes) -> bytes:
    """A client's frame, with a key that changes nothing."""
    frame = encode_frame(opcode, payload, masking_key=bytes(4))
    return bytes([frame[0] | _COMPRESSED]) + frame[1:]


def received(decoder: WebSocketParser, pieces: Iterable[bytes], max_size: int) -> list[object]:
    """All messages, and "failure" where it ends in one.

    Which one may depend on the cut: text that is wrong and too long is found out as either.
    """
    events: list[object] = []
    for piece in pieces:
        for event in decoder.receive(piece):
            if isinstance(event, Failure):
                assert event.error.close_code in FAILURES
                events.append("failure")
            else:
                assert isinstance(event, str | bytes)
                size = len(event.encode() if isinstance(event, str) else event)
                assert size <= max_size
                events.append((event,) if isinstance(event, str) else event)
        assert decoder.unfinished <= 9 * max_size // 8 + 400
    return events


def check_against_zlib(payload: bytes, message: bytes, window_bits: int) -> None:
    """A message without a final block is what zlib makes of it in one call."""
    reference = zlib.decompressobj(-window_bits)
    inflated = reference.decompress(payload + b"\x00\x00\xff\xff")
    if not reference.eof:
        assert message == inflated


def check_extensions(data: bytes) -> None:
    """The payload as offers to a server, and as a server's answer to a client."""
    given = FuzzInput.of(data)
    lines = given.payload.decode("latin-1").split("\n")
    compression = COMPRESSIONS[given.flags & 1]
    confidential = bool(given.flags & 2)
    answer = accept_offer(lines, compression, confidential=confidential)
    if answer is not None:
        value, deflate = answer
        assert value.isascii()
        assert value.startswith("permessage-deflate")
        check_windows(deflate)
    offer = DeflateOffer(compression, confidential=confidential)
    try:
        agreed = offer.check(lines)
    except ValueError:
        return
    if agreed is not None:
        check_windows(agreed)


def check_windows(deflate: Deflate) -> None:
    """They are those that zlib takes."""
    assert 9 <= deflate.incoming_window_bits <= 15
    assert 9 <= deflate.outgoing_window_bits <= 15
    assert deflate.deflater().compress(b"x")
