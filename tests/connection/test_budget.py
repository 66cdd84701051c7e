"""What a server holds for all its peers together is bounded, and the bound hits who holds most."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import securews
from securews.connection.budget import Budget, Verdict

CHUNK = b"x" * 100_000


PAUSE, RESUME, DROP, CLOSE = Verdict

# -- verdicts --------------------------------------------------------------------------------------


def test_without_a_limit_nothing_is_counted_and_nobody_is_judged():
    budget = Budget(None)
    assert budget.account("one", 1 << 40, movable=1 << 40) == []
    assert budget.total == 0


def test_what_is_held_adds_up_whoever_holds_it():
    budget = Budget(1000)
    for holder, held in [("one", 100), ("other", 200), ("one", 50), ("other", 0), ("one", 0)]:
        assert budget.account(holder, held) == []
        assert budget.total == {100: 100, 200: 300, 50: 250, 0: budget.total}[held]
    assert budget.total == 0


def test_who_holds_more_than_two_fifths_of_what_is_free_is_not_read_from():
    budget = Budget(1000)
    for number in range(4):
        budget.account(number, 10)
    assert budget.account("one", 274, movable=274) == []  # 686 are free
    assert budget.account("one", 275, movable=275) == [("one", PAUSE)]
    assert budget.account("one", 400, movable=400) == []  # once


def test_who_holds_less_than_two_fifths_of_an_even_share_is_read_from_though_nothing_is_free():
    budget = Budget(1000)
    budget.account("hoarder", 980)
    assert budget.account("one", 19, movable=19) == []
    for number in range(4):
        budget.account(number, 0)
    assert budget.account("two", 1, movable=1) == []


def test_what_only_reading_completes_does_not_stop_the_reading():
    budget = Budget(1000)
    assert budget.account("one", 900, movable=0) == []


def test_who_holds_nothing_any_more_is_read_from_again():
    budget = Budget(1000)
    assert budget.account("one", 550, movable=550) == [("one", PAUSE)]
    assert budget.account("one", 251, movable=251) == []  # more than half of the mark
    assert budget.account("one", 0) == [("one", RESUME)]
    assert budget.account("one", 0) == []


def test_who_was_paused_and_ends_is_resumed_so_that_nothing_of_it_is_left():
    budget = Budget(1000)
    budget.account("one", 550, movable=550)
    assert budget.account("one", 550, gone=True) == [("one", RESUME)]
    assert budget.account("one", 0, gone=True) == []
    assert is_empty(budget)


def test_over_the_limit_those_who_hold_most_go_until_the_rest_fits():
    budget = Budget(1000)
    for holder, held in [("a", 100), ("b", 300), ("c", 250)]:
        assert budget.account(holder, held) == []
    assert budget.account("d", 800) == [("d", CLOSE)]
    assert budget.account("e", 340) == []  # d is on its way
    assert budget.account("f", 350) == [("f", CLOSE)]


def test_over_the_limit_those_who_are_gone_go_first_however_little_they_hold():
    budget = Budget(1000)
    budget.account("gone", 10, gone=True)
    budget.account("also gone", 20, gone=True)
    assert budget.account("greedy", 975) == [("also gone", DROP)]
    assert budget.account("greedy", 1000) == [("gone", DROP)]
    assert budget.account("greedy", 1001) == [("greedy", CLOSE)]


def test_who_is_condemned_and_has_given_some_up_is_judged_again():
    budget = Budget(1000)
    budget.account("one", 400)
    assert budget.account("other", 700) == [("other", CLOSE)]
    assert budget.account("other", 600) == []
    assert budget.account("one", 450) == [("other", CLOSE)]


def test_any_hashable_is_a_holder():
    budget = Budget(1000)
    budget.account(0, 10, gone=True)
    assert budget.account("", 1001) == [(0, DROP), ("", CLOSE)]


# -- random mixtures -------------------------------------------------------------------------------


def is_empty(budget):
    rest = (budget._held, budget._gone, budget._paused, budget._condemned)
    return budget.total == 0 and not any(rest)


class Crowd:
    """Holders that do what the budget wants done, as connections do."""

    def __init__(self, limit):
        self.limit = limit
        self.budget = Budget(limit)
        self.held = {}
        self.gone = set()
        self.paused = set()

    def hold(self, holder, held, share=1.0):
        """It holds so much now, a share of it movable."""
        self.held[holder] = held
        gone = holder in self.gone
        movable = 0 if gone else int(held * share)
        verdicts = self.budget.account(holder, held, movable=movable, gone=gone)
        kinds = [verdict for _, verdict in verdicts if verdict in (DROP, CLOSE)]
        assert kinds == sorted(kinds, key=[DROP, CLOSE].index), "who lives goes before who is gone"
        holders = sum(1 for each in self.held.values() if each)
        held_then = dict(self.held)
        for each, verdict in verdicts:
            if verdict is PAUSE:
                assert each not in self.paused, "paused twice"
                self.paused.add(each)
            elif verdict is RESUME:
                self.paused.remove(each)
            elif verdict is DROP:
                assert each in self.gone
                self.hold(each, 0)
            else:
                assert each not in self.gone
                assert not any(self.held[g] for g in self.gone), "somebody is gone and holds much"
                assert held_then[each] >= self.limit / holders, "closed under an even share"
                self.hold(each, 0)

    def ends(self, holder):
        """Its peer is gone; unread messages are left."""
        self.gone.add(holder)
        self.hold(holder, self.held.get(holder, 0))

    def check(self):
        assert self.budget.total == sum(self.held.values())
        assert self.budget.total <= self.limit
        assert not any(not self.held[holder] for holder in self.paused), "paused, and holds nothing"


GREEDY, HONEST = st.integers(0, 2000), st.integers(0, 40)


@given(
    st.integers(100, 5000),
    st.lists(
        st.one_of(
            st.tuples(st.just("hold"), st.integers(0, 9), GREEDY, st.sampled_from([0.0, 0.5, 1.0])),
            st.tuples(st.just("hold"), st.integers(10, 40), HONEST, st.just(1.0)),
            st.tuples(st.just("ends"), st.integers(0, 40)),
        ),
        max_size=80,
    ),
)
def test_whoever_holds_what_nobody_under_an_even_share_is_closed(limit, steps):
    crowd = Crowd(limit)
    for name, holder, *facts in steps:
        if name == "ends":
            crowd.ends(holder)
        elif holder not in crowd.gone:
            crowd.hold(holder, *facts)
        crowd.check()
    for holder in list(crowd.held):
        crowd.hold(holder, 0)
    assert is_empty(crowd.budget)
    assert not crowd.paused


def test_twenty_who_drain_steadily_do_not_notice_four_hundred_who_hoard():
    crowd = Crowd(256 << 20)
    honest = [f"honest {number}" for number in range(20)]
    closed = []
    for number in range(400):
        crowd.hold(number, 900 << 10, share=0.0)
        for holder in honest:
            crowd.hold(holder, 500 << 10)
            if not crowd.held[holder]:
                closed.append(holder)
            crowd.hold(holder, 0)
        crowd.check()
    assert closed == []


# -- wired -----------------------------------------------------------------------------------------


@pytest.mark.promise(52)
def test_over_max_buffered_the_slow_clients_go_and_the_others_notice_nothing():
    everybody, gone = threading.Semaphore(0), threading.Semaphore(0)

    class Push(securews.EventWebSocketHandler):
        def on_open(self, ws):
            everybody.release()

        def on_close(self, ws, code, reason):
            gone.release()

    limit = 3 << 20
    server = securews.serve(
        0, Push(), tls=False, max_buffered=limit, outbox_bytes=2 << 20, close_timeout=0.1
    )
    with server:
        # max_queue=1: each takes one message and leaves the rest to the kernel, then to us.
        lazy = [securews.connect(server.url, max_queue=1) for _ in range(4)]
        with securews.connect(server.url) as good:
            for _ in range(5):
                assert everybody.acquire(timeout=5)
            for _ in range(2000):
                server.broadcast(CHUNK)
                assert good.recv(5) == CHUNK
                assert server._core.io.first.budget.total < 2 * limit
                if len(server.connections) == 1:
                    break
            for _ in lazy:
                assert gone.acquire(timeout=5)
            assert [ws.open for ws in server.connections] == [True]
        for ws in lazy:
            ws.abort()


def test_over_max_buffered_full_queues_are_not_filled_further_and_small_ones_are_read():
    """The limit has room for what each may hold, and for a read and a message more of each."""
    release, served, limit = threading.Event(), [], 6 << 20

    def stuck(ws):
        release.wait(20)
        served.extend(ws)

    server = securews.serve(0, stuck, tls=False, max_buffered=limit, max_queue=1000)

    @server.route("/echo")
    def echo(ws):
        for message in ws:
            ws.send(message)

    def flood(ws):
        for _ in range(60):
            ws.send(CHUNK)
        ws.close()

    with server:
        floods = [securews.connect(server.url) for _ in range(3)]
        senders = [threading.Thread(target=flood, args=(ws,)) for ws in floods]
        for sender in senders:
            sender.start()
        with securews.connect(server.url + "echo") as good:
            for _ in range(50):
                good.send("ping")
                assert good.recv(5) == "ping"
        assert server._core.io.first.budget.total < limit
        release.set()
        for sender in senders:
            sender.join(20)
    assert len(served) == 180


def test_over_max_buffered_unfinished_messages_do_not_hold_the_memory_for_ever():
    def echo(ws):
        for message in ws:
            ws.send(message)

    server = securews.serve(0, echo, tls=False, max_buffered=300_000, message_timeout=None)
    with server:
        hoarders = [securews.connect(server.url) for _ in range(5)]
        streams = [ws.write_message(securews.MessageType.BINARY, 50_000) for ws in hoarders]
        for stream in streams:
            stream.write(CHUNK)
            stream.write(CHUNK)
        codes = [ws.close_code for ws in hoarders if ws.wait_closed(0.5)]
        assert codes
        assert set(codes) == {1013}
        with securews.connect(server.url) as good:
            good.send("served")
            assert good.recv(5) == "served"
        for ws in hoarders:
            ws.abort()
