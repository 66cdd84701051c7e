"""The parser of a WebSocket: every cut of the input, every limit, every fault."""

from __future__ import annotations

import itertools
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ProtocolError
from securews.connection.intake import EVENT_ROOM
from securews.protocol import parser
from securews.protocol.codec import take_messages
from securews.protocol.events import Close, Failure, Ping, Pong
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

KEY = b"\x01\x80\xfe\x37"
TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


def server(max_size=1 << 20, **options):
    return WebSocketParser(Role.SERVER, max_size=max_size, **options)


def client(max_size=1 << 20, **options):
    return WebSocketParser(Role.CLIENT, max_size=max_size, **options)


def frame(opcode, payload=b"", *, fin=True):
    """A frame as a client sends it."""
    return encode_frame(opcode, payload, fin=fin, masking_key=KEY)


def sent_by(role, opcode, payload=b"", *, fin=True):
    """A frame as this end sends it."""
    return encode_frame(opcode, payload, fin=fin, masking_key=KEY if role is Role.CLIENT else None)


def other(role):
    """The other end."""
    return Role.SERVER if role is Role.CLIENT else Role.CLIENT


def comparable(events):
    """Events with their types, errors as what they say."""
    return [
        ("failure", event.error.close_code, str(event.error))
        if isinstance(event, Failure)
        else (type(event), event)
        for event in events
    ]


def failure_of(protocol, data):
    """The close code of the failure that ends `data`, which has to come alone."""
    (event,) = protocol.receive(data)
    assert isinstance(event, Failure)
    return event.error.close_code


# -- messages ----------------------------------------------------------------------------------


def test_a_text_message_is_str_and_a_binary_one_bytes():
    data = frame(TEXT, "grüße €".encode()) + frame(BINARY, b"\xff\x00")
    assert server().receive(data) == ["grüße €", b"\xff\x00"]


def test_empty_messages_are_messages():
    assert server().receive(frame(TEXT) + frame(BINARY)) == ["", b""]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 767, 768, 65535, 65536, 65537])
@pytest.mark.parametrize("role", Role)
def test_messages_of_every_form_of_length_arrive_at_both_ends(role, size):
    receiver = WebSocketParser(role, max_size=1 << 20)
    payload = bytes(index % 251 for index in range(size))
    wire = sent_by(other(role), BINARY, payload) + sent_by(other(role), TEXT, b"x" * size)
    assert receiver.receive(wire) == [payload, "x" * size]
    assert not receiver.in_message
    assert receiver.unfinished == 0


@pytest.mark.d(34, 35)
def test_control_frames_inside_a_fragmented_message_come_first_and_leave_it_whole():
    data = (
        frame(TEXT, b"hel", fin=False)
        + frame(Opcode.PING, b"1")
        + frame(CONTINUATION, b"lo ", fin=False)
        + frame(Opcode.PONG, b"2")
        + frame(CONTINUATION, b"world")
    )
    assert server().receive(data) == [Ping(b"1"), Pong(b"2"), "hello world"]


def test_a_character_may_be_split_over_fragments():
    data = frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"\xac")
    assert server().receive(data) == ["€"]


def test_the_size_limit_is_inclusive_and_for_the_sum_of_all_fragments():
    whole = server(max_size=10)
    assert whole.receive(frame(BINARY, bytes(10))) == [bytes(10)]
    parts = frame(BINARY, bytes(6), fin=False) + frame(CONTINUATION, bytes(4))
    assert whole.receive(parts) == [bytes(10)]
    assert whole.receive(frame(BINARY, bytes(10))) == [bytes(10)]


# -- any cut, any order ------------------------------------------------------------------------

texts = st.text(max_size=12)
data_payloads = st.one_of(
    st.tuples(st.just(TEXT), texts.map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=12)),
    st.tuples(st.just(BINARY), st.integers(120, 135).map(bytes)),
    st.tuples(st.just(TEXT), st.integers(760, 780).map(lambda size: "é".encode() * (size // 2))),
    st.tuples(st.just(TEXT), st.binary(max_size=4)),  # seldom valid
)
control_frames = st.one_of(
    st.binary(max_size=125).map(lambda payload: (Opcode.PING, payload, True)),
    st.binary(max_size=125).map(lambda payload: (Opcode.PONG, payload, True)),
)


@st.composite
def messages_in_frames(draw):
    """One message in one frame or several, with control frames between them."""
    opcode, payload = draw(data_payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    bounds = [0, *cuts, len(payload)]
    frames = []
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):
        frames.append(
            (
                opcode if index == 0 else CONTINUATION,
                payload[start:end],
                end == bounds[-1] and index == len(cuts),
            )
        )
        frames += draw(st.lists(control_frames, max_size=1))
    return frames


odd_frames = st.one_of(
    st.tuples(st.just(Opcode.CLOSE), st.binary(max_size=6), st.just(True)),
    st.tuples(st.just(Opcode.CLOSE), st.just(b"\x03\xe8bye"), st.just(True)),
    st.tuples(st.sampled_from([*Opcode, 3, 11]), st.binary(max_size=130), st.booleans()),
).map(lambda odd: [odd])


@st.composite
def conversations(draw):
    """What a client sends: mostly right, sometimes wrong, sometimes noise at the end."""
    groups = draw(
        st.lists(st.one_of(messages_in_frames(), messages_in_frames(), odd_frames), max_size=6)
    )
    key = draw(st.binary(min_size=4, max_size=4))
    wire = b"".join(
        encode_frame(opcode, payload, fin=fin, masking_key=key)
        for group in groups
        for opcode, payload, fin in group
    )
    return wire + draw(st.one_of(st.just(b""), st.binary(max_size=20)))


def cut_up(data, cuts):
    bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def in_pieces(protocol, pieces):
    return [event for piece in pieces for event in protocol.receive(piece)]


@pytest.mark.promise(45, 46)
@given(conversations(), st.lists(st.integers(0, 5000), max_size=12))
def test_any_cut_of_the_input_gives_the_same_events(wire, cuts):
    whole, cut, single = server(), server(), server()
    expected = comparable(whole.receive(wire))
    assert comparable(in_pieces(cut, cut_up(wire, cuts))) == expected
    assert comparable(in_pieces(single, cut_up(wire, range(len(wire))))) == expected
    assert whole.in_message == cut.in_message == single.in_message
    assert bool(whole.unfinished) == bool(cut.unfinished) == bool(single.unfinished)


@given(conversations(), st.lists(st.integers(0, 5000), max_size=5), st.integers(1, 400))
def test_any_room_gives_the_same_events_a_few_at_a_time(wire, cuts, room):
    expected = comparable(server().receive(wire))
    protocol = server()
    events = []
    for piece in cut_up(wire, cuts):
        batches = [protocol.receive(piece, room)]
        while protocol.paused:
            assert protocol.unfinished > 0
            batches.append(protocol.receive(b"", room))
        for batch in batches:
            sizes = [sys.getsizeof(event) for event in batch if isinstance(event, str | bytes)]
            assert sum(sizes[:-1]) < room
            events += batch
    assert comparable(events) == expected


def take_nothing(data, position, messages, *, masked, max_size, room, most):
    """The scan at its most careful: it may stop anywhere."""
    return position, room


@given(wire=conversations())
def test_the_careful_path_alone_gives_the_same_events_as_the_fast_scan(wire):
    expected = comparable(server().receive(wire))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "take_messages", take_nothing)
        assert comparable(server().receive(wire)) == expected


@given(
    st.lists(st.one_of(texts, st.binary(max_size=300)), max_size=10),
    st.sampled_from(Role),
    st.lists(st.integers(0, 5000), max_size=6),
)
def test_what_one_end_encodes_the_other_decodes(messages, role, cuts):
    receiver = WebSocketParser(other(role), max_size=1 << 20)
    wire = b"".join(
        sent_by(role, TEXT, message.encode())
        if isinstance(message, str)
        else sent_by(role, BINARY, message)
        for message in messages
    )
    received = in_pieces(receiver, cut_up(wire, cuts))
    assert comparable(received) == comparable(messages)


@pytest.mark.promise(63)
@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from(Role))
def test_noise_never_raises(pieces, role):
    protocol = WebSocketParser(role, max_size=100)
    events = in_pieces(protocol, pieces)
    assert all(not isinstance(event, Failure | Close) for event in events[:-1])


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.promise(45)
@pytest.mark.parametrize(
    "data",
    [
        frame(CONTINUATION, b"x"),
        frame(CONTINUATION, b"x", fin=False),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False),
        frame(3),
        frame(Opcode.PING, bytes(126)),
        frame(Opcode.PING, fin=False),
        frame(Opcode.CLOSE, b"\x03"),
        frame(Opcode.CLOSE, b"\x03\xed"),
        b"\x81\x05hello",
        b"\xc1\x85" + KEY,
    ],
    ids=[
        "continuation of nothing",
        "fragment of nothing",
        "text inside text",
        "binary inside text",
        "reserved opcode",
        "long ping",
        "fragmented ping",
        "close of one byte",
        "close 1005",
        "unmasked",
        "reserved bit",
    ],
)
@pytest.mark.d(32, 33, 35, 37)
def test_a_breach_of_the_protocol_is_a_failure_with_1002(data):
    protocol = server()
    assert failure_of(protocol, data) == 1002
    assert protocol.receive(frame(TEXT, b"late")) == []


def test_a_masked_frame_of_a_server_is_a_failure_with_1002():
    assert failure_of(client(), frame(TEXT, b"x")) == 1002


def test_what_came_before_a_failure_is_returned_before_it():
    events = server().receive(
        frame(TEXT, b"a") + frame(Opcode.PING, b"b") + frame(3) + frame(TEXT, b"c")
    )
    assert events[:2] == ["a", Ping(b"b")]
    assert isinstance(events[2], Failure)
    assert len(events) == 3


def test_after_a_failure_nothing_is_parsed_and_nothing_is_held():
    protocol = server()
    protocol.receive(frame(TEXT, b"begun", fin=False))
    assert failure_of(protocol, frame(3) + frame(TEXT, b"more")) == 1002
    assert protocol.receive(frame(TEXT, b"x")) == []
    assert (protocol.unfinished, protocol.in_message, protocol.paused) == (0, False, False)


def test_a_failure_holds_no_traceback_that_would_hold_the_data():
    (failure,) = server().receive(frame(TEXT, b"\xff"))
    assert isinstance(failure.error, ProtocolError)
    assert failure.error.__traceback__ is None
    assert failure.error.__context__ is None


@pytest.mark.d(36)
@pytest.mark.promise(46)
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"abc", b"\xff"),
        (b"abc", b"\x80"),
        (b"\xe2\x82", b"x"),
        (b"\xed", b"\xa0"),  # a surrogate
        (b"\xf4", b"\x90"),  # beyond U+10FFFF
        (b"\xc3\xa9\xe0", b"\x80"),  # overlong
        (b"", b"\xc0"),
        (b"", b"\xf5"),
    ],
)
def test_text_fails_with_1007_at_its_first_wrong_byte_and_not_before(good, bad):
    protocol = server()
    unfinished = frame(TEXT, good + bad + b"and more that does not come")
    header_size = 6
    assert protocol.receive(unfinished[: header_size + len(good)]) == []
    wrong_byte = unfinished[header_size + len(good) : header_size + len(good) + 1]
    assert failure_of(protocol, wrong_byte) == 1007


@pytest.mark.d(36)
@pytest.mark.promise(46)
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"abc\xe2\x82"),
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION),
        frame(TEXT, b"ok", fin=False) + frame(CONTINUATION, b"\xff", fin=False),
        frame(TEXT, fin=False) + frame(CONTINUATION, b"\xff"),
        frame(Opcode.CLOSE, b"\x03\xe8\xff"),
    ],
)
def test_what_is_not_utf8_is_a_failure_with_1007(data):
    assert failure_of(server(), data) == 1007


def test_binary_messages_are_not_checked_for_utf8():
    data = frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe")
    assert server().receive(data) == [b"\xff\xfe"]


@pytest.mark.promise(39, 40)
@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, bytes(11)),
        frame(BINARY, bytes(11))[:2],
        frame(TEXT, bytes(6), fin=False) + frame(CONTINUATION, bytes(5))[:2],
        frame(BINARY, bytes(200))[:4],
        b"\x82\xff\x7f" + b"\xff" * 7,
    ],
)
def test_a_message_over_the_limit_is_1009_from_its_header_alone(data):
    assert failure_of(server(max_size=10), data) == 1009


@pytest.mark.d(31)
@pytest.mark.promise(40)
def test_more_frames_than_allowed_are_1008():
    protocol = server(max_fragments=3)
    fragments = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False)
    assert protocol.receive(fragments + frame(CONTINUATION, b"c")) == [b"abc"]
    assert protocol.receive(fragments + frame(CONTINUATION, b"c", fin=False)) == []
    assert failure_of(protocol, frame(CONTINUATION, b"d")) == 1008


@pytest.mark.promise(40)
def test_more_than_16_empty_fragments_are_1008():
    protocol = server()
    empty = frame(CONTINUATION, fin=False)
    assert protocol.receive(frame(TEXT, fin=False) + empty * 15 + frame(CONTINUATION)) == [""]
    assert protocol.receive(frame(TEXT, fin=False) + empty * 15) == []
    assert failure_of(protocol, empty) == 1008


# -- memory ------------------------------------------------------------------------------------


@pytest.mark.d(29)
@pytest.mark.promise(39)
def test_an_announced_length_allocates_nothing():
    protocol = server(max_size=1 << 30)
    tracemalloc.start()
    try:
        protocol.receive(b"\x82\xff" + (1 << 30).to_bytes(8) + KEY)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    assert protocol.in_message
    assert protocol.unfinished < 1024


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_unfinished_message_holds_little_more_than_its_bytes_however_small_the_pieces(opcode):
    protocol = server()
    wire = frame(opcode, b"x" * 20_000)
    in_pieces(protocol, [wire[at : at + 2] for at in range(0, 10_000, 2)])
    assert 9_900 < protocol.unfinished < 12_000
    assert protocol.receive(wire[10_000:]) == ["x" * 20_000 if opcode is TEXT else b"x" * 20_000]
    assert protocol.unfinished == 0


def test_kept_bytes_count_as_unfinished():
    protocol = server()
    ping = frame(Opcode.PING, b"x" * 100)
    assert protocol.receive(ping[:50]) == []
    assert 50 <= protocol.unfinished < 150
    assert protocol.in_message
    assert protocol.receive(ping[50:]) == [Ping(b"x" * 100)]
    assert protocol.unfinished == 0
    assert not protocol.in_message


def test_a_message_is_in_progress_from_the_first_byte_of_its_header_to_the_end_of_its_last_frame():
    protocol = server()
    wire = frame(TEXT, b"abc", fin=False) + frame(CONTINUATION)
    for byte in wire[:-1]:
        assert protocol.receive(bytes([byte])) == []
        assert protocol.in_message
        assert protocol.unfinished > 0
    assert protocol.receive(wire[-1:]) == ["abc"]
    assert not protocol.in_message
    assert protocol.unfinished == 0


@pytest.mark.parametrize("payload", ["", "a", "é", "€", "😀", "aaaaaaa😀"])
@pytest.mark.parametrize("role", Role)
def test_a_byte_received_becomes_no_more_memory_than_the_pause_assumes(role, payload):
    """Otherwise a read could overrun the room unmeasured."""
    wire = sent_by(other(role), TEXT, payload.encode())
    assert sys.getsizeof(payload) <= parser._MEMORY_PER_BYTE * len(wire)


# -- pausing -----------------------------------------------------------------------------------


def test_parsing_pauses_with_the_message_that_uses_up_the_room():
    protocol = server()
    one = frame(BINARY, b"x" * 67)  # 100 bytes of memory each
    assert len(protocol.receive(one * 5, 150)) == 2
    assert protocol.paused
    assert not protocol.in_message
    assert protocol.unfinished > 3 * len(one)
    assert len(protocol.receive(b"", 100)) == 1
    assert len(protocol.receive(b"")) == 2
    assert not protocol.paused
    assert protocol.unfinished == 0


def test_without_room_nothing_is_parsed():
    protocol = server()
    assert protocol.receive(frame(Opcode.PING) + frame(TEXT, b"a"), 0) == []
    assert protocol.paused
    assert protocol.receive(b"", 1) == [Ping(b""), "a"]
    assert not protocol.paused


def test_room_that_is_used_up_by_the_last_message_does_not_pause():
    protocol = server()
    assert protocol.receive(frame(TEXT, b"a"), 1) == ["a"]
    assert not protocol.paused


def test_fragmented_messages_count_towards_the_room_once():
    protocol = server()
    fragments = frame(BINARY, b"x" * 60, fin=False) + frame(CONTINUATION, b"x" * 7)  # 100 bytes
    events = protocol.receive(fragments * 5, 250)
    assert events == [b"x" * 67] * 3
    assert protocol.paused


def test_bytes_that_come_during_a_pause_are_put_behind_the_kept_ones():
    protocol = server()
    assert protocol.receive(frame(TEXT, b"a") + frame(TEXT, b"b"), 1) == ["a"]
    assert protocol.receive(frame(TEXT, b"c"), 0) == []
    assert protocol.receive(b"") == ["b", "c"]


def test_many_resumptions_do_not_copy_the_rest_each_time():
    protocol = server()
    protocol.receive(frame(BINARY) * 10_000, 0)
    kept = protocol._kept
    assert protocol.receive(b"", 1) == [b""]
    assert protocol._kept is kept


# -- closing -----------------------------------------------------------------------------------


@pytest.mark.promise(47)
def test_the_peers_close_comes_with_code_and_reason_and_ends_receiving():
    protocol = server()
    data = frame(Opcode.CLOSE, b"\x03\xe9" + "tschüß".encode()) + frame(TEXT, b"late") + b"\xff"
    assert protocol.receive(data) == [Close(1001, "tschüß")]
    assert protocol.receive(frame(TEXT, b"later")) == []
    assert protocol.unfinished == 0


def test_a_close_without_a_code_is_1005():
    assert server().receive(frame(Opcode.CLOSE)) == [Close(1005, "")]


def test_a_close_inside_a_fragmented_message_drops_the_message():
    protocol = server()
    data = frame(TEXT, b"begun", fin=False) + frame(Opcode.CLOSE, b"\x03\xe8")
    assert protocol.receive(data) == [Close(1000, "")]
    assert (protocol.in_message, protocol.unfinished) == (False, 0)


def test_a_close_during_a_pause_is_found_when_it_is_over():
    protocol = server()
    assert protocol.receive(frame(TEXT, b"a") + frame(Opcode.CLOSE), 1) == ["a"]
    assert protocol.receive(b"", 1) == [Close(1005, "")]
    assert not protocol.paused


# -- work --------------------------------------------------------------------------------------


@pytest.mark.promise(65)
@given(conversations(), st.lists(st.integers(0, 5000), max_size=5), st.integers(1, 40))
def test_any_share_of_work_gives_the_same_events_a_few_at_a_time(wire, cuts, work):
    expected = comparable(server().receive(wire))
    protocol = server()
    events = []
    for piece in cut_up(wire, cuts):
        batches = [protocol.receive(piece, None, work)]
        while protocol.paused:
            batches.append(protocol.receive(b"", None, work))
        assert all(len(batch) <= work + 1 for batch in batches)
        events += [event for batch in batches for event in batch]
    assert comparable(events) == expected


@pytest.mark.promise(65)
def test_a_pass_takes_many_small_messages_and_few_fragments():
    protocol = server()
    assert len(protocol.receive(frame(TEXT, b"x") * 1000, None, parser.WORK)) == parser.WORK
    assert protocol.paused
    fragmented = frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y")
    protocol = server()
    assert 8 <= len(protocol.receive(fragmented * 1000, None, parser.WORK)) <= 32
    assert protocol.paused


def test_forgetting_lets_go_of_what_is_incomplete_and_discards_what_comes():
    protocol = server()
    protocol.receive(frame(TEXT, b"begun", fin=False))
    protocol.forget()
    assert (protocol.unfinished, protocol.in_message, protocol.paused) == (0, False, False)
    assert protocol.receive(frame(CONTINUATION, b"x")) == []


@pytest.mark.parametrize("text", ["", "a", "a" * 200, "\U0001f600", "a" * 300 + "\U0001f600"])
def test_what_one_pass_over_one_read_makes_fits_the_room_of_callbacks_unmeasured(monkeypatch, text):
    rooms = []

    def taken(*args, room, **options):
        rooms.append(room)
        return take_messages(*args, room=room, **options)

    monkeypatch.setattr(parser, "take_messages", taken)
    one = encode_frame(Opcode.TEXT, text.encode(), masking_key=bytes(4))
    read = one * ((68 << 10) // len(one))
    messages = WebSocketParser(Role.SERVER, max_size=1 << 20).receive(read, EVENT_ROOM, parser.WORK)
    assert set(rooms) == {None}
    assert 0 < len(messages) <= parser.WORK
    assert sum(map(sys.getsizeof, messages)) <= EVENT_ROOM
