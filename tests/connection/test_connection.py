"""One connection in every order of bytes, room, calls, timers and ends."""

import gc
import weakref
from concurrent.futures import wait
from typing import Any

import pytest
from harness import END, Bench, close, elsewhere, frame, message, start_elsewhere
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import eventually

from securews.common.errors import ConnectionClosed, ProtocolError
from securews.connection import connection as connection_module
from securews.connection.channel import Phase
from securews.connection.pings import Pings
from securews.protocol.events import Close, Ping, Pong
from securews.protocol.frames import Opcode

RESET = ConnectionResetError(104, "Connection reset by peer")


@pytest.fixture
def bench():
    with Bench() as bench:
        yield bench


# -- closing -------------------------------------------------------------------------------------


def test_a_close_of_the_peer_is_answered_and_ends_it(bench):
    peer = bench.open()
    peer.says(message(b"one") + close(4000))
    bench.settle()
    assert peer.user.messages == [b"one"]
    assert peer.frames == [Close(4000, "")]
    assert peer.user.end == (4000, "peer")
    assert peer.stream.shut
    peer.says(END)
    bench.settle()
    assert peer.stream.closed
    assert bench.released == [peer.channel]


@pytest.mark.promise(47)
@pytest.mark.parametrize(
    "then", [frame(3), frame(Opcode.TEXT, b"\xff"), b"\x81\x00"], ids=["opcode", "utf8", "unmasked"]
)
def test_a_fault_of_the_peer_after_our_close_leaves_our_code(bench, then):
    peer = bench.open()
    elsewhere(peer.connection.start_close, 4321, "enough")
    bench.settle()
    peer.says(then)
    bench.settle()
    assert peer.user.end == (4321, "us")
    assert peer.frames == [Close(4321, "enough")]


def test_an_abort_of_the_kernel_is_no_abort_of_ours(bench):
    peer = bench.open()
    peer.says(ConnectionAbortedError(103, "Software caused connection abort"))
    bench.settle()
    assert peer.user.end == (1006, "network")


def test_an_abort_of_ours_is_ours(bench):
    peer = bench.open()
    elsewhere(peer.link.abort)
    bench.settle()
    assert peer.user.end == (1006, "us")


@pytest.mark.promise(54)
@pytest.mark.parametrize("end", [END, RESET], ids=["end", "reset"])
def test_what_came_before_an_end_is_delivered_before_it_however_much_work_it_is(bench, end):
    peer = bench.open()
    peer.says(message(b"x") * 5000, end)
    bench.settle(10_000)
    assert len(peer.user.messages) == 5000
    assert peer.user.end == (1006, "network")


def test_a_close_among_what_came_before_a_reset_counts(bench):
    peer = bench.open()
    peer.says(message(b"x") * 2000 + close(4000), RESET)
    bench.settle(10_000)
    assert len(peer.user.messages) == 2000
    assert peer.user.end == (4000, "peer")


def test_failing_twice_ends_once(bench):
    peer = bench.open()
    peer.connection.fail(ProtocolError("one"))
    peer.connection.fail(ProtocolError("two", 1009))
    bench.settle()
    assert peer.user.end == (1002, "us")


# -- the beginning -------------------------------------------------------------------------------


def test_what_came_behind_the_opening_does_not_hold_up_what_is_sent(bench):
    peer = bench.open(event_driven=False, leftover=message(b"early"))
    elsewhere(peer.link.send, peer.connection.sender.frame(Opcode.BINARY, b"reply"), 1)
    bench.settle()
    assert peer.data == [b"reply"]


def test_what_is_sent_as_a_connection_opens_is_offered_to_the_socket_before_the_peer_is_slow(bench):
    def greet(connection):
        for _ in range(10):
            connection.sender.send(connection.sender.frame(Opcode.BINARY, bytes(1000)))

    peer = bench.open(on_open=greet, outbox_bytes=1000)
    bench.settle()
    assert peer.data == [bytes(1000)] * 10


@pytest.mark.promise(54)
@pytest.mark.parametrize("event_driven", [True, False])
def test_what_came_before_the_end_of_the_loop_is_delivered_and_then_the_end(event_driven):
    with Bench() as bench:
        peer = bench.open(event_driven=event_driven, max_queue=5000)
        peer.says(FRAGMENTED * 5000)
        bench.turn()
        elsewhere(peer.link.abort, RESET)
        bench.turn()
        assert not peer.over
    assert peer.over
    assert peer.user.end == (1006, "network")
    assert len(peer.user.messages if event_driven else peer.link.receiving.messages) == 5000


# -- a peer that makes the loop spin ---------------------------------------------------------------


@pytest.mark.promise(65)
def test_bytes_behind_a_close_whose_answer_finds_no_room_do_not_make_the_loop_spin(bench):
    peer = bench.open(close_timeout=5.0, write_timeout=60.0)
    peer.takes(0)
    peer.link.offer(bytes(100_000), 1 << 30)
    peer.says(close(), b"any byte")
    bench.settle()
    assert peer.channel.phase is Phase.FINISHING
    peer.check()
    bench.advance(5.5)
    assert peer.stream.closed, "the deadline of the closing does not run"
    assert peer.user.closed == 1


def test_the_answer_to_a_close_that_finds_no_room_is_given_up_after_close_timeout(bench):
    peer = bench.open(close_timeout=3.0, write_timeout=None)
    peer.takes(0)
    peer.link.offer(bytes(100_000), 1 << 30)
    peer.says(close())
    bench.settle()
    assert not peer.over
    bench.advance(3.5)
    assert peer.user.end == (1000, "peer")
    assert peer.stream.closed


# -- bounded work --------------------------------------------------------------------------------


FRAGMENTED = frame(Opcode.BINARY, b"x", fin=False) + frame(Opcode.CONTINUATION, b"y")


@pytest.mark.promise(65)
@pytest.mark.parametrize("flood", [FRAGMENTED, message(b"")], ids=["fragments", "empty"])
def test_a_flood_of_work_in_one_read_leaves_others_their_turn(bench, flood):
    order = []
    flooder = bench.open(on_message=lambda _: order.append("flooder"))
    honest = bench.open(on_message=lambda _: order.append("honest"))
    flooder.says(flood * 5000)
    bench.turn()
    before = len(order)
    assert before < 5000
    honest.says(message(b"hello"))
    bench.turn()
    assert "honest" in order
    assert order.index("honest") - before <= 1
    bench.settle(10_000)
    assert order.count("flooder") == 5000


@pytest.mark.promise(65)
def test_callbacks_that_take_long_let_others_have_their_turn(bench):
    order = []

    def slow(_):
        order.append("slow")
        bench.clock.now += 0.05

    peer, other = bench.open(on_message=slow), bench.open(on_message=lambda _: order.append("o"))
    peer.says(message(b"x") * 100)
    other.says(message(b"x"))
    bench.turn()
    assert order.count("o") == 1
    assert order.count("slow") <= 16
    bench.settle(1000)
    assert order.count("slow") == 100


def test_nothing_is_read_while_something_is_left_over(bench):
    peer = bench.open()
    peer.says(FRAGMENTED * 5000, message(b"later"))
    bench.turn()
    reads = peer.stream.reads
    bench.turn(3)
    assert peer.stream.reads == reads
    assert not peer.channel.reading
    peer.check()
    bench.settle(10_000)
    assert peer.user.messages[-1] == b"later"


# -- what is held --------------------------------------------------------------------------------


@pytest.mark.promise(66)
def test_messages_that_wait_for_their_callback_are_counted():
    with Bench(max_buffered=1 << 30) as bench:
        peer: Any = bench.open(outbox_bytes=1000, on_message=lambda m: peer.link.offer(m, 1 << 30))
        peer.takes(0)
        peer.says(message(bytes(2000)) * 30)
        bench.settle()
        waiting = 30 - len(peer.user.messages)
        assert waiting > 20
        assert bench.budget.total >= waiting * 2000
        peer.takes(None)
        bench.settle()
        assert len(peer.user.messages) == 30
        assert bench.budget.total == 0


@pytest.mark.promise(66)
@pytest.mark.parametrize("event_driven", [True, False])
@pytest.mark.parametrize("end", [END, RESET, close()], ids=["end", "reset", "close"])
def test_a_connection_that_is_over_is_freed_without_a_garbage_collector(event_driven, end):
    with Bench(max_buffered=1 << 30) as bench:
        gc.collect()
        gc.disable()
        try:
            peer = bench.open(event_driven=event_driven)
            unfinished = frame(Opcode.BINARY, bytes(50_000), fin=False)
            peer.says(message(b"one") + unfinished, end, END)
            bench.settle()
            peer.connection.handler_done()
            bench.settle()
            assert peer.over
            assert peer.stream.closed
            assert bench.budget.total == 0
            bench.released.clear()
            freed = [weakref.ref(peer.user), weakref.ref(peer.stream)]
            del peer
            assert [ref() for ref in freed] == [None, None]
        finally:
            gc.enable()


@pytest.mark.promise(66)
@pytest.mark.parametrize("event_driven", [True, False])
def test_what_a_full_socket_has_not_taken_does_not_count_once_the_connection_is_over(event_driven):
    with Bench(max_buffered=1 << 30) as bench:
        peer = bench.open(event_driven=event_driven)
        peer.takes(0)
        peer.link.offer(bytes(20_000), 1 << 30)
        bench.settle()
        assert bench.budget.total >= 20_000
        peer.says(END)
        bench.settle()
        assert peer.over
        peer.connection.handler_done()
        bench.advance(30.0)
        assert peer.stream.closed
        assert bench.budget.total == 0
        assert not bench.budget._held


def test_unread_messages_are_counted_after_their_peer_has_gone():
    with Bench(max_buffered=1 << 30) as bench:
        peer = bench.open(event_driven=False)
        peer.says(message(bytes(10_000)) * 5 + close(), END)
        bench.settle()
        assert peer.over
        assert bench.budget.total > 50_000
        elsewhere(peer.connection.handler_done)
        bench.settle()
        assert bench.budget.total == 0


@pytest.mark.promise(67, 70)
def test_over_the_limit_unread_messages_of_peers_that_are_gone_are_dropped_first():
    with Bench(max_buffered=100_000) as bench:
        gone = bench.open(event_driven=False)
        gone.says(message(bytes(60_000)) + close(), END)
        bench.settle()
        alive = bench.open(event_driven=False)
        alive.says(message(bytes(60_000)))
        bench.settle()
        assert not alive.over
        assert bench.budget.total < 100_000
        with pytest.raises(ConnectionClosed, match="were not read were dropped") as raised:
            elsewhere(gone.link.take, "recv()", lambda queue: queue.pop_first({bytes}), 1)
        assert raised.value.code == 1013


@pytest.mark.promise(70)
def test_over_the_limit_who_holds_most_goes_and_the_others_notice_nothing():
    with Bench(max_buffered=200_000) as bench:
        small = [bench.open() for _ in range(10)]
        for peer in small:
            peer.says(frame(Opcode.BINARY, bytes(5000), fin=False))
        greedy = bench.open()
        for _ in range(40):
            greedy.says(frame(Opcode.BINARY, bytes(5000), fin=False)[:2], b"")
        greedy.stream.incoming.clear()
        greedy.says(frame(Opcode.BINARY, bytes(190_000), fin=False))
        bench.settle()
        assert greedy.user.end == (1013, "us")
        assert not any(peer.over for peer in small)
        assert bench.budget.total < 200_000


def test_a_peer_that_goes_and_leaves_what_was_counted_before_is_known_to_be_gone():
    """What is held does not change at the end, but whose it is does."""
    with Bench(max_buffered=100_000) as bench:
        gone = bench.open(event_driven=False)
        gone.says(message(bytes(60_000)))
        bench.settle()
        gone.says(END)
        bench.settle()
        assert gone.over
        alive = bench.open(event_driven=False)
        alive.says(message(bytes(90_000)))
        bench.settle()
        assert not alive.over
        assert not gone.link.receiving.messages
        assert bench.budget.total < 100_000


@pytest.mark.parametrize("held", ["unsent", "unread"])
def test_over_the_limit_a_peer_that_has_said_close_and_takes_nothing_makes_room(held):
    with Bench(max_buffered=300_000) as bench:
        mute = bench.open(event_driven=False, close_timeout=60.0, write_timeout=60.0)
        mute.takes(0)
        mute.link.offer(bytes(140_000 if held == "unsent" else 100), 1 << 30)
        mute.says((message(bytes(140_000)) if held == "unread" else b"") + close())
        bench.settle()
        assert mute.channel.phase is Phase.FINISHING
        honest = [bench.open(event_driven=False) for _ in range(2)]
        for peer in honest:
            peer.says(message(bytes(110_000)))
        bench.settle()
        assert not any(peer.over for peer in honest)
        assert bench.budget.total < 300_000
        mute.check()


def test_with_our_last_word_the_unfinished_message_goes_though_the_peer_takes_nothing():
    with Bench(max_buffered=1 << 30) as bench:
        peer = bench.open(message_timeout=1.0, close_timeout=60.0, write_timeout=60.0)
        peer.takes(0)
        peer.says(frame(Opcode.BINARY, bytes(100_000), fin=False))
        bench.settle()
        assert bench.budget.total >= 100_000
        bench.clock.now += 1000  # not one byte more: a rate under 1 KiB a second
        bench.settle()
        assert peer.link.closing.code == 1008
        assert peer.channel.phase is Phase.FINISHING
        assert bench.budget.total < 1000


def test_who_is_closed_because_it_holds_most_is_not_told_that_its_peer_is_gone():
    with Bench(max_buffered=100_000) as bench:
        peer = bench.open(event_driven=False)
        peer.says(message(bytes(120_000)))
        bench.settle()
        with pytest.raises(ConnectionClosed, match="max_buffered") as raised:
            elsewhere(peer.link.take, "recv()", lambda queue: queue.pop_first({bytes}), 1)
        assert raised.value.code == 1013
        assert "gone" not in raised.value.reason


# -- time ----------------------------------------------------------------------------------------


def test_a_silent_peer_is_asked_and_then_given_up(bench):
    peer = bench.open(ping_interval=20.0, ping_timeout=20.0)
    bench.advance(20)
    assert [type(event) for event in peer.frames] == [Ping]
    bench.advance(20)
    assert peer.user.end == (1006, "network")


def test_a_message_that_is_held_open_is_1008(bench):
    peer = bench.open(message_timeout=30.0)
    peer.says(frame(Opcode.TEXT, b"begun", fin=False))
    bench.advance(32)
    assert peer.user.end == (1008, "us")
    bench.advance(60)  # nothing arms again on a connection that is over
    assert peer.user.closed == 1


def test_pings_of_the_user_are_answered_by_a_later_pong_of_ours(bench):
    peer = bench.open(ping_interval=20.0)
    waiter = elsewhere(peer.connection.ping, b"user's")
    bench.advance(20)
    own = peer.frames[-1].payload
    peer.says(frame(Opcode.PONG, own))
    bench.settle()
    assert elsewhere(waiter.wait, 1) >= 0
    assert peer.connection.latency is not None


def test_who_waits_to_send_is_told_how_the_connection_ended_and_not_that_it_took_too_long(bench):
    peer = bench.open(outbox_bytes=100, write_timeout=None)
    peer.takes(0)
    peer.link.offer(bytes(100_000), 1 << 30)
    bench.settle()
    sending = start_elsewhere(peer.link.send, b"waits", None)
    eventually(lambda: peer.link._room is not None)
    peer.channel.abort(TimeoutError("no pong in 20 s"))
    with pytest.raises(ConnectionClosed, match="no pong in 20 s"):
        sending.result(10)


def test_two_threads_whose_first_pings_begin_together_are_both_answered(bench, monkeypatch):
    peer = bench.open()
    others = []

    class SlowPings(Pings):
        def __init__(self, *parts):
            super().__init__(*parts)
            if not others:
                others.append(start_elsewhere(peer.connection.ping, b"other"))
                wait([others[0]], 0.05)  # it is done before we are, or waits for us

    monkeypatch.setattr(connection_module, "Pings", SlowPings)
    waiters = [peer.connection.ping(b"first"), others[0].result(10)]
    for payload in (b"first", b"other"):
        peer.says(frame(Opcode.PONG, payload))
    bench.settle()
    for waiter in waiters:
        assert elsewhere(waiter.wait, 1) >= 0


# -- random schedules ----------------------------------------------------------------------------


class Schedules(RuleBasedStateMachine):
    """Two connections of one loop, whatever happens to them."""

    @initialize(
        event_driven=st.booleans(),
        bound=st.sampled_from([100, 5000, 1 << 20]),
        queue=st.sampled_from([0, 1, 16]),
        buffered=st.sampled_from([3000, 50_000, 1 << 30]),
        slow=st.sampled_from(["close", "drop"]),
    )
    def open(self, event_driven, bound, queue, buffered, slow):
        self.bench = Bench(max_buffered=buffered)
        options = {
            "outbox_bytes": bound,
            "max_queue": queue,
            "max_queue_bytes": 4000,
            "slow_client": slow,
            "max_size": 5000,
        }
        self.peers = [
            self.bench.open(event_driven=event_driven, on_message=self.answer(number), **options)
            for number in range(2)
        ]
        self.sent = [[] for _ in self.peers]

    def answer(self, number):
        def on_message(received):
            self.user_sends_on_loop(number, received)

        return on_message

    def user_sends_on_loop(self, number, payload):
        peer = self.peers[number]
        try:
            taken = peer.connection.sender.offer(peer.connection.sender.frame(2, bytes(payload)))
        except ConnectionClosed:
            return
        if taken:
            self.sent[number].append(bytes(payload))

    numbers = st.integers(0, 1)

    @rule(number=numbers, sizes=st.lists(st.sampled_from([0, 1, 200, 4000]), max_size=6))
    def peer_sends_messages(self, number, sizes):
        self.peers[number].says(b"".join(message(bytes(size)) for size in sizes) or message())

    @rule(number=numbers, count=st.sampled_from([1, 50, 300]))
    def peer_sends_fragments(self, number, count):
        self.peers[number].says(FRAGMENTED * count)

    @rule(
        number=numbers,
        piece=st.sampled_from(
            [
                frame(Opcode.PING, b"?"),
                frame(Opcode.PONG, b"!"),
                frame(Opcode.BINARY, b"begun", fin=False),
                frame(Opcode.CONTINUATION, b"ended"),
                message(b"cut")[:3],
                message(bytes(6000)),
                close(),
                close(4000),
                frame(3),
            ]
        ),
    )
    def peer_sends(self, number, piece):
        self.peers[number].says(piece)

    @rule(number=numbers, end=st.sampled_from([END, RESET]))
    def peer_ends(self, number, end):
        self.peers[number].says(end)

    @rule(number=numbers, room=st.sampled_from([0, 1, 700, 100_000, None]))
    def peer_takes(self, number, room):
        self.peers[number].takes(room)

    @rule(number=numbers, size=st.sampled_from([0, 50, 3000]), urgent=st.booleans())
    def user_sends_elsewhere(self, number, size, urgent):
        peer = self.peers[number]
        try:
            if urgent:
                elsewhere(peer.connection.ping, b"ping")
            else:
                peer.link.send(peer.connection.sender.frame(2, bytes(size)), 0)
                self.sent[number].append(bytes(size))
        except (ConnectionClosed, TimeoutError, RuntimeError):
            pass

    @rule(number=numbers, size=st.sampled_from([0, 50, 3000]))
    def broadcast_on_the_loop(self, number, size):
        self.user_sends_on_loop(number, bytes(size))

    @rule(number=numbers, code=st.sampled_from([1000, 1011, 4444]), discard=st.booleans())
    def user_closes(self, number, code, discard):
        if elsewhere(self.peers[number].connection.start_close, code, discard=discard):
            self.sent[number].append(None)

    @rule(number=numbers)
    def user_aborts(self, number):
        elsewhere(self.peers[number].link.abort)

    @rule(number=numbers)
    def user_takes_all(self, number):
        elsewhere(self.peers[number].link.look, lambda queue: queue.pop_all())

    @rule(number=numbers)
    def handler_returns(self, number):
        elsewhere(self.peers[number].connection.handler_done)

    @rule(count=st.integers(1, 3))
    def turn(self, count):
        self.bench.turn(count)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def time_passes(self, seconds):
        self.bench.clock.now += seconds
        self.bench.turn()

    @precondition(lambda self: hasattr(self, "peers"))
    @invariant()
    def everything_is_in_order(self):
        for peer, sent in zip(self.peers, self.sent, strict=True):
            peer.check()
            received = peer.data
            if received:  # whole messages only, in the order in which they were taken
                taken = iter([payload for payload in sent if payload is not None])
                assert all(any(each == other for other in taken) for each in received)

    def teardown(self):
        if not hasattr(self, "bench"):
            return
        try:
            self.bench.settle(20_000)
            self.everything_is_in_order()
            for peer in self.peers:
                elsewhere(peer.connection.handler_done)
                elsewhere(peer.link.abort)
            self.bench.settle(20_000)
            for peer in self.peers:
                peer.takes(None)
            self.bench.settle(20_000)
            for peer in self.peers:
                assert peer.user.closed == 1
                assert peer.stream.closed or peer.channel.phase is Phase.DRAINING
            assert self.bench.budget.total == 0, "what is over holds something"
            assert all(isinstance(end, (Close, Ping, Pong, bytes)) for end in peer.frames)
        finally:
            self.bench.loop.leave()


Schedules.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSchedules = Schedules.TestCase


# -- deadlines beside callbacks that take long -----------------------------------------------------


def sends_late(bench, seconds, payload):
    """A peer whose message is answered after so many seconds in the callback."""

    def answer(message):
        bench.clock.now += seconds
        peer.connection.sender.send_message(Opcode.BINARY, payload)

    peer = bench.open(on_message=answer, write_timeout=1.0, close_timeout=1.0)
    return peer


def test_a_socket_that_fills_late_in_a_callback_has_its_write_timeout_from_then(bench):
    peer = sends_late(bench, 5.0, bytes(90_000))
    peer.takes(40_000).says(message(b"?"))
    bench.settle()
    peer.takes(None)
    bench.settle()
    assert peer.channel.phase is Phase.OPEN
    assert peer.data == [bytes(90_000)]


def test_what_is_answered_late_has_the_whole_time_to_be_read(bench):
    peer = sends_late(bench, 5.0, bytes(90_000))
    peer.takes(None).says(message(b"?") + frame(Opcode.CLOSE))
    bench.settle()
    assert peer.channel.phase is Phase.DRAINING
    bench.advance(1.9, step=0.1)
    assert peer.channel.phase is Phase.DRAINING
    bench.advance(0.2, step=0.1)
    assert peer.channel.phase is Phase.CLOSED


def test_a_close_late_in_a_callback_is_awaited_for_close_timeout(bench):
    def close(message):
        bench.clock.now += 5.0
        peer.connection.start_close(4000, "late")

    peer = bench.open(on_message=close, close_timeout=1.0)
    peer.takes(None).says(message(b"?"))
    bench.settle()
    peer.says(frame(Opcode.CLOSE, (4000).to_bytes(2)))
    bench.settle()
    assert peer.user.end == (4000, "us")


def test_a_pong_that_came_while_a_callback_took_long_is_read_before_its_peer_is_judged(bench):
    def hold(message):
        bench.clock.now += 5.0
        waiting.says(frame(Opcode.PONG, waiting.frames[-1].payload))

    waiting = bench.open(ping_interval=1.0, ping_timeout=1.0)
    busy = bench.open(ping_interval=None, on_message=hold)
    waiting.takes(None)
    bench.advance(1.5, step=0.1)
    assert waiting.frames
    busy.says(message(b"?"))
    bench.settle()
    assert waiting.channel.phase is Phase.OPEN


def test_what_waits_behind_a_message_stream_does_not_keep_its_handler_from_reading():
    """Nothing but the handler can end the stream; were it not read to, it might wait for ever."""
    with Bench(max_buffered=100_000) as bench:
        peer = bench.open(event_driven=False, outbox_bytes=1 << 20)
        peer.takes(None)
        bench.settle()
        elsewhere(peer.connection.sender.begin_stream)
        peer.connection.sender.offer(frame(Opcode.BINARY, bytes(90_000)))
        bench.settle()
        assert bench.budget.total > 90_000
        peer.says(message(b"?"))
        bench.settle()
        assert list(peer.link.receiving.messages) == [b"?"]
