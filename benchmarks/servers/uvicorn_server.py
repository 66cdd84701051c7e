"""uvicorn with a plain ASGI application, as `uvicorn[standard]` sets it up: uvloop, httptools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from benchmarks.servers.arguments import parse

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

everybody: set[Send] = set()


def answer_to(message: dict[str, Any]) -> dict[str, Any]:
    """The same message, to be sent."""
    text = message.get("text")
    if text is not None:
        return {"type": "websocket.send", "text": text}
    return {"type": "websocket.send", "bytes": message["bytes"]}


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send each message back."""
    del scope
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(answer_to(message))


async def broadcast(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send each message to all."""
    del scope
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    everybody.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            answer = answer_to(message)
            for other in everybody:
                await other(answer)
    finally:
        everybody.discard(send)


if __name__ == "__main__":
    arguments = parse()
    uvicorn.run(
        broadcast if arguments.broadcast else echo,  # type: ignore[arg-type]
        host="127.0.0.1",
        port=arguments.port,
        ssl_certfile=arguments.cert,
        ssl_keyfile=arguments.key,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
