"""The Communicator: one open WebSocket, as a handler (or a client) sees it.

Every method may be called from any thread unless it says otherwise.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

from securews.common.errors import ConfigurationError, ConnectionClosedOK
from securews.connection.connection import Connection
from securews.connection.interfaces import Message
from securews.connection.message_stream import MessageStream, MessageType
from securews.connection.pings import PingWaiter
from securews.connection.receive_queue import ReceiveQueue
from securews.handlers.callables import check_callable, name_of
from securews.handlers.messages import JSON, BytesLike, encode_message
from securews.handlers.request import Request
from securews.handlers.server_interface import Server
from securews.handlers.stream_facts import StreamFacts
from securews.protocol.events import Pong
from securews.transport.socket_handler import SocketAddress

__all__ = ["Communicator"]

log = logging.getLogger("securews.server")

_ids = itertools.count(1)
_ids_lock = threading.Lock()
"""Without a GIL next() is not one step: two threads may get the same number."""
_state_lock = threading.Lock()
"""Two threads that ask first get the same `state`, or what one of them puts there is lost."""


class Communicator:
    """One WebSocket. `str` is a text message, `bytes` a binary one, everywhere."""

    __slots__ = (
        "__weakref__",
        "_close_told",
        "_connection",
        "_on_close",
        "_on_receive_message",
        "_server",
        "_state",
        "id",
        "request",
        "subprotocol",
    )

    id: int
    """A number of its own within this process."""
    request: Request
    """What the client asked for; on a client, what it asked."""
    subprotocol: str | None
    """The subprotocol that was agreed; None without one."""
    _connection: Connection
    _server: Server[Communicator] | None
    _state: SimpleNamespace | None
    _on_close: Callable[[Communicator], object] | None
    _on_receive_message: Callable[[Communicator], object] | None
    _close_told: bool

    def __init__(self, connection: Connection, request: Request) -> None:
        put = super().__setattr__
        put("_connection", connection)
        put("request", request)
        with _ids_lock:
            put("id", next(_ids))
        put("subprotocol", None)
        put("_server", None)
        put("_state", None)
        put("_on_close", None)
        put("_on_receive_message", None)
        put("_close_told", False)

    def __setattr__(self, name: str, value: Any) -> None:
        """The callbacks can be set, and what a subclass adds; the rest belongs into `state`."""
        if name in ("on_close", "on_receive_message"):
            super().__setattr__(name, value)
        elif hasattr(Communicator, name):
            raise AttributeError(f"ws.{name} is read-only")
        elif type(self) is not Communicator:
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"ws has no attribute {name!r}; use ws.state.{name} for your own")

    def _attach(self, server: Server[Communicator] | None, subprotocol: str | None) -> None:
        """The opening is over: complete the facts."""
        super().__setattr__("_server", server)
        super().__setattr__("subprotocol", subprotocol)

    # -- sending ---------------------------------------------------------------------------

    def send(
        self, message: str | BytesLike, *, timeout: float | None = None, compress: bool = True
    ) -> None:
        """Send one message, whole: messages of several threads never mix.

        It waits while `outbox_bytes` wait to be sent already (on an I/O thread it never does;
        see `slow_client`).

        Args:
            message: str is sent as text, bytes-like as binary.
            timeout: seconds to wait for room; None is as long as the peer takes something.
            compress: False sends it as it is where compression was agreed on, too. For messages
                that hold a secret beside something that another chose (docs/compression.md).

        Raises:
            TimeoutError: there was no room in time; nothing was sent.
            ConnectionClosed: the connection is closing or closed.
            TypeError: neither str nor bytes-like.
        """
        opcode, payload = encode_message(message)
        self._connection.sender.send_message(opcode, payload, timeout, compress)

    def send_json(
        self, value: JSON, *, timeout: float | None = None, compress: bool = True
    ) -> None:
        """Send a value as JSON text; raises as `send`, and TypeError for what JSON lacks."""
        self.send(json.dumps(value, separators=(",", ":")), timeout=timeout, compress=compress)

    def write_message(
        self,
        message_type: MessageType = MessageType.TEXT,
        max_frame_length: int = 65535,
        *,
        compress: bool = True,
    ) -> MessageStream:
        """Send one message piece by piece: `with ws.write_message() as stream`.

        While it is open other messages, this thread's too, queue behind it.

        Args:
            message_type: MessageType.TEXT, BINARY or PING.
            max_frame_length: bytes in a frame, at most.
            compress: as in `send`.

        Raises:
            TimeoutError: another stream stayed open for `write_timeout`.
            ConnectionClosed: the connection is closing or closed.
        """
        return MessageStream(self._connection, message_type, max_frame_length, compress=compress)

    def ping(self, payload: str | BytesLike = b"") -> PingWaiter:
        """Send a Ping; `.wait(timeout)` on the result gives the seconds until its Pong.

        Args:
            payload: at most 125 bytes (RFC 6455, section 5.5).

        Raises:
            ValueError: a longer payload.
            ConnectionClosed: the connection is closing or closed.
            RuntimeError: 64 pings are unanswered already.
        """
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        if len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)} (RFC 6455, 5.5)")
        return self._connection.ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait for the peer's answer at most `close_timeout`.

        On an I/O thread it does not wait. Closing again is harmless: the first code wins.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999 (RFC 6455, section 7.4).
            reason: for the peer; cut to 123 bytes of UTF-8.

        Raises:
            ValueError: a code that may not be sent.
        """
        self._connection.close(code, reason)

    def abort(self) -> None:
        """Drop the connection at once. The peer sees 1006."""
        self._connection.link.abort()

    # -- receiving -------------------------------------------------------------------------

    def recv(self, timeout: float | None = None) -> str | bytes:
        """The next message: str is text, bytes is binary.

        Args:
            timeout: seconds to wait; None is until there is one or the connection ends.

        Raises:
            TimeoutError: none came in time.
            ConnectionClosed: the connection ended, and every message was taken.
            RuntimeError: on an I/O thread, or while another thread receives.
        """
        return cast("Message", self._connection.link.take("recv()", _pop, timeout))

    def recv_json(self, timeout: float | None = None) -> JSON:
        """The next message, decoded from JSON; raises as `recv`, and ValueError for bad JSON."""
        value: JSON = json.loads(self.recv(timeout))
        return value

    def __iter__(self) -> Iterator[str | bytes]:
        """Message after message; ends quietly on 1000 and 1001, raises on any other close."""
        while True:
            try:
                message = cast("Message", self._connection.link.take("next()", _pop, None))
            except ConnectionClosedOK:
                return
            yield message

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Throw away what comes until the connection has ended; whether it has.

        Raises:
            RuntimeError: on an I/O thread.
        """
        link = self._connection.link
        link.refuse_on_loop("wait_closed()")
        return link.wait_closed(timeout, discard=True)

    def receive_messages(self, timeout: float | None = None) -> int:
        """Wait until something is queued or the connection has ended; how many are queued.

        Raises:
            TimeoutError: nothing came in time.
            RuntimeError: as `recv`.
        """
        return self._connection.link.take(
            "receive_messages()",
            lambda queue: _count(queue) or (0 if self._connection.link.ended else None),
            timeout,
        )

    def get_unprocessed_messages(self) -> list[str | bytes | Pong]:
        """Take everything that is queued, without waiting. Any thread, an I/O thread too."""
        return self._connection.link.look(ReceiveQueue.pop_all)

    @property
    def has_messages(self) -> bool:
        """Whether a message is queued."""
        return self._connection.link.look(_count) > 0

    def wait_for_message(
        self,
        types: Iterable[type[str | bytes | Pong]] = (str, bytes),
        timeout: float | None = None,
    ) -> str | bytes | Pong:
        """The first message of one of these types; those that it skips stay in place.

        Args:
            types: of str, bytes and Pong (the answer to a `ping`; only the newest is kept).
            timeout: seconds.

        Raises:
            TimeoutError, ConnectionClosed, RuntimeError: as `recv`.
            TypeError: another type.
        """
        kinds = frozenset[type](types)
        if not kinds <= {str, bytes, Pong} or not kinds:
            raise TypeError("types are of str, bytes and securews.Pong")
        return cast(
            "Message | Pong",
            self._connection.link.take(
                "wait_for_message()", lambda queue: queue.pop_first(kinds), timeout
            ),
        )

    # -- callbacks -------------------------------------------------------------------------

    @property
    def on_receive_message(self) -> Callable[[Communicator], object] | None:
        """Called on the I/O thread, once per read that queued something; must not block.

        It is a notice: the messages stay queued for `recv` and its kin. Those that came before
        it was set have a notice, too: a peer may send as soon as it has the 101.
        """
        return self._on_receive_message

    @on_receive_message.setter
    def on_receive_message(self, callback: Callable[[Communicator], object] | None) -> None:
        _check_callback("on_receive_message", callback)
        super().__setattr__("_on_receive_message", callback)
        if callback is not None and self.has_messages:
            self._connection.loop.call_soon(self._connection.tell_queued)

    @property
    def on_close(self) -> Callable[[Communicator], object] | None:
        """Called on the I/O thread, exactly once, when the connection has ended."""
        return self._on_close

    @on_close.setter
    def on_close(self, callback: Callable[[Communicator], object] | None) -> None:
        _check_callback("on_close", callback)
        super().__setattr__("_on_close", callback)
        if self._connection.link.ended and not self._connection.loop.call_soon(self._tell_closed):
            self._tell_closed()  # so late that the loop, too, has ended

    def _tell_closed(self) -> None:
        """Loop thread, once it is over: call `on_close`, and let go of what the user gave us.

        Those functions may refer to this object: it is not to wait for a garbage collector.
        """
        callback = self._on_close
        put = super().__setattr__
        put("_on_receive_message", None)
        if callback is None or self._close_told:
            return
        put("_close_told", True)
        try:
            callback(self)
        except BaseException:
            log.exception("%s: on_close raised", self._connection.name)
        # It may refer to this object, which is not to wait for a garbage collector.
        put("_on_close", None)

    # -- facts -----------------------------------------------------------------------------

    @property
    def server(self) -> Server[Communicator]:
        """The server that this connection belongs to.

        Raises:
            RuntimeError: this is a client's end.
        """
        if self._server is None:
            raise RuntimeError("a client's Communicator has no server")
        return self._server

    @property
    def identity(self) -> object:
        """Who speaks: `request.identity`, as `accept` left it."""
        return self.request.identity

    @property
    def state(self) -> SimpleNamespace:
        """A place for your own things: `ws.state.name = "Ada"`."""
        if self._state is None:
            with _state_lock:
                if self._state is None:
                    super().__setattr__("_state", SimpleNamespace())
        return cast("SimpleNamespace", self._state)

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._connection.link.closing.may_send

    @property
    def close_code(self) -> int | None:
        """The code of the close; None before it has ended."""
        link = self._connection.link
        return link.closing.code if link.ended else None

    @property
    def close_reason(self) -> str | None:
        """The reason of the close; None before it has ended."""
        link = self._connection.link
        return link.closing.reason if link.ended else None

    @property
    def remote_address(self) -> SocketAddress:
        """The peer's address; valid after the end, too."""
        return self._connection.channel.stream.remote_address

    @property
    def local_address(self) -> SocketAddress:
        """The address that the peer reached."""
        return self._connection.channel.stream.local_address

    @property
    def latency(self) -> float | None:
        """Seconds that the newest answered Ping took; None before the first."""
        return self._connection.latency

    @property
    def socket_stream(self) -> StreamFacts:
        """Facts of the stream underneath; read-only."""
        return StreamFacts(self._connection)

    # -- with ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(1000 if kind is None else 1011)

    def __repr__(self) -> str:
        state = "open" if self.open else f"closed, code {self.close_code}"
        return f"<{type(self).__name__} {self.id} {self._connection.name} {state}>"


def _check_callback(name: str, callback: object) -> None:
    if callback is None:
        return
    if not callable(callback):
        raise ConfigurationError(f"{name} is a function f(ws), or None, not {callback!r}")
    check_callable(name_of(callback), callback, 1, f"{name} is called with one argument: ws")


def _pop(queue: ReceiveQueue) -> Message | None:
    return queue.pop() if queue.messages else None


def _count(queue: ReceiveQueue) -> int:
    return len(queue.messages) + (queue.pong is not None)
