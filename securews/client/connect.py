"""`securews.connect`: a small blocking client on the same connection, loop and Communicator.

The opening runs in the calling thread. Then the connection moves to one I/O loop that all clients
of the process share: its thread starts with the first connection and ends with the last.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from securews.certificates.directory import development_directory
from securews.common.deadlines import Deadline
from securews.common.errors import ConfigurationError, HandshakeError, printable
from securews.common.headers import Headers, HeaderSource
from securews.common.options import (
    ConnectionOptions,
    Limits,
    check_names,
    field_names,
    replaced,
)
from securews.connection.budget import Budget
from securews.connection.channel import Channel
from securews.connection.connection import Connection
from securews.connection.inbox import Message
from securews.handlers.communicator import Communicator
from securews.handlers.request import Request
from securews.loop.loop import Loop
from securews.protocol.deflate_negotiation import DeflateOffer
from securews.protocol.http_head import RequestHead
from securews.protocol.opening_client import ResponseParser, build_request, new_key
from securews.protocol.websocket import Role
from securews.transport.key_files import CertificateFiles
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketHandler, SocketStream, Want, is_loopback
from securews.transport.tls_client import TLSClientSocketHandler, system_trust

__all__ = ["ClientTLS", "connect"]

log = logging.getLogger("securews.client")

_UNTRUSTED = frozenset({18, 19, 20, 21})
"""X509_V_ERR codes of OpenSSL: self-signed, or signed by nobody who is trusted."""

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
        timeout: seconds for all of it; None waits for ever.
        options: connection options of docs/options.md.

    Raises:
        HandshakeError: the server refused (`status`, `headers`, `body`), or TLS failed.
        TimeoutError: it took too long.
        OSError: the server could not be reached.
        ConfigurationError: something of this cannot work.
    """
    check_names(options, field_names(ConnectionOptions))
    connection_options = replaced(ConnectionOptions(), options)
    parts, port = _parsed(url)
    handler = _socket_handler(parts, tls, client_cert)
    assert parts.hostname is not None
    deadline = Deadline(timeout)
    fields = Headers(headers)
    key = new_key()
    host_header = parts.netloc.rpartition("@")[2]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    offer = _offer(connection_options, fields, client_cert)
    request = build_request(
        host_header, target, key, fields, subprotocols, origin=origin, offer=offer
    )
    parser = ResponseParser(key, subprotocols, offer=offer)
    sock = socket.create_connection((parts.hostname, port), deadline.remaining())
    try:
        stream = handler.connect(sock, parts.hostname)
    except BaseException:
        sock.close()
        raise
    try:
        answer = _open(stream, request, parser, deadline)
    except BaseException as error:
        stream.close()
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            # In TLS 1.3 a certificate of ours is refused only after the handshake is done.
            raise HandshakeError(f"the connection broke during the opening: {error}") from error
        raise
    head = RequestHead(
        method="GET",
        target=target,
        path=parts.path or "/",
        query=parts.query,
        host=parts.hostname,
        raw_host=host_header,
        headers=fields,
    )
    return _start(
        stream,
        Request(head, remote_address=stream.remote_address, tls=stream.info),
        connection_options,
        answer.get("Sec-WebSocket-Protocol"),
        parser,
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


def _open(
    stream: SocketStream, request: bytes, parser: ResponseParser, deadline: Deadline
) -> Headers:
    """Handshake and request, in the calling thread."""
    try:
        while (want := stream.handshake()) is not Want.NOTHING:
            _wait(stream, want, deadline)
    except HandshakeError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _UNTRUSTED:
            advice = "pass tls='ca.pem', the CA that signed the server's certificate"
            raise HandshakeError(f"{error}; {advice}") from cause
        raise
    want = stream.send(request)
    while want is Want.WRITE:
        _wait(stream, want, deadline)
        want = stream.flush()
    while True:
        data = stream.recv()
        if isinstance(data, Want):
            _wait(stream, data, deadline)
        elif not data:
            parser.end()
        else:
            answer = parser.feed(data)
            if answer is not None:
                return answer


def _wait(stream: SocketStream, want: Want, deadline: Deadline) -> None:
    if want is Want.READ and stream.bytes_available:
        return
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN if want is Want.READ else select.POLLOUT)
    left = deadline.remaining()
    if not poller.poll(None if left is None else left * 1000):
        raise TimeoutError("the server did not answer in time")
    if want is Want.WRITE:
        stream.flush()


class _ClientLoop:
    """The loop that all clients of this process share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._process = 0
        self._connections = 0

    def acquire(self) -> Loop:
        """The loop, running; `release` follows exactly once."""
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process, self._connections = Loop(), os.getpid(), 0
                threading.Thread(
                    target=self._loop.run, name="securews-client-io", daemon=True
                ).start()
            self._connections += 1
            return self._loop

    def release(self, channel: Channel) -> None:
        """A connection's descriptor is closed; the last one ends the loop."""
        with self._lock:
            if self._loop is not channel.loop:
                return
            self._connections -= 1
            if self._connections == 0:
                self._loop.stop()
                self._loop = None


_client_loop = _ClientLoop()


class _ClientObserver:
    """A client receives by `recv`; only the two callbacks are told anything."""

    event_driven = False

    def __init__(self, ws: Communicator) -> None:
        self._ws = ws

    def message_received(self, message: Message) -> None:
        """Never called: messages queue."""

    def messages_queued(self) -> None:
        """Messages are there for `recv`."""
        if self._ws.on_receive_message is not None:
            try:
                self._ws.on_receive_message(self._ws)
            except Exception:
                log.exception("%r: on_receive_message raised", self._ws)

    def dispatched(self, began: float) -> None:
        """Other clients of this process may have waited; nobody is warned of that."""

    def connection_closed(self) -> None:
        """It is over."""
        self._ws._tell_closed()


def _start(
    stream: SocketStream,
    request: Request,
    options: ConnectionOptions,
    subprotocol: str | None,
    parser: ResponseParser,
) -> Communicator:
    """Move the open connection to the loop."""
    loop = _client_loop.acquire()
    channel = Channel(
        stream, loop, write_timeout=options.write_timeout, released=_client_loop.release
    )
    name = f"client of {request.host}{printable(request.path)}"
    connection = Connection(
        channel,
        Role.CLIENT,
        options,
        limits=Limits(),
        budget=Budget(None),
        name=name,
        deflate=parser.deflate,
    )
    ws = Communicator(connection, request)
    ws._attach(None, subprotocol)
    observer = _ClientObserver(ws)
    channel.consumer = connection
    connection.observer = observer
    loop.call_soon(partial(connection.start, observer, parser.leftover))
    return ws
