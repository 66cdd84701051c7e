"""What threads share: closing, one schedule per turn, waiting, and whole messages in order."""

from __future__ import annotations

import threading

import pytest
from harness import Bench, elsewhere, start_elsewhere
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support import TIMEOUT, eventually

from securews.common.errors import ConnectionClosed, ConnectionClosedError
from securews.common.options import ConnectionOptions
from securews.connection.link import Link
from securews.loop.loop import Loop, Owner
from securews.protocol.events import Pong

ANY = frozenset({str, bytes})


class Scheduled(Owner):
    """Counts how often the loop has given it a turn."""

    def __init__(self):
        self.fd = -1
        self.turns = 0

    def flush_scheduled(self):
        self.turns += 1

    def on_ready(self, mask):
        raise AssertionError

    def continue_work(self):
        raise AssertionError

    def abort(self, error=None):
        raise AssertionError

    def release(self):
        raise AssertionError


class Line:
    """A link on a loop that the test turns."""

    def __init__(self, loop, **options):
        self.owner = Scheduled()
        self.loop = loop
        self.link = Link(self.owner, loop, ConnectionOptions(**options))

    @property
    def scheduled(self):
        """How often the owner waits for its turn."""
        return self.loop._scheduled.count(self.owner)

    def turns(self):
        """Take a turn as a connection does; whether more than sending was wanted."""
        self.loop.turn()
        return self.link.begin_turn()


@pytest.fixture
def loop():
    with Bench() as bench:
        yield bench.loop


@pytest.fixture
def line(loop):
    return Line(loop, outbox_bytes=100, max_queue=4)


def take(link, timeout=0):
    return link.take("recv()", lambda queue: queue.pop_first(ANY), timeout)


def blocked_in(link, call, *args, **options):
    """A call that waits on another thread, once it does."""
    calling = start_elsewhere(call, *args, **options)
    eventually(lambda: calling.running() and is_waited_for(link), "the wait")
    return calling


def is_waited_for(link):
    room, changed, arrived = link._room, link._changed, link._arrived
    return (
        (room is not None and room._waiters)
        or (changed is not None and changed._waiters)
        or (arrived is not None and arrived._waiting)
    )


# -- one schedule per turn -------------------------------------------------------------------------


def test_however_much_is_asked_for_it_is_scheduled_once_until_its_turn_begins(line):
    link = line.link
    for _ in range(3):
        link.offer(b"x", 100)
        elsewhere(link.send, b"x", 0)
        link.send_control(b"ping")
        link.answer_ping(b"pong")
        link.schedule()
    assert line.scheduled == 1
    assert line.turns() is True
    assert line.scheduled == 0
    link.offer(b"x", 100)
    assert line.scheduled == 1
    assert line.turns() is False  # to send is not more than sending
    assert line.turns() is False


def test_while_a_turn_follows_anyway_nobody_asks_for_one(line):
    line.link.hold_schedule()
    line.link.offer(b"x", 100)
    line.link.schedule()
    assert line.scheduled == 0
    assert line.link.begin_turn() is True
    line.link.offer(b"x", 100)
    assert line.scheduled == 1


# -- closing ---------------------------------------------------------------------------------------


def test_our_close_goes_behind_what_was_taken_or_instead_of_it(loop):
    for discard, sent in ((False, b"datafin"), (True, b"fin")):
        link = Line(loop).link
        link.offer(b"data", 100)
        assert link.close(b"fin", 4000, discard=discard)
        assert not link.close(b"again", 4001)
        assert link.next_piece(100) == sent
        assert link.closing.code == 4000


def test_after_our_close_nothing_is_sent_and_whoever_tries_is_told_why(line):
    link = line.link
    link.close(b"fin", 4000, "because")
    for call in (
        lambda: link.offer(b"x", 100),
        lambda: link.send_control(b"x"),
        lambda: link.begin_stream(wait=False),
        lambda: link.send_fragment(b"x", last=True, bound=100),
        link.wait_for_streams,
        lambda: link.wait_for_room(0),
        lambda: elsewhere(link.send, b"x", 0),
    ):
        with pytest.raises(ConnectionClosed, match="because"):
            call()
    link.answer_ping(b"pong")
    assert link.next_piece(100) == b"fin"
    assert link.next_piece(100) is None


def test_an_abort_is_ours_and_the_first_one_says_what_broke(line):
    link, broke = line.link, OSError("broke")
    link.abort(broke)
    assert link.closing.may_send  # the loop finds out
    link.abort(OSError("later"))
    link.abort()
    assert link.abort_error is broke
    closing = link.closing
    assert (closing.code, closing.initiator, closing.may_send) == (1006, "us", False)
    link.peer_closed(1000, "too late")
    assert closing.code == 1006


def test_the_end_frees_everybody_who_waits_whatever_for(loop):
    for end in ("abort", "transport ended", "our close"):
        line = Line(loop, outbox_bytes=1, write_timeout=None)
        link = line.link
        link.offer(b"full", 100)
        link.begin_stream(wait=False)
        link.send_fragment(b"full", last=False, bound=100)
        waiting = [
            start_elsewhere(call, *args, **options)
            for call, args, options in [
                (link.send, (b"x", None), {}),
                (link.wait_for_room, (None,), {}),
                (link.begin_stream, (), {"wait": True}),
                (link.wait_for_streams, (), {}),
                (link.send_fragment, (b"x",), {"last": True, "bound": None}),
                (take, (link, None), {}),
            ]
        ]
        ended = start_elsewhere(link.wait_closed, None, discard=False)
        eventually(lambda link=link: link._room is not None and len(link._room._waiters) == 5)
        eventually(lambda link=link: link._arrived is not None and link._arrived._waiting)
        if end == "abort":
            link.abort()
        elif end == "our close":
            link.close(b"fin", 1000)
        else:
            link.transport_ended("cut")
        link.transport_ended("cut")
        link.transport_ended("cut")
        link.finish()
        loop.turn()
        for call in waiting:
            with pytest.raises(ConnectionClosed):
                call.result(TIMEOUT)
        assert ended.result(TIMEOUT) is True
        assert link.sending.size == 0


# -- waiting to send -------------------------------------------------------------------------------


def test_who_waits_for_room_sends_when_there_is_some(line):
    link = line.link
    link.offer(bytes(100), 1000)
    sending = blocked_in(link, link.send, b"behind", None)
    assert link.next_piece(100) == bytes(100)
    sending.result(TIMEOUT)
    assert link.next_piece(100) == b"behind"


def test_who_finds_no_room_in_time_has_sent_nothing(line):
    line.link.offer(bytes(100), 1000)
    with pytest.raises(TimeoutError, match=r"no room to send within 0\.01 s; nothing was sent"):
        elsewhere(line.link.send, b"x", 0.01)
    assert line.link.sending.size == 100


def test_who_waits_for_a_peer_that_takes_nothing_is_told_after_write_timeout(loop):
    link = Line(loop, outbox_bytes=100, write_timeout=0.02).link
    link.offer(bytes(100), 1000)
    with pytest.raises(TimeoutError, match=r"no progress for 0\.02 s; nothing was sent"):
        elsewhere(link.send, b"x", None)


def test_while_the_socket_is_full_only_the_channel_judges_the_peer(loop):
    link = Line(loop, outbox_bytes=100, write_timeout=0.01).link
    link.offer(bytes(100), 1000)
    link.blocked = True
    with pytest.raises(TimeoutError, match="no room to send"):
        elsewhere(link.send, b"x", 0.1)
    sending = blocked_in(link, link.send, b"x", None)
    link.transport_ended("the peer took no byte", out_of_time=True)
    with pytest.raises(TimeoutError, match="no progress"):
        sending.result(TIMEOUT)


def test_on_an_io_thread_what_would_wait_is_a_runtime_error_and_what_would_not_is_none(line):
    link = line.link
    link.wait_for_room(None)
    link.offer(bytes(100), 1000)
    link.begin_stream(wait=True)
    for call in (
        lambda: link.send(b"x", None),
        lambda: link.begin_stream(wait=True),
        lambda: link.wait_for_room(0),
        link.wait_for_streams,
    ):
        with pytest.raises(RuntimeError, match="an I/O thread must not"):
            call()
    with pytest.raises(RuntimeError, match=r"recv\(\) would block the I/O thread"):
        take(link)


def test_only_one_message_stream_is_open(line):
    link = line.link
    assert link.begin_stream(wait=False)
    assert not link.begin_stream(wait=False)
    second = blocked_in(link, link.begin_stream, wait=True)
    link.send_fragment(b"(end)", last=True, bound=100)
    assert second.result(TIMEOUT)
    assert not link.begin_stream(wait=False)


# -- receiving -------------------------------------------------------------------------------------


def test_what_is_queued_is_taken_in_order_and_then_there_is_a_timeout(line):
    link = line.link
    assert link.deliver(["a", b"b"])
    assert [elsewhere(take, link) for _ in range(2)] == ["a", b"b"]
    with pytest.raises(TimeoutError, match=r"recv\(\): nothing came within 0 s"):
        elsewhere(take, link)


def test_who_waits_is_woken_by_a_message_at_the_end_of_the_turn(line):
    taking = blocked_in(line.link, take, line.link, None)
    line.link.deliver(["came"])
    line.loop.turn()
    assert taking.result(TIMEOUT) == "came"


def test_a_pong_wakes_who_waits_for_one_and_nobody_else_takes_it(line):
    link = line.link

    def take_pong():
        return link.take("wait()", lambda queue: queue.pop_first(frozenset({Pong})), None)

    taking = blocked_in(link, take_pong)
    link.deliver(["a message"])
    line.loop.turn()
    link.deliver_pong(Pong(b"p"))
    line.loop.turn()
    assert taking.result(TIMEOUT) == Pong(b"p")
    assert elsewhere(take, link) == "a message"


def test_a_second_thread_that_receives_is_refused_and_the_first_is_not_disturbed(line):
    link = line.link
    first = blocked_in(link, take, link, None)
    link.receiving.extend(["for the first"])
    with pytest.raises(RuntimeError, match="another thread is receiving"):
        elsewhere(take, link)
    assert elsewhere(link.look, lambda queue: len(queue.messages)) == 1
    link.deliver([])
    line.loop.turn()
    assert first.result(TIMEOUT) == "for the first"
    link.deliver(["again"])
    assert elsewhere(take, link) == "again"


def test_what_was_received_is_taken_before_the_end_is_told(line):
    link = line.link
    link.deliver(["a"])
    link.peer_closed(4000, "bye")
    link.close(b"fin", 4000)
    link.finish()
    assert elsewhere(take, link) == "a"
    for _ in range(2):
        with pytest.raises(ConnectionClosedError, match="bye") as closed:
            elsewhere(take, link)
        assert (closed.value.code, closed.value.initiator) == (4000, "peer")


def test_room_is_asked_for_once_three_quarters_are_free_or_each_time_where_that_is_wanted(line):
    link = line.link
    link.deliver(list("abcd"))
    for _ in range(2):
        elsewhere(take, link)
    assert line.scheduled == 0
    elsewhere(take, link)
    assert line.scheduled == 1
    assert line.turns() is True
    elsewhere(take, link)
    assert line.scheduled == 0
    link.report_takes = True
    link.deliver(["e"])
    elsewhere(link.look, lambda queue: queue.pop_all())
    assert line.turns() is True


def test_what_is_dropped_is_told_to_who_receives_and_nothing_more_is_queued(line):
    link = line.link
    link.deliver(["a"])
    link.drop_unread(tell=False)
    assert link.receiving.size == 0
    assert not link.deliver(["b"])
    with pytest.raises(TimeoutError):
        elsewhere(take, link)
    waiting = blocked_in(link, take, link, None)
    link.drop_unread(tell=True)
    line.loop.turn()
    with pytest.raises(ConnectionClosedError, match="were dropped, for max_buffered") as closed:
        waiting.result(TIMEOUT)
    assert (closed.value.code, closed.value.initiator) == (1013, "us")


def test_waiting_for_the_end_says_whether_it_came_and_may_discard_what_comes(line):
    link = line.link
    link.deliver(["a"])
    assert elsewhere(link.wait_closed, 0, discard=False) is False
    assert elsewhere(take, link) == "a"
    link.deliver(["b"])
    assert elsewhere(link.wait_closed, 0, discard=True) is False
    assert not link.receiving.messages
    assert line.turns() is True  # reading may go on
    assert not link.deliver(["c"])
    waiting = blocked_in(link, link.wait_closed, None, discard=False)
    link.finish()
    assert waiting.result(TIMEOUT) is True


# -- random schedules against a model --------------------------------------------------------------


class Calls(RuleBasedStateMachine):
    """One link; what may be sent and how it ends is kept beside it in the plainest way."""

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.bench.loop.enter()
        self.line = Line(self.bench.loop, outbox_bytes=50, max_queue=4)
        self.link = self.line.link
        self.closed_by = None  # (code, who) of the first Close or fault
        self.may_send = self.may_close = self.may_receive = True
        self.cut = False
        self.taken = []
        self.frames = 0
        self.sent = b""
        self.messages = []
        self.discards = False
        self.asked = False

    def teardown(self):
        self.bench.loop.leave()

    def _sends(self, call):
        try:
            taken = call()
        except ConnectionClosed:
            assert not self.may_send
            return False
        assert self.may_send
        return taken

    @rule(size=st.sampled_from([4, 30, 90]))
    def offer(self, size):
        frame = b"%04d" % self.frames + b"." * (size - 4)
        full = self.link.sending.size >= 50
        if self._sends(lambda: self.link.offer(frame, 50)):
            assert not full
            self.taken.append(frame)
        self.frames += 1

    @rule()
    def ping(self):
        before = self.link.sending.size
        self._sends(lambda: self.link.send_control(b""))
        assert self.link.sending.size == before

    @rule(code=st.sampled_from([None, 1000, 4000]), discard=st.booleans())
    def close(self, code, discard):
        closed = self.link.close(b"CLOSE", code, discard=discard)
        assert closed is self.may_close
        if closed:
            self.closed_by = self.closed_by or (1005 if code is None else code, "us")
            if discard:
                left, done = len(self.sent), 0
                kept = []
                for frame in self.taken:  # what has begun to leave
                    if done < left:
                        kept.append(frame)
                    done += len(frame)
                self.taken = kept
            self.taken.append(b"CLOSE")
            self.may_send = self.may_close = False
            self.asked = True

    @rule(fault=st.booleans())
    def peer_closes_or_fails(self, fault):
        (self.link.peer_failed if fault else self.link.peer_closed)(1002, "")
        if self.may_receive:
            self.closed_by = self.closed_by or (1002, "us" if fault else "peer")
            self.may_send = self.may_receive = False

    @rule(ours=st.booleans())
    def the_transport_ends(self, ours):
        if ours:
            self.link.abort()
            self.asked = True
            rounds = 2
        else:
            self.link.transport_ended("cut")
            rounds = 1
        for _ in range(rounds):
            if self.may_receive:
                if not self.may_close or self.cut:
                    self.closed_by = (1006, "us" if ours else "network")
                    self.may_receive = False
                self.cut = True
            self.may_send = self.may_close = False

    @rule(messages=st.lists(st.text(max_size=2), max_size=3))
    def deliver(self, messages):
        assert self.link.deliver(messages) is not self.discards
        if not self.discards:
            self.messages += messages

    @rule()
    def take(self):
        if self.messages:
            assert elsewhere(take, self.link) == self.messages.pop(0)
        else:
            with pytest.raises((TimeoutError, ConnectionClosed)):
                elsewhere(take, self.link)

    @rule()
    def take_all(self):
        assert self.link.look(lambda queue: queue.pop_all()) == self.messages
        self.messages = []

    @rule(tell=st.booleans())
    def drop_unread(self, tell):
        self.link.drop_unread(tell=tell)
        self.messages, self.discards = [], True

    @rule(limit=st.integers(20, 60))
    def turn(self, limit):
        self.bench.loop.turn()
        asked = self.link.begin_turn()
        assert asked or not self.asked
        self.asked = False
        piece = self.link.next_piece(limit)
        if piece is not None:
            self.sent += piece

    @invariant()
    def the_link_and_the_model_agree(self):
        closing = self.link.closing
        assert closing.may_send is self.may_send
        assert closing.state.may_send_close is self.may_close
        assert closing.state.may_receive is self.may_receive
        if self.closed_by is not None:
            assert (closing.code, closing.initiator) == self.closed_by
        assert self.line.scheduled <= 1
        assert self.link.sending.size == sum(map(len, self.taken)) - len(self.sent)
        assert b"".join(self.taken).startswith(self.sent)
        assert list(self.link.receiving.messages) == self.messages


TestCalls = Calls.TestCase


# -- real threads ----------------------------------------------------------------------------------


@pytest.mark.d(41)
def test_messages_of_many_threads_leave_whole_and_in_order_and_none_is_lost():
    """A small bound, so that all of them wait nearly all the time."""
    loop = Loop()
    link = Line(loop, outbox_bytes=64, write_timeout=TIMEOUT).link
    threads, count = 6, 150

    def frames_of(number):
        return [b"<%d:%d:" % (number, index) + b"." * (index % 90) + b">" for index in range(count)]

    def send(number):
        for frame in frames_of(number):
            link.send(frame, None)

    sending = [start_elsewhere(send, number) for number in range(threads)]
    taken = bytearray()
    while not all(each.done() for each in sending) or link.sending.size:
        taken += link.next_piece(37) or b""
    for each in sending:
        each.result(TIMEOUT)
    frames = [frame + b">" for frame in bytes(taken).split(b">")[:-1]]
    assert len(frames) == threads * count
    for number in range(threads):
        own = [frame for frame in frames if frame.startswith(b"<%d:" % number)]
        assert own == frames_of(number)
    loop.leave()


def test_a_thread_that_sends_while_others_close_sends_whole_or_not_at_all():
    for _ in range(50):
        loop = Loop()
        link = Line(loop).link
        begin, sent = threading.Barrier(3), []

        def send(link=link, begin=begin, sent=sent):
            begin.wait(TIMEOUT)
            try:
                while True:
                    link.send(b"<x>", None)
                    sent.append(b"<x>")
            except ConnectionClosed:
                return

        sending = start_elsewhere(send)
        closing = [
            start_elsewhere(lambda: (begin.wait(TIMEOUT), link.close(b"<C>", 1000))[1])  # noqa: B023
            for _ in range(2)
        ]
        assert sorted(each.result(TIMEOUT) for each in closing) == [False, True]
        sending.result(TIMEOUT)
        taken = b""
        while (piece := link.next_piece(1 << 20)) is not None:
            taken += piece
        assert taken == b"".join(sent) + b"<C>"
        loop.leave()


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 50))
def test_a_message_is_taken_while_fewer_bytes_than_the_bound_wait(sizes, bound):
    with Bench() as bench:
        link = Line(bench.loop).link
        for size in sizes:
            waited = link.sending.size
            assert link.offer(bytes(size), bound) is (waited < bound)
