import pytest

from examples.chat.pace import Pace


def test_a_burst_passes_and_then_the_rate(clock):
    pace = Pace(rate=5, burst=3, clock=clock)
    assert [pace.wait() for _ in range(3)] == [0, 0, 0]
    assert pace.wait() == pytest.approx(0.2)
    clock.now += 0.2
    assert pace.wait() == 0
    clock.now += 0.1
    assert pace.wait() == pytest.approx(0.1)


def test_a_pause_saves_up_no_more_than_the_burst(clock):
    pace = Pace(rate=5, burst=3, clock=clock)
    clock.now += 3600
    assert [pace.wait() == 0 for _ in range(4)] == [True, True, True, False]


def test_who_goes_on_while_told_to_wait_is_one_that_does_not_listen(clock):
    pace = Pace(rate=1, burst=1, patience=2, clock=clock)
    pace.wait()
    for _ in range(2):
        assert pace.wait() > 0
        assert not pace.ignored
    assert pace.wait() > 0
    assert pace.ignored


def test_who_waits_is_forgiven(clock):
    pace = Pace(rate=1, burst=1, patience=2, clock=clock)
    for _ in range(10):
        pace.wait()
        pace.wait()
        clock.now += 1
    assert not pace.ignored
