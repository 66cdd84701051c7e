"""The closing of a WebSocket as tables: what may still be sent, what may still be received.

Each side says one Close, and nothing after it (RFC 6455, sections 5.5.1 and 7.1). Both halves may
close at the same moment, each in a thread of its own. So nobody stores a `ClosingState`: each half
keeps only its own fact (our Close was sent; the peer's side ended, and how), and `state_after`
makes the state of the two by the tables. The order of the two does not matter.

`FAILED` is the state after the peer broke the protocol: like `CLOSE_RECEIVED`, only our Close is
still to come, which says what was wrong (section 7.1.7).

docs/closing-states.md shows `closing_diagram()` and `closing_tables()`, drawn from here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = [
    "AFTER_RECEIVING",
    "AFTER_SENDING",
    "MAY_RECEIVE",
    "MAY_SEND",
    "Act",
    "ClosingState",
    "closing_diagram",
    "closing_tables",
    "require_may_send",
    "state_after",
]


class Act(enum.Enum):
    """What a side may do as far as closing is concerned."""

    MESSAGE = "a message"
    CONTROL = "a ping or pong"
    CLOSE = "a Close frame"
    FAULT = "a breach of the protocol"

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a Python call


class ClosingState(enum.Enum):
    """How far the closing of a connection has come. Ask the predicates."""

    OPEN = "open"
    CLOSE_SENT = "our Close was sent"
    CLOSE_RECEIVED = "the peer's Close was received"
    FAILED = "the peer broke the protocol"
    CLOSED = "closed"

    __hash__ = object.__hash__

    # The predicates, filled in from the tables below: they are asked for every message.
    may_send_messages: bool
    """Whether messages may still be sent."""
    may_send_control: bool
    """Whether pings and pongs may still be sent."""
    may_send_close: bool
    """Whether our Close frame is still to be sent."""
    may_receive: bool
    """Whether anything that still comes is looked at."""
    is_closed: bool
    """Whether both sides are done: only the transport is left to close."""


_NOTHING: frozenset[Act] = frozenset()

MAY_SEND: Mapping[ClosingState, frozenset[Act]] = {
    ClosingState.OPEN: frozenset({Act.MESSAGE, Act.CONTROL, Act.CLOSE}),
    ClosingState.CLOSE_SENT: _NOTHING,
    ClosingState.CLOSE_RECEIVED: frozenset({Act.CLOSE}),
    ClosingState.FAILED: frozenset({Act.CLOSE}),
    ClosingState.CLOSED: _NOTHING,
}
"""State -> what we may send. Anything else is a RuntimeError of ours."""

MAY_RECEIVE: Mapping[ClosingState, frozenset[Act]] = {
    ClosingState.OPEN: frozenset(Act),
    ClosingState.CLOSE_SENT: frozenset(Act),
    ClosingState.CLOSE_RECEIVED: _NOTHING,
    ClosingState.FAILED: _NOTHING,
    ClosingState.CLOSED: _NOTHING,
}
"""State -> what we look at when it comes. Anything else is discarded (section 1.4)."""

AFTER_SENDING: Mapping[ClosingState, Mapping[Act, ClosingState]] = {
    ClosingState.OPEN: {Act.CLOSE: ClosingState.CLOSE_SENT},
    ClosingState.CLOSE_RECEIVED: {Act.CLOSE: ClosingState.CLOSED},
    ClosingState.FAILED: {Act.CLOSE: ClosingState.CLOSED},
}
"""State -> what we send -> the next state. What is not here leaves the state as it is."""

AFTER_RECEIVING: Mapping[ClosingState, Mapping[Act, ClosingState]] = {
    ClosingState.OPEN: {
        Act.CLOSE: ClosingState.CLOSE_RECEIVED,
        Act.FAULT: ClosingState.FAILED,
    },
    ClosingState.CLOSE_SENT: {
        Act.CLOSE: ClosingState.CLOSED,
        Act.FAULT: ClosingState.CLOSED,
    },
}
"""State -> what is received -> the next state. What is not here leaves the state as it is."""


for _state in ClosingState:
    _state.may_send_messages = Act.MESSAGE in MAY_SEND[_state]
    _state.may_send_control = Act.CONTROL in MAY_SEND[_state]
    _state.may_send_close = Act.CLOSE in MAY_SEND[_state]
    _state.may_receive = bool(MAY_RECEIVE[_state])
    _state.is_closed = not MAY_SEND[_state] and not MAY_RECEIVE[_state]


def _fold(close_sent: bool, end_received: Act | None) -> ClosingState:
    state = ClosingState.OPEN
    if end_received is not None:
        state = AFTER_RECEIVING[state][end_received]
    return AFTER_SENDING[state][Act.CLOSE] if close_sent else state


_STATES = {
    (sent, received): _fold(sent, received)
    for sent in (False, True)
    for received in (None, Act.CLOSE, Act.FAULT)
}


def state_after(*, close_sent: bool, end_received: Act | None) -> ClosingState:
    """The state that the two halves make.

    Args:
        close_sent: whether our Close was sent.
        end_received: `Act.CLOSE` once the peer's Close was received, `Act.FAULT` once the peer
            broke the protocol, None before.
    """
    return _STATES[close_sent, end_received]


def require_may_send(state: ClosingState, act: Act) -> None:
    """Raise RuntimeError, naming state and act, where the table does not allow it."""
    if act not in MAY_SEND[state]:
        raise RuntimeError(f"{act.value} cannot be sent in state {state.name} ({state.value})")


def closing_diagram() -> str:
    """The transitions as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {ClosingState.OPEN.name}"]
    for verb, table in (("send", AFTER_SENDING), ("receive", AFTER_RECEIVING)):
        for state, row in table.items():
            for act, following in row.items():
                lines.append(f"    {state.name} --> {following.name}: {verb} {act.value}")
    lines += [f"    {state.name} --> [*]" for state in ClosingState if state.is_closed]
    return "\n".join(lines) + "\n"


def closing_tables() -> str:
    """What may be sent and received in each state, as a Markdown table."""
    lines = [
        "| state | meaning | may be sent | is looked at when received |",
        "|---|---|---|---|",
    ]
    for state in ClosingState:
        sent, received = (
            ", ".join(act.value for act in Act if act in table[state]) or "nothing"
            for table in (MAY_SEND, MAY_RECEIVE)
        )
        lines.append(f"| `{state.name}` | {state.value} | {sent} | {received} |")
    return "\n".join(lines) + "\n"
