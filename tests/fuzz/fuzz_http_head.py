"""Fuzz target: the request parser, and what else reads the words of a request.

Whatever comes, in whatever cut: the same head or the same refusal, with a status that the docs
name. What passes the parser raises nothing but a Reject further on: upgrade, cookies,
authorization, origin, form.
"""

from __future__ import annotations

from collections.abc import Iterable

from fuzz_input import FuzzInput

from securews.common.errors import Reject
from securews.common.options import Limits
from securews.handlers.origins import origin_allowed
from securews.handlers.request import Request
from securews.protocol.http_head import RequestHead, RequestParser
from securews.protocol.opening import check_upgrade, encode_101, encode_response, wants_websocket

SMALL = Limits(max_line=80, max_headers=6, max_header_bytes=200)
REFUSALS = {400, 414, 431, 505}
BODY_LIMITS = (0, 16, 300, 64 << 10)

Outcome = tuple[object, ...]


def check_http_head(data: bytes) -> None:
    """Parse one input in one piece and in many."""
    given = FuzzInput.of(data)
    limits = SMALL if given.flags & 1 else Limits()
    body_limit = given.choose(1, BODY_LIMITS)
    assert body_limit is not None
    whole = parse([given.payload], limits, body_limit)
    assert parse(given.pieces(), limits, body_limit) == whole


def parse(pieces: Iterable[bytes], limits: Limits, body_limit: int) -> Outcome:
    """What becomes of a request: a head and perhaps a body, a refusal, or neither yet."""
    parser = RequestParser(limits)
    waiting = iter(pieces)
    try:
        for piece in waiting:
            head = parser.feed(piece)
            if head is not None:
                break
            kept = len(parser._lines._buffer)
            assert kept <= limits.max_line + limits.max_header_bytes + 2, "more is kept than may be"
        else:
            return ("incomplete",)
    except Reject as reject:
        return ("refused", *answer(reject, REFUSALS))
    check_head(head)
    body: Outcome
    if wants_websocket(head):
        body = ("frames", parser.leftover + b"".join(waiting))
    else:
        body = parse_body(parser, waiting, body_limit, head)
    line = (head.method, head.target, head.path, head.query, head.host, head.raw_host)
    return ("head", line, head.headers.raw(), body)


def parse_body(
    parser: RequestParser, waiting: Iterable[bytes], limit: int, head: RequestHead
) -> Outcome:
    """The body as a page gets it."""
    try:
        body = read_body(parser, b"", limit)
        for piece in waiting:
            if body is not None:
                break  # one request, then the connection ends
            body = read_body(parser, piece, limit)
        if body is None:
            return ("unfinished",)
        assert len(body) <= limit
        form = Request(head, body=body).form
    except Reject as reject:
        return ("refused", *answer(reject, {400, 413, 415, 431}))
    return ("body", body, [(name, form.get_all(name)) for name in form])


def read_body(parser: RequestParser, piece: bytes, limit: int) -> bytes | None:
    """What the steps make of one piece."""
    body = parser.feed_body(piece, limit)
    while body is None and parser.body_unread:
        body = parser.feed_body(b"", limit)
    return body


def check_head(head: RequestHead) -> None:
    """What a server and its handlers ask of a head."""
    assert head.path.startswith("/")
    assert not {".", ".."} & set(head.path.split("/"))
    assert "\0" not in head.path
    assert head.host == head.host.lower()
    assert head.expects_continue in {True, False}
    request = Request(head)
    for name, value in request.cookies.items():
        assert name
        assert not set(value) & set("\r\n\0")
    assert all(request.subprotocols)
    authorization = request.authorization
    if authorization is not None:
        assert repr((authorization.username, authorization.password, authorization.token))
    assert origin_allowed(request.origin, head.raw_host, True, None) in {True, False}
    assert repr(request)
    try:
        key = check_upgrade(head)
    except Reject as reject:
        answer(reject, {400, 405, 426})
    else:
        assert encode_101(key, None, type(head.headers)()).endswith(b"\r\n\r\n")


def answer(reject: Reject, documented: set[int]) -> tuple[int, bytes]:
    """Status, which is documented, and body, one line of text; they can be encoded."""
    assert reject.status in documented
    assert reject.body.count(b"\n") == 1
    assert encode_response(reject).startswith(b"HTTP/1.1 ")
    return reject.status, reject.body
