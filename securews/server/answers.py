"""The bytes of HTTP answers, with the hour."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from securews.common.errors import Reject, Response
from securews.protocol.opening import encode_response

__all__ = ["RETRY", "Answer", "encode_answer", "http_date", "internal_error"]

log = logging.getLogger("securews.server")

RETRY = {"Retry-After": "1"}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""`time.strftime` would write those of the locale."""

_last = (-1, "")


def http_date() -> str:
    """Now, as the field Date says it (RFC 9110, section 5.6.7); formatted once a second.

    Any thread: the second and its text are one object, so that they fit whoever wrote them.
    """
    global _last  # noqa: PLW0603 - a cache
    second = int(time.time())
    last = _last
    if last[0] != second:
        at = time.gmtime(second)
        day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
        clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        last = _last = (second, f"{day}, {at.tm_mday:02} {month} {at.tm_year:04} {clock} GMT")
    return last[1]


class Answer(NamedTuple):
    """An HTTP answer as it goes out."""

    status: int
    data: bytes


def internal_error() -> Reject:
    """The answer where code of the user or ours has failed: it says nothing of that."""
    return Reject(500, None, "internal error\n")


def encode_answer(
    response: Response,
    defaults: Mapping[str, str] = MappingProxyType({}),
    *,
    head_only: bool = False,
) -> Answer:
    """The answer of a response; 500, and an error in the log, for one that cannot be sent.

    Args:
        response: a user's, perhaps, with whatever was put into it; it stays as it is.
        defaults: header fields, of which it gets those that it has not.
        head_only: as in `encode_response`.
    """
    try:
        headers = response.headers.copy()
        for name, value in defaults.items():
            if name not in headers:
                headers[name] = value
        complete = Response(response.status, headers, response.body)
        data = encode_response(complete, head_only=head_only, date=http_date())
        return Answer(complete.status, data)
    except Exception as error:
        known = isinstance(error, ValueError)  # its text says what to do
        log.error(
            "a response cannot be sent: %s; answered with 500",
            error,
            exc_info=None if known else error,
        )
        data = encode_response(internal_error(), head_only=head_only, date=http_date())
        return Answer(500, data)
