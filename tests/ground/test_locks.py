"""The lock of the hot path and its compiled twin: what both must do."""

from __future__ import annotations

import threading

import pytest
from support import TIMEOUT, source_of

from securews.ground import locks

KINDS = {"as it runs": locks.Lock, "in Python": source_of(locks).Lock}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def lock(request):
    return request.param()


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
