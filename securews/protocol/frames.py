"""Frames on the wire (RFC 6455, section 5.2): what they are called, and the header of one."""

from __future__ import annotations

import enum
from typing import NamedTuple

from securews.common.errors import ProtocolError
from securews.protocol.codec import RSV1, apply_mask, encode_frame

__all__ = ["FrameHeader", "Opcode", "apply_mask", "encode_frame", "read_header"]

MAX_CONTROL_SIZE = 125
"""Payload bytes of a control frame at most (RFC 6455, section 5.5)."""


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455, section 11.8)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES = {int(opcode): opcode for opcode in Opcode}
_BEGIN_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


class FrameHeader(NamedTuple):
    """The header of one frame.

    `size` is the announced length of the payload in bytes, `key` its masking key (None where the
    frame is not masked), `payload_at` the position of its first byte. `compressed` is the bit
    RSV1, which only the first frame of a message has (RFC 7692, section 6).
    """

    fin: bool
    opcode: Opcode
    size: int
    key: bytes | None
    payload_at: int
    compressed: bool = False


def read_header(
    data: bytes, position: int, *, masked: bool, max_size: int, max_compressed: int | None = None
) -> FrameHeader | None:
    """Read and judge the header of the frame that begins at `position`.

    Each part is judged as soon as it is there, in the order of the bytes. So the fault that is
    found does not depend on how the bytes were cut, and an excessive length is refused before
    anything of the payload has come.

    Args:
        data: the bytes received.
        position: where the frame begins in them.
        masked: whether the frame has to be masked (a client's has to, a server's must not).
        max_size: the largest payload that a data frame may announce, in bytes.
        max_compressed: the same for a frame that begins a compressed message; None where
            compression was not agreed on.

    Returns:
        The header, or None while it is incomplete.

    Raises:
        ProtocolError: 1002 for a header that breaks the rules, 1009 for a length over `max_size`.
    """
    available = len(data) - position
    if available < 2:
        return None
    first, second = data[position], data[position + 1]
    opcode = _judge_start(first, second, masked=masked, deflate=max_compressed is not None)
    compressed = bool(first & RSV1)
    if compressed and max_compressed is not None:
        max_size = max_compressed
    position += 2

    size = second & 0x7F
    if size > 125:
        width = 2 if size == 126 else 8
        if available < 2 + width:
            return None
        size = int.from_bytes(data[position : position + width])
        position += width
        available -= width
        _judge_length(size, width)
    if size > max_size and opcode < Opcode.CLOSE:
        raise ProtocolError("the message is larger than the limit", 1009)

    key = None
    if masked:
        if available < 6:
            return None
        key = data[position : position + 4]
        position += 4
    return FrameHeader(first >= 0x80, opcode, size, key, position, compressed)


def _judge_start(first: int, second: int, *, masked: bool, deflate: bool) -> Opcode:
    """The rules for the first two bytes (RFC 6455, sections 5.1, 5.2 and 5.5)."""
    reserved = first & 0x70
    if reserved and (reserved != RSV1 or not deflate):
        raise ProtocolError("a reserved bit is set, and no extension was agreed on that uses it")
    opcode = _OPCODES.get(first & 0x0F)
    if opcode is None:
        raise ProtocolError(f"opcode {first & 0x0F} is reserved")
    if reserved and opcode not in _BEGIN_MESSAGES:
        raise ProtocolError("RSV1 is set on a frame that begins no message (RFC 7692, section 6)")
    if masked and second < 0x80:
        raise ProtocolError("a frame of the client is not masked")
    if not masked and second >= 0x80:
        raise ProtocolError("a frame of the server is masked")
    if opcode >= Opcode.CLOSE:
        if first < 0x80:
            raise ProtocolError("a control frame is fragmented")
        if second & 0x7F > MAX_CONTROL_SIZE:
            raise ProtocolError("a control frame is longer than 125 bytes")
    return opcode


def _judge_length(size: int, width: int) -> None:
    """Extended lengths are minimal and have 63 bits (RFC 6455, section 5.2)."""
    if size >> 63:
        raise ProtocolError("the most significant bit of a 64-bit length is set")
    if size < (126 if width == 2 else 1 << 16):
        raise ProtocolError("a length is not written in its shortest form")
