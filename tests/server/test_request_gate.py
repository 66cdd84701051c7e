"""The places of accept() and pages: in order, given back whatever happens, withdrawn without rest."""

from __future__ import annotations

import asyncio
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from securews.server.request_gate import Place, RequestGate


class HandLoop:
    """A loop whose calls a test makes."""

    def __init__(self) -> None:
        self.calls = []
        self.over = False

    def call_soon(self, callback):
        if not self.over:
            self.calls.append(callback)
        return not self.over

    def turn(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Requests:
    """Requests at a gate, and in which order they were granted a place."""

    def __init__(self, limit: int) -> None:
        self.gate = RequestGate(limit)
        self.loop = HandLoop()
        self.granted = []

    def enter(self, name: object) -> Place:
        return self.gate.enter(self.loop, lambda: self.granted.append(name))


def test_places_are_granted_in_order_and_never_more_than_there_are():
    requests = Requests(2)
    places = [requests.enter(number) for number in range(5)]
    requests.loop.turn()
    assert requests.granted == [0, 1]
    assert requests.gate.waiting == 3
    with places[1] as granted:
        assert granted
    requests.loop.turn()
    assert requests.granted == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError],
)
def test_whatever_is_raised_under_a_place_gives_it_to_the_next(error):
    requests = Requests(1)
    first, _ = requests.enter("first"), requests.enter("second")
    requests.loop.turn()
    with pytest.raises(error), first:
        raise error
    requests.loop.turn()
    assert requests.granted == ["first", "second"]


def test_who_waits_can_be_withdrawn_and_nothing_of_it_is_left():
    class Body:
        pass

    requests = Requests(1)
    requests.enter("first")
    body = Body()
    place = requests.gate.enter(requests.loop, lambda body=body: None)
    left = weakref.ref(body)
    del body
    assert left() is not None
    assert place.withdraw()
    assert left() is None  # at once, by its references alone
    assert requests.gate.waiting == 0
    with place as granted:
        assert not granted


def test_who_was_granted_a_place_can_be_withdrawn_before_and_after_its_start():
    requests = Requests(1)
    before, after = requests.enter("before"), requests.enter("after")
    last = requests.enter("last")
    assert before.withdraw()
    requests.loop.turn()
    assert requests.granted == ["after"]
    assert after.withdraw()
    with after as granted:  # its thread comes too late
        assert not granted
    requests.loop.turn()
    assert requests.granted == ["after", "last"]
    with last as granted:
        assert granted


def test_whose_code_runs_is_not_withdrawn_and_gives_back_once():
    requests = Requests(1)
    place, *_ = [requests.enter(number) for number in range(3)]
    requests.loop.turn()
    with place:
        assert not place.withdraw()
        place.give_back()
        place.give_back()
    assert not place.withdraw()
    requests.loop.turn()
    assert requests.granted == [0, 1]


def test_a_loop_that_has_ended_keeps_no_place():
    requests, other = Requests(1), HandLoop()
    first = requests.enter("first")
    requests.loop.turn()
    places = [requests.gate.enter(other, lambda: None) for _ in range(5000)]
    other.over = True
    requests.enter("second")
    with first:
        pass
    requests.loop.turn()
    assert requests.granted == ["first", "second"]
    assert not places[0].withdraw()


class Gate(RuleBasedStateMachine):
    """Any order of calls: never more than the limit, in order, and none is lost."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.requests = Requests(self.LIMIT)
        self.places = {}
        self.withdrawn = set()
        self.running = set()
        self.count = 0

    @rule()
    def enter(self):
        self.places[self.count] = self.requests.enter(self.count)
        self.count += 1

    @rule()
    def turn(self):
        self.requests.loop.turn()

    @rule(data=st.data())
    def withdraw(self, data):
        if self.places:
            name = data.draw(st.sampled_from(sorted(self.places)))
            if self.places[name].withdraw():
                self.withdrawn.add(name)
                del self.places[name]

    @rule(data=st.data())
    def begin(self, data):
        ready = [n for n in self.requests.granted if n in self.places and n not in self.running]
        if ready:
            name = data.draw(st.sampled_from(ready))
            assert self.places[name].__enter__()
            self.running.add(name)

    @rule(data=st.data())
    def end(self, data):
        if self.running:
            name = data.draw(st.sampled_from(sorted(self.running)))
            self.running.remove(name)
            self.places.pop(name).__exit__(None, None, None)

    @invariant()
    def as_many_as_may_have_a_place(self):
        self.requests.loop.turn()
        having = [name for name in self.places if name in self.requests.granted]
        assert len(having) == min(len(self.places), self.LIMIT)
        assert self.requests.granted == sorted(self.requests.granted)
        assert self.requests.gate.waiting == len(self.places) - len(having)


TestGate = Gate.TestCase
