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
    Closing,
    ClosingState,
    after_receiving,
    after_sending,
    closing_diagram,
    closing_tables,
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
    assert len(transitions) == 14
    assert set(transitions) < set(closing_diagram().splitlines())


def test_both_tables_have_a_row_for_each_state():
    assert set(MAY_SEND) == set(MAY_RECEIVE) == set(ClosingState)


def test_every_transition_starts_with_what_its_state_allows():
    for allowed, after in ((MAY_SEND, AFTER_SENDING), (MAY_RECEIVE, AFTER_RECEIVING)):
        for state, row in after.items():
            assert set(row) <= allowed[state]


@pytest.mark.d(38)
@pytest.mark.promise(47)
def test_after_our_close_nothing_may_be_sent_any_more():
    for following in {row[Act.CLOSE] for row in AFTER_SENDING.values()}:
        assert not MAY_SEND[following]


def test_after_the_end_of_the_peers_side_only_a_close_may_be_sent():
    for following in {state for row in AFTER_RECEIVING.values() for state in row.values()}:
        assert MAY_SEND[following] <= {Act.CLOSE}
        if following is not ClosingState.CUT:  # what came before the end is still looked at
            assert MAY_RECEIVE[following] <= {Act.END}


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
    ClosingState.CUT: {"may_receive"},
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
        after_sending(state, act)
    else:
        with pytest.raises(RuntimeError, match=f"{act.value} cannot be sent in state {state.name}"):
            after_sending(state, act)


@pytest.mark.parametrize("state", ClosingState)
@pytest.mark.parametrize("act", Act)
def test_what_is_not_looked_at_any_more_changes_nothing(state, act):
    if act not in MAY_RECEIVE[state]:
        assert after_receiving(state, act) is state


# -- one connection --------------------------------------------------------------------------------


def ended(closing):
    return closing.code, closing.reason, closing.initiator


STEPS = {
    "our close": lambda closing: closing.close_sent(4000, "ours"),
    "their close": lambda closing: closing.close_received(4001, "theirs"),
    "their fault": lambda closing: closing.fault_received(1002, "a fault"),
    "the end": lambda closing: closing.transport_ended("gone", "network"),
}


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        (("our close", "their close"), (4000, "ours", "us")),
        (("their close", "our close"), (4001, "theirs", "peer")),
        (("their fault", "our close"), (1002, "a fault", "us")),
        (("our close", "their fault"), (4000, "ours", "us")),
        (("our close", "the end"), (1006, "gone", "network")),
        (("their close", "the end"), (4001, "theirs", "peer")),
        (("their close", "our close", "the end"), (4001, "theirs", "peer")),
        (("the end", "the end"), (1006, "gone", "network")),
        (("the end", "their close"), (4001, "theirs", "peer")),
        (("the end", "their fault"), (1002, "a fault", "us")),
    ],
)
def test_the_first_close_decides_and_an_end_without_one_is_1006(steps, end):
    closing = Closing()
    for step in steps:
        STEPS[step](closing)
    assert closing.state.is_closed
    assert ended(closing) == end


@pytest.mark.promise(47)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_once_it_is_over_nothing_changes_how_it_ended(steps):
    closing, end = Closing(), None
    for step in steps:
        try:
            STEPS[step](closing)
        except RuntimeError:
            assert step == "our close"
            continue
        if end is not None:
            assert ended(closing) == end
        assert closing.may_send == closing.state.may_send_messages
        if closing.state.is_closed:
            end = ended(closing)
