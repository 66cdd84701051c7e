"""The outbox: what leaves first, and that sizes always add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.connection.outbox import Outbox


def drain(outbox: Outbox, limit: int = 100) -> bytes:
    pieces = []
    while (piece := outbox.take(limit)) is not None:
        assert 0 < len(piece) <= limit
        pieces.append(bytes(piece))
    assert outbox.size == 0
    return b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 400))
def test_frames_leave_whole_and_in_order_in_pieces_of_any_limit(frames, limit):
    outbox = Outbox()
    for frame in frames:
        outbox.append(frame)
    assert outbox.size == sum(map(len, frames))
    assert drain(outbox, limit) == b"".join(frames)
    assert outbox.taken == sum(map(len, frames))


def test_small_frames_are_gathered_into_one_piece():
    outbox = Outbox()
    for frame in (b"one", b"two", b"three"):
        outbox.append(frame)
    assert outbox.take(100) == b"onetwothree"


def test_control_frames_overtake_data_that_has_not_begun():
    outbox = Outbox()
    outbox.append(b"data")
    outbox.append_urgent(b"ping")
    outbox.set_pong(b"pong")
    assert drain(outbox) == b"pingpongdata"


def test_control_frames_wait_for_the_end_of_a_frame_that_has_begun():
    outbox = Outbox()
    outbox.append(b"0123456789")
    outbox.append(b"next")
    assert outbox.take(4) == b"0123"
    outbox.append_urgent(b"ping")
    assert drain(outbox, 4) == b"456789pingnext"


@pytest.mark.promise(49)
def test_only_the_newest_waiting_pong_is_kept():
    outbox = Outbox()
    for number in range(1000):
        outbox.set_pong(b"%04d" % number)
    assert outbox.size == 4
    assert drain(outbox) == b"0999"


def test_more_control_frames_than_fit_into_a_piece_go_out_in_several():
    outbox = Outbox()
    for number in range(10):
        outbox.append_urgent(b"%04d" % number)
    outbox.set_pong(b"pong")
    outbox.append(b"data")
    assert drain(outbox, 9) == b"".join(b"%04d" % n for n in range(10)) + b"pongdata"


@pytest.mark.d(41)
def test_messages_queue_behind_an_open_message_stream():
    outbox = Outbox()
    outbox.streaming = True
    outbox.append_fragment(b"(1")
    outbox.append(b"other")
    outbox.append_urgent(b"ping")
    outbox.append_fragment(b"2)")
    assert outbox.size == 13
    outbox.end_stream()
    assert drain(outbox) == b"ping(12)other"


def test_the_last_frame_gives_up_what_queues_behind_an_open_stream():
    outbox = Outbox()
    outbox.append(b"before")
    outbox.streaming = True
    outbox.append_fragment(b"(1")
    outbox.append(b"never")
    outbox.append_last(b"close")
    assert drain(outbox) == b"before(1close"


def test_dropping_keeps_the_rest_of_a_frame_that_has_begun():
    outbox = Outbox()
    outbox.append(b"0123456789")
    outbox.append(b"never")
    outbox.take(4)
    outbox.append_urgent(b"never")
    outbox.set_pong(b"never")
    outbox.drop_unsent()
    outbox.append_last(b"close")
    assert drain(outbox) == b"456789close"
