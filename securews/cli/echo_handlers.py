"""The handlers of `securews echo`: the same answer in each of the three ways to write one."""

from __future__ import annotations

from collections.abc import Callable

from securews import (
    Communicator,
    EventWebSocketHandler,
    ThreadedWebSocketHandler,
    WebSocketHandler,
)

__all__ = ["ECHO_HANDLERS"]


def _answer(ws: Communicator, message: str | bytes, *, broadcast: bool) -> None:
    if broadcast:
        ws.server.broadcast(message)
    else:
        ws.send(message)


class EventEcho(EventWebSocketHandler):
    """Answers on the I/O thread."""

    def __init__(self, *, broadcast: bool) -> None:
        self._broadcast = broadcast

    def on_message(self, ws: Communicator, message: str | bytes) -> None:
        """Send the message back."""
        _answer(ws, message, broadcast=self._broadcast)


class BlockingEcho(WebSocketHandler):
    """Answers on the thread that the accepting method gives."""

    def __init__(self, *, broadcast: bool) -> None:
        self._broadcast = broadcast

    def handle_communication(self, ws: Communicator) -> None:
        """Send each message back until the end."""
        for message in ws:
            _answer(ws, message, broadcast=self._broadcast)


class ThreadedEcho(ThreadedWebSocketHandler):
    """Answers on a thread of its own."""

    def __init__(self, *, broadcast: bool) -> None:
        super().__init__()
        self._broadcast = broadcast

    def do_handle_communication(self, ws: Communicator) -> None:
        """Send each message back until the end."""
        for message in ws:
            _answer(ws, message, broadcast=self._broadcast)


ECHO_HANDLERS: dict[str, Callable[..., WebSocketHandler]] = {
    "event": EventEcho,
    "blocking": BlockingEcho,
    "threaded": ThreadedEcho,
}
"""`--handler` to class; each takes `broadcast=`."""
