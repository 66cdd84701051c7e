"""Frames: encoding, masking, headers."""

from __future__ import annotations

import array
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ProtocolError
from securews.protocol.codec import take_messages
from securews.protocol.frames import FrameHeader, Opcode, apply_mask, encode_frame, read_header

KEY = b"\x01\x80\xfe\x37"


def masked_byte_by_byte(data, key, offset=0):
    """Section 5.3 to the letter."""
    return bytes(byte ^ key[(index + offset) % 4] for index, byte in enumerate(data))


# -- masking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(71), 125, 126, 767, 768, 769, 770, 771, 4099, 65536])
def test_masking_is_right_for_every_size_offset_and_key_position(size):
    data = bytes(itertools.islice(itertools.cycle(range(251)), size))
    for offset in range(9):
        for position in range(4):
            one_byte = bytes(0xA5 if index == position else 0 for index in range(4))
            for key in (one_byte, KEY):
                expected = masked_byte_by_byte(data, key, offset)
                assert apply_mask(data, key, offset) == expected


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4), st.integers(0, 1000))
def test_masking_twice_gives_the_data_back(data, key, offset):
    assert apply_mask(apply_mask(data, key, offset), key, offset) == data


@given(st.binary(max_size=1000), st.integers(0, 1000))
def test_masking_in_two_pieces_is_masking_at_once(data, cut):
    first, second = data[:cut], data[cut:]
    assert apply_mask(first, KEY) + apply_mask(second, KEY, len(first)) == apply_mask(data, KEY)


@pytest.mark.parametrize("size", [5, 1000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_masking_takes_any_bytes_and_leaves_them_as_they_are(kind, size):
    original = bytes(size)
    data = kind(original)
    assert apply_mask(data, KEY) == masked_byte_by_byte(original, KEY)
    assert data == original


# -- encoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_is_written_in_its_shortest_form(size, header):
    assert encode_frame(Opcode.BINARY, bytes(size)) == header + bytes(size)
    masked = encode_frame(Opcode.BINARY, bytes(size), masking_key=b"\0\0\0\0")
    with_mask_bit = bytes([header[0], header[1] | 0x80]) + header[2:]
    assert masked == with_mask_bit + b"\0\0\0\0" + bytes(size)


@pytest.mark.d(40)
def test_the_examples_of_rfc_6455_section_5_7():
    assert encode_frame(Opcode.TEXT, b"Hello") == b"\x81\x05Hello"
    key = b"\x37\xfa\x21\x3d"
    masked = encode_frame(Opcode.TEXT, b"Hello", masking_key=key)
    assert masked == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    assert encode_frame(Opcode.TEXT, b"Hel", fin=False) == b"\x01\x03Hel"
    assert encode_frame(Opcode.CONTINUATION, b"lo") == b"\x80\x02lo"
    assert encode_frame(Opcode.PING, b"Hello") == b"\x89\x05Hello"


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "payload",
    [
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"a-b-c-d-")[::2],
        memoryview(array.array("H", [0x6261, 0x6463])),
    ],
    ids=["bytearray", "memoryview", "strided", "two-byte items"],
)
def test_bytes_like_payloads_are_encoded_as_their_bytes(payload, key):
    expected = encode_frame(Opcode.BINARY, bytes(payload), masking_key=key)
    assert encode_frame(Opcode.BINARY, payload, masking_key=key) == expected


# -- headers -----------------------------------------------------------------------------------


@given(
    st.sampled_from([Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY]),
    st.one_of(st.integers(0, 300), st.integers(65530, 65540)),
    st.booleans(),
    st.booleans(),
)
def test_a_header_is_read_back_and_only_when_it_is_whole(opcode, size, fin, masked):
    key = KEY if masked else None
    frame = b"???" + encode_frame(opcode, bytes(size), fin=fin, masking_key=key)
    payload_at = len(frame) - size
    header = read_header(frame, 3, masked=masked, max_size=1 << 20)
    assert header == FrameHeader(fin, opcode, size, key, payload_at)
    for end in range(3, payload_at):
        assert read_header(frame[:end], 3, masked=masked, max_size=1 << 20) is None


def fault(data, *, masked=True, max_size=1 << 20):
    with pytest.raises(ProtocolError) as caught:
        read_header(data, 0, masked=masked, max_size=max_size)
    return caught.value.close_code, str(caught.value)


@pytest.mark.d(32)
@pytest.mark.promise(45)
@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_a_reserved_bit_is_1002(bit):
    assert fault(bytes([0x81 | bit, 0x80])) == (
        1002,
        "a reserved bit is set, and no extension was agreed on that uses it",
    )


@pytest.mark.d(32)
@pytest.mark.promise(45)
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_a_reserved_opcode_is_1002(opcode):
    assert fault(bytes([0x80 | opcode, 0x80])) == (1002, f"opcode {opcode} is reserved")


@pytest.mark.promise(45)
def test_masking_by_the_wrong_side_is_1002():
    assert fault(b"\x81\x00") == (1002, "a frame of the client is not masked")
    assert fault(b"\x81\x80", masked=False) == (1002, "a frame of the server is masked")


@pytest.mark.d(33)
@pytest.mark.promise(45)
@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_a_control_frame_that_is_long_or_fragmented_is_1002(opcode):
    long = (1002, "a control frame is longer than 125 bytes")
    assert fault(bytes([0x80 | opcode, 0xFE])) == long
    assert fault(bytes([0x80 | opcode, 0xFF])) == long
    assert fault(bytes([opcode, 0x80])) == (1002, "a control frame is fragmented")


@pytest.mark.d(32)
@pytest.mark.promise(39, 45)
@pytest.mark.parametrize(
    "length",
    [b"\xfe\x00\x7d", b"\xfe\x00\x00", b"\xff" + bytes(7) + b"\x05", b"\xff\0\0\0\0\0\0\xff\xff"],
)
def test_a_length_that_is_not_minimal_is_1002(length):
    assert fault(b"\x82" + length) == (1002, "a length is not written in its shortest form")


@pytest.mark.d(30)
@pytest.mark.promise(39)
def test_a_length_with_the_top_bit_is_1002_and_not_1009():
    assert fault(b"\x82\xff\x80" + bytes(7)) == (
        1002,
        "the most significant bit of a 64-bit length is set",
    )


@pytest.mark.d(29)
@pytest.mark.promise(39)
def test_a_length_over_the_limit_is_1009_before_even_the_key_has_come():
    too_large = (1009, "the message is larger than the limit")
    assert fault(b"\x82\xff\x7f" + b"\xff" * 7) == too_large
    assert fault(b"\x82\xfe\x01\x01", max_size=256) == too_large
    assert fault(b"\x82\x8b", max_size=10) == too_large


def test_the_limit_is_for_data_frames_only():
    header = read_header(b"\x89\x85" + KEY, 0, masked=True, max_size=0)
    assert header == FrameHeader(True, Opcode.PING, 5, KEY, 6)


# -- the scan ----------------------------------------------------------------------------------


def scan(data, *, masked=True, max_size=1 << 20, room=None, position=0, most=1 << 30):
    messages = []
    end, room_left = take_messages(
        data, position, messages, masked=masked, max_size=max_size, room=room, most=most
    )
    return messages, end, room_left


payloads = st.lists(
    st.one_of(
        st.binary(max_size=10),
        st.text(max_size=10),
        st.integers(120, 130).map(bytes),
        st.integers(760, 780).map(bytes),
    ),
    max_size=20,
)


def encoded(messages, key):
    return [
        encode_frame(Opcode.TEXT, message.encode(), masking_key=key)
        if isinstance(message, str)
        else encode_frame(Opcode.BINARY, message, masking_key=key)
        for message in messages
    ]


@given(payloads, st.sampled_from([None, KEY]))
def test_the_scan_decodes_what_was_encoded(messages, key):
    wire = b"--" + b"".join(encoded(messages, key)) + bytes(6)
    taken, end, room = scan(wire, masked=key is not None, position=2)
    assert taken == messages
    assert [type(message) for message in taken] == [type(message) for message in messages]
    assert end == len(wire) - 6
    assert room is None


@pytest.mark.parametrize(
    "left",
    [
        encode_frame(Opcode.PING, b"x" * 9, masking_key=KEY),
        encode_frame(Opcode.TEXT, b"x" * 9, fin=False, masking_key=KEY),
        encode_frame(Opcode.TEXT, b"\xff" * 9, masking_key=KEY),
        encode_frame(Opcode.TEXT, b"x" * 9),
        encode_frame(Opcode.TEXT, b"x" * 201, masking_key=KEY),
        encode_frame(Opcode.TEXT, b"x" * 9, masking_key=KEY)[:-1],
        encode_frame(Opcode.BINARY, bytes(65536), masking_key=KEY),
        b"\x81\xfe\x00\x7d" + KEY + b"x" * 125,
        b"\xc1\x85" + KEY + b"x" * 9,
        b"\x81",
    ],
    ids=["control", "fragment", "utf-8", "unmasked", "large", "cut", "64-bit", "long", "rsv", "1"],
)
def test_the_scan_stops_before_whatever_is_not_simple(left):
    wire = encode_frame(Opcode.TEXT, b"first", masking_key=KEY)
    assert scan(wire + left, max_size=200) == (["first"], len(wire), None)


def test_the_scan_stops_with_the_message_that_uses_up_the_room():
    one = encode_frame(Opcode.BINARY, b"x" * 67, masking_key=KEY)  # 100 bytes of memory each
    messages, end, room = scan(one * 5, room=150)
    assert (len(messages), end, room) == (2, 2 * len(one), -50)
    assert scan(one * 5, room=0) == ([], 0, 0)
