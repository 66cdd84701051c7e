"""The send queue: what leaves first, and that sizes always add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.connection.send_queue import SendQueue

BOUND = 100


def drain(queue: SendQueue, limit: int = 100) -> bytes:
    pieces = []
    while (piece := queue.take(limit)) is not None:
        assert 0 < len(piece) <= limit
        pieces.append(bytes(piece))
    assert queue.size == 0
    return b"".join(pieces)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 400))
def test_frames_leave_whole_and_in_order_in_pieces_of_any_limit(frames, limit):
    queue = SendQueue(BOUND)
    for frame in frames:
        queue.append(frame)
    assert queue.size == sum(map(len, frames))
    assert drain(queue, limit) == b"".join(frames)
    assert queue.taken == sum(map(len, frames))


def test_small_frames_are_gathered_into_one_piece():
    queue = SendQueue(BOUND)
    for frame in (b"one", b"two", b"three"):
        queue.append(frame)
    assert queue.take(100) == b"onetwothree"


def test_control_frames_overtake_data_that_has_not_begun():
    queue = SendQueue(BOUND)
    queue.append(b"data")
    queue.append_urgent(b"ping")
    queue.set_pong(b"pong")
    assert drain(queue) == b"pingpongdata"


def test_control_frames_wait_for_the_end_of_a_frame_that_has_begun():
    queue = SendQueue(BOUND)
    queue.append(b"0123456789")
    queue.append(b"next")
    assert queue.take(4) == b"0123"
    queue.append_urgent(b"ping")
    assert drain(queue, 4) == b"456789pingnext"


@pytest.mark.promise(49)
def test_only_the_newest_waiting_pong_is_kept():
    queue = SendQueue(BOUND)
    for number in range(1000):
        queue.set_pong(b"%04d" % number)
    assert queue.size == 4
    assert drain(queue) == b"0999"


def test_more_control_frames_than_fit_into_a_piece_go_out_in_several():
    queue = SendQueue(BOUND)
    for number in range(10):
        queue.append_urgent(b"%04d" % number)
    queue.set_pong(b"pong")
    queue.append(b"data")
    assert drain(queue, 9) == b"".join(b"%04d" % n for n in range(10)) + b"pongdata"


@pytest.mark.d(41)
def test_messages_queue_behind_an_open_message_stream():
    queue = SendQueue(BOUND)
    queue.streaming = True
    queue.append_fragment(b"(1")
    queue.append(b"other")
    queue.append_urgent(b"ping")
    queue.append_fragment(b"2)")
    assert queue.size == 13
    queue.end_stream()
    assert drain(queue) == b"ping(12)other"


def test_the_last_frame_gives_up_what_queues_behind_an_open_stream():
    queue = SendQueue(BOUND)
    queue.append(b"before")
    queue.streaming = True
    queue.append_fragment(b"(1")
    queue.append(b"never")
    queue.append_last(b"close")
    assert drain(queue) == b"before(1close"


def test_dropping_keeps_the_rest_of_a_frame_that_has_begun():
    queue = SendQueue(BOUND)
    queue.append(b"0123456789")
    queue.append(b"never")
    queue.take(4)
    queue.append_urgent(b"never")
    queue.set_pong(b"never")
    queue.drop_unsent()
    queue.append_last(b"close")
    assert drain(queue) == b"456789close"
