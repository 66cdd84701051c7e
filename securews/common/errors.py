"""Every error that securews raises, in one tree.

The error is also the answer: whoever finds a fault of the peer raises the error that carries
the HTTP status or the close code to answer with.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal, TypeVar

from securews.common.headers import Headers, HeaderSource

__all__ = [
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HandshakeError",
    "Initiator",
    "ProtocolError",
    "Reject",
    "Response",
    "SecureWSError",
    "printable",
    "without_frames",
]

Initiator = Literal["us", "peer", "network"]
"""Who ended a connection: this side, the other side, or neither (it broke)."""

LOG_LENGTH = 200
"""Characters of a peer's text that may reach a log or an error text."""


def printable(text: object) -> str:
    """A peer's text made safe for a log line: escaped, and cut at 200 characters."""
    raw = text if isinstance(text, (str, bytes)) else str(text)
    shown = repr(raw[:LOG_LENGTH])
    return shown if len(raw) <= LOG_LENGTH else f"{shown}... ({len(raw)} characters)"


AnyError = TypeVar("AnyError", bound=BaseException)


def without_frames(error: AnyError) -> AnyError:
    """Let go of the tracebacks of an error that is kept, and of its causes; returns it.

    A traceback holds the frames that the error came through, and they hold what they worked on: an
    object that keeps its own error would stay in memory until the cyclic collector runs. What was
    being handled when it was raised may be the user's, who still wants its traceback: that is only
    let go of.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.__traceback__ = None
        if one.__context__ is not one.__cause__:
            one.__context__ = None
        one = one.__cause__
    return error


class SecureWSError(Exception):
    """The root of all errors of this library."""


class ConfigurationError(SecureWSError):
    """Something that the program asked for cannot work; the text says what to write instead."""


class Response:
    """An HTTP answer.

    Args:
        status: the HTTP status code, 200 to 599.
        headers: a mapping or pairs; repeated names are kept apart.
        body: text (sent as UTF-8) or bytes. Text without a Content-Type header is sent as
            text/plain.
    """

    def __init__(
        self,
        status: int = 200,
        headers: HeaderSource | None = None,
        body: str | bytes = b"",
    ) -> None:
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"an HTTP status is a number from 200 to 599, not {status!r}")
        self.status = int(status)
        self.headers = headers.copy() if isinstance(headers, Headers) else Headers(headers)
        self.body = body.encode() if isinstance(body, str) else bytes(body)
        if isinstance(body, str) and body and "Content-Type" not in self.headers:
            self.headers["Content-Type"] = "text/plain; charset=utf-8"


class HandshakeError(SecureWSError):
    """The opening of a connection failed.

    On a client, `status`, `headers` and `body` are what the server answered; status is 0 where
    it never came to an HTTP answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        headers: Headers | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = Headers() if headers is None else headers
        self.body = body


class Reject(HandshakeError, Response):
    """Raised in `accept` or in a page: answer with this response instead.

    Args:
        status: the HTTP status code, 200 to 599 (an upgrade is refused by any of them).
        headers: a mapping or pairs.
        body: text or bytes; without one, the status' own phrase.
    """

    def __init__(
        self,
        status: int = 403,
        headers: HeaderSource | None = None,
        body: str | bytes = b"",
    ) -> None:
        Response.__init__(self, status, headers, body or f"{phrase(status)}\n")
        answer = (self.headers, self.body)
        HandshakeError.__init__(self, f"{status} {phrase(status)}", status=status)
        self.headers, self.body = answer


class ProtocolError(SecureWSError):
    """The peer broke the WebSocket protocol or one of our limits.

    `close_code` is what the connection is closed with (RFC 6455, section 7.4.1).
    """

    def __init__(self, message: str, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code


class ConnectionClosed(SecureWSError):
    """The connection is over. `code` and `reason` are those of the close.

    `initiator` is "us", "peer" or "network". A code of 1006 means that no Close frame came.
    """

    def __init__(self, code: int, reason: str = "", initiator: Initiator = "network") -> None:
        who = {
            "us": "we closed the connection",
            "peer": "the peer closed the connection",
            "network": "the connection was lost without a Close frame",
        }[initiator]
        why = f": {printable(reason)}" if reason else ""
        super().__init__(f"{who} (code {code}){why}")
        self.code = code
        self.reason = reason
        self.initiator: Initiator = initiator


class ConnectionClosedOK(ConnectionClosed):
    """It ended in order: code 1000 (done) or 1001 (going away)."""


class ConnectionClosedError(ConnectionClosed):
    """It ended with any other code."""


def connection_closed(code: int, reason: str, initiator: Initiator) -> ConnectionClosed:
    """The error of the right kind for a close code."""
    kind = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
    return kind(code, reason, initiator)


def phrase(status: int) -> str:
    """The reason phrase of an HTTP status, also for those that Python does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
