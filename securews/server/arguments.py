"""Who has another order, or another library, in mind is told what to write here."""

from __future__ import annotations

from securews.common.errors import ConfigurationError
from securews.handlers.handler import WebSocketHandler
from securews.transport.socket_handler import SocketHandler

__all__ = ["check_arguments", "check_order"]


def check_arguments(address: object, port: object, socket_handler: object) -> None:
    """Check the arguments of `WebSocketServer`: ConfigurationError."""
    for given in (address, port, socket_handler):
        if isinstance(given, type) and issubclass(given, SocketHandler):
            name = given.__name__
            raise ConfigurationError(f"{name} is a class; pass an instance of it: {name}(...)")
        if callable(given) or isinstance(given, WebSocketHandler):
            raise ConfigurationError(
                "WebSocketServer is given no handler: write "
                "server.register_handler('*', '*', handler), or serve(port, handler)"
            )
    if isinstance(address, int) and port is not None:
        raise ConfigurationError(f"the address comes first: WebSocketServer({port!r}, {address})")
    if socket_handler is not None and not isinstance(socket_handler, SocketHandler):
        raise ConfigurationError(
            "socket_handler is a SocketHandler, such as TLSSocketHandler(cert, key), not a "
            f"{type(socket_handler).__name__}"
        )


def check_order(port: object, handler: object, surplus: tuple[object, ...]) -> None:
    """Check the arguments of `serve`: ConfigurationError.

    Other libraries have other orders: (handler, host, port), or (host, port, handler).
    """
    right = "serve(8443, handler, host='localhost')"
    swapped = isinstance(port, str) and isinstance(handler, int)
    if swapped or callable(port) or isinstance(port, WebSocketHandler):
        raise ConfigurationError(f"the port comes first: {right}")
    if isinstance(handler, str):
        raise ConfigurationError(f"the second argument is the handler, not {handler!r}: {right}")
    if surplus:
        raise ConfigurationError(f"everything behind the handler has a name: {right}")
