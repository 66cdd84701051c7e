"""websockets, its asyncio server on uvloop, without compression."""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.servers.arguments import Arguments, parse
from benchmarks.servers.tls_context import make_context

everybody: set[ServerConnection] = set()


async def echo(ws: ServerConnection) -> None:
    """Send each message back."""
    async for message in ws:
        await ws.send(message)


async def send_to_all(ws: ServerConnection) -> None:
    """Send each message to all."""
    everybody.add(ws)
    try:
        async for message in ws:
            broadcast(everybody, message)
    finally:
        everybody.discard(ws)


async def run(arguments: Arguments) -> None:
    """Serve until a signal comes."""
    context = make_context(arguments.cert, arguments.key)
    handler = send_to_all if arguments.broadcast else echo
    async with serve(
        handler, "127.0.0.1", arguments.port, ssl=context, compression=None, backlog=1024
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parse()))
