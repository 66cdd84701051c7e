"""The body of one request, read in bounded steps.

A body of a known length costs a copy, however it is cut. A chunked one costs by the chunk: 380 KiB
in chunks of one byte keep h11 busy for 0.2 s and more. So what came is kept, and each step gives
h11 some lines of it. Who reads the connection reads no more before the steps have used up what is
kept; so that is bounded, too.
"""

from __future__ import annotations

import h11

from securews.common.errors import Reject
from securews.common.headers import Headers
from securews.protocol.head_lines import refusal

__all__ = ["BodyReader"]

STEP_LINES = 24
"""Line ends in what one step gives to h11, whose work is by the line: 12 chunks of one byte. The
worst step takes 0.1 to 0.2 ms in pure Python (benchmarks/parser_costs.py)."""
STEP_BYTES = 4096
"""Bytes that one step gives to h11."""
LINES_LIMIT = 128
"""Bytes that may be unfinished where a step ends: the header line of a chunk, or all trailer lines
together, which h11 reads in one go. Who sends a form has no use for either."""
FRAMING_ALLOWED = 1024
"""Bytes of framing that are allowed for a body that may be short."""

_HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


class BodyReader:
    """Reads one body. One thread at a time; after a Reject it is done.

    The bytes of a chunked body may be twice `limit` with all framing, and a KiB: a body of the
    full length in chunks of five bytes still fits, and a body of a sixth of it in single bytes.

    Args:
        headers: of the request; they have passed the parser's checks.
        limit: the longest body that is taken, in bytes.

    Raises:
        Reject: 413 for a Content-Length over the limit.
    """

    def __init__(self, headers: Headers, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self._kept = bytearray()
        self._raw_left = 2 * limit + FRAMING_ALLOWED
        self._missing: int | None = None  # of a body of a known length
        if "Transfer-Encoding" in headers:
            self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=LINES_LIMIT)
            self._h11.receive_data(_HEAD)
            self._h11.next_event()
        else:
            self._missing = int(headers.get("Content-Length", 0))
            if self._missing > limit:
                raise self._too_long()

    @property
    def unread(self) -> bool:
        """Whether bytes are kept that wait for the next step."""
        return bool(self._kept)

    def feed(self, data: bytes) -> bytes | None:
        """Take in what came, and one step of it; the whole body once it is complete.

        Raises:
            Reject: 413 for a longer body or for more framing, as soon as that is known; 431 for a
                long line of framing; 400 for bad chunks.
        """
        if self._missing is not None:
            self._body += data[: self._missing]
            self._missing -= min(self._missing, len(data))
            return None if self._missing else bytes(self._body)
        self._kept += data
        return self._step()

    def _step(self) -> bytes | None:
        """Have h11 read some lines."""
        share = self._next_share()
        if not share:  # to h11, b"" is the end of the connection
            return None
        self._raw_left -= len(share)
        if self._raw_left < 0:
            raise refusal(413, "the chunks of the body are too small; send larger ones")
        self._h11.receive_data(share)
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise _malformed(error) from error
            if event is h11.NEED_DATA:
                return None
            if not isinstance(event, h11.Data):
                self._kept.clear()  # one request, then the connection ends
                return bytes(self._body)
            self._body += event.data
            if len(self._body) > self._limit:
                raise self._too_long()

    def _next_share(self) -> bytes:
        end = 0
        for _ in range(STEP_LINES):
            end = self._kept.find(b"\n", end, STEP_BYTES) + 1
            if not end:
                end = STEP_BYTES
                break
        share = bytes(self._kept[:end])
        del self._kept[:end]
        return share

    def _too_long(self) -> Reject:
        return refusal(413, f"the body is over {self._limit} bytes; send less")


def _malformed(error: h11.RemoteProtocolError) -> Reject:
    if error.error_status_hint == 431:
        return refusal(431, "a chunk's extension or the trailer is too long; leave it out")
    return refusal(400, "the chunks of the body are malformed")
