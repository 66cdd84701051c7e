"""Timers and deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from securews.ground.deadlines import Deadline, Timers, rounded_up


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50), st.floats(0, 100))
def test_due_timers_are_taken_in_order_and_cancelled_ones_never(plan, now):
    timers, called = Timers(), []
    for when, cancelled in plan:
        timer = timers.call_at(when, lambda when=when: called.append(when))
        if cancelled:
            timer.cancel()
            timer.cancel()
    for callback in timers.take_due(now):
        callback()
    alive = sorted(when for when, cancelled in plan if not cancelled)
    assert called == [when for when in alive if when <= now]
    assert timers.next_due() == next((when for when in alive if when > now), None)


def test_many_cancelled_timers_do_not_stay_in_memory():
    timers = Timers()
    keep = timers.call_at(1e9, lambda: None)
    for _ in range(10_000):
        timers.call_at(5.0, lambda: None).cancel()
    assert len(timers._heap) < 200
    assert timers.next_due() == keep.when


def test_a_timer_that_was_called_can_be_cancelled_without_harm():
    timers = Timers()
    timer = timers.call_at(0.0, lambda: None)
    assert len(timers.take_due(1.0)) == 1
    timer.cancel()
    assert timers._cancelled == 0


@given(st.floats(0, 1e6), st.floats(0.01, 10))
def test_coarse_deadlines_are_never_early_and_at_most_a_tick_late(when, tick):
    assert when - 1e-6 <= rounded_up(when, tick) <= when + tick + 1e-6


def test_a_deadline_counts_down_to_zero_and_none_never_comes():
    assert Deadline(None).remaining() is None
    assert not Deadline(None).passed
    assert Deadline(0).passed
    assert Deadline(0).remaining() == 0
    left = Deadline(60).remaining()
    assert left is not None
    assert 59 < left <= 60
