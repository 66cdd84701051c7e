"""One HTTP/1.1 request: a strict reader of its head, then its body.

The head is read here because h11 is more lenient than our promises (see `head_lines`). What
passes, h11 would accept with the same result; a test holds the two against each other. To have
h11 read the head once more took half of the time of a head of a hundred lines.

The worst head that fits in the limits, 24 KiB of header lines and escapes, takes 0.6 ms with the
checks of an upgrade; one of a browser 0.08 ms (benchmarks/parser_costs.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from securews.common.headers import Headers
from securews.common.options import Limits
from securews.protocol.authority import DEFAULT_PORTS, split_authority
from securews.protocol.head_lines import TOKEN, HeadLines, headers_of, refusal
from securews.protocol.http_body import BodyReader
from securews.protocol.request_target import RequestTarget, split_target

__all__ = ["RequestHead", "RequestParser"]

_VISIBLE = re.compile(rb"[\x21-\x7e]+")
# More digits than this is no length that a body can have.
_LENGTH = re.compile(r"[0-9]{1,18}")
_LISTS = ("Connection", "Upgrade", "Expect", "Sec-WebSocket-Protocol")
MAX_MEMBERS = 64
"""Members of each of these lists: browsers send one or two, and 8,000 take a millisecond."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request line and its header fields, checked and taken apart.

    The repr leaves out the query and what headers say: they carry credentials.
    """

    method: str
    """As sent; methods are case-sensitive."""
    target: str = field(repr=False)
    """As sent."""
    path: str
    """Decoded, not merged; begins with "/"."""
    query: str = field(repr=False)
    """What stands behind the first "?", as sent; "" if there is none."""
    host: str
    """The Host field without port, in its one spelling (see `split_authority`)."""
    raw_host: str
    """The Host field as sent."""
    headers: Headers

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for "100 Continue" with its body (RFC 9110, section 10.1.1)."""
        return "100-continue" in self.headers.tokens("Expect")


class RequestParser:
    """Reads one request: its head, and where a page wants it its body. One thread at a time.

    Call `feed` until it returns the head. Then either take `leftover` and speak WebSocket, or
    call `feed_body` (first with b"") until it returns the body. After a Reject the parser is
    done.
    """

    def __init__(self, limits: Limits) -> None:
        self._lines = HeadLines(limits, _check_request_line)
        self._head: RequestHead | None = None
        self._body: BodyReader | None = None
        self.leftover = b""
        """What came behind the head and was not given to `feed_body` yet."""

    def feed(self, data: bytes) -> RequestHead | None:
        """Take in what came; the head once it is complete. Linear cost in any chunking.

        Raises:
            Reject: 400, 414, 431 or 505, with one line that says what is wrong.
            RuntimeError: the head was complete before.
        """
        if self._head is not None:
            raise RuntimeError("the head is complete; what comes behind it is body or frames")
        lines = self._lines.feed(data)
        if lines is None:
            return None
        self.leftover = self._lines.leftover
        self._head = _read_head(lines)
        return self._head

    @property
    def body_unread(self) -> bool:
        """Whether `feed_body` has kept bytes: call it again, with b"", before more is received."""
        return self._body is not None and self._body.unread

    def feed_body(self, data: bytes, limit: int) -> bytes | None:
        """Take in what came behind the head, one step of it; the whole body once it is complete.

        A step is bounded work (see `http_body`); what it leaves is kept: see `body_unread`.

        Args:
            data: bytes from the client; `leftover` is put before them by itself.
            limit: the longest body that is taken, in bytes.

        Raises:
            Reject: 413 for a longer body, as soon as that is known, and for one whose chunks are
                mostly framing; 431 for a long chunk header or trailer; 400 for bad chunks.
            RuntimeError: the head is not complete.
        """
        if self._head is None:
            raise RuntimeError("the body comes behind the head, which is not complete")
        if self._body is None:
            self._body = BodyReader(self._head.headers, limit)
            data, self.leftover = self.leftover + data, b""
        return self._body.feed(data)


def _read_head(lines: list[bytes]) -> RequestHead:
    method, text, _ = lines[0].decode("ascii").split(" ")
    headers = headers_of(lines[1:])
    _check_framing(headers)
    _check_lists(headers)
    raw_host, host, port = _host_of(headers)
    target = split_target(text)
    if target.scheme:
        _check_absolute(target, host, port)
    return RequestHead(
        method=method,
        target=text,
        path=target.path,
        query=target.query,
        host=host,
        raw_host=raw_host,
        headers=headers,
    )


def _check_request_line(line: bytes) -> None:
    """Method, one space, target, one space, HTTP/1.1 (RFC 9112, section 3)."""
    parts = line.split(b" ")
    if len(parts) != 3 or not TOKEN.fullmatch(parts[0]) or not _VISIBLE.fullmatch(parts[1]):
        raise refusal(400, "the request line is not 'METHOD /path HTTP/1.1'")
    if parts[2] != b"HTTP/1.1":
        raise refusal(505, "only HTTP/1.1 is spoken here")


def _check_framing(headers: Headers) -> None:
    """Refuse what two readers could take for different lengths (RFC 9112, section 6.3)."""
    lengths = headers.get_all("Content-Length")
    codings = headers.get_all("Transfer-Encoding")
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        raise refusal(400, "Content-Length is not one number; send it once, or not at all")
    if codings and [coding.lower() for coding in codings] != ["chunked"]:
        raise refusal(400, "Transfer-Encoding is not 'chunked'; send Content-Length instead")
    if lengths and codings:
        raise refusal(400, "Content-Length and Transfer-Encoding together; send only one")


def _check_lists(headers: Headers) -> None:
    for name in _LISTS:
        if sum(value.count(",") + 1 for value in headers.get_all(name)) > MAX_MEMBERS:
            raise refusal(400, f"{name} has more than {MAX_MEMBERS} members; send fewer")


def _host_of(headers: Headers) -> tuple[str, str, int | None]:
    hosts = headers.get_all("Host")
    if len(hosts) != 1:
        how_many = "no" if not hosts else "more than one"
        raise refusal(400, f"{how_many} Host header; send exactly one (RFC 9112, section 3.2)")
    try:
        return hosts[0], *split_authority(hosts[0])
    except ValueError as error:
        raise refusal(400, f"the Host header is {error}") from None


def _check_absolute(target: RequestTarget, host: str, port: int | None) -> None:
    """A target in absolute form names the host that Host names (RFC 9112, section 3.2.2)."""
    default = DEFAULT_PORTS[target.scheme]
    try:
        named, named_port = split_authority(target.authority)
    except ValueError as error:
        raise refusal(400, f"the host in the request target is {error}") from None
    if (named, default if named_port is None else named_port) != (
        host,
        default if port is None else port,
    ):
        raise refusal(400, "the request target and the Host header name different hosts")
