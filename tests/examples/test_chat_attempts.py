import threading

import pytest
from support import TIMEOUT, eventually

from examples.chat.attempts import AddressLimit, BusyError, OneAtATime

HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def limit(clock):
    return AddressLimit(clock=clock)


def begin(limit, times, address=HERE):
    return [limit.begin(address) for _ in range(times)]


def test_an_address_tries_twenty_passwords_at_once_and_then_one_a_minute(limit, clock):
    assert begin(limit, 21) == [0] * 20 + [60]
    clock.now += 59.5
    assert limit.begin(HERE) == 1
    clock.now += 0.5
    assert begin(limit, 2) == [0, 60]


def test_asking_again_and_again_does_not_make_the_wait_longer(limit, clock):
    begin(limit, 1000)
    clock.now += 60
    assert limit.begin(HERE) == 0


def test_other_addresses_do_not_wait_and_an_ipv6_network_is_one(limit):
    assert begin(limit, 21)[-1]
    assert limit.begin(ELSEWHERE) == 0
    walk = [limit.begin(f"2001:db8::{number:x}") for number in range(21)]
    assert walk == [0] * 20 + [60]


def test_a_hundred_and_ninety_right_passwords_come_in_at_once(limit):
    for _ in range(190):
        assert limit.begin(HERE) == 0
        limit.succeeded(HERE)


def test_a_right_password_does_not_clear_what_others_have_tried(limit):
    begin(limit, 19)
    assert limit.begin(HERE) == 0
    limit.succeeded(HERE)
    assert limit.begin(HERE) > 0


def test_a_password_that_was_not_looked_at_does_not_count(limit):
    for _ in range(100):
        assert limit.begin(HERE) == 0
        limit.withdrawn(HERE)


def test_a_flood_of_addresses_stays_in_bounded_memory_and_forgets_the_oldest(clock):
    limit = AddressLimit(burst=1, capacity=100, clock=clock)
    for number in range(1000):
        limit.begin(f"10.0.{number // 256}.{number % 256}")
    assert len(limit) == 100
    assert limit.begin("10.0.3.231") > 0  # the newest
    assert limit.begin("10.0.0.0") == 0
    limit.succeeded("10.0.0.1")  # forgotten meanwhile


def test_attempts_from_many_threads_are_all_counted(clock):
    limit = AddressLimit(burst=400, clock=clock)
    threads = [threading.Thread(target=begin, args=(limit, 50)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit.begin(HERE) > 0


@pytest.fixture
def at_work():
    """A lock that a thread holds until the event is set, and a list of those that have held it."""
    lock, done, served = OneAtATime(waiting=2), threading.Event(), []

    def work(name):
        with lock.held():
            served.append(name)
            assert done.wait(TIMEOUT)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    eventually(lambda: lock._places._value == 0)
    yield lock, done, served
    done.set()
    for thread in threads:
        thread.join()


def test_two_wait_for_the_one_at_work_and_the_third_is_refused_at_once(at_work):
    lock, done, served = at_work
    assert len(served) == 1
    with pytest.raises(BusyError), lock.held():
        pass
    done.set()
    eventually(lambda: sorted(served) == ["a", "b", "c"])
    eventually(lambda: lock._places._value == 3)
    with lock.held():
        pass


def test_who_waits_too_long_is_refused_and_leaves_the_place():
    lock, done = OneAtATime(waiting=1, longest_wait=0.01), threading.Event()

    def work():
        with lock.held():
            assert done.wait(TIMEOUT)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: lock._places._value == 1)
    for _ in range(2):
        with pytest.raises(BusyError), lock.held():
            pass
    done.set()
    thread.join()


def test_what_fails_while_it_is_held_gives_it_back():
    lock = OneAtATime(waiting=0)
    with pytest.raises(ZeroDivisionError), lock.held():
        raise ZeroDivisionError
    with lock.held():
        pass
