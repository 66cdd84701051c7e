"""Pings of the user: which Pong answers which, and that nobody waits for ever."""

from __future__ import annotations

import threading

import pytest
from harness import Bench, elsewhere, start_elsewhere
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ConnectionClosed
from securews.connection.pings import MAX_UNANSWERED, Pings
from securews.protocol.events import Pong

NOW = 100.0


@pytest.fixture
def peer():
    with Bench() as bench:
        yield bench.open()


@pytest.fixture
def pings(peer):
    return Pings(peer.link, peer.connection.sender)


def pong(pings, payload, now):
    """The seconds that a Pong with this payload gives; None where nobody had asked for it."""
    return pings.latency if pings.pong(Pong(payload), now) else None


def own_pong(pings, sent_at, now):
    """Whether a Pong for a ping of our own answers one of the user's."""
    pings.ask_for_life(sent_at)
    waiting = len(pings._waiters)
    assert pings.pong(Pong(pings._own), now)
    return len(pings._waiters) < waiting


def seconds(waiter):
    """What `wait` gives to a thread that may wait; None: it is not answered yet."""
    try:
        return elsewhere(waiter.wait, 0)
    except TimeoutError:
        return None


def test_a_pong_gives_the_seconds_since_its_ping(pings):
    waiter = pings.ping(b"one", NOW)
    assert seconds(waiter) is None
    assert pong(pings, b"one", NOW + 0.25) == 0.25
    assert seconds(waiter) == 0.25
    assert seconds(waiter) == 0.25
    assert pong(pings, b"one", NOW + 1) is None


def test_a_clock_that_seems_to_go_back_is_no_negative_time(pings):
    waiter = pings.ping(b"one", NOW)
    assert pong(pings, b"one", NOW - 1) == 0.0
    assert seconds(waiter) == 0.0


def test_a_pong_answers_every_ping_before_its_own_and_none_behind_it(pings):
    waiters = [pings.ping(b"%d" % number, NOW + number) for number in range(4)]
    assert pong(pings, b"2", NOW + 5) == 3.0
    assert [seconds(waiter) for waiter in waiters] == [5.0, 4.0, 3.0, None]


def test_of_pings_with_the_same_payload_the_oldest_is_answered_first(pings):
    waiters = [pings.ping(b"", NOW + number) for number in range(3)]
    pong(pings, b"", NOW + 10)
    assert [seconds(waiter) for waiter in waiters] == [10.0, None, None]


def test_a_pong_that_echoes_nothing_answers_nobody(pings):
    waiter = pings.ping(b"one", NOW)
    assert pong(pings, b"other", NOW) is None
    assert seconds(waiter) is None


def test_a_pong_of_our_own_later_ping_answers_those_that_were_sent_before_it(pings):
    before, after = pings.ping(b"before", NOW), pings.ping(b"after", NOW + 2)
    assert own_pong(pings, NOW + 1, NOW + 3)
    assert [seconds(before), seconds(after)] == [3.0, None]
    assert not own_pong(pings, NOW + 1, NOW + 3)


def test_pings_of_two_threads_may_be_noted_in_another_order_than_their_times(pings):
    """Each thread looks at the clock, and then they come to the list as it happens."""
    later, earlier = pings.ping(b"later", NOW + 2), pings.ping(b"earlier", NOW)
    assert own_pong(pings, NOW + 1, NOW + 3)
    assert [seconds(earlier), seconds(later)] == [3.0, None]
    assert pong(pings, b"later", NOW + 4) == 2.0
    assert seconds(later) == 2.0


def test_so_many_may_be_unanswered_and_no_more(pings):
    waiters = [pings.ping(b"x", NOW) for _ in range(MAX_UNANSWERED)]
    with pytest.raises(RuntimeError, match="64 pings are unanswered; wait for one"):
        pings.ping(b"x", NOW)
    assert pong(pings, b"x", NOW) == 0.0
    assert seconds(waiters[0]) == 0.0
    pings.ping(b"x", NOW)


def test_the_end_tells_all_who_wait_and_whoever_comes_later(peer, pings):
    waiters = [pings.ping(b"%d" % number, NOW) for number in range(2)]
    waiting = start_elsewhere(waiters[0].wait)
    peer.link.abort()
    pings.end()
    for call in (waiting.result, lambda _: elsewhere(waiters[1].wait, 0)):
        with pytest.raises(ConnectionClosed):
            call(10)
    with pytest.raises(ConnectionClosed):
        pings.ping(b"late", NOW)
    assert pong(pings, b"0", NOW) is None
    pings.end()  # harmless


def test_waiting_on_an_io_thread_is_a_runtime_error_also_where_the_answer_is_there(pings):
    waiter = pings.ping(b"one", NOW)
    pong(pings, b"one", NOW)
    with pytest.raises(RuntimeError, match=r"PingWaiter\.wait\(\) would block the I/O thread"):
        waiter.wait(0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ping"), st.integers(0, 3), st.floats(0, 5)),
            st.tuples(st.just("pong"), st.integers(0, 3)),
            st.tuples(st.just("ours"), st.floats(0, 10)),
        ),
        max_size=40,
    )
)
def test_whatever_comes_nobody_is_forgotten(steps):
    """Each ping is answered by a Pong that may answer it, or told of the end: never neither."""
    with Bench() as bench:
        peer = bench.open()
        pings, waiters = Pings(peer.link, peer.connection.sender), []
        for name, *facts in steps:
            if name == "ping":
                waiters.append(pings.ping(b"%d" % facts[0], facts[1]))
            elif name == "pong":
                pong(pings, b"%d" % facts[0], 10.0)
            else:
                own_pong(pings, facts[0], 10.0)
        peer.link.abort()
        pings.end()
        for waiter in waiters:
            assert waiter._answered.is_set()


def test_threads_that_ping_at_once_are_all_answered(pings):
    begin, answered = threading.Barrier(5), []

    def ping(number):
        begin.wait(10)
        for count in range(50):
            payload = b"%d %d" % (number, count)
            waiter = pings.ping(payload, NOW)
            assert pong(pings, payload, NOW + 1) is not None or waiter._answered.is_set()
            answered.append(waiter.wait(10))

    threads = [start_elsewhere(ping, number) for number in range(4)]
    begin.wait(10)
    for thread in threads:
        thread.result(10)
    assert len(answered) == 200
