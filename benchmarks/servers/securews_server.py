"""securews, with nothing set that `serve()` does not have by default.

Only for more than 1,000 connections is `max_connections` raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import securews
from benchmarks.servers.arguments import parse


class EventEcho(securews.EventWebSocketHandler):
    """Answers on the I/O thread."""

    def on_message(self, ws: securews.Communicator, message: str | bytes) -> None:
        """Send the message back."""
        ws.send(message)


class Broadcaster(securews.EventWebSocketHandler):
    """Sends what one says to all."""

    def on_message(self, ws: securews.Communicator, message: str | bytes) -> None:
        """Send the message to every connection of the server."""
        ws.server.broadcast(message)


class ThreadedEcho(securews.ThreadedWebSocketHandler):
    """Answers on a thread of its own."""

    def do_handle_communication(self, ws: securews.Communicator) -> None:
        """Send each message back."""
        blocking_echo(ws)


def blocking_echo(ws: securews.Communicator) -> None:
    """Send each message back, as most programs are written."""
    for message in ws:
        ws.send(message)


def main() -> None:
    """Serve until a signal comes."""
    arguments = parse(("event", "blocking", "threaded"))
    kinds: dict[str, securews.WebSocketHandler | Callable[[securews.Communicator], None]] = {
        "event": EventEcho(),
        "blocking": blocking_echo,
        "threaded": ThreadedEcho(),
    }
    handler = Broadcaster() if arguments.broadcast else kinds[arguments.kind]
    tls = (arguments.cert, arguments.key)
    # All else is as it comes. `options` is empty but for the load with 10,000 connections.
    options: dict[str, Any] = {}
    if arguments.connections > 1000:
        options["max_connections"] = arguments.connections
    server = securews.serve(arguments.port, handler, tls=tls, **options)
    server.serve_forever()


if __name__ == "__main__":
    main()
