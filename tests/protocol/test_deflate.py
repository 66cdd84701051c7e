"""Compressed messages without I/O: every parameter, every cut, every fault, bounded memory."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ProtocolError
from securews.protocol.deflate import (
    MAX_FINAL_BLOCKS,
    Deflate,
    Deflater,
    Inflater,
    compressed_bound,
)
from securews.protocol.events import Close, Failure, Ping
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

KEY = b"\x01\x80\xfe\x37"
TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
TAIL = b"\x00\x00\xff\xff"


def settings(*, takeover=True, bits=15, level=6, memory_level=8):
    """Both directions alike."""
    return Deflate(takeover, bits, takeover, bits, level, memory_level, 0)


def server(max_size=1 << 20, *, deflate=None, **options):
    deflate = deflate or settings()
    return WebSocketParser(Role.SERVER, max_size=max_size, deflate=deflate, **options)


def frame(opcode, payload=b"", *, fin=True, compressed=False):
    return encode_frame(opcode, payload, fin=fin, masking_key=KEY, compressed=compressed)


def deflated(message, bits=15):
    return Deflater(6, 8, bits).compress(message)


def raw(data, *, flush=zlib.Z_FINISH, level=6):
    """DEFLATE data that ends as the test wants it."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(flush)


def failure_of(protocol, data):
    (event,) = protocol.receive(data)
    assert isinstance(event, Failure), event
    return event.error.close_code


# -- the examples of RFC 7692, section 7.2.3 ---------------------------------------------------

HELLO = bytes.fromhex("f248cdc9c90700")


def test_7_2_3_1_one_compressed_block():
    assert deflated(b"Hello") == HELLO
    assert server().receive(frame(TEXT, HELLO, compressed=True)) == ["Hello"]


def test_7_2_3_1_in_two_frames():
    data = frame(TEXT, HELLO[:3], fin=False, compressed=True) + frame(CONTINUATION, HELLO[3:])
    assert server().receive(data) == ["Hello"]


def test_7_2_3_2_the_window_is_shared_by_messages():
    again = bytes.fromhex("f200110000")
    assert server().receive(
        frame(TEXT, HELLO, compressed=True) + frame(TEXT, again, compressed=True)
    ) == ["Hello", "Hello"]
    alone = server(deflate=settings(takeover=False))
    assert alone.receive(frame(TEXT, HELLO, compressed=True)) == ["Hello"]
    assert failure_of(alone, frame(TEXT, again, compressed=True)) == 1007


def test_7_2_3_3_a_block_without_compression():
    payload = bytes.fromhex("000500faff48656c6c6f00")
    assert server().receive(frame(TEXT, payload, compressed=True)) == ["Hello"]


def test_7_2_3_4_a_final_block():
    payload = bytes.fromhex("f348cdc9c9070000")
    protocol = server()
    assert protocol.receive(frame(TEXT, payload, compressed=True) * 3) == ["Hello"] * 3


def test_7_2_3_5_two_blocks_in_one_message():
    payload = bytes.fromhex("f24805000000ffffcac9c90700")
    assert server().receive(frame(TEXT, payload, compressed=True)) == ["Hello"]


def test_7_2_3_6_an_empty_message():
    assert server().receive(frame(TEXT, b"\x00", compressed=True)) == [""]


# -- both ways ---------------------------------------------------------------------------------

shapes = st.builds(
    settings,
    takeover=st.booleans(),
    bits=st.integers(9, 15),
    level=st.integers(1, 9),
    memory_level=st.integers(1, 9),
)
messages = st.lists(
    st.one_of(
        st.text(max_size=300),
        st.binary(max_size=300),
        st.builds(lambda word, times: word * times, st.text(max_size=9), st.integers(0, 999)),
    ),
    max_size=8,
)


def encoded(key, deflate, batch, cuts):
    """The wire form of messages, some plain, some compressed, in frames cut at random."""
    wire, context = b"", deflate.deflater()
    for message in batch:
        opcode = TEXT if isinstance(message, str) else BINARY
        payload = message.encode() if isinstance(message, str) else message
        compressed = bool(payload) and cuts.random() < 0.8
        if compressed:
            if not deflate.outgoing_takeover:
                context = deflate.deflater()
            payload = context.compress(payload)
        while len(payload) > 1 and cuts.random() < 0.3:
            cut = cuts.randrange(1, len(payload))
            wire += encode_frame(
                opcode, payload[:cut], fin=False, masking_key=key, compressed=compressed
            )
            wire += encode_frame(Opcode.PING, b"between", masking_key=key)
            opcode, payload, compressed = CONTINUATION, payload[cut:], False
        wire += encode_frame(opcode, payload, masking_key=key, compressed=compressed)
    return wire


@given(shapes, messages, st.randoms(use_true_random=False), st.sampled_from(Role))
def test_any_messages_with_any_parameters_in_any_cut_arrive(deflate, batch, cuts, role):
    receiver = WebSocketParser(role, max_size=1 << 20, deflate=deflate)
    wire = encoded(KEY if role is Role.SERVER else None, deflate, batch, cuts)
    received = []
    while wire:
        cut = cuts.randrange(1, min(len(wire), 200) + 1)
        received += receiver.receive(wire[:cut], room=cuts.choice([None, 1, 1000]))
        while receiver.paused:
            received += receiver.receive(b"", 1)
        wire = wire[cut:]
    assert [event for event in received if not isinstance(event, Ping)] == batch
    assert receiver.unfinished == 0
    assert not receiver.in_message


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_any_payload_is_a_message_or_a_documented_error(payload, cuts):
    wire = frame(TEXT, payload, compressed=True) + frame(BINARY, payload[::-1], compressed=True)
    events, position = [], 0
    protocol = server(1000)
    while position < len(wire):
        cut = cuts[position % len(cuts)]
        events += protocol.receive(wire[position : position + cut])
        position += cut
    whole = server(1000).receive(wire)
    assert [type(event) for event in events] == [type(event) for event in whole]
    for event in events:
        assert isinstance(event, str | bytes | Failure)
        if isinstance(event, Failure):
            assert event.error.close_code in (1007, 1009)


def test_an_uncompressed_message_between_two_does_not_touch_the_context():
    context = Deflater(6, 8, 15)
    data = (
        frame(TEXT, context.compress(b"Hello, hello"), compressed=True)
        + frame(TEXT, b"plain")
        + frame(TEXT, context.compress(b"Hello, hello"), compressed=True)
    )
    assert server().receive(data) == ["Hello, hello", "plain", "Hello, hello"]


def test_a_message_by_itself_is_right_inside_a_context_that_then_starts_anew():
    context, protocol = Deflater(6, 8, 12), server(deflate=settings(bits=12))
    text = os.urandom(3000).hex().encode()
    wire = [context.compress(text), Deflater(6, 8, 12).compress(text[::-1]), deflated(text, 12)]
    events = protocol.receive(b"".join(frame(BINARY, each, compressed=True) for each in wire))
    assert events == [text, text[::-1], text]


# -- RSV bits ----------------------------------------------------------------------------------


@pytest.mark.promise(45)
@pytest.mark.parametrize(
    "data",
    [
        frame(Opcode.PING, compressed=True),
        frame(Opcode.PONG, compressed=True),
        frame(Opcode.CLOSE, compressed=True),
        frame(CONTINUATION, compressed=True),
        frame(TEXT, HELLO[:3], fin=False, compressed=True)
        + frame(CONTINUATION, HELLO[3:], compressed=True),
        bytes([frame(TEXT)[0] | 0x20]) + frame(TEXT)[1:],
        bytes([frame(TEXT)[0] | 0x10]) + frame(TEXT)[1:],
        bytes([frame(TEXT)[0] | 0x60]) + frame(TEXT)[1:],
    ],
)
def test_a_reserved_bit_where_it_has_no_meaning_is_1002(data):
    assert failure_of(server(), data) == 1002


@pytest.mark.promise(45)
def test_without_agreement_a_compressed_frame_is_1002():
    protocol = WebSocketParser(Role.SERVER, max_size=100)
    assert failure_of(protocol, frame(TEXT, HELLO, compressed=True)) == 1002


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.promise(42)
@pytest.mark.parametrize("takeover", [False, True])
def test_the_limit_is_for_the_inflated_message(takeover):
    deflate = settings(takeover=takeover)
    wire = frame(BINARY, deflated(bytes(1000)), compressed=True)
    assert server(1000, deflate=deflate).receive(wire) == [bytes(1000)]
    assert failure_of(server(999, deflate=deflate), wire) == 1009


@pytest.mark.promise(42)
def test_the_limit_is_for_the_sum_of_all_frames():
    context = Deflater(6, 8, 15)
    first = context.add(bytes(600))
    first += context._stream.flush(zlib.Z_SYNC_FLUSH)
    rest = context.compress(bytes(401))
    data = frame(BINARY, first, fin=False, compressed=True) + frame(CONTINUATION, rest)
    assert failure_of(server(1000), data) == 1009
    assert server(1001).receive(data) == [bytes(1001)]


@pytest.mark.promise(42)
@pytest.mark.parametrize("size", [1, 65536])
def test_a_bomb_ends_at_the_limit_and_takes_no_more_memory_than_it(size):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    million = bytes(1 << 20)
    bomb = b"".join(stream.compress(million) for _ in range(128))  # 128 MiB
    bomb += stream.flush(zlib.Z_SYNC_FLUSH)[:-4]
    limit = 1 << 20
    assert len(bomb) < compressed_bound(limit)
    wire = frame(BINARY, bomb, compressed=True)
    protocol = server(limit)
    tracemalloc.start()
    try:
        events = []
        for start in range(0, len(wire), size):
            events += protocol.receive(wire[start : start + size])
            if events:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [event.error.close_code for event in events] == [1009]
    assert peak < 5 * limit


@pytest.mark.promise(39)
def test_a_compressed_length_that_cannot_be_within_the_limit_is_judged_from_the_header():
    bound = compressed_bound(1000)
    header = frame(BINARY, bytes(bound + 1), compressed=True)[:8]
    assert failure_of(server(1000), header) == 1009
    # ... and so is the sum of the frames.
    protocol = server(1000)
    assert protocol.receive(frame(BINARY, HELLO[:4], fin=False, compressed=True)) == []
    header = frame(CONTINUATION, bytes(bound - 3))[:8]
    assert failure_of(protocol, header) == 1009


@pytest.mark.parametrize("memory_level", [1, 5, 9])
@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("size", [1, 64, 1000, 100_000])
def test_what_cannot_be_compressed_is_still_within_the_bound(bits, memory_level, size):
    noise = random.Random(size).randbytes(size)
    packed = Deflater(6, memory_level, bits).compress(noise)
    assert len(packed) <= compressed_bound(size)
    wire = frame(BINARY, packed, compressed=True)
    assert server(size, deflate=settings(bits=bits)).receive(wire) == [noise]


def test_parsing_pauses_by_what_messages_inflate_to():
    wire = frame(BINARY, deflated(bytes(100_000)), compressed=True) * 50
    protocol = server(deflate=settings(takeover=False))
    assert len(wire) < 10_000
    assert protocol.receive(wire, room=250_000) == [bytes(100_000)] * 3
    assert protocol.paused
    assert protocol.receive(b"", room=100_000) == [bytes(100_000)]


def test_many_final_blocks_are_refused_before_they_cost_their_square():
    packed = raw(b"x")
    enough = frame(TEXT, packed * MAX_FINAL_BLOCKS, compressed=True)
    assert server().receive(enough * 2) == ["x" * MAX_FINAL_BLOCKS] * 2
    assert failure_of(server(), frame(TEXT, packed * 10_000, compressed=True)) == 1007


# -- content -----------------------------------------------------------------------------------


@pytest.mark.promise(46)
def test_text_is_judged_at_the_first_wrong_byte_of_what_it_inflates_to():
    packed = raw(b"right \xff", flush=zlib.Z_SYNC_FLUSH)
    announced = frame(TEXT, packed + bytes(50), compressed=True)
    assert failure_of(server(), announced[:-50]) == 1007


@pytest.mark.promise(46)
def test_text_that_ends_inside_a_character_is_1007():
    assert failure_of(server(), frame(TEXT, deflated(b"caf\xc3"), compressed=True)) == 1007


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize(
    "payload",
    [
        b"\x07",  # a block of a kind that does not exist
        b"\xff" * 8,
        HELLO[:3],  # ends inside a block
        HELLO[:-1] + b"\x02",
        raw(b"x" * 100, flush=zlib.Z_SYNC_FLUSH, level=0)[:50],
        bytes.fromhex("f200110000"),  # refers to what never came
    ],
)
def test_what_is_no_deflate_data_is_1007(payload, takeover):
    protocol = server(deflate=settings(takeover=takeover))
    assert failure_of(protocol, frame(TEXT, payload, compressed=True)) == 1007


@pytest.mark.parametrize("takeover", [False, True])
def test_a_message_without_a_byte_is_empty_and_harms_no_context(takeover):
    deflate = settings(takeover=takeover)
    context, wire = Deflater(6, 8, 15), b""
    for _ in range(3):
        if not takeover:
            context = Deflater(6, 8, 15)
        wire += frame(TEXT, context.compress(b"Hello"), compressed=True)
        wire += frame(TEXT, compressed=True)
        wire += frame(TEXT, fin=False, compressed=True) + frame(CONTINUATION)
    assert server(deflate=deflate).receive(wire) == ["Hello", "", ""] * 3


def test_a_final_block_may_end_a_message_or_stand_inside_it():
    end = raw(b"one ")
    inside = raw(b"two ") + deflated(b"three")
    for takeover in (False, True):
        protocol = server(deflate=settings(takeover=takeover))
        wire = frame(TEXT, end, compressed=True) + frame(TEXT, inside, compressed=True)
        assert protocol.receive(wire * 2) == ["one ", "two three"] * 2


def test_a_failure_between_messages_gives_what_was_right_before_it():
    good, bad = frame(TEXT, HELLO, compressed=True), frame(TEXT, b"\x07", compressed=True)
    events = server(deflate=settings(takeover=False)).receive(good + bad + good)
    assert events[0] == "Hello"
    assert isinstance(events[1], Failure)
    assert len(events) == 2


def test_a_close_behind_compressed_messages_is_found():
    wire = frame(TEXT, HELLO, compressed=True) + frame(Opcode.CLOSE, b"\x03\xe8")
    assert server().receive(wire) == ["Hello", Close(1000, "")]


def test_what_has_come_of_a_message_is_counted_as_it_came():
    packed = deflated(bytes(100_000))
    protocol = server()
    assert protocol.receive(frame(BINARY, packed, compressed=True)[:-1]) == []
    assert protocol.message_received == len(packed) - 1
    assert protocol.unfinished > 50_000


# -- memory ------------------------------------------------------------------------------------


def test_an_inflater_holds_a_stream_only_for_a_context_or_within_a_message():
    for takeover in (False, True):
        inflater = Inflater(15, takeover=takeover)
        assert inflater._stream is None
        inflater.inflate(HELLO[:3], 100)
        assert inflater._stream is not None
        inflater.inflate(HELLO[3:], 100, last=True)
        assert (inflater._stream is not None) is takeover


def test_the_inflater_never_gives_more_than_it_is_told():
    inflater = Inflater(15, takeover=False)
    with pytest.raises(ProtocolError) as caught:
        inflater.inflate(deflated(bytes(11)), 10, last=True)
    assert caught.value.close_code == 1009
    assert Inflater(15, takeover=False).inflate(b"\x00", 0, last=True) == b""
