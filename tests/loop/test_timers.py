"""Timers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from securews.loop.timers import Timers


def run_due(timers, now):
    for timer in timers.take_due(now):
        callback = timer.take_callback()
        if callback is not None:
            callback()


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50), st.floats(0, 100))
def test_due_timers_are_taken_in_order_and_cancelled_ones_never(plan, now):
    timers, called = Timers(), []
    for when, cancelled in plan:
        timer = timers.call_at(when, lambda when=when: called.append(when))
        if cancelled:
            timer.cancel()
            timer.cancel()
    run_due(timers, now)
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


def test_a_timer_that_is_cancelled_by_another_of_the_same_batch_is_not_called():
    timers, called = Timers(), []
    others = []

    def first():
        called.append("first")
        others[0].cancel()

    timers.call_at(1.0, first)
    others.append(timers.call_at(1.0, lambda: called.append("second")))
    timers.call_at(1.0, lambda: called.append("third"))
    run_due(timers, 1.0)
    assert called == ["first", "third"]
    assert timers.next_due() is None
    assert timers._cancelled == 0
