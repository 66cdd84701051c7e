"""The closing states: the tables, and the document that is drawn from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.protocol.closing import (
    AFTER_RECEIVING,
    AFTER_SENDING,
    MAY_RECEIVE,
    MAY_SEND,
    Act,
    ClosingState,
    closing_diagram,
    closing_tables,
    require_may_send,
    state_after,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "closing-states.md"


@pytest.mark.parametrize("draw", [closing_diagram, closing_tables])
def test_the_document_shows_the_tables_as_they_are(draw):
    assert draw() in DOCUMENT.read_text(), (
        f"docs/closing-states.md is out of date: put in what "
        f"securews.protocol.closing.{draw.__name__}() returns"
    )


def test_the_diagram_has_one_line_for_each_transition():
    transitions = [
        f"    {state.name} --> {following.name}: {verb} {act.value}"
        for verb, table in (("send", AFTER_SENDING), ("receive", AFTER_RECEIVING))
        for state, row in table.items()
        for act, following in row.items()
    ]
    assert len(transitions) == 7
    assert set(transitions) < set(closing_diagram().splitlines())


def test_both_tables_have_a_row_for_each_state():
    assert set(MAY_SEND) == set(MAY_RECEIVE) == set(ClosingState)


def test_every_transition_starts_with_what_its_state_allows():
    for allowed, after in ((MAY_SEND, AFTER_SENDING), (MAY_RECEIVE, AFTER_RECEIVING)):
        for state, row in after.items():
            assert set(row) <= allowed[state]


def test_an_open_connection_may_send_everything():
    """`WebSocketProtocol.encode` asks the table only once something has ended."""
    assert MAY_SEND[ClosingState.OPEN] == {Act.MESSAGE, Act.CONTROL, Act.CLOSE}


@pytest.mark.d(38)
@pytest.mark.promise(47)
def test_after_our_close_nothing_may_be_sent_any_more():
    for following in {row[Act.CLOSE] for row in AFTER_SENDING.values()}:
        assert not MAY_SEND[following]


def test_after_the_end_of_the_peers_side_only_a_close_may_be_sent():
    for following in {state for row in AFTER_RECEIVING.values() for state in row.values()}:
        assert MAY_SEND[following] <= {Act.CLOSE}
        assert not MAY_RECEIVE[following]


def walk(steps):
    """The state after single steps through the tables, and what they were."""
    state = ClosingState.OPEN
    sent, received = False, None
    for sending, act in steps:
        allowed, after = (MAY_SEND, AFTER_SENDING) if sending else (MAY_RECEIVE, AFTER_RECEIVING)
        if act not in allowed[state]:
            continue
        state = after.get(state, {}).get(act, state)
        if sending and act is Act.CLOSE:
            sent = True
        if not sending and act in (Act.CLOSE, Act.FAULT):
            received = act
    return state, sent, received


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(Act)), max_size=8))
def test_any_walk_through_the_tables_ends_where_the_two_halves_say(steps):
    state, sent, received = walk(steps)
    assert state_after(close_sent=sent, end_received=received) is state


@pytest.mark.parametrize("end", [Act.CLOSE, Act.FAULT])
def test_the_order_of_the_two_ends_does_not_matter(end):
    ours_first = walk([(True, Act.CLOSE), (False, end)])
    theirs_first = walk([(False, end), (True, Act.CLOSE)])
    assert ours_first == theirs_first
    assert ours_first[0] is ClosingState.CLOSED


PREDICATES = {
    ClosingState.OPEN: {
        "may_send_messages",
        "may_send_control",
        "may_send_close",
        "may_receive",
    },
    ClosingState.CLOSE_SENT: {"may_receive"},
    ClosingState.CLOSE_RECEIVED: {"may_send_close"},
    ClosingState.FAILED: {"may_send_close"},
    ClosingState.CLOSED: {"is_closed"},
}


@pytest.mark.parametrize("state", ClosingState)
def test_the_predicates_of_each_state(state):
    names = {*PREDICATES[ClosingState.OPEN], "is_closed"}
    assert {name for name in names if getattr(state, name)} == PREDICATES[state]


@pytest.mark.parametrize("state", ClosingState)
@pytest.mark.parametrize("act", [Act.MESSAGE, Act.CONTROL, Act.CLOSE])
def test_what_may_not_be_sent_is_an_error_that_names_state_and_act(state, act):
    if act in MAY_SEND[state]:
        require_may_send(state, act)
    else:
        with pytest.raises(RuntimeError, match=f"{act.value} cannot be sent in state {state.name}"):
            require_may_send(state, act)
