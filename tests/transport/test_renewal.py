import threading

import pytest
from support import Clock

from securews.common.errors import ConfigurationError
from securews.transport.renewal import AHEAD, CONTEXT_LIFETIME, RETRY, Renewed


class Builds:
    """Counts, and notes on which thread; fails while told to."""

    def __init__(self):
        self.made = 0
        self.error = None
        self.threads = []

    def __call__(self):
        self.threads.append(threading.current_thread())
        if self.error:
            raise self.error
        self.made += 1
        return self.made


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def builds():
    return Builds()


@pytest.fixture
def renewed(builds, clock):
    return Renewed(builds, CONTEXT_LIFETIME, clock)


def test_one_is_built_at_once_and_used_again(renewed):
    assert [renewed.current(), renewed.current(), renewed.latest] == [1, 1, 1]


def renewed_by_itself():
    """The threads that were started for it have ended."""
    for thread in threading.enumerate():
        if thread.name == "securews-renewal":
            thread.join(10)


@pytest.mark.promise(13)
def test_who_asks_in_time_has_a_new_one_before_the_12_hours_are_over(renewed, clock):
    clock.now = CONTEXT_LIFETIME - AHEAD - 1
    renewed.renew_if_due()
    assert renewed.current() == 1
    clock.now += 1
    for _ in range(2):
        renewed.renew_if_due()
        assert renewed.current() == 2
    clock.now += CONTEXT_LIFETIME - AHEAD
    renewed.renew_if_due()
    assert renewed.current() == 3


@pytest.mark.promise(13)
def test_after_12_hours_there_is_a_new_one_by_itself(renewed, clock):
    clock.now = 12 * 3600 - 1
    assert renewed.current() == 1
    for generation in (2, 3):
        clock.now += 12 * 3600
        renewed.current()
        renewed_by_itself()
        assert [renewed.current(), renewed.current()] == [generation, generation]


@pytest.mark.promise(13)
def test_who_accepts_never_builds_nor_waits(builds, clock):
    go_on = threading.Event()

    def build():
        if builds.made:
            assert go_on.wait(10)
        return builds()

    renewed = Renewed(build, CONTEXT_LIFETIME, clock)
    clock.now = CONTEXT_LIFETIME
    assert [renewed.current(), renewed.current()] == [1, 1]
    go_on.set()
    renewed_by_itself()
    assert renewed.current() == 2
    assert len(builds.threads) == 2
    assert builds.threads[1] is not threading.current_thread()


@pytest.mark.promise(13)
def test_a_renewal_that_fails_keeps_the_old_one_and_says_so_once(renewed, clock, builds, caplog):
    builds.error = ConfigurationError("the disk is gone")
    clock.now = CONTEXT_LIFETIME - AHEAD
    for _ in range(3):
        renewed.renew_if_due()
        assert renewed.current() == 1
        clock.now += RETRY
    assert len(builds.threads) == 1 + 3
    assert caplog.text.count("the disk is gone") == 1
    builds.error = None
    renewed.renew_if_due()
    assert renewed.current() == 2


@pytest.mark.promise(13)
@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), ConfigurationError("no disk")])
def test_accepting_goes_on_whatever_the_renewal_fails_with(renewed, clock, builds, caplog, error):
    builds.error = error
    clock.now = CONTEXT_LIFETIME
    renewed.current()
    renewed_by_itself()
    assert renewed.current() == 1
    assert caplog.text.count(str(error)) == 1


def test_accepting_goes_on_where_no_thread_can_be_started(renewed, clock, monkeypatch, caplog):
    def no_threads(_):
        raise RuntimeError("can't start new thread")

    clock.now = CONTEXT_LIFETIME
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_threads)
        assert [renewed.current(), renewed.current()] == [1, 1]
    assert caplog.text.count("can't start new thread") == 1
    clock.now += RETRY
    renewed.renew_if_due()
    assert renewed.current() == 2


@pytest.mark.promise(21)
def test_a_reload_that_fails_raises_and_keeps_the_old_one(renewed, builds):
    builds.error = ConfigurationError("no")
    with pytest.raises(ConfigurationError):
        renewed.reload()
    assert renewed.current() == 1


def test_a_reload_starts_the_12_hours_again(renewed, clock):
    clock.now = CONTEXT_LIFETIME - 1
    renewed.reload()
    clock.now += 10
    renewed.renew_if_due()
    assert renewed.current() == 2


def test_an_error_at_the_first_build_is_the_makers():
    def fail():
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        Renewed(fail)


def test_of_two_reloads_the_one_that_began_later_wins():
    began, go_on, made = threading.Event(), threading.Event(), []

    def build():
        made.append(None)
        number = len(made)
        if number == 2:  # slow: it has read the old files already
            began.set()
            assert go_on.wait(10)
        return number

    renewed = Renewed(build)
    slow = threading.Thread(target=renewed.reload)
    slow.start()
    assert began.wait(10)
    renewed.reload()
    go_on.set()
    slow.join(10)
    assert renewed.latest == 3
