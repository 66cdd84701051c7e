"""`securews.serve`: a WebSocket server in one call."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from securews.common.errors import ConfigurationError
from securews.common.options import (
    ConnectionOptions,
    ServerOptions,
    check_names,
    field_names,
)
from securews.handlers.handler import AcceptFunction, HandlerFunction, WebSocketHandler
from securews.handlers.origins import AnyOrigin
from securews.server.arguments import check_order
from securews.server.listener import exposed_host
from securews.server.server import Option, WebSocketServer
from securews.server.tls_choice import FIND, TLSChoice, choose_socket_handler

__all__ = ["serve"]


def serve(
    port: int | None,
    handler: WebSocketHandler | HandlerFunction | None = None,
    *surplus: object,
    tls: TLSChoice = FIND,
    host: str | None = "localhost",
    path: str | None = None,
    sockets: Sequence[socket.socket] | None = None,
    insecure: bool = False,
    accept: AcceptFunction | None = None,
    origins: Iterable[str] | AnyOrigin | None = None,
    subprotocols: Sequence[str] | None = None,
    **options: Option,
) -> WebSocketServer:
    """Bind and listen; accepting begins with `serve_forever()` or one of its kin.

    Args:
        port: 0 is any free one; None with `path` or `sockets`.
        handler: a function `f(ws)` or an instance of WebSocketHandler, for every host and path;
            None if `register_handler` or `@server.route` follow.
        surplus: nothing; whoever writes a host here is told where it goes.
        tls: `(cert, key)`, `(cert, key, password)`, one path that holds both, an
            `ssl.SSLContext`, or a SocketHandler. Left out: the development certificate in
            $SECUREWS_CERTS or ./certs, on loopback only. False: plain TCP.
        host: "localhost" by default; "" is every address of this machine.
        path: of a unix socket, instead of host and port.
        sockets: that listen already, instead of port and path; see WebSocketServer.
        insecure: allow plain TCP off loopback.
        accept: with `handler`; see WebSocketHandler.accept.
        origins: with `handler`; see WebSocketHandler.origins.
        subprotocols: with `handler`; see WebSocketHandler.subprotocols.
        options: every option of docs/options.md.

    Raises:
        ConfigurationError: something of this cannot work; the text says what to do.
    """
    check_order(port, handler, surplus)
    names = field_names(ServerOptions, ConnectionOptions)
    check_names(options, [*names, "accept", "origins", "subprotocols"])
    exposed = exposed_host(host, port, path, sockets)
    server = WebSocketServer(
        host,
        port,
        choose_socket_handler(tls, exposed, insecure=insecure),
        path=path,
        sockets=sockets,
        **options,
    )
    if handler is None:
        unused = {"accept": accept, "origins": origins, "subprotocols": subprotocols}
        for name, value in unused.items():
            if value is not None:
                server.stop()
                raise ConfigurationError(f"{name}= belongs to a handler: give serve() one")
        return server
    try:
        server.register_handler(
            "*",
            "*",
            handler,
            default_host=True,
            default_path=True,
            accept=accept,
            origins=origins,
            subprotocols=subprotocols,
        )
    except BaseException:
        server.stop()  # the port is free again
        raise
    return server
