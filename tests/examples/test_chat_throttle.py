import sys
import threading

import pytest

from examples.chat.throttle import Throttle, network_of

HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def throttle(clock):
    return Throttle(clock=clock)


def fail(throttle, times, name="alice", address=HERE):
    return [throttle.failed(name, address) for _ in range(times)]


def test_the_fifth_failure_begins_the_wait(throttle):
    assert fail(throttle, 4) == [0, 0, 0, 0]
    assert throttle.wait("alice", HERE) == 0
    assert fail(throttle, 1) == [30]
    assert throttle.wait("alice", HERE) == 30


def test_the_same_user_elsewhere_and_others_here_do_not_wait(throttle):
    fail(throttle, 5)
    assert throttle.wait("alice", ELSEWHERE) == 0
    assert throttle.wait("bob", HERE) == 0


def test_case_and_spaces_make_no_other_user(throttle):
    fail(throttle, 5, name=" Alice")
    assert throttle.wait("alice", HERE) == 30


def test_the_wait_runs_out_by_itself_and_is_never_shown_too_short(throttle, clock):
    fail(throttle, 5)
    clock.now += 29.5
    assert throttle.wait("alice", HERE) == 1
    clock.now += 0.5
    assert throttle.wait("alice", HERE) == 0


@pytest.mark.parametrize("now", [8.241817221223481, 4.29119506429333, 42.12823425142107])
def test_the_first_wait_is_never_shown_as_longer_than_it_is(throttle, clock, now):
    # In floats, each of these + 30.0 - itself is more than 30.0.
    assert now + 30.0 - now > 30.0
    clock.now = now
    assert fail(throttle, 5)[-1] == 30
    assert throttle.wait("alice", HERE) == 30


def test_each_further_failure_doubles_it_up_to_a_limit(throttle, clock):
    fail(throttle, 4)
    waits = []
    for _ in range(8):
        waits.append(throttle.failed("alice", HERE))
        clock.now += waits[-1]
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


def test_asking_during_the_wait_does_not_make_it_longer(throttle, clock):
    fail(throttle, 5)
    clock.now += 10
    assert throttle.wait("alice", HERE) == 20
    assert throttle.failed("alice", HERE) == 20  # was under way when the wait began


def test_a_right_password_forgets_the_failures(throttle):
    fail(throttle, 4)
    assert throttle.succeeded("alice", HERE) == 0
    assert fail(throttle, 4) == [0, 0, 0, 0]


def test_a_right_password_among_many_at_once_is_answered_like_a_wrong_one(throttle):
    fail(throttle, 5)
    assert throttle.succeeded("alice", HERE) == 30
    assert throttle.wait("alice", HERE) == 30


def test_an_hour_without_a_failure_forgets_them(throttle, clock):
    fail(throttle, 4)
    clock.now += 3601
    assert fail(throttle, 4) == [0, 0, 0, 0]


def test_a_flood_of_names_and_addresses_stays_in_bounded_memory(clock):
    throttle = Throttle(capacity=100, clock=clock)
    for number in range(1000):
        throttle.failed(f"{number}{'x' * 10_000}", HERE)
    assert len(throttle) == 100
    keys = list(throttle._failures)
    assert max(sys.getsizeof(name) for name, _ in keys) < 200


def test_who_failed_longest_ago_is_forgotten_first(clock):
    throttle = Throttle(capacity=2, clock=clock)
    fail(throttle, 4, name="alice")
    fail(throttle, 1, name="bob")
    fail(throttle, 1, name="alice")  # again: the newest now
    fail(throttle, 1, name="carol")
    assert throttle.wait("alice", HERE) == 30
    assert len(throttle) == 2


def test_failures_from_many_threads_are_all_counted(clock):
    throttle = Throttle(free=400, clock=clock)
    threads = [threading.Thread(target=fail, args=(throttle, 50)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert throttle.wait("alice", HERE) == 30


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/chat.sock", "/run/chat.sock"),
    ],
)
def test_what_counts_as_one_address(host, network):
    assert network_of(host) == network


def test_an_ipv6_peer_cannot_walk_through_its_own_network(throttle):
    for number in range(5):
        throttle.failed("alice", f"2001:db8::{number}")
    assert throttle.wait("alice", "2001:db8::ffff") == 30
