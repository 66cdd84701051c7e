"""The three functions that run for every frame: masking, encoding, and the scan of a read.

They are plain functions of bytes, without state. `codec.pyx` has their compiled twins, which take
the place of this module where they could be built (see `securews/common/acceleration.py`); both
pass the same tests. `take_messages` takes only what is simple and right; whatever it leaves
(control frames, fragments, frames that go on in the next read, every fault) is judged by
`parser.py`, in one place. So the scan may stop anywhere without a change in behaviour, and
needs no error of its own.
"""

from __future__ import annotations

from struct import Struct
from sys import getsizeof
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securews.protocol.events import Event

__all__ = ["apply_mask", "encode_frame", "take_messages"]

RSV1 = 0x40
"""The bit of the first byte that says "compressed" (RFC 7692, section 6)."""

_LANES_FROM = 768
"""Payload bytes from which four translated lanes are faster than one large integer (measured)."""

_XOR_WITH = [
    (int.from_bytes(bytes(range(256))) ^ int.from_bytes(bytes([key]) * 256)).to_bytes(256)
    for key in range(256)
]
"""`bytes.translate` tables: every byte XORed with one byte of a key."""

# A key, as a 32-bit number, times _REPEATED[size] is the key again and again in whole words;
# shifted right by _SURPLUS[size] bits it is as long as a payload of `size` bytes.
_REPEATED = [int.from_bytes(b"\0\0\0\1" * ((size + 3) // 4)) for size in range(126)]
_SURPLUS = [8 * (-size % 4) for size in range(126)]

_short_header = Struct("!BBI").unpack_from  # flags and opcode, mask bit and size, key


def apply_mask(data: bytes | bytearray | memoryview, key: bytes, offset: int = 0) -> bytes:
    """Mask or unmask `data`, which is the same thing (RFC 6455, section 5.3).

    Args:
        data: the payload or a piece of it; a memoryview is one of bytes.
        key: the four bytes of the masking key.
        offset: how many bytes of the payload came before this piece.

    Returns:
        As many bytes as `data` has.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    size = len(data)
    turn = offset & 3
    if turn:
        key = key[turn:] + key[:turn]
    if size < _LANES_FROM:
        words = int.from_bytes(key * ((size + 3) >> 2))
        return (int.from_bytes(data) ^ words >> (-size & 3) * 8).to_bytes(size)
    lanes = bytearray(data)
    for lane in range(4):
        lanes[lane::4] = lanes[lane::4].translate(_XOR_WITH[key[lane]])
    return bytes(lanes)


def encode_frame(
    opcode: int,
    payload: bytes | bytearray | memoryview,
    *,
    fin: bool = True,
    masking_key: bytes | None = None,
    compressed: bool = False,
) -> bytes:
    """Encode one frame, header and payload in one piece, so that they leave in one send.

    Knows no rules but the format's; the state and the limits of control frames are the concern
    of whoever sends. Any thread.

    Args:
        opcode: an `Opcode`.
        payload: the payload; its length is written in the shortest form.
        fin: whether the message ends with this frame.
        masking_key: four unpredictable bytes for a client's frame, None for a server's.
        compressed: set RSV1: the first frame of a compressed message (RFC 7692, section 6).
    """
    if isinstance(payload, memoryview):
        payload = payload.tobytes()  # of any item size and any stride
    size = len(payload)
    first = opcode | 0x80 if fin else opcode
    if compressed:
        first |= RSV1
    mask_bit = 0 if masking_key is None else 0x80
    if size < 126:
        header = (first << 8 | mask_bit | size).to_bytes(2)
    elif size < 1 << 16:
        header = (first << 24 | (mask_bit | 126) << 16 | size).to_bytes(4)
    else:
        header = (first << 72 | (mask_bit | 127) << 64 | size).to_bytes(10)
    if masking_key is None:
        return header + payload
    return b"".join((header, masking_key, apply_mask(payload, masking_key)))


def take_messages(
    data: bytes,
    position: int,
    messages: list[Event],
    *,
    masked: bool,
    max_size: int,
    room: int | None,
    most: int,
) -> tuple[int, int | None]:
    """Take the unfragmented messages that stand complete in `data` from `position` on.

    Stops before the first frame that is anything else: of another kind, longer than `max_size`,
    not all there, or faulty in any way. Call it between messages only.

    Args:
        data: what was read.
        position: where a frame begins in it, in bytes.
        messages: the list to append to, `str` for text and `bytes` for binary.
        masked: whether frames have to be masked (those of a client have to).
        max_size: the largest payload, in bytes.
        room: bytes of memory after which to stop, or None for as many as there are.
        most: messages at most.

    Returns:
        The position of the first byte that was not taken, and what is left of the room.
    """
    append = messages.append
    from_bytes = int.from_bytes
    key_size = 4 if masked else 0
    mask_bit = key_size << 5
    last = len(data) - 6  # six bytes can be unpacked wherever position <= last
    end_of_data = len(data)
    while position <= last and most > 0 and (room is None or room > 0):
        first, size, key = _short_header(data, position)
        size ^= mask_bit  # above 127 if the mask bit was not as it has to be
        if size > 127 or (first != 0x82 and first != 0x81):  # noqa: PLR1714 (a set is slower)
            break
        start = position + 2 + key_size
        if size > 125:
            width = 2 if size == 126 else 8
            # What is cut off here is too short, or its end is not there.
            size = from_bytes(data[position + 2 : position + 2 + width])
            start += width
            if size < (126 if width == 2 else 1 << 16):
                break
        end = start + size
        if end > end_of_data or size > max_size:
            break
        payload = data[start:end]
        if masked:
            if size < 126:
                mask = key * _REPEATED[size] >> _SURPLUS[size]
                payload = (from_bytes(payload) ^ mask).to_bytes(size)
            else:
                payload = apply_mask(payload, data[start - 4 : start])
        if first == 0x82:
            append(payload)
        else:
            try:
                append(payload.decode())
            except UnicodeDecodeError:
                break
        position = end
        most -= 1
        if room is not None:
            room -= getsizeof(messages[-1])
    return position, room
