"""`securews.connect`: a small blocking client on the same connection, loop and Communicator.

The opening runs in the calling thread, within one deadline: `addresses.py` resolves and connects,
`handshake.py` does TLS, request and answer. Then `client_connection.py` moves the connection to the
I/O loop that all clients of the process share, `client_loop.py`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from securews.certificates.directory import development_directory
from securews.client.addresses import connect_tcp
from securews.client.client_connection import start_connection
from securews.client.handshake import open_websocket
from securews.common.deadlines import Deadline
from securews.common.errors import ConfigurationError, printable
from securews.common.headers import Headers, HeaderSource
from securews.common.options import ConnectionOptions, check_names, field_names, replaced
from securews.handlers.communicator import Communicator
from securews.handlers.request import Request
from securews.protocol.deflate_negotiation import DeflateOffer
from securews.protocol.http_head import RequestHead
from securews.protocol.opening_client import ResponseParser, build_request, new_key
from securews.transport.key_files import CertificateFiles
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketHandler, SocketStream, is_loopback
from securews.transport.tls_client import TLSClientSocketHandler, system_trust

__all__ = ["ClientTLS", "connect"]

ClientTLS: TypeAlias = SocketHandler | ssl.SSLContext | str | os.PathLike[str] | None


def connect(
    url: str,
    *,
    tls: ClientTLS = None,
    client_cert: CertificateFiles | None = None,
    headers: HeaderSource | None = None,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    timeout: float | None = 10.0,
    **options: object,
) -> Communicator:
    """Open a WebSocket and wait until it is open. Any thread; use the result in a `with`.

    Args:
        url: wss://host[:port]/path?query, or ws:// without TLS.
        tls: whom to trust. None: the system's CAs, and for loopback hosts the development CA
            that is found; a CA file; an SSLContext; a SocketHandler. Verification cannot be
            turned off.
        client_cert: `(cert, key)` for mutual TLS.
        headers: sent with the request: Authorization, Cookie.
        subprotocols: offered, the preferred one first.
        origin: None sends none.
        timeout: seconds for all of it together: name resolution, every address, TLS, request and
            answer, whatever the server sends meanwhile; None waits for ever.
        options: connection options of docs/options.md.

    Raises:
        HandshakeError: the server refused (`status`, `headers`, `body`), or TLS failed.
        TimeoutError: it took too long.
        OSError: the server could not be reached, or no thread could be started.
        ConfigurationError: something of this cannot work.
    """
    deadline = Deadline(timeout)
    check_names(options, field_names(ConnectionOptions))
    connection_options = replaced(ConnectionOptions(), options)
    parts, port = _parsed(url)
    handler = _socket_handler(parts, tls, client_cert)
    fields = Headers(headers)
    offer = _offer(connection_options, fields, client_cert)
    head = _request_head(parts, fields)
    key = new_key()
    request = build_request(
        head.raw_host, head.target, key, fields, subprotocols, origin=origin, offer=offer
    )
    parser = ResponseParser(key, subprotocols, offer=offer)
    stream = _connected(handler, head.host, port, deadline)
    try:
        answer = open_websocket(stream, request, parser, deadline)
    except BaseException:
        stream.close()
        raise
    return start_connection(
        stream,
        Request(head, remote_address=stream.remote_address, tls=stream.info),
        connection_options,
        answer.get("Sec-WebSocket-Protocol"),
        parser,
    )


def _connected(handler: SocketHandler, host: str, port: int, deadline: Deadline) -> SocketStream:
    sock = connect_tcp(host, port, deadline)
    try:
        return handler.connect(sock, host)
    except BaseException:
        sock.close()
        raise


def _request_head(parts: SplitResult, fields: Headers) -> RequestHead:
    assert parts.hostname is not None
    return RequestHead(
        method="GET",
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        path=parts.path or "/",
        query=parts.query,
        host=parts.hostname,
        raw_host=parts.netloc.rpartition("@")[2],
        headers=fields,
    )


def _offer(
    options: ConnectionOptions, headers: Headers, client_cert: CertificateFiles | None
) -> DeflateOffer | None:
    compression = options.wanted_compression
    if compression is None:
        return None
    confidential = client_cert is not None or "Cookie" in headers or "Authorization" in headers
    return DeflateOffer(compression, confidential=confidential)


def _parsed(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{printable(url)} is no URL: {error}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(
            f"{printable(url)} is no WebSocket URL; write wss://host:port/path"
        )
    if parts.fragment or parts.username is not None:
        raise ConfigurationError(
            "a WebSocket URL has no fragment and no password; send an Authorization header"
        )
    return parts, port if port is not None else (443 if parts.scheme == "wss" else 80)


def _socket_handler(
    parts: SplitResult, tls: ClientTLS, client_cert: CertificateFiles | None
) -> SocketHandler:
    if isinstance(tls, bool):
        raise ConfigurationError(
            "verification cannot be turned off: pass tls='ca.pem', the CA that signed the "
            "server's certificate"
        )
    if parts.scheme == "ws":
        if tls is not None or client_cert is not None:
            raise ConfigurationError("ws:// has no TLS; write wss://, or leave tls= out")
        return PlainSocketHandler()
    if isinstance(tls, SocketHandler):
        if client_cert is not None:
            raise ConfigurationError("a SocketHandler brings its own client certificate")
        return tls
    if tls is None and is_loopback(parts.hostname):
        found = development_directory() / "ca.pem"
        tls = found if found.exists() else None
    if tls is None and client_cert is None:
        return system_trust()
    return TLSClientSocketHandler(tls, client_cert=client_cert)
