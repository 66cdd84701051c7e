"""websockets, its threading server, without compression."""

from __future__ import annotations

import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from benchmarks.servers.arguments import parse
from benchmarks.servers.tls_context import make_context

everybody: set[ServerConnection] = set()
lock = threading.Lock()


def echo(ws: ServerConnection) -> None:
    """Send each message back."""
    for message in ws:
        ws.send(message)


def send_to_all(ws: ServerConnection) -> None:
    """Send each message to all."""
    with lock:
        everybody.add(ws)
    try:
        for message in ws:
            with lock:
                receivers = list(everybody)
            for other in receivers:
                try:
                    other.send(message)
                except ConnectionClosed:
                    pass  # it is gone; the others still want the message
    finally:
        with lock:
            everybody.discard(ws)


def main() -> None:
    """Serve until a signal comes."""
    arguments = parse()
    context = make_context(arguments.cert, arguments.key)
    handler = send_to_all if arguments.broadcast else echo
    with serve(handler, "127.0.0.1", arguments.port, ssl=context, compression=None) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
