"""A SocketHandler of your own: the PROXY header of HAProxy, read before TLS.

A load balancer that passes TCP through hides who the client is; with `send-proxy` it says so in
one line before everything else, such as "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443" and CRLF.
This handler reads that line, and not one byte more, then lets another handler go on:

    handler = ProxyProtocolHandler(
        TLSSocketHandler("server.pem", "server-key.pem"), proxies={"10.0.0.5"}
    )
    securews.serve(8443, echo, tls=handler, host="0.0.0.0").serve_forever()

`ws.remote_address` is then the client's. Anybody could send such a line: `proxies` are the only
peers that are let in. https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.1.
"""

# ruff: noqa: D102  # what each method has to do stands in SocketHandler and SocketStream

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from securews.common.errors import HandshakeError
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketAddress, SocketHandler, SocketStream, Want
from securews.transport.tls_info import TLSInfo
from securews.transport.wrapping import WrappingSocketHandler

MAX_HEADER = 107  # bytes with CRLF: the longest line that version 1 allows


class ProxyProtocolHandler(WrappingSocketHandler):
    """Reads a PROXY header, version 1, then lets `inner` go on, which decides everything else."""

    def __init__(self, inner: SocketHandler, proxies: Collection[str]) -> None:
        super().__init__(inner)
        self.proxies = frozenset(ipaddress.ip_address(proxy) for proxy in proxies)

    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        return ProxyProtocolStream(self.inner, sock, address)

    def on_connect_query(self, address: SocketAddress) -> bool:
        return ipaddress.ip_address(address[0]) in self.proxies


class ProxyProtocolStream(SocketStream):
    """A plain stream until the header is there; afterwards the stream that `inner` makes."""

    def __init__(self, inner: SocketHandler, sock: socket.socket, address: SocketAddress) -> None:
        self._inner = inner
        self._sock = sock
        self._header = b""
        self._complete = False
        self._ended = False
        self._error: Exception | None = None
        self._stream = PlainSocketHandler().accept(sock, address)

    def handshake(self) -> Want:
        if not self._complete:
            try:
                if not self._read_header():
                    return Want.READ
                address = parse(self._header) or self._stream.remote_address
                self._stream = self._inner.accept(self._sock, address)
                self._complete = True
            except (HandshakeError, OSError) as exc:
                self._error = HandshakeError(f"no PROXY header: {exc}")
                raise self._error from exc
        return self._stream.handshake()

    def _read_header(self) -> bool:
        """Look first, then take: what is behind the line belongs to TLS."""
        try:
            seen = self._sock.recv(MAX_HEADER - len(self._header), socket.MSG_PEEK)
        except BlockingIOError:
            return False
        end = (self._header + seen).find(b"\r\n")
        # Without an end everything is header, and is taken: left there, it would wake the
        # poller again and again.
        size = len(seen) if end < 0 else end + 2 - len(self._header)
        self._header += self._sock.recv(size)
        if not seen or (end < 0 and len(self._header) >= MAX_HEADER):
            raise HandshakeError("the peer sent none")
        return end >= 0

    def recv(self) -> bytes | Want:
        self._check_complete()
        return self._stream.recv()

    def send(self, data: bytes | bytearray | memoryview) -> Want:
        self._check_complete()
        return self._stream.send(data)

    def _check_complete(self) -> None:
        if not (self._complete or self._ended):
            raise RuntimeError("the handshake is not done")

    def flush(self) -> Want:
        return self._stream.flush()

    def shutdown(self) -> Want:
        self._ended = True
        return self._stream.shutdown()

    def close(self) -> None:
        self._ended = True
        self._stream.close()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def bytes_available(self) -> int:
        return self._stream.bytes_available

    @property
    def bytes_pending(self) -> int:
        return self._stream.bytes_pending

    @property
    def last_error(self) -> Exception | None:
        return self._error or self._stream.last_error

    @property
    def info(self) -> TLSInfo | None:
        return self._stream.info

    @property
    def remote_address(self) -> SocketAddress:
        return self._stream.remote_address

    @property
    def local_address(self) -> SocketAddress:
        return self._stream.local_address


def parse(header: bytes) -> SocketAddress | None:
    """The client's address; None where the proxy does not know it (its own health checks)."""
    match header[:-2].decode("ascii", "replace").split(" "):
        case ["PROXY", "UNKNOWN", *_]:
            return None
        case ["PROXY", "TCP4" | "TCP6", source, _, port, _] if port.isdecimal():
            try:
                return (str(ipaddress.ip_address(source)), int(port))
            except ValueError:
                pass
    raise HandshakeError("the peer sent another line")
