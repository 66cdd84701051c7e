"""The loop: who is called in a turn, in which order, and that nothing that is raised ends it."""

from __future__ import annotations

import os
import threading
from itertools import count

import pytest
from support import TIMEOUT, Clock

from securews.loop.loop import SLICE, Loop, Owner
from securews.loop.poller import HANGUP, READABLE

ERRORS = [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit]
WORDS = "internal error"


class Poller:
    """Reports what the test has put into `ready`, once."""

    def __init__(self):
        self.ready = []
        self.timeouts = []
        self.watched = {}
        self.closed = False

    def watch(self, fd, *, read, write):
        self.watched[fd] = (read, write)

    def unwatch(self, fd):
        self.watched.pop(fd, None)

    def poll(self, timeout):
        self.timeouts.append(timeout)
        ready, self.ready = self.ready, []
        return ready

    def close(self):
        self.closed = True


_numbers = count(1_000_000)


class Recorder(Owner):
    """Notes what it is told; raises where the test wants it."""

    def __init__(self, notes, name="owner", **raising):
        self.fd = next(_numbers)
        self.notes = notes
        self.name = name
        self.raising = raising

    def _note(self, what, *more):
        self.notes.append((self.name, what, *more))
        if what in self.raising:
            raise self.raising[what]

    def on_ready(self, mask):
        self._note("on_ready", mask)

    def flush_scheduled(self):
        self._note("flush_scheduled")

    def continue_work(self):
        self._note("continue_work")

    def abort(self, error=None):
        assert error is None
        self._note("abort")

    def release(self):
        self._note("release")


class Stage:
    """A loop that the test turns, and what its owners were told."""

    def __init__(self):
        self.clock = Clock()
        self.poller = Poller()
        self.loop = Loop(self.poller, self.clock)
        self.notes = []

    def owner(self, name="owner", **raising):
        return Recorder(self.notes, name, **raising)

    def ready(self, owner, mask=READABLE):
        self.poller.ready.append((owner.fd, mask))


@pytest.fixture
def stage():
    stage = Stage()
    stage.loop.enter()
    yield stage
    stage.loop.leave()


def elsewhere(function, *args):
    """Call on another thread; its result, or what it raises."""
    results = []

    def run():
        try:
            results.append((function(*args), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    ((result, error),) = results
    if error is not None:
        raise error
    return result


# -- a turn ----------------------------------------------------------------------------------------


def test_a_timer_that_falls_due_during_a_turn_waits_for_what_the_next_poll_brings(stage):
    loop, notes = stage.loop, stage.notes

    class Slow(Recorder):
        def on_ready(self, mask):
            stage.clock.now += 5.0

    owner = Slow(notes)
    loop.timers.call_at(stage.clock.now + 1.0, lambda: notes.append("timer"))
    loop.watch(owner, read=True, write=False)
    stage.ready(owner, READABLE)
    loop.turn()
    assert notes == []
    loop.turn()
    assert notes == ["timer"]


def test_call_later_counts_from_the_call_and_not_from_the_beginning_of_the_turn(stage):
    loop = stage.loop
    stage.clock.now += 5.0
    timer = loop.call_later(1.0, lambda: None)
    assert timer.when == stage.clock.now + 1.0


def test_a_loop_that_has_ended_keeps_no_owner_that_is_scheduled(stage):
    loop = stage.loop
    loop._over = True
    loop.schedule(stage.owner("late"))
    assert not loop._scheduled


def test_a_turn_tells_of_descriptors_then_timers_then_calls_then_the_scheduled_then_the_rest(stage):
    loop, notes = stage.loop, stage.notes
    watched, scheduled, left, ended = (stage.owner(name) for name in ("w", "s", "l", "e"))
    loop.continue_later(left)
    loop.schedule(scheduled)
    loop.call_soon(lambda: notes.append("call"))
    loop.timers.call_at(stage.clock.now, lambda: notes.append("timer"))
    loop.watch(watched, read=True, write=False)
    loop.close_later(ended)
    stage.ready(watched, READABLE | HANGUP)
    loop.turn()
    assert notes == [
        ("w", "on_ready", READABLE | HANGUP),
        "timer",
        "call",
        ("s", "flush_scheduled"),
        ("l", "continue_work"),
        ("e", "release"),
    ]
    loop.turn()
    assert len(notes) == 6


def test_calls_come_in_order_and_those_of_a_call_in_the_next_turn(stage):
    loop, calls = stage.loop, []

    def first():
        calls.append(1)
        loop.call_soon(lambda: calls.append(3))

    elsewhere(loop.call_soon, first)
    elsewhere(loop.call_soon, lambda: calls.append(2))
    loop.turn()
    assert calls == [1, 2]
    loop.turn()
    assert calls == [1, 2, 3]


def test_who_is_closed_is_told_nothing_more_of_the_same_batch_and_released_at_its_end(stage):
    loop = stage.loop
    other = stage.owner("other")

    class Closes(Recorder):
        def on_ready(self, mask):
            super().on_ready(mask)
            loop.close_later(other)
            assert ("other", "release") not in self.notes

    closes = Closes(stage.notes, "closes")
    for owner in (closes, other):
        loop.watch(owner, read=True, write=False)
        stage.ready(owner)
    loop.turn()
    assert stage.notes == [("closes", "on_ready", READABLE), ("other", "release")]
    assert other.fd not in stage.poller.watched


def test_a_timer_that_is_cancelled_by_one_of_its_batch_does_not_run(stage):
    loop, ran = stage.loop, []

    def first():
        ran.append("first")
        second.cancel()

    loop.timers.call_at(stage.clock.now, first)
    second = loop.timers.call_at(stage.clock.now, lambda: ran.append("second"))
    loop.turn()
    stage.clock.now += 1
    loop.turn()
    assert ran == ["first"]


def test_it_sleeps_until_the_next_timer_or_for_ever_and_never_while_there_is_work(stage):
    loop = stage.loop
    loop.turn()
    timer = loop.timers.call_at(stage.clock.now + 5, lambda: None)
    loop.turn()
    loop.schedule(stage.owner())
    loop.turn()
    loop.continue_later(stage.owner())
    loop.turn()
    loop.call_soon(lambda: None)
    loop.turn()
    timer.cancel()
    loop.turn()
    stage.clock.now += 10
    loop.timers.call_at(stage.clock.now - 7, lambda: None)
    loop.turn()
    assert stage.poller.timeouts == [None, 5.0, 0.0, 0.0, 0.0, None, 0.0]


# -- left-over work --------------------------------------------------------------------------------


def test_who_has_left_something_over_takes_turns_within_a_slice(stage):
    loop = stage.loop

    class Worker(Recorder):
        def continue_work(self):
            super().continue_work()
            stage.clock.now += SLICE / 4
            loop.continue_later(self)

    for name in ("one", "two"):
        loop.continue_later(Worker(stage.notes, name))
    loop.turn()
    assert [name for name, _ in stage.notes] == ["one", "two", "one", "two"]
    loop.call_soon(lambda: stage.notes.append(("others", "came in between")))
    loop.turn()
    assert [name for name, _ in stage.notes[4:]] == ["others", "one", "two", "one", "two"]


def test_one_step_that_takes_longer_than_a_slice_ends_it(stage):
    loop = stage.loop

    class Slow(Recorder):
        def continue_work(self):
            super().continue_work()
            stage.clock.now += 10 * SLICE

    for name in ("one", "two"):
        loop.continue_later(Slow(stage.notes, name))
    loop.turn()
    assert [name for name, _ in stage.notes] == ["one"]
    loop.turn()
    assert [name for name, _ in stage.notes] == ["one", "two"]


# -- whatever is raised ----------------------------------------------------------------------------


def logged(caplog):
    return [record for record in caplog.records if WORDS in record.message]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["on_ready", "flush_scheduled", "continue_work"])
def test_an_owner_that_raises_is_aborted_and_logged_once_and_others_are_served(
    stage, caplog, where, error
):
    loop = stage.loop
    broken, other = stage.owner("broken", **{where: error("as asked")}), stage.owner("other")
    for owner in (broken, other):
        if where == "on_ready":
            loop.watch(owner, read=True, write=False)
            stage.ready(owner)
        elif where == "flush_scheduled":
            loop.schedule(owner)
        else:
            loop.continue_later(owner)
    loop.turn()
    told = [note[:2] for note in stage.notes]
    assert told == [("broken", where), ("broken", "abort"), ("other", where)]
    (record,) = logged(caplog)
    assert record.exc_info[0] is error


@pytest.mark.parametrize("error", ERRORS)
def test_a_call_a_timer_and_a_release_that_raise_are_logged_once_each(stage, caplog, error):
    loop, went_on = stage.loop, []

    def broken():
        raise error("as asked")

    loop.timers.call_at(stage.clock.now, broken)
    loop.timers.call_at(stage.clock.now, lambda: went_on.append("timer"))
    loop.call_soon(broken)
    loop.call_soon(lambda: went_on.append("call"))
    loop.close_later(stage.owner("broken", release=error("as asked")))
    loop.close_later(stage.owner("other"))
    loop.turn()
    assert went_on == ["timer", "call"]
    assert stage.notes == [("broken", "release"), ("other", "release")]
    assert [record.exc_info[0] for record in logged(caplog)] == [error] * 3


@pytest.mark.parametrize("error", ERRORS)
def test_an_owner_that_raises_while_it_is_aborted_does_not_end_the_loop(stage, caplog, error):
    loop = stage.loop
    broken = stage.owner("broken", on_ready=ValueError("first"), abort=error("then"))
    other = stage.owner("other")
    for owner in (broken, other):
        loop.watch(owner, read=True, write=False)
        stage.ready(owner)
    loop.turn()
    assert stage.notes[-1] == ("other", "on_ready", READABLE)
    assert [record.exc_info[0] for record in logged(caplog)] == [ValueError, error]


def test_who_is_only_watched_and_raises_is_aborted_too(stage, caplog):
    class Watched:
        fd = next(_numbers)

        def on_ready(self, mask):
            raise SystemExit(mask)

        def abort(self, error=None):
            aborted.append(self)

    aborted, watched = [], Watched()
    stage.loop.watch(watched, read=True, write=False)
    stage.ready(watched)
    stage.loop.turn()
    assert len(logged(caplog)) == 1
    assert aborted == [watched]
    stage.loop.unwatch(watched)


# -- the end ---------------------------------------------------------------------------------------


def test_after_the_end_nothing_is_promised_and_what_was_is_done():
    stage = Stage()
    loop, calls = stage.loop, []

    def again():
        calls.append("first")
        assert loop.call_soon(lambda: calls.append("second"))

    ended = stage.owner("ended")
    loop.enter()
    loop.call_soon(again)
    loop.close_later(ended)
    loop.leave()
    assert calls == ["first", "second"]
    assert stage.notes == [("ended", "release")]
    assert loop.call_soon(lambda: calls.append("never")) is False
    assert calls == ["first", "second"]
    assert stage.poller.closed
    assert not loop.on_loop_thread()
    assert not loop.on_io_thread()
    loop.schedule(ended)  # harmless
    loop.wait_for_turn(0.0)


def test_stop_ends_run_after_the_turn():
    loop, threads = Loop(), []
    loop.call_soon(lambda: threads.append((loop.on_loop_thread(), loop.on_io_thread())))
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.stop()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert threads == [(True, True)]


def test_every_thread_is_an_io_thread_that_runs_any_loop(stage):
    other = Loop(Poller(), Clock())
    assert other.on_io_thread()
    assert not other.on_loop_thread()
    assert not elsewhere(stage.loop.on_io_thread)
    other.leave()


# -- other threads ---------------------------------------------------------------------------------


def test_wait_for_turn_waits_for_what_was_scheduled_before():
    loop, done, notes = Loop(), [], []
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for number in range(200):
            owner = Recorder(notes, number)
            loop.schedule(owner)
            loop.wait_for_turn(TIMEOUT)
            done.append((number, "flush_scheduled") in notes)
    finally:
        loop.stop()
        thread.join(TIMEOUT)
    assert all(done)


def test_wait_for_turn_gives_up_and_returns_at_once_where_the_loop_has_ended():
    stage = Stage()
    stage.loop.enter()
    elsewhere(stage.loop.wait_for_turn, 0.0)  # nobody turns
    stage.loop.leave()
    elsewhere(stage.loop.wait_for_turn, TIMEOUT)


def test_no_wake_up_is_lost_however_many_threads_ask():
    """Each thread waits for the answer to one call before it makes the next."""
    loop, rounds, threads = Loop(), 300, 4
    runner = threading.Thread(target=loop.run)
    runner.start()
    answered = []

    def ask():
        for _ in range(rounds):
            event = threading.Event()
            assert loop.call_soon(event.set)
            assert event.wait(TIMEOUT), "the loop sleeps"
        answered.append(rounds)

    askers = [threading.Thread(target=ask) for _ in range(threads)]
    try:
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(60)
    finally:
        loop.stop()
        runner.join(TIMEOUT)
    assert answered == [rounds] * threads


def test_signals_are_handed_on_and_wake_ups_are_not():
    loop, came = Loop(), []
    loop.on_signals = came.append
    loop.enter()
    try:
        loop.wake()
        loop.turn()
        assert came == []
        os.write(loop.signal_fd, b"\x02\x0f")
        loop.wake()
        loop.turn()
        assert came == [b"\x02\x0f"]
    finally:
        loop.leave()


def test_the_name_of_the_callback_is_that_of_the_caller_or_empty(stage):
    class Caller:
        def callback_name(self):
            return "Chat.on_message"

    assert stage.loop.callback_name() == ""
    stage.loop.caller = Caller()
    assert stage.loop.callback_name() == "Chat.on_message"
