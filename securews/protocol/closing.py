"""The closing of a WebSocket as tables: what may still be sent, what may still be received.

Each side says one Close, and nothing after it (RFC 6455, sections 5.5.1 and 7.1). `Closing` is the
one state of a connection; it is asked and moved by these tables alone.

`FAILED` is the state after the peer broke the protocol: like `CLOSE_RECEIVED`, only our Close is
still to come, which says what was wrong (section 7.1.7). `CUT` is the state after the transport has
ended while both sides were open: what came before is still looked at, and a Close may be in it.

docs/closing-states.md shows `closing_diagram()` and `closing_tables()`, drawn from here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from securews.common.errors import Initiator

__all__ = [
    "AFTER_RECEIVING",
    "AFTER_SENDING",
    "MAY_RECEIVE",
    "MAY_SEND",
    "Act",
    "Closing",
    "ClosingState",
    "after_receiving",
    "after_sending",
    "closing_diagram",
    "closing_tables",
]


class Act(enum.Enum):
    """What a side may do as far as closing is concerned."""

    MESSAGE = "a message"
    CONTROL = "a ping or pong"
    CLOSE = "a Close frame"
    FAULT = "a breach of the protocol"
    END = "the end of the transport"

    __hash__ = object.__hash__  # members are singletons; Enum's own hash is a Python call


class ClosingState(enum.Enum):
    """How far the closing of a connection has come. Ask the predicates."""

    OPEN = "open"
    CLOSE_SENT = "our Close was sent"
    CLOSE_RECEIVED = "the peer's Close was received"
    FAILED = "the peer broke the protocol"
    CUT = "the transport has ended"
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
    """Whether messages that still come are looked at: the peer's side has not ended."""
    is_closed: bool
    """Whether both sides are done: only the transport is left to close."""


_NOTHING: frozenset[Act] = frozenset()

MAY_SEND: Mapping[ClosingState, frozenset[Act]] = {
    ClosingState.OPEN: frozenset({Act.MESSAGE, Act.CONTROL, Act.CLOSE}),
    ClosingState.CLOSE_SENT: _NOTHING,
    ClosingState.CLOSE_RECEIVED: frozenset({Act.CLOSE}),
    ClosingState.FAILED: frozenset({Act.CLOSE}),
    ClosingState.CUT: _NOTHING,
    ClosingState.CLOSED: _NOTHING,
}
"""State -> what we may send. Anything else is a RuntimeError of ours."""

MAY_RECEIVE: Mapping[ClosingState, frozenset[Act]] = {
    ClosingState.OPEN: frozenset(Act),
    ClosingState.CLOSE_SENT: frozenset(Act),
    ClosingState.CLOSE_RECEIVED: frozenset({Act.END}),
    ClosingState.FAILED: frozenset({Act.END}),
    ClosingState.CUT: frozenset(Act),
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
        Act.END: ClosingState.CUT,
    },
    ClosingState.CLOSE_SENT: {
        Act.CLOSE: ClosingState.CLOSED,
        Act.FAULT: ClosingState.CLOSED,
        Act.END: ClosingState.CLOSED,
    },
    ClosingState.CLOSE_RECEIVED: {Act.END: ClosingState.CLOSED},
    ClosingState.FAILED: {Act.END: ClosingState.CLOSED},
    ClosingState.CUT: {
        Act.CLOSE: ClosingState.CLOSED,
        Act.FAULT: ClosingState.CLOSED,
        Act.END: ClosingState.CLOSED,
    },
}
"""State -> what is received -> the next state. What is not here leaves the state as it is."""


_NO_ROW: Mapping[Act, ClosingState] = {}

for _state in ClosingState:
    _state.may_send_messages = Act.MESSAGE in MAY_SEND[_state]
    _state.may_send_control = Act.CONTROL in MAY_SEND[_state]
    _state.may_send_close = Act.CLOSE in MAY_SEND[_state]
    _state.may_receive = Act.MESSAGE in MAY_RECEIVE[_state]
    _state.is_closed = not MAY_SEND[_state] and not MAY_RECEIVE[_state]


def after_sending(state: ClosingState, act: Act) -> ClosingState:
    """The state after we have sent something.

    Raises:
        RuntimeError: the table does not allow it; the text names state and act.
    """
    if act not in MAY_SEND[state]:
        raise RuntimeError(f"{act.value} cannot be sent in state {state.name} ({state.value})")
    return AFTER_SENDING.get(state, _NO_ROW).get(act, state)


def after_receiving(state: ClosingState, act: Act) -> ClosingState:
    """The state after something came; the same where it is not looked at any more."""
    return AFTER_RECEIVING.get(state, _NO_ROW).get(act, state)


class Closing:
    """How far the closing of one connection has come, and how it ends. One thread at a time.

    Whoever closes first wins: the code is that of the first Close frame, ours or the peer's, and
    1006 where the peer's side ended without one (RFC 6455, section 7.1.5).

    Attributes:
        may_send: whether messages, pings and pongs may be sent; asked for each of them.
        code: None while nobody has closed.
    """

    __slots__ = ("code", "initiator", "may_send", "reason", "state")

    def __init__(self) -> None:
        self.state = ClosingState.OPEN
        self.may_send = True
        self.code: int | None = None
        self.reason = ""
        self.initiator: Initiator = "network"

    def close_sent(self, code: int, reason: str) -> None:
        """Our Close was queued. RuntimeError where it may not be sent."""
        self._move(after_sending(self.state, Act.CLOSE), code, reason, "us")

    def close_received(self, code: int, reason: str) -> None:
        """The peer's Close came."""
        self._move(after_receiving(self.state, Act.CLOSE), code, reason, "peer")

    def fault_received(self, code: int, reason: str) -> None:
        """The peer broke a rule; `code` is what our Close will say (section 7.1.7)."""
        self._move(after_receiving(self.state, Act.FAULT), code, reason, "us")

    def transport_ended(self, reason: str, initiator: Initiator) -> None:
        """No byte goes in or out any more; in state CUT: what came before was looked at."""
        state = after_receiving(self.state, Act.END)
        if state.is_closed and self.state.may_receive:
            # Neither the peer's Close nor a fault of its came: a Close of ours had no answer.
            self.code, self.reason, self.initiator = 1006, reason, initiator
        self.state = state
        self.may_send = state.may_send_messages

    def _move(self, state: ClosingState, code: int, reason: str, initiator: Initiator) -> None:
        if self.code is None:
            self.code, self.reason, self.initiator = code, reason, initiator
        self.state = state
        self.may_send = state.may_send_messages


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
