"""aiohttp on uvloop, without access log and compression."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import WSMsgType, web

from benchmarks.servers.arguments import Arguments, parse
from benchmarks.servers.tls_context import make_context

everybody: set[web.WebSocketResponse] = set()


async def send(ws: web.WebSocketResponse, kind: WSMsgType, data: str | bytes) -> None:
    """Send a message as what it came."""
    if isinstance(data, str):
        await ws.send_str(data)
    elif kind is WSMsgType.BINARY:
        await ws.send_bytes(data)


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send each message back."""
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    async for message in ws:
        await send(ws, message.type, message.data)
    return ws


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    """Send each message to all."""
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    everybody.add(ws)
    try:
        async for message in ws:
            for other in everybody:
                await send(other, message.type, message.data)
    finally:
        everybody.discard(ws)
    return ws


async def serve(arguments: Arguments) -> None:
    """Serve until a signal comes."""
    app = web.Application()
    app.router.add_get("/", broadcast if arguments.broadcast else echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = make_context(arguments.cert, arguments.key)
    site = web.TCPSite(runner, "127.0.0.1", arguments.port, ssl_context=context, backlog=1024)
    await site.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(serve(parse()))
