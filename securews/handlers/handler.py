"""Handlers: what a program does with its connections.

| write | when | its thread |
|---|---|---|
| a function `f(ws)` | the usual case | the accepting thread, for as long as it runs |
| `WebSocketHandler` | `accept` and state of its own | the same |
| `ThreadedWebSocketHandler` | the loop over messages never holds up the next connection | its own |
| `EventWebSocketHandler` | thousands of clients, pushes | none: calls on the I/O thread |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from securews.common.errors import ConfigurationError
from securews.common.headers import Headers
from securews.connection.connection import Connection
from securews.handlers.callables import check_callable, name_of
from securews.handlers.communicator import Communicator
from securews.handlers.origins import AnyOrigin
from securews.handlers.request import Request

__all__ = [
    "AcceptFunction",
    "EventWebSocketHandler",
    "FunctionHandler",
    "HandlerFunction",
    "ThreadedWebSocketHandler",
    "WebSocketHandler",
    "as_handler",
    "check_accept",
    "handler_name",
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


_METHODS = {
    "accept": ("request", "response_headers"),
    "create_communicator": ("connection", "request"),
    "prepare_communication": ("ws",),
    "handle_communication": ("ws",),
    "finalize_communication": ("ws",),
    "close": (),
}
"""What each method is called with, beside self."""
_THREADED_METHODS = {"do_handle_communication": ("ws",)}
_EVENT_METHODS = {
    "on_open": ("ws",),
    "on_message": ("ws", "message"),
    "on_close": ("ws", "code", "reason"),
}


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
    name = name_of(handler)
    advice = f"a handler takes one argument: def {name}(ws); the path is ws.request.path"
    check_callable(name, handler, 1, advice)
    return FunctionHandler(handler)


def handler_name(handler: WebSocketHandler) -> str:
    """What log lines call a handler: its class, or the function that it is made of."""
    if isinstance(handler, FunctionHandler):
        return name_of(handler.function)
    return type(handler).__name__


def check_accept(accept: AcceptFunction) -> None:
    """Raise ConfigurationError where `accept=` is no function of request and headers."""
    if not callable(accept):
        raise ConfigurationError(
            f"accept is a function accept(request, response_headers), not {accept!r}"
        )
    name = name_of(accept)
    advice = "accept takes two arguments: def accept(request, response_headers)"
    check_callable(name, accept, 2, advice)


def _check_instance(handler: WebSocketHandler) -> None:
    kind = type(handler)
    methods = dict(_METHODS)
    if isinstance(handler, EventWebSocketHandler):
        methods |= _EVENT_METHODS
    elif isinstance(handler, ThreadedWebSocketHandler):
        methods |= _THREADED_METHODS
    for name, parameters in methods.items():
        advice = f"write def {name}({', '.join(('self', *parameters))})"
        check_callable(f"{kind.__name__}.{name}", getattr(handler, name), len(parameters), advice)
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
        advice = "write it"
        if hasattr(kind, "on_message"):
            advice = "write it, or derive from EventWebSocketHandler, which calls on_message()"
        raise ConfigurationError(f"{kind.__name__} has no {wanted}(self, ws); {advice}")


def _overrides(kind: type, base: type, name: str) -> bool:
    return getattr(kind, name) is not getattr(base, name)
