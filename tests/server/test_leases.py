"""Leases: what is counted, who gives a place to whom, and what a handler without a peer holds."""

import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support import errors_in

from securews.server.leases import Leases

ONE, OTHER = ("192.0.2.1", 5), ("198.51.100.7", 5)
ADDRESSES = st.sampled_from([ONE, ONE, OTHER, ("127.0.0.1", 5)])


class Peer:
    """A connection of which only its lease is known."""

    def __init__(self, leases, address, now=0.0):
        self.address = address
        self.lease = leases.take(address, now)
        self.evicted = False
        self.state = ""
        self.tasks = []

    def is_silent(self, now=0.0):
        self.lease.is_silent(self._evict, now)

    def _evict(self):
        self.evicted = True


def counts(leases):
    stats = leases.stats()
    return stats["sockets"], stats["leases"], stats["handlers"], stats["gone"]


# -- what is counted -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 5), ("::1", 5, 0, 0), ("::ffff:127.9.9.9", 5), ""]
)
def test_loopback_and_unix_peers_are_exempt_from_max_per_ip(address):
    leases = Leases(100, 1)
    assert all(leases.take(address, now=0.0) for _ in range(50))


def test_who_left_counts_no_more():
    leases = Leases(1, 1)
    for number in range(1000):
        lease = leases.take((f"192.0.2.{number % 200}", 5), now=0.0)
        assert lease is not None
        assert leases.take(OTHER, now=0.0) is None
        lease.descriptor_closed(now=0.0)
    assert leases.count == 0
    assert not leases._per_ip


def test_a_place_is_held_until_the_descriptor_is_closed_and_the_handler_is_done():
    leases = Leases(1, 1)
    lease = leases.take(ONE, now=0.0)
    task = lease.task("handler", "peer")
    seen = []

    def job():
        seen.append(counts(leases))
        lease.descriptor_closed(now=0.0)
        seen.append(counts(leases))
        seen.append(leases.take(OTHER, now=0.0))

    task.run(job)
    assert seen == [(1, 1, 1, 0), (0, 1, 1, 1), None]
    assert counts(leases) == (0, 0, 0, 0)
    assert leases.take(ONE, now=0.0)


def test_a_job_that_waits_for_a_thread_holds_the_place_too():
    leases = Leases(1, None)
    lease = leases.take(ONE, now=0.0)
    task = lease.task("handler", "peer")
    lease.descriptor_closed(now=0.0)
    assert counts(leases) == (0, 1, 0, 0)
    task.cancel()
    assert counts(leases) == (0, 0, 0, 0)


def test_a_handler_that_goes_on_in_another_thread_keeps_the_place():
    leases = Leases(1, None)
    lease = leases.take(ONE, now=0.0)
    following = []
    lease.task("accept() of Chat", "peer").run(lambda: following.append(lease.task("Chat", "peer")))
    lease.descriptor_closed(now=0.0)
    assert leases.count == 1
    thread = threading.Thread(target=following[0].run, args=(lambda: None,))
    thread.start()
    thread.join()
    assert leases.count == 0


def test_a_job_that_raises_gives_back_what_it_holds():
    leases = Leases(1, None)
    lease = leases.take(ONE, now=0.0)
    lease.descriptor_closed(now=0.0)
    task = leases.take(ONE, now=0.0).task("handler", "peer")
    with pytest.raises(SystemExit):
        task.run(lambda: exec("raise SystemExit"))
    assert counts(leases) == (1, 1, 0, 0)


def test_giving_back_twice_and_cancelling_what_runs_are_harmless():
    leases = Leases(2, None)
    one, other = Peer(leases, ONE), Peer(leases, ONE)
    task = one.lease.task("handler", "peer")
    task.cancel()
    task.cancel()
    task.run(lambda: None)  # it was cancelled: the job finds out, and nothing is counted
    running = other.lease.task("handler", "peer")
    running.run(running.cancel)
    for _ in range(3):
        one.lease.descriptor_closed(now=0.0)
    assert counts(leases) == (1, 1, 0, 0)


def test_who_waits_for_the_end_is_told_when_something_is_given_back():
    told = []
    leases = Leases(2, None, lambda: told.append(leases.count))
    lease = leases.take(ONE, now=0.0)
    lease.task("accept()", "peer").run(lambda: None)
    assert told == []  # the descriptor is open
    lease.task("handler", "peer").run(lambda: lease.descriptor_closed(now=0.0))
    assert told == [1, 0]


def test_at_work_names_peer_handler_and_thread():
    leases = Leases(2, None)
    lease = leases.take(ONE, now=0.0)
    lease.task("waits", "192.0.2.1:5 /waiting")
    seen = []
    task = lease.task("Chat", "192.0.2.1:5 /chat")
    task.run(lambda: seen.extend(leases.at_work()))
    assert seen == [("192.0.2.1:5 /chat", "Chat", threading.current_thread().name)]
    assert leases.at_work() == []


# -- who makes room ----------------------------------------------------------------------------


def test_a_refused_peer_evicts_nobody():
    leases = Leases(2, 1)
    honest, flooder = Peer(leases, ONE), Peer(leases, OTHER)
    honest.is_silent()
    flooder.is_silent()
    for _ in range(10):
        assert leases.take(OTHER, now=100.0) is None
    assert not honest.evicted
    assert not flooder.evicted
    assert leases.take(("203.0.113.1", 5), now=100.0)
    assert honest.evicted
    assert not flooder.evicted


def test_the_place_of_the_evicted_is_free_at_once_and_its_descriptor_counts_until_it_is_closed():
    leases = Leases(1, 1)
    old = Peer(leases, ONE)
    old.is_silent()
    new = Peer(leases, OTHER)
    assert old.evicted
    assert counts(leases) == (2, 1, 0, 0)
    old.lease.descriptor_closed(now=0.0)
    assert counts(leases) == (1, 1, 0, 0)
    new.lease.descriptor_closed(now=0.0)
    assert counts(leases) == (0, 0, 0, 0)


def test_who_speaks_after_its_place_was_given_away_is_told_so():
    leases = Leases(1, 1)
    old = Peer(leases, ONE)
    old.is_silent()
    assert old.lease.has_spoken()
    assert leases.take(OTHER, now=100.0) is None  # it is not silent any more
    old.is_silent()
    assert leases.take(OTHER, now=100.0)
    assert not old.lease.has_spoken()


def test_a_peer_that_is_refused_holds_nothing():
    leases = Leases(1, 1)
    lease = leases.nothing()
    lease.has_spoken()
    lease.descriptor_closed(now=0.0)
    assert counts(leases) == (0, 0, 0, 0)


class Schedules(RuleBasedStateMachine):
    """Any order of arrivals, silence, first words, tasks, and ends of descriptors and of tasks."""

    @initialize(
        max_connections=st.integers(1, 6),
        max_per_ip=st.one_of(st.none(), st.integers(1, 3)),
    )
    def start(self, max_connections, max_per_ip):
        self.max_connections, self.max_per_ip = max_connections, max_per_ip
        self.leases = Leases(max_connections, max_per_ip)
        self.now = 0.0
        self.peers = []

    @rule(address=ADDRESSES, silent=st.booleans())
    def a_peer_arrives(self, address, silent):
        before = len(self.peers)
        self.arrive(address)
        if silent and len(self.peers) > before:
            self.be_silent(self.peers[-1])

    def arrive(self, address):
        silent = [peer for peer in self.peers if peer.state == "silent"]
        peer = Peer(self.leases, address, self.now)
        peer.state = "arrived"
        evicted = [old for old in silent if old.evicted]
        if peer.lease is None:
            assert not evicted, "for a peer that is refused"
            full = len(self.holders()) == self.max_connections
            assert (full and not silent) or len(self.holders(peer)) == self.max_per_ip
            return
        assert evicted == silent[: len(evicted)], "the oldest silent peer goes first"
        assert len(evicted) <= 1
        for old in evicted:
            old.state = "evicted"
        self.peers.append(peer)

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(data=st.data())
    def a_peer_is_silent(self, data):
        peer = self.some(data, "arrived")
        if peer is not None:
            self.be_silent(peer)

    def be_silent(self, peer):
        peer.is_silent(self.now)
        peer.state = "silent"
        self.peers.remove(peer)  # in the order in which they fell silent
        self.peers.append(peer)

    @rule(data=st.data())
    def a_silent_peer_speaks(self, data):
        peer = self.some(data, "silent", "evicted")
        if peer is not None:
            assert peer.lease.has_spoken() is (peer.state == "silent")
            if peer.state == "silent":
                peer.state = "open"

    @rule(data=st.data())
    def a_task_is_taken(self, data):
        peer = self.some(data, "open")
        if peer is not None:
            peer.tasks.append(peer.lease.task("handler", "peer"))

    @rule(data=st.data())
    def a_task_begins_or_goes_on_to_its_end(self, data):
        peer = self.some(data, "open", "closed")
        if peer is not None and peer.tasks:
            task = data.draw(st.sampled_from(peer.tasks))
            if task.thread is None:
                task.__enter__()
            else:
                task.cancel()  # too late for that
                task.__exit__()
                peer.tasks.remove(task)

    @rule(data=st.data())
    def a_task_is_cancelled(self, data):
        peer = self.some(data, "open", "closed")
        if peer is not None:
            for task in [task for task in peer.tasks if task.thread is None]:
                task.cancel()
                peer.tasks.remove(task)

    @rule(data=st.data())
    def a_descriptor_is_closed(self, data):
        peer = self.some(data, "arrived", "silent", "evicted", "open", "closed")
        if peer is not None:
            peer.lease.descriptor_closed(self.now)
            peer.state = "over" if peer.state == "evicted" else "closed"

    @invariant()
    def everything_is_counted_and_no_bound_is_passed(self):
        if not hasattr(self, "leases"):
            return
        running = [task for peer in self.peers for task in peer.tasks if task.thread is not None]
        assert self.leases.stats() == {
            "sockets": sum(peer.state not in ("closed", "over") for peer in self.peers),
            "leases": len(self.holders()),
            "handlers": len(running),
            "gone": sum(
                task.thread is not None
                for peer in self.peers
                if peer.state == "closed"
                for task in peer.tasks
            ),
        }
        assert len(self.holders()) <= self.max_connections
        assert all(1 <= n <= (self.max_per_ip or n) for n in self.leases._per_ip.values())

    def teardown(self):
        if not hasattr(self, "leases"):
            return
        for peer in self.peers:
            peer.lease.descriptor_closed(self.now)
            for task in peer.tasks:
                task.cancel()
                task.__exit__()
        assert counts(self.leases) == (0, 0, 0, 0)
        left = self.leases._per_ip, self.leases._silent, self.leases._gone, self.leases._at_work
        assert not any(left)

    def some(self, data, *states):
        peers = [peer for peer in self.peers if peer.state in states]
        return data.draw(st.sampled_from(peers)) if peers else None

    def holders(self, of=None):
        """Who holds a place, of all or of the address of one."""
        return [
            peer
            for peer in self.peers
            if (of is None or peer.address == of.address)
            and (
                peer.state in ("arrived", "silent", "open")
                or (peer.state == "closed" and peer.tasks)
            )
        ]


test_any_schedule_keeps_the_bounds_and_leaves_nothing_behind = Schedules.TestCase


# -- handlers without a peer ---------------------------------------------------------------------


def leave_busy(leases, count, name="Chat", now=0.0):
    """Peers that leave while their handler is at work."""
    for _ in range(count):
        lease = leases.take(ONE, now)
        assert lease is not None
        lease.task(name, "peer").__enter__()
        lease.descriptor_closed(now)


def test_handlers_whose_peers_are_gone_are_named_when_they_hold_half_of_the_places(caplog):
    leases = Leases(10, None)
    leave_busy(leases, 3, "Chat")
    leave_busy(leases, 1, "accept() of Login")
    assert errors_in(caplog) == []
    leave_busy(leases, 3, "Chat")
    (warning,) = errors_in(caplog)
    assert "5 handlers are at work" in warning
    assert "5 of 10 places" in warning
    assert "Chat (4), accept() of Login (1)" in warning
    assert "recv(timeout=...)" in warning


def test_that_warning_comes_once_in_ten_seconds_also_when_all_are_refused(caplog):
    leases = Leases(2, None)
    leave_busy(leases, 2)
    for now in (1.0, 9.0, 11.0, 12.0):
        assert leases.take(OTHER, now) is None
    assert len(errors_in(caplog)) == 2


def test_many_kinds_of_handlers_are_not_all_named(caplog):
    leases = Leases(20, None)
    for number in range(10):
        leave_busy(leases, 1, f"handler{number}")
    (warning,) = errors_in(caplog)
    assert warning.count("handler") < 10
    assert "and others" in warning


def test_handlers_with_a_peer_are_no_reason_to_warn(caplog):
    leases = Leases(2, None)
    for _ in range(2):
        leases.take(ONE, now=0.0).task("Chat", "peer").__enter__()
    assert leases.take(OTHER, now=0.0) is None
    assert errors_in(caplog) == []
