"""What the worst input costs each parser: `python -m benchmarks.parser_costs [NAME...]`.

One line for each: CPU of the whole input, by the byte, and of the longest step where a parser works
in steps. The least of several runs counts, in CPU time of the thread, so that what else the machine
does counts little.

Another parser is a function that returns `Cost`s, and a line in `PARSERS`: frames, fragments,
compressed messages that are empty, TLS records.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import securews
from securews.common.headers import Headers
from securews.common.options import Compression, Limits
from securews.handlers.request import FORM_LIMIT, Request
from securews.protocol.deflate_negotiation import accept_offer
from securews.protocol.http_body import BodyReader
from securews.protocol.http_head import RequestParser
from securews.protocol.opening import check_upgrade, choose_subprotocol, wants_websocket

RUNS = 15


class Cost(NamedTuple):
    """CPU that one input takes, in seconds."""

    what: str
    size: int
    total: float
    longest_step: float | None = None
    """None where all of it is one step."""


def measured(what: str, data: bytes, steps: Callable[[bytes], Iterator[None]]) -> Cost:
    """The least cost of several runs; each `yield` of `steps` ends a step."""
    runs = []
    for _ in range(RUNS):
        times = [time.thread_time()]
        times += [time.thread_time() for _ in steps(data)]
        spent = [after - before for before, after in itertools.pairwise(times)]
        runs.append((sum(spent), sorted(spent)))
    total = min(run[0] for run in runs)
    several = len(runs[0][1]) > 1
    # Of the longest steps of a run one in a hundred is the machine's: another thread, a page fault.
    longest = min(spent[int(0.99 * (len(spent) - 1))] for _, spent in runs)
    return Cost(what, len(data), total, longest if several else None)


# -- the head of a request -----------------------------------------------------------------------

UPGRADE = (
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
ROOM = Limits().max_header_bytes - len(UPGRADE)


def heads() -> Iterator[Cost]:
    """As the loop reads them: the parser, the checks of an upgrade, the request."""
    many = b"".join(b"x%02d:%b\r\n" % (i, b"a" * (ROOM // 95 - 6)) for i in range(95))
    escapes = b"/" + b"%41" * 2700
    extensions = b"Sec-WebSocket-Extensions: permessage-deflate;%b\r\n" % (b" " * 7000 + b"a")
    protocols = b"Sec-WebSocket-Protocol: %b\r\n" % (b"a," * 31 + b"a") * 2
    for name, target, lines in (
        ("of a browser", b"/", b""),
        ("100 header lines", b"/", many),
        ("a path of escapes", escapes, b""),
        ("escapes and 100 header lines", escapes, many),
        ("a long offer of extensions", b"/", extensions * 2),
        ("a list of subprotocols", b"/", protocols),
    ):
        raw = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, UPGRADE, lines)
        yield measured(f"head: {name}", raw, _read_head)


def _read_head(raw: bytes) -> Iterator[None]:
    head = RequestParser(Limits()).feed(raw)
    assert head is not None
    request = Request(head)
    if wants_websocket(head):
        check_upgrade(head)
        choose_subprotocol(request.subprotocols, ["chat"])
        offers = head.headers.get_all("Sec-WebSocket-Extensions")
        accept_offer(offers, Compression(), confidential=False)
    yield


# -- the body of a form --------------------------------------------------------------------------


def chunked_bodies() -> Iterator[Cost]:
    """Until they are complete or refused."""
    for name, chunk in (
        ("of one byte", b"1\r\nx\r\n"),
        ("of one line end", b"1\r\n\n\r\n"),
        ("with extensions", b"1;a\r\nx\r\n"),
        ("of 8 bytes", b"8\r\nxxxxxxxx\r\n"),
    ):
        raw = chunk * (100 * 1024 // len(chunk))
        yield measured(f"chunked body: chunks {name}", raw, _read_chunks)
    yield measured("chunked body: trailers", b"0\r\n" + b"a:\r\n" * 30 + b"\r\n", _read_chunks)


def plain_bodies() -> Iterator[Cost]:
    """A form of the full length, in one piece and in segments of TCP."""
    raw = b"x" * FORM_LIMIT
    for name, size in (("in one piece", FORM_LIMIT), ("in pieces of 1,460 bytes", 1460)):

        def read(data: bytes, size: int = size) -> Iterator[None]:
            reader = BodyReader(Headers({"Content-Length": str(len(data))}), FORM_LIMIT)
            for start in range(0, len(data), size):
                reader.feed(data[start : start + size])
                yield

        yield measured(f"Content-Length body: {name}", raw, read)


def _read_chunks(data: bytes) -> Iterator[None]:
    reader = BodyReader(Headers({"Transfer-Encoding": "chunked"}), FORM_LIMIT)
    while reader.feed(data) is None and reader.unread:
        data = b""
        yield
    yield


# -- all of them ---------------------------------------------------------------------------------

PARSERS: dict[str, Callable[[], Iterator[Cost]]] = {
    "head": heads,
    "chunked": chunked_bodies,
    "plain": plain_bodies,
    # Here: frames, fragments, empty compressed messages, TLS records.
}


def main(names: list[str]) -> None:
    """Print a line for each input of the parsers that are named; of all where none is."""
    print(f"securews.ACCELERATED: {securews.ACCELERATED}")
    print(f"{'worst input':45} {'bytes':>7} {'in all':>10} {'a byte':>8} {'a step':>8}")
    for name in names or PARSERS:
        for cost in PARSERS[name]():
            step = cost.total if cost.longest_step is None else cost.longest_step
            print(
                f"{cost.what:45} {cost.size:7} {cost.total * 1e6:7.0f} us "
                f"{cost.total / cost.size * 1e9:5.0f} ns {step * 1e6:5.0f} us"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
