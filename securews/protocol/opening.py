"""The server's half of the opening handshake: what is checked, and every answer's bytes.

RFC 6455, section 4.2. Nothing here reads or writes a socket: heads come from `http_head`, and
what is returned is what goes out. A fault of the client is a Reject that carries the answer.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from securews.common.errors import Response, phrase
from securews.common.headers import Headers
from securews.protocol.head_lines import refusal
from securews.protocol.http_head import RequestHead

__all__ = [
    "CONTINUE",
    "accept_key",
    "check_own_headers",
    "check_upgrade",
    "choose_subprotocol",
    "encode_101",
    "encode_response",
    "offered_subprotocols",
    "wants_websocket",
]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3: it proves that the server speaks WebSocket."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client that `expects_continue` waits for before it sends its body."""

# 16 bytes in base64 are 22 characters and two of padding.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_FRAMING = ("Connection", "Content-Length", "Transfer-Encoding")
_HANDSHAKE = (
    *_FRAMING,
    "Upgrade",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
)


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455, section 4.2.2)."""
    # SHA-1 is no protection here: the GUID and the hash only tell servers apart.
    digest = hashlib.sha1(key.encode("ascii") + GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def wants_websocket(head: RequestHead) -> bool:
    """Whether the request asks for a WebSocket, and not for a page."""
    return "websocket" in head.headers.tokens("Upgrade")


def check_upgrade(head: RequestHead) -> str:
    """Check the client's half of the handshake (RFC 6455, section 4.2.1); its key.

    Raises:
        Reject: 405 with Allow; 426 with Upgrade, and with Sec-WebSocket-Version where that is
            what is wrong; 400 for Connection, the key, or a body.
    """
    headers = head.headers
    if head.method != "GET":
        raise refusal(405, "a WebSocket is opened with GET", {"Allow": "GET"})
    if not wants_websocket(head):
        raise refusal(
            426,
            "a WebSocket is served here; send 'Upgrade: websocket'",
            {"Upgrade": "websocket"},
        )
    if "upgrade" not in headers.tokens("Connection"):
        raise refusal(400, "the Connection header does not name Upgrade; a proxy may drop it")
    if headers.get_all("Sec-WebSocket-Version") != ["13"]:
        raise refusal(
            426,
            "only version 13 of WebSocket is spoken here (RFC 6455)",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise refusal(400, "Sec-WebSocket-Key is not 16 bytes in base64, sent once")
    # What this side would read as frames another could read as a body (RFC 9112, section 11.2).
    if "Transfer-Encoding" in headers or int(headers.get("Content-Length", 0)) != 0:
        raise refusal(400, "a request that opens a WebSocket has no body; leave it out")
    return keys[0]


def offered_subprotocols(headers: Headers) -> list[str]:
    """The subprotocols that a client offers, in its order and its case."""
    return [
        name
        for value in headers.get_all("Sec-WebSocket-Protocol")
        for part in value.split(",")
        if (name := part.strip(" \t"))
    ]


def choose_subprotocol(offered: Sequence[str], ours: Sequence[str]) -> str | None:
    """The first of ours that was offered; None where there is none. Case counts."""
    return next((name for name in ours if name in offered), None)


def check_own_headers(headers: Headers, fixed: Sequence[str], instead: str) -> None:
    """Raise ValueError for the first of `headers` that the library writes by itself.

    Args:
        headers: what the user wants to send.
        fixed: the names that are not the user's.
        instead: what to do, for the error text.
    """
    for name in fixed:
        if name in headers:
            raise ValueError(f"header {name!r} is written by securews; {instead}")


def encode_response(
    response: Response, *, head_only: bool = False, date: str | None = None
) -> bytes:
    """The bytes of an answer after which the connection closes.

    Args:
        response: 204 and 304 go out without their body (RFC 9110, section 6.4.1).
        head_only: leave the body out but say its length, as HEAD wants it.
        date: of the field Date (RFC 9110, section 6.6.1), where the response has none of its own.

    Raises:
        ValueError: the response has a header that frames the answer.
    """
    check_own_headers(response.headers, _FRAMING, "leave it out")
    head = _dated(response.headers, date)
    head["Connection"] = "close"
    if "Upgrade" in response.headers:  # RFC 9110, section 7.8: it is for the next hop only
        head["Connection"] = "close, Upgrade"
    body = response.body
    if response.status in (204, 304):
        body = b""
    else:
        head["Content-Length"] = str(len(body))
    encoded = _encode_head(response.status, head, response.headers)
    return encoded if head_only else encoded + body


def encode_101(
    key: str,
    subprotocol: str | None,
    headers: Headers,
    *,
    extension: str | None = None,
    date: str | None = None,
) -> bytes:
    """The bytes that open the WebSocket (RFC 6455, section 4.2.2).

    Args:
        key: what `check_upgrade` returned.
        subprotocol: what `choose_subprotocol` returned.
        headers: the user's own, cookies for example.
        extension: what `deflate_negotiation.accept_offer` returned.
        date: as in `encode_response`.

    Raises:
        ValueError: `headers` has one of the handshake's own.
    """
    check_own_headers(
        headers,
        _HANDSHAKE,
        "leave it out (subprotocols= chooses a subprotocol, compression= an extension)",
    )
    head = _dated(headers, date)
    head["Upgrade"] = "websocket"
    head["Connection"] = "Upgrade"
    head["Sec-WebSocket-Accept"] = accept_key(key)
    if subprotocol is not None:
        head["Sec-WebSocket-Protocol"] = subprotocol
    if extension is not None:
        head["Sec-WebSocket-Extensions"] = extension
    return _encode_head(101, head, headers)


def _dated(own: Headers, date: str | None) -> Headers:
    """The beginning of a head whose other part is `own`."""
    return Headers() if date is None or "Date" in own else Headers({"Date": date})


def _encode_head(status: int, *parts: Headers) -> bytes:
    fields = [f"{name}: {value}\r\n" for part in parts for name, value in part.raw()]
    # Headers holds nothing outside latin-1 and no line ends, so this injects nothing.
    return f"HTTP/1.1 {status} {phrase(status)}\r\n{''.join(fields)}\r\n".encode("latin-1")
