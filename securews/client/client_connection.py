"""The one place of the client that makes a Connection: an open stream becomes a Communicator."""

from __future__ import annotations

import logging
import threading

from securews.client.client_loop import client_loop
from securews.common.errors import printable
from securews.common.options import ConnectionOptions, Limits
from securews.connection.budget import Budget
from securews.connection.channel import Channel
from securews.connection.connection import Connection
from securews.connection.interfaces import Message
from securews.handlers.communicator import Communicator
from securews.handlers.request import Request
from securews.loop.loop import Loop
from securews.protocol.opening_client import ResponseParser
from securews.protocol.parser import Role
from securews.transport.socket_handler import SocketStream

__all__ = ["start_connection"]

log = logging.getLogger("securews.client")


def start_connection(
    stream: SocketStream,
    request: Request,
    options: ConnectionOptions,
    subprotocol: str | None,
    parser: ResponseParser,
) -> Communicator:
    """Move an open stream to the clients' loop. Any thread.

    Args:
        stream: owned from here on; closed if this raises.
        request: what was asked for.
        options: of the connection.
        subprotocol: that was agreed on; None without one.
        parser: has read the 101; says what came behind it, and what compression was agreed on.

    Raises:
        OSError: the loop's thread could not be started, or has ended.
    """
    try:
        loop = client_loop.acquire()
    except BaseException:
        stream.close()
        raise
    try:
        ws, connection, observer = _made(stream, loop, request, options, parser)
        ws._attach(None, subprotocol)
    except BaseException:
        stream.close()
        client_loop.release(loop)
        raise
    taken = threading.Lock()
    """Whoever acquires it owns the stream: the loop, or this thread where something raises."""

    def start() -> None:
        if taken.acquire(blocking=False):
            connection.start(observer, parser.leftover)

    try:
        client_loop.opened(connection)
        if not loop.call_soon(start):
            raise OSError("the I/O thread of the clients has ended by an error; connect again")
    except BaseException:
        if taken.acquire(blocking=False):
            client_loop.closed(connection)
            stream.close()
            client_loop.release(loop)
        else:  # interrupted after the loop had it
            ws.abort()
        raise
    return ws


def _made(
    stream: SocketStream,
    loop: Loop,
    request: Request,
    options: ConnectionOptions,
    parser: ResponseParser,
) -> tuple[Communicator, Connection, _ClientObserver]:
    channel = Channel(stream, loop, write_timeout=options.write_timeout, released=_released)
    connection = Connection(
        channel,
        Role.CLIENT,
        options,
        limits=Limits(),
        budget=Budget(None),
        name=f"client of {request.host}{printable(request.path)}",
        deflate=parser.deflate,
    )
    ws = Communicator(connection, request)
    observer = _ClientObserver(ws)
    return ws, connection, observer


def _released(channel: Channel) -> None:
    """A connection's descriptor is closed."""
    client_loop.release(channel.loop)


class _ClientObserver:
    """A client receives by `recv`; only the two callbacks are told anything.

    Whatever they raise, SystemExit and asyncio.CancelledError too, is logged and goes no further:
    the I/O thread is that of all clients.
    """

    event_driven = False

    def __init__(self, ws: Communicator) -> None:
        self._ws = ws

    def connection_opened(self) -> None:
        """Whoever called `connect()` knows."""

    def message_received(self, message: Message) -> None:
        """Never called: messages queue."""

    def messages_queued(self) -> None:
        """Messages are there for `recv`."""
        if self._ws.on_receive_message is not None:
            try:
                self._ws.on_receive_message(self._ws)
            except BaseException:
                log.exception("%r: on_receive_message raised", self._ws)

    def dispatched(self, began: float) -> None:
        """Other clients of this process may have waited; nobody is warned of that."""

    def callback_name(self) -> str:
        """What the log calls the callback that runs."""
        return f"{self._ws!r}.on_receive_message"

    def connection_closed(self) -> None:
        """It is over."""
        client_loop.closed(self._ws._connection)
        try:
            self._ws._tell_closed()
        except BaseException:
            log.exception("%r: on_close raised", self._ws)
