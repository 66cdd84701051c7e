"""What the suite runs against: an echo by each kind of handler, over wss and over plain TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import securews.testing
from securews import Communicator, Limits

MAX_SIZE = 16 << 20
MAX_FRAGMENTS = 70_000
MAX_QUEUE_BYTES = OUTBOX_BYTES = 32 << 20

OPTIONS = {
    "max_size": MAX_SIZE,
    "max_queue_bytes": MAX_QUEUE_BYTES,
    "outbox_bytes": OUTBOX_BYTES,
    "limits": Limits(max_fragments=MAX_FRAGMENTS),
}
"""Not the defaults: the suite sends messages of 16 MiB, and 4 MiB in frames of 64 bytes."""


class Agent(NamedTuple):
    """One server to test, and what its name in the report says about it."""

    transport: str
    """wss or ws."""
    handler: str
    """event or blocking."""
    compression: bool

    @property
    def name(self) -> str:
        """As the report has it."""
        return f"{self.transport} {self.handler}{' deflate' if self.compression else ''}"


class EventEcho(securews.EventWebSocketHandler):
    """Echoes on the I/O thread."""

    def on_message(self, ws: Communicator, message: str | bytes) -> None:
        """Send it back."""
        ws.send(message)


def blocking_echo(ws: Communicator) -> None:
    """Echoes in a thread of the connection's own."""
    for message in ws:
        ws.send(message)


def agents() -> list[Agent]:
    """Every combination that there is."""
    return [
        Agent(transport, handler, compression)
        for compression in (False, True)
        for transport in ("wss", "ws")
        for handler in ("event", "blocking")
    ]


@contextmanager
def serving(agent: Agent) -> Iterator[str]:
    """The agent at work; its URL."""
    handler = EventEcho() if agent.handler == "event" else blocking_echo
    options = OPTIONS | ({"compression": True} if agent.compression else {})
    if agent.transport == "wss":
        with securews.testing.server(handler, **options) as server:
            yield server.url
    else:
        with securews.serve(0, handler, tls=False, **options) as server:
            yield server.url
