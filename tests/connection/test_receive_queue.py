"""What waits for its handler: order, sizes that add up, and when reading stops and goes on."""

from __future__ import annotations

from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.connection.receive_queue import ReceiveQueue
from securews.protocol.events import Pong

MESSAGES = st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=50)))


def queue(max_messages=4, max_bytes=1 << 20):
    return ReceiveQueue(max_messages, max_bytes)


def test_messages_come_out_in_order_and_the_pong_last():
    waiting = queue()
    waiting.extend(["a", b"b"])
    waiting.pong = Pong(b"p")
    waiting.extend(["c"])
    assert waiting.pop() == "a"
    assert waiting.pop_all() == [b"b", "c", Pong(b"p")]
    assert waiting.pop_all() == []
    assert waiting.size == 0
    assert waiting.pong is None


def test_the_first_of_a_kind_is_taken_and_the_others_stay_in_place():
    waiting = queue()
    waiting.extend(["a", b"b", "c"])
    waiting.pong = Pong(b"p")
    assert waiting.pop_first(frozenset({bytes})) == b"b"
    assert waiting.pop_first(frozenset({bytes})) is None
    assert waiting.pop_first(frozenset({Pong})) == Pong(b"p")
    assert waiting.pop_first(frozenset({Pong})) is None
    assert waiting.pop_first(frozenset({str, bytes, Pong})) == "a"
    assert waiting.pop_all() == ["c"]


def test_an_empty_message_is_a_message():
    waiting = queue()
    waiting.extend(["", b""])
    assert waiting.pop_first(frozenset({bytes})) == b""
    assert waiting.pop() == ""


@pytest.mark.promise(50)
def test_it_is_full_at_so_many_messages_and_has_room_again_when_three_quarters_are_free():
    waiting = queue(max_messages=8)
    waiting.extend("abcdefg")
    assert not waiting.full
    waiting.extend("hi")  # one read may run over
    assert waiting.full
    for _ in range(6):
        waiting.pop()
        assert not waiting.make_room()
    waiting.pop()
    assert waiting.make_room()
    assert not waiting.full
    assert not waiting.make_room()  # once


@pytest.mark.promise(50)
def test_it_is_full_at_so_many_bytes_of_memory_and_not_of_payload():
    empty = getsizeof(b"")
    waiting = queue(max_messages=10_000, max_bytes=100 * empty)
    waiting.extend([b""] * 99)
    assert not waiting.full
    assert waiting.room == empty
    waiting.extend([b""])
    assert waiting.full
    assert waiting.room == 1
    assert not waiting.overfull
    waiting.extend([b""] * 100)
    assert waiting.overfull
    while len(waiting.messages) > 26:
        waiting.pop()
        assert not waiting.make_room()
    waiting.pop()
    assert waiting.make_room()


def test_a_bound_of_one_message_has_room_again_when_it_is_empty():
    waiting = queue(max_messages=1)
    waiting.extend(["a"])
    assert not waiting.make_room()
    waiting.pop()
    assert waiting.make_room()


def test_what_is_thrown_away_is_never_full():
    assert queue(max_messages=0).discards
    waiting = queue(max_messages=1)
    waiting.extend(["kept"])
    waiting.discard()
    assert waiting.discards
    assert not waiting.full
    assert waiting.pop() == "kept"


def test_forgetting_leaves_room():
    waiting = queue(max_messages=1)
    waiting.extend(["a"])
    waiting.clear()
    assert (waiting.size, len(waiting.messages)) == (0, 0)
    assert waiting.make_room()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), MESSAGES),
        st.tuples(st.just("pop_first"), st.sampled_from([{str}, {bytes}, {Pong}, {str, Pong}])),
        st.sampled_from([("pop",), ("pop_all",), ("pong",), ("clear",), ("make_room",)]),
    )
)


@given(st.integers(1, 8), st.integers(1, 500), STEPS)
def test_it_behaves_as_a_list_with_one_slot_whose_sizes_add_up(max_messages, max_bytes, steps):
    waiting, model, pong = ReceiveQueue(max_messages, max_bytes), [], None
    for name, *arguments in steps:
        if name == "extend":
            waiting.extend(arguments[0])
            model += arguments[0]
            reached = len(model) >= max_messages or sum(map(getsizeof, model)) >= max_bytes
            assert waiting.full is reached
        elif name == "pop" and model:
            assert waiting.pop() == model.pop(0)
        elif name == "pop_first":
            kinds = frozenset(arguments[0])
            expected = next((item for item in model if type(item) in kinds), None)
            if expected is not None:
                model.remove(expected)
            elif Pong in kinds:
                expected, pong = pong, None
            assert waiting.pop_first(kinds) == expected
        elif name == "pop_all":
            assert waiting.pop_all() == model + ([] if pong is None else [pong])
            model, pong = [], None
        elif name == "pong":
            waiting.pong = pong = Pong(b"p")
        elif name == "clear":
            waiting.clear()
            model = []
        elif name == "make_room" and waiting.make_room():
            assert len(model) * 4 <= max_messages
        assert list(waiting.messages) == model
        assert waiting.size == sum(map(getsizeof, model))
        assert waiting.room >= 1
        if not model and waiting.full:
            assert waiting.make_room(), "empty, and nothing would ever be read again"
