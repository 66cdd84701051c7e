"""The functions that run for every frame: the module in use and its source say the same."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import source_of

from securews.protocol import codec

in_python = source_of(codec)

keys = st.binary(min_size=4, max_size=4)
sizes = st.sampled_from([0, 1, 7, 8, 9, 125, 126, 127, 767, 768, 769, 65535, 65536, 65537])
payloads = st.binary(max_size=200) | sizes.map(lambda size: bytes(range(251)) * (size // 251 + 1))


@given(payloads, keys, st.integers(0, 9))
def test_masking(payload, key, offset):
    expected = bytes(byte ^ key[(offset + at) & 3] for at, byte in enumerate(payload))
    for module in (codec, in_python):
        assert module.apply_mask(payload, key, offset) == expected
        assert module.apply_mask(memoryview(payload), key, offset) == expected
        assert module.apply_mask(bytearray(payload), key, offset) == expected


@given(
    st.sampled_from([0, 1, 2, 8, 9, 10]), payloads, st.booleans(), st.none() | keys, st.booleans()
)
def test_encoding(opcode, payload, fin, key, compressed):
    options = {"fin": fin, "masking_key": key, "compressed": compressed}
    frame = in_python.encode_frame(opcode, payload, **options)
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert codec.encode_frame(opcode, form, **options) == frame


def test_a_view_with_a_stride_is_encoded_as_what_it_shows():
    view = memoryview(b"abcdefgh")[::2]
    for module in (codec, in_python):
        assert module.encode_frame(2, view) == b"\x82\x04aceg"


frames = st.builds(
    lambda first, payload, key: in_python.encode_frame(first, payload, masking_key=key),
    st.sampled_from([0, 1, 2, 2, 1, 9]),
    st.text(max_size=150).map(str.encode) | payloads,
    st.none() | keys | keys | keys,
)
reads = st.builds(
    lambda parts, noise, cut: (b"".join(parts) + noise)[: len(noise) - cut or None],
    st.lists(frames, max_size=8),
    st.binary(max_size=30),
    st.integers(0, 40),
)


@given(
    reads,
    st.booleans(),
    st.sampled_from([0, 100, 1 << 20]),
    st.none() | st.integers(0, 5000),
    st.integers(0, 9),
)
@example(b"\x81\x80abcd" * 3, True, 10, None, 9)
@example(b"\x82\xfe\x00\x7dabcd" + bytes(125), True, 1000, None, 9)  # a length that is not minimal
@example(b"\x82\xff" + bytes(6) + b"\xff\xffabcd" + bytes(65535), True, 1 << 20, None, 9)
@example(b"\x82\xff\xff" + bytes(90), True, 1 << 20, None, 9)  # longer than an integer of C
@example(b"\x82\xff" + bytes(5) + b"\1", True, 1 << 20, None, 9)  # cut off in the length
@example(b"\x81\x81\0\0\0\0\xff", True, 1000, None, 9)  # no UTF-8
def test_taking_messages(data, masked, max_size, room, most):
    results = []
    for module in (codec, in_python):
        messages = []
        stopped = module.take_messages(
            data, 0, messages, masked=masked, max_size=max_size, room=room, most=most
        )
        results.append((stopped, messages, [type(message) for message in messages]))
    assert results[0] == results[1]


@pytest.mark.parametrize("wrong", [b"", b"abc", b"abcde"])
def test_a_key_has_four_bytes(wrong):
    for module in (codec, in_python):
        with pytest.raises(ValueError, match="4 bytes"):
            module.apply_mask(b"payload", wrong)
        with pytest.raises(ValueError, match="4 bytes"):
            module.encode_frame(2, b"payload", masking_key=wrong)
