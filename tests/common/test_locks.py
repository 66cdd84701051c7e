"""The lock of the hot path and its compiled twin: what both must do."""

from __future__ import annotations

import signal
import threading

import pytest
from support import TIMEOUT, source_of

from securews.common import locks

KINDS = {"as it runs": locks, "in Python": source_of(locks)}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def module(request):
    return request.param


@pytest.fixture
def lock(module):
    return module.Lock()


@pytest.fixture
def taken(module):
    lock = module.Lock()
    lock.acquire()
    return lock


def test_one_thread_at_a_time_has_it(lock):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(2000):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert (inside, most) == (0, 1)


def test_who_does_not_wait_is_told_that_it_is_taken(lock):
    assert lock.acquire()
    assert lock.locked()
    assert not lock.acquire(False)
    lock.release()
    assert not lock.locked()
    assert lock.acquire(False)


def test_a_thread_waits_until_another_one_gives_it_back(lock):
    came = threading.Event()
    lock.acquire()

    def wait():
        with lock:
            came.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not came.is_set()
    lock.release()
    waiting.join(TIMEOUT)
    assert came.is_set()


def test_it_is_given_back_where_the_block_raises(lock):
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


def test_what_nobody_has_cannot_be_given_back(lock):
    with pytest.raises(RuntimeError, match="unlocked"):
        lock.release()


def test_conditions_wait_on_it(lock):
    condition, ready = threading.Condition(lock), []

    def tell():
        with condition:
            ready.append(True)
            condition.notify_all()

    thread = threading.Thread(target=tell)
    with condition:
        thread.start()
        assert condition.wait_for(lambda: ready, TIMEOUT)
        assert not condition.wait(0)
    thread.join(TIMEOUT)
    assert not lock.locked()


# -- handing over -----------------------------------------------------------------------------------


def test_two_threads_run_in_turns(module, lock, taken):
    lock.acquire()
    mine, others = lock, taken
    turns = []

    def other():
        for turn in range(100):
            assert module.hand_over(None if turn == 0 else mine, others, TIMEOUT)
            turns.append("other")
        mine.release()

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(100):
        turns.append("first")
        assert module.hand_over(others, mine, TIMEOUT)
    thread.join(TIMEOUT)
    assert turns == ["first", "other"] * 100


def test_who_is_not_woken_in_time_is_told_so(module, taken):
    assert not module.hand_over(None, taken, 0.01)
    assert not module.hand_over(None, taken, 0)
    assert taken.locked()
    taken.release()
    assert module.hand_over(None, taken, 0)
    assert taken.locked()


def test_what_is_free_already_is_handed_over_all_the_same(module, lock, taken):
    assert not module.hand_over(lock, taken, 0)
    assert not lock.locked()


def test_a_wait_without_end_ends_with_the_lock(module, taken):
    timer = threading.Timer(0.01, taken.release)
    timer.start()
    assert module.hand_over(None, taken, None)
    timer.join(TIMEOUT)


@pytest.mark.parametrize("seconds", [None, TIMEOUT])
def test_a_signal_is_handled_in_the_wait_and_may_end_it(module, taken, seconds):
    def interrupt(number, frame):
        raise InterruptedError

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(InterruptedError):
            module.hand_over(None, taken, seconds)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_a_signal_whose_handler_returns_does_not_end_the_wait(module, taken):
    handled = threading.Event()

    def handle(number, frame):
        handled.set()
        threading.Timer(0.05, taken.release).start()

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert module.hand_over(None, taken, TIMEOUT)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert handled.is_set()


def test_a_signal_that_another_thread_was_given_is_handled_when_the_wait_is_over(
    module, lock, taken
):
    def interrupt(number, frame):
        raise InterruptedError

    lock.acquire()
    over = threading.Event()
    other = threading.Thread(target=over.wait, args=(TIMEOUT,))
    other.start()  # only this one does not block the signal
    previous = signal.signal(signal.SIGALRM, interrupt)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(InterruptedError):
            module.hand_over(lock, taken, 0.5)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, previous)
        over.set()
        other.join(TIMEOUT)
    assert not lock.locked()  # whose turn it was has been woken
