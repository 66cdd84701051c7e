"""The client's half of the opening handshake (RFC 6455, section 4.1), without I/O."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from typing import NoReturn

import h11

from securews.common.errors import HandshakeError, Reject, phrase, printable
from securews.common.headers import Headers
from securews.common.options import Limits
from securews.protocol.deflate import Deflate
from securews.protocol.deflate_negotiation import DeflateOffer
from securews.protocol.head_lines import HeadLines, headers_of, refusal
from securews.protocol.opening import accept_key, check_own_headers

__all__ = ["ResponseParser", "build_request", "new_key"]

_OWN = (
    "Host",
    "Upgrade",
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
)
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")  # visible ASCII without "#"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_BODY_LIMIT = 64 << 10
"""What is kept of the body of a refusal, in bytes."""
_INTERIM_LIMIT = 16
"""Interim answers (RFC 9110, section 15.2) before the final one. One or two are common."""


def new_key() -> str:
    """A fresh Sec-WebSocket-Key: 16 unpredictable bytes in base64."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def build_request(
    host_header: str,
    target: str,
    key: str,
    headers: Headers,
    subprotocols: Sequence[str] = (),
    *,
    origin: str | None = None,
    offer: DeflateOffer | None = None,
) -> bytes:
    """The bytes of a client's opening request.

    Args:
        host_header: the host, with the port where it is not the scheme's default.
        target: path and query, escaped.
        key: see `new_key`.
        headers: the user's own.
        subprotocols: what is offered, the preferred one first.
        origin: None sends none, as programs other than browsers do.
        offer: of compression; None makes none.

    Raises:
        ValueError: a character that a header or target cannot carry, or one of the handshake's
            own headers in `headers`.
    """
    check_own_headers(headers, _OWN, "leave it out")
    check_own_headers(headers, ("Sec-WebSocket-Protocol",), "write subprotocols=[...]")
    check_own_headers(headers, ("Sec-WebSocket-Extensions",), "write compression=True")
    check_own_headers(headers, ("Origin",), "write origin='https://...'")
    if not _TARGET.fullmatch(target):
        raise ValueError(
            f"target {printable(target)} is no path with a query; escape it with "
            "urllib.parse.quote()"
        )
    own = Headers()
    own["Host"] = host_header
    own["Upgrade"] = "websocket"
    own["Connection"] = "Upgrade"
    own["Sec-WebSocket-Key"] = key
    own["Sec-WebSocket-Version"] = "13"
    if subprotocols:
        own["Sec-WebSocket-Protocol"] = ", ".join(_checked(subprotocols))
    if offer is not None:
        own["Sec-WebSocket-Extensions"] = offer.header
    if origin is not None:
        own["Origin"] = origin
    fields = [f"{name}: {value}\r\n" for name, value in own.raw() + headers.raw()]
    return f"GET {target} HTTP/1.1\r\n{''.join(fields)}\r\n".encode("latin-1")


def _checked(subprotocols: Sequence[str]) -> Sequence[str]:
    if isinstance(subprotocols, str):
        raise ValueError(f"subprotocols is a list; write [{subprotocols!r}]")
    for name in subprotocols:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"subprotocol {printable(name)} is not a token (RFC 9110, 5.6.2)")
    if len(set(subprotocols)) != len(subprotocols):
        raise ValueError("a subprotocol is offered twice (RFC 6455, section 4.1)")
    return subprotocols


class ResponseParser:
    """Reads the server's answer to `build_request`. One thread at a time.

    Call `feed` until it returns the headers of a good 101; `leftover` are then the first
    frames, and `deflate` is what was agreed on about compression. Any other answer is a
    HandshakeError with its status, headers and body.
    """

    def __init__(
        self, key: str, subprotocols: Sequence[str] = (), *, offer: DeflateOffer | None = None
    ) -> None:
        self._accept = accept_key(key)
        self._subprotocols = subprotocols
        self._offer = offer
        self.deflate: Deflate | None = None
        self._lines = _response_lines()
        self._h11 = _h11_client()
        self._interim = 0
        self._refused: tuple[int, Headers] | None = None
        self._body = bytearray()
        self.leftover = b""

    @property
    def refused(self) -> bool:
        """Whether the head of a refusal has come, and the rest of its body has not."""
        return self._refused is not None

    def feed(self, data: bytes) -> Headers | None:
        """Take in what came; the headers once the WebSocket is open.

        Raises:
            HandshakeError: the answer is complete and opens no WebSocket, is no HTTP, or is put
                off by interim answers again and again.
        """
        while self._refused is None:
            try:
                lines = self._lines.feed(data)
            except Reject as fault:
                why = fault.body.decode().rstrip()
                raise HandshakeError(f"the server's answer is not HTTP/1.1: {why}") from None
            if lines is None:
                return None
            data = self._lines.leftover
            status, headers = self._read_head(lines)
            if status == 101:
                self._check(headers)
                self.leftover = data
                return headers
            if status >= 200:
                self._refused = (status, headers)
            else:
                self._count_interim(status)
            self._lines = _response_lines()
        self._feed_body(data)
        return None

    def end(self) -> NoReturn:
        """Raise the HandshakeError for a connection that ended before `feed` was satisfied."""
        if self._refused is None:
            raise HandshakeError("the server ended the connection before it answered")
        self._refuse()

    def _read_head(self, lines: list[bytes]) -> tuple[int, Headers]:
        headers = headers_of(lines[1:])
        self._h11.receive_data(b"\r\n".join(lines) + b"\r\n\r\n")
        event = self._next_event()
        assert isinstance(event, (h11.InformationalResponse, h11.Response))
        return event.status_code, headers

    def _count_interim(self, status: int) -> None:
        self._interim += 1
        if self._interim > _INTERIM_LIMIT:
            raise HandshakeError(
                f"the server sent {self._interim} interim answers (the last one: {status} "
                f"{phrase(status)}) and no final one; at most {_INTERIM_LIMIT} are read"
            )

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise HandshakeError(
                f"the server's answer is not HTTP/1.1: {printable(error)}"
            ) from error

    def _check(self, headers: Headers) -> None:
        if headers.tokens("Upgrade") != ["websocket"]:
            raise self._wrong("Upgrade is not 'websocket'", headers)
        if "upgrade" not in headers.tokens("Connection"):
            raise self._wrong("Connection does not name Upgrade", headers)
        if headers.get_all("Sec-WebSocket-Accept") != [self._accept]:
            raise self._wrong("Sec-WebSocket-Accept does not answer our key", headers)
        extensions = headers.get_all("Sec-WebSocket-Extensions")
        if self._offer is not None:
            try:
                self.deflate = self._offer.check(extensions)
            except ValueError as error:
                raise self._wrong(str(error), headers) from None
        elif extensions:
            raise self._wrong("it uses an extension that was not offered", headers)
        chosen = headers.get_all("Sec-WebSocket-Protocol")
        if len(chosen) > 1 or not set(chosen) <= set(self._subprotocols):
            raise self._wrong("it chose a subprotocol that was not offered", headers)

    @staticmethod
    def _wrong(why: str, headers: Headers) -> HandshakeError:
        return HandshakeError(
            f"the server's 101 is not that of a WebSocket: {why}", status=101, headers=headers
        )

    def _feed_body(self, data: bytes) -> None:
        if data:  # to h11, b"" is the end of the connection
            self._h11.receive_data(data)
        while (event := self._next_event()) is not h11.NEED_DATA:
            if not isinstance(event, h11.Data):
                self._refuse()
            self._body += event.data
            if len(self._body) >= _BODY_LIMIT:
                self._refuse()

    def _refuse(self) -> NoReturn:
        assert self._refused is not None
        status, headers = self._refused
        body = bytes(self._body[:_BODY_LIMIT])
        said = body.decode("utf-8", "replace").strip()
        raise HandshakeError(
            f"the server answered {status} {phrase(status)}"
            + (f": {printable(said)}" if said else ""),
            status=status,
            headers=headers,
            body=body,
        )


def _response_lines() -> HeadLines:
    return HeadLines(Limits(), _check_status_line)


def _check_status_line(line: bytes) -> None:
    if not _STATUS_LINE.fullmatch(line):
        raise refusal(400, "the status line is not 'HTTP/1.1 101 Switching Protocols'")


def _h11_client() -> h11.Connection:
    """A client connection that waits for the answer to an upgrade; h11 wants to know of it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(
        h11.Request(
            method="GET",
            target="/",
            headers=[("Host", "-"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
        )
    )
    connection.send(h11.EndOfMessage())
    return connection
