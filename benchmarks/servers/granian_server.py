"""granian with its own interface, RSGI, on uvloop; one worker, as all servers here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.rsgi import WebsocketMessageType

from benchmarks.servers.arguments import parse

everybody: set[Any] = set()


async def send(transport: Any, message: Any) -> None:
    """Send a message as what it came."""
    if message.kind == WebsocketMessageType.bytes:
        await transport.send_bytes(message.data)
    else:
        await transport.send_str(message.data)


async def echo(_scope: Any, protocol: Any) -> None:
    """Send each message back."""
    transport = await protocol.accept()
    while (message := await transport.receive()).kind != WebsocketMessageType.close:
        await send(transport, message)
    protocol.close()


async def broadcast(_scope: Any, protocol: Any) -> None:
    """Send each message to all."""
    transport = await protocol.accept()
    everybody.add(transport)
    try:
        while (message := await transport.receive()).kind != WebsocketMessageType.close:
            for other in everybody:
                await send(other, message)
    finally:
        everybody.discard(transport)
    protocol.close()


def main() -> None:
    """Serve until a signal comes."""
    arguments = parse()
    name = "broadcast" if arguments.broadcast else "echo"
    Granian(
        f"benchmarks.servers.granian_server:{name}",
        address="127.0.0.1",
        port=arguments.port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        # More connections than this at once would wait in the kernel.
        backpressure=20000,
        log_enabled=False,
        ssl_cert=Path(arguments.cert),
        ssl_key=Path(arguments.key),
    ).serve()


if __name__ == "__main__":
    main()
