"""Deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from securews.common.deadlines import Deadline, rounded_up


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
