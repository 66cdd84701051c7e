"""Handlers: what a program does with its connections.

| write | when | its thread |
|---|---|---|
| a function `f(ws)` | the usual case | the accepting thread, for as long as it runs |
| `WebSocketHandler` | `accept` and state of its own | the same |
| `ThreadedWebSocketHandler` | the loop over messages never holds up the next connection | its own |
| `EventWebSocketHandler` | thousands of clients, pushes | none: calls on the I/O thread |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from securews.application.communicator import Communicator
from securews.application.origins import AnyOrigin
from securews.application.request import Request
from securews.connection.connection import Connection
from securews.ground.errors import ConfigurationError
from securews.ground.headers import Headers

__all__ = [
    "AcceptFunction",
    "EventWebSocketHandler",
    "FunctionHandler",
    "HandlerFunction",
    "ThreadedWebSocketHandler",
    "WebSocketHandler",
    "as_handler",
    "check_accept",
]

HandlerFunction: TypeAlias = Callable[[Communicator], object]
AcceptFunction: TypeAlias = Callable[[Request, Headers], bool]


class WebSocketHandler:
    """Serves the connections of one or more routes. Pass an instance.

    One instance serves all connections, from many threads at once: keep what belongs to a
    connection in `ws.state`. Every connection option (`max_size`, `ping_interval`, ...) may be
    set as a class attribute; a route's own options go before it, the server's behind it.
    """

    origins: Iterable[str] | AnyOrigin | None = None
    """Which pages may connect: None is the same origin, or a list, or `securews.ANY`."""
    subprotocols: Sequence[str] = ()
    """Subprotocols that this handler speaks, the preferred one first."""

    def accept(self, request: Request, response_headers: Headers) -> bool:
        """Decide about a connection. On the accepting thread; may block.

        Args:
            request: set `request.identity` to say who it is.
            response_headers: sent with the 101; set cookies here.

        Returns:
            True to accept, False to answer 403. Anything else is answered with 500.

        Raises:
            Reject: to answer with another status.
        """
        del request, response_headers
        return True

    def create_communicator(self, connection: Connection, request: Request) -> Communicator:
        """The `ws` of a connection: override to use a class of your own."""
        return Communicator(connection, request)

    def prepare_communication(self, ws: Communicator) -> None:
        """Before `handle_communication`, on the same thread: the place for `ws.on_close`."""

    def handle_communication(self, ws: Communicator) -> None:
        """Serve one connection; it is closed with 1000 when this returns. May block.

        An exception closes it with 1011; `ConnectionClosed` is a normal end.
        """
        raise NotImplementedError

    def finalize_communication(self, ws: Communicator) -> None:
        """After `handle_communication`, on the same thread, however that ended."""

    def close(self) -> None:
        """Called once when the server stops, after the last connection."""


class ThreadedWebSocketHandler(WebSocketHandler):
    """A handler whose loop has a thread of its own in every accepting method.

    So with `AcceptingMethod.SERIAL`, too, the next connection is accepted while it runs.

    Args:
        pooling: whether that thread comes from the server's pool or is a new one each time.
    """

    def __init__(self, *, pooling: bool = True) -> None:
        self.pooling = pooling

    def do_handle_communication(self, ws: Communicator) -> None:
        """Serve one connection; as `handle_communication`. Messages queue while it runs."""
        raise NotImplementedError

    def handle_communication(self, ws: Communicator) -> None:
        """Calls `do_handle_communication`."""
        self.do_handle_communication(ws)


class EventWebSocketHandler(WebSocketHandler):
    """A handler without threads: called on the I/O thread for each thing that happens.

    Nothing here may block, for all connections wait meanwhile; what takes longer than 100 ms is
    logged. `send` never waits here. The calls of one connection come one at a time and in
    order. Unchanged it is a valid handler for clients that are only sent to.
    """

    def on_open(self, ws: Communicator) -> None:
        """The connection is open."""

    def on_message(self, ws: Communicator, message: str | bytes) -> None:
        """A message came: str is text, bytes is binary."""

    def on_close(self, ws: Communicator, code: int, reason: str) -> None:
        """The connection is over; exactly once if `on_open` was called."""


class FunctionHandler(WebSocketHandler):
    """A function as a handler: it is the `handle_communication`."""

    def __init__(self, function: HandlerFunction) -> None:
        self.function = function

    def handle_communication(self, ws: Communicator) -> None:
        """Calls the function."""
        self.function(ws)


_MUST_BE_PLAIN = (
    "accept",
    "prepare_communication",
    "handle_communication",
    "do_handle_communication",
    "finalize_communication",
    "on_open",
    "on_message",
    "on_close",
)


def as_handler(handler: WebSocketHandler | HandlerFunction) -> WebSocketHandler:
    """The handler of a function or an instance.

    Raises:
        ConfigurationError: something that could never serve a connection; the text says what
            to pass instead.
    """
    if isinstance(handler, WebSocketHandler):
        _check_instance(handler)
        return handler
    if isinstance(handler, type):
        name = handler.__name__
        raise ConfigurationError(f"{name} is a class; pass {name}(), an instance of it")
    if not callable(handler):
        raise ConfigurationError(
            f"a handler is a function f(ws) or an instance of WebSocketHandler, not {handler!r}"
        )
    name = getattr(handler, "__name__", type(handler).__name__)
    _refuse_async(name, handler)
    _check_parameters(
        name,
        handler,
        1,
        f"a handler takes one argument: def {name}(ws); the path is ws.request.path",
    )
    return FunctionHandler(handler)


def check_accept(accept: AcceptFunction) -> None:
    """Raise ConfigurationError where `accept=` is no function of request and headers."""
    if not callable(accept):
        raise ConfigurationError(
            f"accept is a function accept(request, response_headers), not {accept!r}"
        )
    name = getattr(accept, "__name__", "accept")
    _refuse_async(name, accept)
    _check_parameters(
        name, accept, 2, f"accept takes two arguments: def {name}(request, response_headers)"
    )


def _check_instance(handler: WebSocketHandler) -> None:
    kind = type(handler)
    for name in _MUST_BE_PLAIN:
        method = getattr(handler, name, None)
        if method is not None:
            _refuse_async(f"{kind.__name__}.{name}", method)
    if isinstance(handler, ThreadedWebSocketHandler) and not hasattr(handler, "pooling"):
        raise ConfigurationError(f"{kind.__name__}.__init__ does not call super().__init__()")
    own_loop = _overrides(kind, WebSocketHandler, "handle_communication")
    if isinstance(handler, EventWebSocketHandler):
        if own_loop:
            raise ConfigurationError(
                f"{kind.__name__} is an event handler, so its handle_communication() would "
                "never run; derive from WebSocketHandler, or write on_message()"
            )
        return
    wanted = "handle_communication"
    if isinstance(handler, ThreadedWebSocketHandler):
        wanted = "do_handle_communication"
        own_loop = _overrides(kind, ThreadedWebSocketHandler, wanted) or _overrides(
            kind, ThreadedWebSocketHandler, "handle_communication"
        )
    if not own_loop:
        raise ConfigurationError(f"{kind.__name__} has no {wanted}(self, ws); write it")


def _overrides(kind: type, base: type, name: str) -> bool:
    return getattr(kind, name) is not getattr(base, name)


def _refuse_async(name: str, function: object) -> None:
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 - the method itself is inspected
    if any(
        test(f)
        for f in (function, call)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    ):
        raise ConfigurationError(
            f"{name} is an 'async def'; securews calls handlers in threads: write 'def', and "
            "call ws.send() and ws.recv() without await"
        )


def _check_parameters(name: str, function: Callable[..., object], count: int, advice: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in callables do not say what they take
    try:
        signature.bind(*range(count))
    except TypeError:
        raise ConfigurationError(f"{name}{signature} does not fit: {advice}") from None
