"""The lines of an HTTP head, read more strictly than HTTP parsers do.

h11 takes a bare LF as the end of a line, folded lines and control characters, because some
peers send them. Each of these is read differently somewhere along a chain of proxies, which is
what request smuggling is made of (RFC 9112, section 11.2), so here they are refused.

Every byte is looked at once, whatever the chunks: a search goes on where the last one ended,
and it never looks further than the limit of the line. A fault is judged at the byte where its
line ends or its limit is passed, so chunks do not change the verdict either.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from securews.common.errors import Reject
from securews.common.headers import Headers
from securews.common.options import Limits

__all__ = ["TOKEN", "HeadLines", "headers_of", "refusal"]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110, section 5.6.2."""
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""RFC 9110, section 5.5: no control characters but tab; obs-text is kept as latin-1."""


def refusal(status: int, why: str, headers: dict[str, str] | None = None) -> Reject:
    """The answer to a peer's fault; `why` is one line and repeats nothing that the peer sent."""
    return Reject(status, headers, f"{why}\n")


def headers_of(lines: list[bytes]) -> Headers:
    """The header fields in lines that `HeadLines` let pass; values are read as latin-1."""
    split = [line.decode("latin-1").partition(":") for line in lines]
    return Headers.of_checked([(name, value) for name, _, value in split])


class HeadLines:
    """Collects the lines of one head, from the start line to the empty line.

    Args:
        limits: `max_line`, `max_headers` and `max_header_bytes` apply. Lines are measured
            without their CR LF, all header lines together with it.
        check_start_line: called with the start line as soon as it is complete.

    `leftover` is what came behind the empty line.
    """

    def __init__(self, limits: Limits, check_start_line: Callable[[bytes], None]) -> None:
        self._limits = limits
        self._check_start_line = check_start_line
        self._buffer = bytearray()
        self._scanned = 0  # no LF stands before this offset, from _line on
        self._line = 0  # offset of the line at work
        self._lines: list[bytes] = []
        self._room = limits.max_header_bytes  # what is left of it
        self.leftover = b""

    def feed(self, data: bytes) -> list[bytes] | None:
        """Take in what came; the lines without their CR LF once the head is complete.

        Raises:
            Reject: 400, 414 or 431, or what `check_start_line` raises. The head is then over.
        """
        self._buffer += data
        while (line := self._next_line()) is not None:
            if not self._lines:
                self._check_start_line(line)
            elif not line:
                self.leftover = bytes(self._buffer[self._line :])
                self._buffer.clear()
                return self._lines
            else:
                self._check_header(line)
            self._lines.append(line)
        return None

    def _next_line(self) -> bytes | None:
        longest = self._limits.max_line
        if self._lines:
            longest = min(longest, max(self._room - 2, 0))
        window = self._line + longest + 2  # with CR LF
        end = self._buffer.find(b"\n", self._scanned, window)
        if end < 0:
            if len(self._buffer) >= window:
                raise self._too_long()
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[self._line : end + 1])
        self._line = self._scanned = end + 1
        if not line.endswith(b"\r\n"):
            raise refusal(400, "a line ends in LF alone; end every line with CR LF")
        if self._lines:
            self._room -= len(line)
        return line[:-2]

    def _too_long(self) -> Reject:
        limits = self._limits
        if not self._lines:
            return refusal(
                414, f"the start line is over {limits.max_line} bytes; shorten path or query"
            )
        if self._room - 2 < limits.max_line:
            return refusal(
                431,
                f"the header lines are over {limits.max_header_bytes} bytes together; "
                "send fewer, or fewer cookies",
            )
        return refusal(
            431, f"a header line is over {limits.max_line} bytes; shorten it, or send fewer cookies"
        )

    def _check_header(self, line: bytes) -> None:
        if len(self._lines) > self._limits.max_headers:
            raise refusal(431, f"more than {self._limits.max_headers} header lines; send fewer")
        name, colon, value = line.partition(b":")
        if line[:1] in b" \t":
            raise refusal(400, "a header line begins with a space; folded lines are obsolete")
        if not colon:
            raise refusal(400, "a header line has no colon; write 'Name: value'")
        if not TOKEN.fullmatch(name):
            raise refusal(400, "a header name is no token; no space may stand before the colon")
        if not _VALUE.fullmatch(value):
            raise refusal(400, "a header value has a control character; encode it")
