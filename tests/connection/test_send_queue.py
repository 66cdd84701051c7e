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


def test_the_answer_to_the_opening_goes_before_everything_else_whole():
    queue = SendQueue(BOUND, b"HTTP/1.1 101\r\n\r\n")
    queue.append(b"data")
    queue.append_urgent(b"ping")
    assert queue.size == queue.ready == 24
    queue.drop_unsent()
    assert drain(queue, 5) == b"HTTP/1.1 101\r\n\r\n"


def test_a_queue_is_full_from_its_bound_on_and_takes_a_message_of_any_size_before():
    queue = SendQueue(BOUND)
    queue.append(bytes(99))
    assert not queue.full
    queue.append(bytes(1 << 20))
    assert queue.full
    queue.take(1 << 20)
    assert not queue.full


def test_what_queues_behind_a_stream_fills_the_queue_but_does_not_hold_up_the_stream():
    queue = SendQueue(BOUND)
    queue.streaming = True
    queue.append(bytes(BOUND))
    assert queue.full
    assert not queue.full_before_stream
    assert queue.take(100) is None
    queue.append_fragment(bytes(BOUND))
    assert queue.full_before_stream
    queue.take(1)
    assert not queue.full_before_stream
    queue.end_stream()
    assert queue.full_before_stream


def test_nothing_is_left_of_a_queue_that_is_cleared_wherever_it_was():
    queue = SendQueue(BOUND, b"answer")
    queue.append(b"0123456789")
    queue.take(8)
    queue.streaming = True
    queue.append_fragment(b"(1")
    queue.append(b"behind")
    queue.append_urgent(b"ping")
    queue.set_pong(b"pong")
    queue.clear()
    assert (queue.size, queue.ready, queue.streaming) == (0, 0, False)
    assert queue.take(100) is None
    queue.append(b"again")
    assert drain(queue) == b"again"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["message", "urgent", "pong"]), st.integers(2, 60)),
        st.tuples(st.sampled_from(["begin", "end", "drop", "clear", "last"])),
        st.tuples(st.just("fragment"), st.integers(2, 60)),
        st.tuples(st.just("take"), st.integers(60, 100)),
    ),
    max_size=60,
)


class Model:
    """Frames by number, so that what leaves can be cut into them again."""

    def __init__(self):
        self.queue = SendQueue(BOUND)
        self.count = 0
        self.sizes = {}
        self.sent = bytearray()

    def frame(self, size):
        """Frames of one number hold only that number, in two bytes, and a size of two."""
        number, self.count = self.count, self.count + 1
        self.sizes[number] = size
        return b"%c%c" % (number, size) + bytes([255]) * (size - 2)

    def left(self):
        """The numbers of the frames that left; the last one may be unfinished."""
        numbers, data = [], bytes(self.sent)
        while data:
            number = data[0]
            size = self.sizes[number]
            assert data[1:size] == b"%c" % size + bytes([255]) * (min(size, len(data)) - 2) or (
                len(data) < size
            ), "frames are mixed"
            numbers.append(number)
            data = data[size:]
        return numbers


@given(STEPS)
def test_whatever_is_done_frames_leave_whole_and_once_and_the_sizes_add_up(steps):
    model = Model()
    queue = model.queue
    for name, *facts in steps:
        if name == "take":
            ready = queue.ready
            piece = queue.take(facts[0]) or b""
            assert len(piece) <= facts[0]
            assert bool(piece) is bool(ready)
            assert queue.ready == ready - len(piece)
            model.sent += piece
        elif name == "message":
            queue.append(model.frame(facts[0]))
        elif name == "urgent":
            queue.append_urgent(model.frame(facts[0]))
        elif name == "pong":
            queue.set_pong(model.frame(facts[0]))
        elif name == "fragment" and queue.streaming:
            queue.append_fragment(model.frame(facts[0]))
        elif name == "last":
            queue.append_last(model.frame(5))
        elif name == "begin":
            queue.streaming = True
        elif name == "end":
            queue.end_stream()
        elif name == "drop":
            queue.drop_unsent()
        elif name == "clear":
            queue.clear()
            model.sent.clear()  # a frame may have been cut
        assert 0 <= queue.ready <= queue.size
        assert queue.streaming or queue.ready == queue.size
        left = model.left()
        assert len(left) == len(set(left)), "sent twice"
    queue.end_stream()
    waited = queue.size
    rest = drain(queue)
    assert len(rest) == waited
    model.sent += rest
    assert sum(model.sizes[number] for number in model.left()) == len(model.sent)
