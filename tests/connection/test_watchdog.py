"""What time demands of a peer, as a function of time and facts; and who is named as the cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TIMEOUT, errors_in, eventually, held, masked

from securews.common.errors import ProtocolError
from securews.common.options import ConnectionOptions, Limits
from securews.connection.watchdog import Action, Facts, TokenBucket, Watchdog
from securews.protocol.frames import Opcode

START = 1000.0
TICK = 5.0


class World:
    """A watchdog, the facts, and a clock that goes from one deadline to the next."""

    def __init__(self, *, limits=None, **options):
        self.now = START
        self.options = ConnectionOptions(**options)
        self.watchdog = Watchdog(self.options, limits or Limits(), START)
        self.received_at = START
        self.reading = True
        self.queue_full = False
        self.message_bytes = 0
        self.actions = []

    @property
    def facts(self):
        return Facts(self.received_at, self.reading, self.queue_full, self.message_bytes)

    def hears(self):
        self.received_at = self.now

    def resumes(self):
        """As the connection does: listening begins anew."""
        if not self.reading:
            self.reading, self.received_at = True, self.now
            self.watchdog.reading_resumed(self.now)

    def check(self):
        """Ask until there is nothing more; the actions."""
        actions = []
        while (action := self.watchdog.check(self.now, self.facts)) is not None:
            actions.append(action)
            assert len(actions) < 5, "it never comes to an end"
        self.actions += [(self.now - START, action) for action in actions]
        return actions

    def advance(self, seconds):
        """Check whenever it is due, as a loop does; what was done, with its time."""
        end, before = self.now + seconds, len(self.actions)
        while (due := self.watchdog.due) is not None and due <= end:
            self.now = max(self.now, due)
            actions = self.check()
            assert self.watchdog.due is None or self.watchdog.due > self.now
            if Action.GIVE_UP in actions or Action.FAIL in actions:
                break
        else:
            self.now = end
        return self.actions[before:]


# -- keepalive -------------------------------------------------------------------------------------


@given(st.floats(0, 100), st.sampled_from([0.1, 1.0, 7.0, 20.0, 60.0]))
def test_a_silent_peer_is_asked_at_most_a_tick_early_and_never_late(heard, interval):
    world = World(ping_interval=interval, ping_timeout=1000.0)
    world.now = world.received_at = START + heard
    tick = min(TICK, interval / 4)
    asked = next(
        when for when, action in world.advance(3 * interval + heard) if action is Action.PING
    )
    assert heard + interval - tick - 1e-6 <= asked <= heard + interval + 1e-6


@pytest.mark.promise(53)
@pytest.mark.parametrize(("interval", "timeout"), [(20, 20), (20, 5), (20, 60), (1, 1), (60, 1)])
def test_interval_and_timeout_together_are_never_exceeded(interval, timeout):
    world = World(ping_interval=interval, ping_timeout=timeout)
    when, action = world.advance(1000)[-1]
    assert action is Action.GIVE_UP
    assert interval - TICK + timeout <= when <= interval + timeout
    assert world.watchdog.due is None


def test_a_sign_of_life_after_the_ping_counts_whatever_it_is_and_it_begins_anew():
    world = World(ping_interval=20, ping_timeout=20)
    assert [action for _, action in world.advance(20)] == [Action.PING]
    world.hears()
    assert world.advance(14) == []
    assert [action for _, action in world.advance(60)] == [Action.PING, Action.GIVE_UP]


def test_a_peer_that_speaks_all_the_time_is_never_asked():
    world = World(ping_interval=20, ping_timeout=20)
    for _ in range(100):
        assert world.advance(7) == []
        world.hears()


def test_without_a_timeout_a_silent_peer_is_asked_in_each_interval_and_never_given_up():
    world = World(ping_interval=20, ping_timeout=None)
    actions = [action for _, action in world.advance(200)]
    assert set(actions) == {Action.PING}
    assert 9 <= len(actions) <= 11


def test_without_an_interval_nobody_is_asked():
    world = World(ping_interval=None, message_timeout=None)
    assert world.watchdog.due is None
    assert world.check() == []


def test_while_nothing_is_read_nobody_is_judged():
    world = World(ping_interval=20, ping_timeout=20)
    world.reading = False
    assert world.advance(500) == []


def test_a_ping_that_was_sent_before_reading_stopped_condemns_nobody():
    world = World(ping_interval=20, ping_timeout=20)
    assert [action for _, action in world.advance(20)] == [Action.PING]
    world.reading = False
    assert world.advance(100) == []
    world.resumes()
    began = world.now - START
    assert world.advance(200)[-1][1] is Action.GIVE_UP
    assert world.now - START >= began + 20 + 20 - TICK


def test_a_handler_that_leaves_its_queue_full_for_an_interval_is_named_once_and_for_all():
    world = World(ping_interval=20, ping_timeout=20)
    world.reading, world.queue_full = False, True
    (warning,) = world.advance(500)
    assert warning[1] is Action.WARN
    assert 20 - TICK <= warning[0] <= 20
    world.resumes()
    world.advance(5)
    world.reading = False
    assert world.advance(500) == []


def test_a_handler_whose_queue_was_filled_just_now_is_not_named():
    world = World(ping_interval=20, ping_timeout=20)
    for _ in range(20):
        world.advance(10)
        world.resumes()
        world.hears()
        world.reading, world.queue_full = False, True
    assert world.actions == []


# -- the deadline of a message ---------------------------------------------------------------------


def begins(world, *, another=True):
    return world.watchdog.message_unfinished(world.now, another=another)


def test_a_message_that_is_held_open_fails_after_its_timeout_rounded_up_to_a_second():
    world = World(ping_interval=None, message_timeout=30)
    world.now += 0.3
    assert begins(world)
    assert not begins(world, another=False)
    assert world.advance(100) == [(31.0, Action.FAIL)]


def test_each_message_has_its_own_time_whenever_the_one_before_it_began():
    """Its deadline is looked at when that of the first would have come, and then at its own."""
    world = World(ping_interval=None, message_timeout=30)
    begins(world)
    world.now += 1
    world.watchdog.message_finished()
    begins(world)
    assert world.advance(100) == [(31.0, Action.FAIL)]


def test_messages_that_follow_each_other_are_never_late_though_one_is_always_unfinished():
    world = World(ping_interval=None, message_timeout=30)
    for _ in range(100):
        begins(world, another=True)
        assert world.advance(10) == []


def test_a_message_that_is_complete_has_no_deadline_any_more():
    world = World(ping_interval=None, message_timeout=30)
    begins(world)
    world.watchdog.message_finished()
    assert world.advance(100) == []
    assert world.watchdog.due is None


@pytest.mark.parametrize(("rate", "lives"), [(1024, True), (2000, True), (1000, False), (1, False)])
def test_a_message_that_comes_faster_than_1_kib_a_second_may_take_as_long_as_it_needs(rate, lives):
    world = World(ping_interval=None, message_timeout=30)
    begins(world)
    for _ in range(300):
        world.message_bytes += rate
        world.advance(1)
    assert (world.actions == []) is lives


def test_a_message_that_was_fast_and_stalls_fails_when_its_mean_falls_under_the_rate():
    world = World(ping_interval=None, message_timeout=30)
    begins(world)
    world.message_bytes = 1024 * 60
    assert world.advance(200) == [(61.0, Action.FAIL)]


def test_while_nothing_is_read_no_message_is_late_and_then_it_has_its_time_again():
    world = World(ping_interval=None, message_timeout=30)
    begins(world)
    world.reading = False
    assert world.advance(100) == []
    world.resumes()
    assert world.advance(29) == []
    (failed,) = world.advance(60)
    assert failed[1] is Action.FAIL
    assert 130 <= failed[0] <= 131


def test_without_a_timeout_a_message_may_take_for_ever():
    world = World(ping_interval=None, message_timeout=None)
    assert not begins(world)
    assert world.watchdog.due is None


# -- rates -----------------------------------------------------------------------------------------


def test_control_frames_are_bounded_in_a_burst_and_in_the_long_run():
    world = World(limits=Limits(control_rate=10, control_burst=20))
    world.watchdog.count(START, control=20, messages=1 << 20)
    world.watchdog.count(START + 1, control=10, messages=0)
    with pytest.raises(ProtocolError, match="more than 10 control frames a second") as error:
        world.watchdog.count(START + 1, control=1, messages=0)
    assert error.value.close_code == 1008


def test_messages_are_bounded_where_that_is_wanted():
    world = World(message_rate=5.0)
    world.watchdog.count(START, control=0, messages=5)
    with pytest.raises(ProtocolError, match="more than 5 messages a second"):
        world.watchdog.count(START + 0.1, control=0, messages=1)


def test_a_rate_under_one_a_second_still_allows_one():
    world = World(message_rate=0.1)
    world.watchdog.count(START, control=0, messages=1)
    world.watchdog.count(START + 10, control=0, messages=1)


@given(
    st.floats(0.1, 1000),
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), max_size=50),
)
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(rate, burst, takes):
    bucket, now, given_out = TokenBucket(rate, burst, START), START, 0
    for seconds, count in takes:
        now += seconds
        if not bucket.take(count, now):
            break
        given_out += count
        assert given_out <= burst + rate * (now - START) + 1e-6


# -- random sequences of facts ---------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.floats(0, 100)),
        st.tuples(st.sampled_from(["hears", "pauses", "fills", "resumes", "begins", "goes on"])),
        st.tuples(st.sampled_from(["ends", "bytes", "late"])),
    ),
    max_size=40,
)
SECONDS = st.sampled_from([None, 0.1, 1.0, 3.7, 20.0, 61.0])


@given(SECONDS, SECONDS, SECONDS, STEPS)
def test_whatever_happens_nobody_is_judged_too_early_and_no_deadline_lies_in_the_past(
    interval, timeout, message_timeout, steps
):
    world = World(ping_interval=interval, ping_timeout=timeout, message_timeout=message_timeout)
    began, warned = None, 0
    for name, *facts in steps:
        if name == "hears":
            if world.reading:
                world.hears()
        elif name in ("pauses", "fills"):
            world.reading, world.queue_full = False, name == "fills"
        elif name == "resumes":
            began = world.now if not world.reading and began is not None else began
            world.resumes()
        elif name in ("begins", "goes on"):
            another = name == "begins"
            if began is None or another:
                began, world.message_bytes = world.now, 0
            begins(world, another=another)
        elif name == "ends":
            began = None
            world.watchdog.message_finished()
        elif name == "bytes":
            world.message_bytes += 10_000
        elif name == "late":
            world.now += 50  # our own loop had no turn
        else:
            for _, action in world.advance(facts[0]):
                warned += action is Action.WARN
                if action is Action.GIVE_UP:
                    tick = min(TICK, interval / 4)
                    assert world.reading
                    assert world.now - world.received_at >= interval - tick + timeout - 1e-6
                elif action is Action.FAIL:
                    assert world.reading
                    assert began is not None
                    assert world.now - began >= message_timeout - 1e-6
                    assert world.message_bytes < 1024 * (world.now - began)
                else:
                    continue
                return
    assert warned <= 1


# -- wired -----------------------------------------------------------------------------------------


def test_a_handler_that_leaves_its_queue_full_is_named_once(caplog):
    with held(max_queue=2, ping_interval=0.05) as (ws, client):
        client.send_raw(masked(Opcode.TEXT, b"a") + masked(Opcode.TEXT, b"b"))
        eventually(lambda: errors_in(caplog), "the warning")
        client.send_raw(masked(Opcode.TEXT, b"c"))
        assert [ws.recv(timeout=TIMEOUT) for _ in range(3)] == ["a", "b", "c"]
    (warning,) = errors_in(caplog)
    assert "its handler has left 2 messages unread for 0.05 s" in warning
    assert "max_queue=0" in warning
