"""picows on uvloop: its core API, with aiofastnet, which it uses where that is installed."""

from __future__ import annotations

import asyncio

import uvloop
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from benchmarks.servers.arguments import Arguments, parse
from benchmarks.servers.tls_context import make_context

HEADER_ROOM = 14
"""What picows wants in front of a message that it sends without a copy."""

everybody: set[WSTransport] = set()


class Echo(WSListener):  # type: ignore[misc]  # compiled, without types here
    """Answers each frame."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send the frame back, uncopied."""
        if frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Broadcaster(WSListener):  # type: ignore[misc]
    """Sends what one says to all."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Note who is there."""
        everybody.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget who is gone."""
        everybody.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send the message to all, from one buffer."""
        if frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)
            return
        buffer = bytearray(HEADER_ROOM) + frame.get_payload_as_memoryview()
        for other in everybody:
            other.send_reuse_external_bytearray(frame.msg_type, buffer, HEADER_ROOM)


def close(transport: WSTransport, frame: WSFrame) -> None:
    """Answer a Close frame."""
    transport.send_close(WSCloseCode.OK, frame.get_close_message())
    transport.disconnect()


async def serve(arguments: Arguments) -> None:
    """Serve until a signal comes."""
    listener = Broadcaster if arguments.broadcast else Echo

    def choose(_request: WSUpgradeRequest) -> WSListener:
        return listener()

    server = await ws_create_server(
        choose,
        "127.0.0.1",
        arguments.port,
        ssl=make_context(arguments.cert, arguments.key),
        backlog=1024,
    )
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parse()))
