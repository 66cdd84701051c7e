from __future__ import annotations

import dataclasses
import itertools
from urllib.parse import quote, unquote_to_bytes

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import Reject
from securews.common.options import Limits
from securews.protocol.http_head import RequestHead, RequestParser

HOST = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n"
SIMPLE = b"GET /chat?x=1 HTTP/1.1\r\nHost: Example.com:8443\r\nX-Thing:\t a b \r\n\r\n"


def parse(raw: bytes, limits: Limits | None = None) -> RequestHead:
    head = RequestParser(limits or Limits()).feed(raw)
    assert head is not None
    return head


def refused(raw: bytes, limits: Limits | None = None) -> Reject:
    with pytest.raises(Reject) as caught:
        RequestParser(limits or Limits()).feed(raw)
    return caught.value


def verdict(chunks: list[bytes], limits: Limits | None = None):
    """What comes of a request in these chunks: the head and the rest, or the refusal."""
    parser = RequestParser(limits or Limits())
    for index, chunk in enumerate(chunks):
        try:
            head = parser.feed(chunk)
        except Reject as refusal:
            return refusal.status, refusal.body
        if head is not None:
            fields = [getattr(head, field.name) for field in dataclasses.fields(head)]
            return fields, parser.leftover + b"".join(chunks[index + 1 :])
    return None


def get(target: str, host: str = "example.com") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_a_request_is_taken_apart():
    head = parse(SIMPLE)
    assert (head.method, head.target) == ("GET", "/chat?x=1")
    assert (head.path, head.query) == ("/chat", "x=1")
    assert (head.host, head.raw_host) == ("example.com", "Example.com:8443")
    assert head.headers.raw() == [("Host", "Example.com:8443"), ("X-Thing", "a b")]


def test_header_values_are_latin_1_and_repeated_names_are_kept_apart():
    head = parse(GET + HOST + b"X: caf\xe9\r\nx: 2\r\n\r\n")
    assert head.headers.get_all("X") == ["caf\xe9", "2"]


def test_what_comes_behind_the_head_is_left_over():
    parser = RequestParser(Limits())
    assert parser.feed(GET + HOST + b"\r\n\x81\x85frame") is not None
    assert parser.leftover == b"\x81\x85frame"


def test_nothing_is_fed_behind_a_complete_head():
    parser = RequestParser(Limits())
    assert parser.feed(get("/")) is not None
    with pytest.raises(RuntimeError, match="body or frames"):
        parser.feed(b"x")


def test_the_repr_of_a_head_leaves_out_query_and_values():
    head = parse(b"GET /a?token=s3cret HTTP/1.1\r\nHost: a\r\nCookie: sid=s3cret\r\n\r\n")
    assert "s3cret" not in repr(head)
    assert "/a" in repr(head)


@pytest.mark.d(5, 6)
@pytest.mark.promise(30, 33)
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET /\tHTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /\xe9 HTTP/1.1", 400),
        (b"GET /\r HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"G\xc9T / HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"SSH-2.0-OpenSSH_9.9", 400),
        (b"GET / HTTP/1.0", 505),
        (b"GET / HTTP/1.1x", 505),
        (b"GET / HTTP/21.1", 505),
        (b"GET / HTTP/1.10", 505),
        (b"GET / http/1.1", 505),
        (b"PRI * HTTP/2.0", 505),
    ],
)
def test_a_wrong_request_line_is_refused_as_soon_as_it_ends(line: bytes, status: int):
    assert refused(line + b"\r\n").status == status


@pytest.mark.d(6)
@pytest.mark.promise(30)
@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"GET / HTTP/1.1\n", b"LF alone"),
        (GET + b"Host: a\n\n", b"LF alone"),
        (GET + HOST + b"\n", b"LF alone"),
        (GET + HOST + b"A: b\rC: d\r\n", b"control character"),
        (GET + HOST + b"A: b\r\r\n", b"control character"),
        (GET + HOST + b"A: b\x00\r\n", b"control character"),
        (GET + HOST + b"A: b\x1b[31m\r\n", b"control character"),
        (GET + HOST + b"A: b\x7f\r\n", b"control character"),
        (GET + b" Host: a\r\n", b"begins with a space"),
        (GET + HOST + b"A: b\r\n c\r\n", b"begins with a space"),
        (GET + HOST + b"A: b\r\n\tc\r\n", b"begins with a space"),
        (GET + HOST + b"A : b\r\n", b"no token"),
        (GET + HOST + b"A\t: b\r\n", b"no token"),
        (GET + HOST + b": b\r\n", b"no token"),
        (GET + HOST + b"\xc5\xbfec-websocket-key: x\r\n", b"no token"),
        (GET + HOST + b"A(b): c\r\n", b"no token"),
        (GET + HOST + b"no colon here\r\n", b"no colon"),
    ],
)
def test_a_header_line_that_readers_could_disagree_on_is_400(raw: bytes, word: bytes):
    refusal = refused(raw)
    assert refusal.status == 400
    assert word in refusal.body


@pytest.mark.d(1)
def test_a_refusal_is_one_line_of_text_that_repeats_nothing_of_the_peer():
    refusal = refused(GET + b"Evil\x1b: <script>\r\n")
    assert refusal.body.count(b"\n") == 1
    assert refusal.body.endswith(b"\n")
    assert b"script" not in refusal.body
    assert refusal.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.d(8)
def test_a_request_without_headers_is_answered_at_its_empty_line():
    assert b"no Host" in refused(GET + b"\r\n").body


LIMITS = Limits(max_line=40, max_headers=4, max_header_bytes=100)


@pytest.mark.d(7)
@pytest.mark.promise(28)
@pytest.mark.parametrize(("length", "status"), [(39, None), (40, None), (41, 414)])
def test_the_request_line_has_a_limit(length: int, status: int | None):
    line = b"GET /" + b"a" * (length - 14) + b" HTTP/1.1"
    assert len(line) == length
    raw = line + b"\r\nHost: a\r\n\r\n"
    if status is None:
        assert parse(raw, LIMITS).method == "GET"
    else:
        assert refused(raw, LIMITS).status == status


@pytest.mark.d(7)
@pytest.mark.promise(28)
@pytest.mark.parametrize(("length", "fits"), [(39, True), (40, True), (41, False)])
def test_a_header_line_has_a_limit(length: int, fits: bool):
    raw = GET + b"Host: a\r\nX: " + b"a" * (length - 3) + b"\r\n\r\n"
    if fits:
        assert len(parse(raw, LIMITS).headers["X"]) == length - 3
    else:
        refusal = refused(raw, LIMITS)
        assert (refusal.status, b"over 40 bytes;" in refusal.body) == (431, True)


@pytest.mark.promise(28)
@pytest.mark.parametrize(("count", "fits"), [(3, True), (4, True), (5, False)])
def test_the_header_lines_are_counted(count: int, fits: bool):
    raw = GET + b"Host: a\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"
    if fits:
        assert len(parse(raw, LIMITS).headers.raw()) == count
    else:
        assert refused(raw, LIMITS).status == 431


@pytest.mark.promise(28)
@pytest.mark.parametrize(("total", "fits"), [(99, True), (100, True), (101, False)])
def test_all_header_lines_together_have_a_limit(total: int, fits: bool):
    lines = [b"Host: a\r\n", b"X: " + b"a" * 35 + b"\r\n"]
    rest = total - sum(map(len, lines))
    lines.append(b"Y:" + b"a" * (rest - 2 - 4 - 2) + b"\r\n")
    lines.append(b"Z:\r\n")
    assert sum(map(len, lines)) == total
    raw = GET + b"".join(lines) + b"\r\n"
    limits = Limits(max_line=60, max_header_bytes=100)
    if fits:
        assert len(parse(raw, limits).headers.raw()) == 4
    else:
        refusal = refused(raw, limits)
        assert (refusal.status, b"100 bytes together" in refusal.body) == (431, True)


def test_the_defaults_take_the_largest_request_and_not_one_byte_more():
    limits = Limits()
    assert (limits.max_line, limits.max_headers, limits.max_header_bytes) == (8192, 100, 16384)
    longest = parse(b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert len(longest.path) == 8192 - 13
    assert refused(b"GET /" + b"a" * (8193 - 14) + b" HTTP/1.1\r\n").status == 414
    assert refused(GET + b"X: " + b"a" * 8190 + b"\r\n").status == 431
    assert refused(GET + b"X: y\r\n" * 101).status == 431
    assert refused(GET + (b"X: " + b"a" * 4000 + b"\r\n") * 5).status == 431


@pytest.mark.promise(28)
def test_a_line_without_end_is_refused_where_its_limit_is_and_not_at_its_end():
    parser = RequestParser(LIMITS)
    assert parser.feed(b"G" * 41) is None
    with pytest.raises(Reject) as caught:
        parser.feed(b"G")
    assert caught.value.status == 414


class CountingBuffer(bytearray):
    """Counts the bytes that searches and slices look at."""

    seen = 0

    def find(self, sub, start=0, end=None):
        position = super().find(sub, start, end)
        self.seen += min(len(self) if position < 0 else position + 1, end) - start
        return position

    def __getitem__(self, key):
        value = super().__getitem__(key)
        self.seen += len(value)
        return value


@pytest.mark.promise(28)
def test_each_byte_is_looked_at_a_fixed_number_of_times_in_the_smallest_chunks():
    raw = GET + HOST + b"".join(b"X%d: " % i + b"a" * 7000 + b"\r\n" for i in range(2)) + b"\r\n"
    parser = RequestParser(Limits())
    buffer = CountingBuffer()
    parser._lines._buffer = buffer
    heads = [parser.feed(bytes([byte])) for byte in raw]
    assert heads[-1] is not None
    assert len(raw) <= buffer.seen <= 2 * len(raw)


MESSY = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.sampled_from(
            [
                b"GET / HTTP/1.1", b"POST /a%20b?q HTTP/1.1", b"GET http://a/ HTTP/1.1", b"\r\n",
                b"\n", b"\r", b"Host: a", b"Host: b:80", b"host:", b" ", b"\t", b":", b"X: y",
                b"Content-Length: 5", b"Content-Length: 5, 5", b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip", b"\x00", b"\xff", b"\x1f", b"A" * 50, b"..", b"%2e",
                b"#", b"HTTP/1.0", b"\x0b", b"\x85",
            ]
        ),
        max_size=20,
    ).map(b"".join),
    st.lists(
        st.sampled_from([b"Host: a", b"X: y z", b"X:\ty", b"Cookie: a=b", b"Content-Length: 0"]),
        max_size=5,
    ).map(lambda lines: GET + b"".join(line + b"\r\n" for line in lines) + b"\r\nrest"),
)  # fmt: skip


@given(raw=MESSY, places=st.lists(st.integers(0, 1 << 16), max_size=8), small=st.booleans())
def test_chunks_change_nothing(raw: bytes, places: list[int], small: bool):
    limits = LIMITS if small else Limits()
    whole = verdict([raw], limits)
    assert verdict(cut(raw, places), limits) == whole
    assert verdict([raw[i : i + 1] for i in range(len(raw))], limits) == whole


@pytest.mark.promise(30)
@given(raw=MESSY)
def test_what_is_accepted_h11_accepts_with_the_same_result(raw: bytes):
    parser = RequestParser(Limits())
    try:
        head = parser.feed(raw)
    except Reject:
        return
    if head is None:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(raw)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == head.method.encode()
    assert event.target == head.target.encode()
    assert event.http_version == b"1.1"
    ours = [(name.encode(), value.encode("latin-1")) for name, value in head.headers.raw()]
    assert ours == event.headers.raw_items()


@pytest.mark.promise(30)
@given(
    name=st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True),
    # CR LF ends a header line: with it, this would be the value of no one header.
    value=st.binary(max_size=60).filter(lambda value: b"\r\n" not in value),
)
def test_a_header_is_accepted_exactly_when_its_value_is_clean(name: bytes, value: bytes):
    raw = GET + HOST + b"X-" + name + b":" + value + b"\r\n\r\n"
    clean = all(byte == 9 or 32 <= byte != 127 for byte in value)
    result = verdict([raw])
    if clean:
        head = parse(raw)
        assert head.headers.raw()[1] == (
            "X-" + name.decode(),
            value.decode("latin-1").strip(" \t"),
        )
    else:
        assert result is not None
        assert result[0] == 400


@pytest.mark.d(4)
@pytest.mark.promise(31)
@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (b"", b"no Host"),
        (b"Host: a\r\nHost: b\r\n", b"more than one Host"),
        (b"Host: a\r\nhost: a\r\n", b"more than one Host"),
        (b"Host:\r\n", b"the Host header is not a host"),
        (b"Host: a, b\r\n", b"the Host header is not a host"),
        (b"Host: a/b\r\n", b"the Host header is not a host"),
        (b"Host: user@a\r\n", b"the Host header is not a host"),
        (b"Host: http://a\r\n", b"the Host header is not a host"),
        (b"Host: a:99999\r\n", b"the Host header is not a host"),
        (b"Host: caf\xe9.example\r\n", b"the Host header is not a host"),
    ],
)
def test_the_host_is_given_once_and_is_a_host(lines: bytes, word: bytes):
    refusal = refused(GET + lines + b"\r\n")
    assert refusal.status == 400
    assert word in refusal.body


@pytest.mark.d(13)
@pytest.mark.promise(31)
@pytest.mark.parametrize(
    ("sent", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com:9", "example.com"),
        ("example.com.:9", "example.com"),
        ("127.0.0.1:8443", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8443", "::1"),
        ("[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
    ],
)
def test_a_host_has_one_spelling(sent: str, host: str):
    head = parse(get("/", host=sent))
    assert (head.host, head.raw_host) == (host, sent)


@pytest.mark.d(14)
@pytest.mark.promise(32)
@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/chat?x=1", "/chat", "x=1"),
        ("/chat?", "/chat", ""),
        ("/chat?a=1?b=%2e%2e", "/chat", "a=1?b=%2e%2e"),
        ("/a%20b", "/a b", ""),
        ("/caf%C3%A9", "/caf\xe9", ""),
        ("/a%2Fb", "/a/b", ""),
        ("//a//b/", "//a//b/", ""),
        ("/a/...", "/a/...", ""),
        ("/.well-known/x", "/.well-known/x", ""),
        ("/%252e%252e/", "/%2e%2e/", ""),
        ("http://example.com", "/", ""),
        ("http://example.com?x=1", "/", "x=1"),
        ("HTTP://EXAMPLE.COM/a?b", "/a", "b"),
        ("wss://example.com:443/a", "/a", ""),
        ("http://example.com:80/a", "/a", ""),
    ],
)
def test_a_target_is_split_into_path_and_query(target: str, path: str, query: str):
    head = parse(get(target))
    assert (head.target, head.path, head.query) == (target, path, query)


@pytest.mark.d(14)
@pytest.mark.promise(32)
@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("/../etc", b"'..'"),
        ("/a/..", b"'..'"),
        ("/a/%2e%2e/b", b"'..'"),
        ("/a/.%2E/b", b"'..'"),
        ("/a%2f..%2fb", b"'..'"),
        ("/./a", b"'.'"),
        ("/a%00b", b"control character"),
        ("/a%0d%0aX:%20y", b"control character"),
        ("/a#b", b"fragment"),
        ("/a?b#c", b"fragment"),
        ("/a%", b"'%'"),
        ("/a%zz", b"'%'"),
        ("/a%c0%ae", b"UTF-8"),
        ("/a%ff", b"UTF-8"),
        ("*", b"no path"),
        ("a", b"no path"),
        ("?x", b"no path"),
        ("example.com:443", b"no path"),
        ("ftp://example.com/", b"no path"),
        ("http://other.com/", b"different hosts"),
        ("http://example.com:81/", b"different hosts"),
        ("https://example.com:80/", b"different hosts"),
        ("http://user@example.com/", b"the host in the request target"),
        ("http:///", b"the host in the request target"),
    ],
)
def test_a_target_that_readers_could_disagree_on_is_400(target: str, word: bytes):
    refusal = refused(get(target))
    assert refusal.status == 400
    assert word in refusal.body


@pytest.mark.parametrize("name", ["Connection", "Upgrade", "Expect", "Sec-WebSocket-Protocol"])
def test_a_list_of_many_members_is_400(name: str):
    def of(members: int) -> bytes:
        field = name.encode() + b": "
        return GET + HOST + field + b"a," * (members - 2) + b"a\r\n" + field + b"a\r\n\r\n"

    assert len(parse(of(64)).headers.tokens(name)) == 64
    refusal = refused(of(65))
    assert refusal.status == 400
    assert name.encode() in refusal.body


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["%41", "%5C", "%5cx41", "\\", "\\\\", "\\x41", "\\N{DASH}", "\\u0041", "+"]
            ),
            st.text(st.characters(exclude_categories=["Cs"])).map(quote),
        )
    ).map("".join)
)
def test_escapes_are_decoded_as_the_standard_library_does(path: str):
    decoded = unquote_to_bytes(path).decode()
    if not {*map(chr, range(32)), "\x7f"} & {*decoded} and not {".", ".."} & {*decoded.split("/")}:
        assert parse(get(f"/{path}")).path == f"/{decoded}"


@pytest.mark.promise(29)
@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: \r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ],
)
def test_a_body_of_doubtful_length_is_400(lines: bytes):
    assert refused(b"POST / HTTP/1.1\r\n" + HOST + lines + b"\r\n").status == 400


def body_of(raw: bytes, chunks: list[bytes], limit: int = 100) -> bytes | None:
    parser = RequestParser(Limits())
    assert parser.feed(raw) is not None
    body = None
    for chunk in [b"", *chunks]:
        assert body is None
        body = parser.feed_body(chunk, limit)
        while body is None and parser.body_unread:
            body = parser.feed_body(b"", limit)
    return body


POST = b"POST /form HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (get("/"), b""),
        (POST + b"\r\n", b""),
        (POST + b"Content-Length: 0\r\n\r\n", b""),
        (POST + b"Content-Length: 5\r\n\r\na=b&c", b"a=b&c"),
        (CHUNKED + b"2\r\na=\r\n3;x=y\r\nb&c\r\n0\r\n\r\n", b"a=b&c"),
        (CHUNKED + b"0\r\nTrailer: x\r\n\r\n", b""),
    ],
)
def test_a_body_is_read_whole_in_any_chunks(raw: bytes, body: bytes):
    end = raw.index(b"\r\n\r\n") + 4
    assert body_of(raw, []) == body
    if len(raw) > end:
        assert body_of(raw[:end], [raw[i : i + 1] for i in range(end, len(raw))]) == body


def test_an_unfinished_body_is_waited_for():
    assert body_of(POST + b"Content-Length: 5\r\n\r\n", [b"a=b"]) is None


@pytest.mark.parametrize(("length", "fits"), [(9, True), (10, True), (11, False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_its_limit_is_413(length: int, fits: bool, chunked: bool):
    body = b"a" * length
    raw = (
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
        if chunked
        else POST + b"Content-Length: %d\r\n\r\n%b" % (length, body)
    )
    if fits:
        assert body_of(raw, [], limit=10) == body
    else:
        with pytest.raises(Reject) as caught:
            body_of(raw, [], limit=10)
        assert caught.value.status == 413


def test_a_length_over_the_limit_is_413_before_the_body_comes():
    with pytest.raises(Reject) as caught:
        body_of(POST + b"Content-Length: 999999999999\r\n\r\n", [])
    assert caught.value.status == 413


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"\r\n"])
def test_malformed_chunks_are_400(chunk: bytes):
    with pytest.raises(Reject) as caught:
        body_of(CHUNKED + chunk, [])
    assert caught.value.status == 400
    assert caught.value.body == b"the chunks of the body are malformed\n"


def test_what_a_step_leaves_is_kept_for_the_next_one():
    parser = RequestParser(Limits())
    assert parser.feed(CHUNKED + b"1\r\nx\r\n" * 90 + b"0\r\n\r\n") is not None
    steps = 1
    assert parser.feed_body(b"", 100) is None
    while parser.body_unread:
        body = parser.feed_body(b"", 100)
        steps += 1
    assert body == b"x" * 90
    assert steps > 5


def test_a_body_cannot_come_before_its_head():
    with pytest.raises(RuntimeError, match="head"):
        RequestParser(Limits()).feed_body(b"", 10)


def test_a_client_that_waits_for_100_is_seen():
    assert parse(POST + b"Expect: 100-Continue\r\n\r\n").expects_continue
    assert not parse(POST + b"\r\n").expects_continue
