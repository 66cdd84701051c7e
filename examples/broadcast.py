"""One says it, all hear it: each line of standard input goes to every client.

    scripts/gen-dev-certs
    python examples/broadcast.py

    securews connect wss://localhost:8443/       (as often as you like)

An event handler that only sends needs no code: there is no thread per client, and `broadcast`
waits for none of them. A client that does not keep up is closed, and the others notice nothing.
"""

import sys
from collections.abc import Iterable

import securews


def tell_all(server: securews.WebSocketServer, lines: Iterable[str]) -> None:
    """Send each line to all who are connected at that moment."""
    for line in lines:
        skipped = server.broadcast(line.rstrip("\n"))
        print(f"sent to {len(server.connections) - len(skipped)}")


if __name__ == "__main__":
    with securews.serve(8443, securews.EventWebSocketHandler()) as server:
        print(f"type lines for everybody at {server.url}; Ctrl-D ends it")
        tell_all(server, sys.stdin)
