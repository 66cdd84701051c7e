"""Bodies: read whole in any cut, by steps of bounded work, and refused where the framing is mad."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from securews.common.errors import Reject
from securews.common.headers import Headers
from securews.protocol.http_body import LINES_LIMIT, STEP_BYTES, STEP_LINES, BodyReader

LIMIT = 64 << 10


def chunked(limit: int = LIMIT) -> BodyReader:
    return BodyReader(Headers({"Transfer-Encoding": "chunked"}), limit)


def chunks(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def read(reader: BodyReader, pieces: list[bytes]) -> bytes | None:
    """The body, with as many steps as it takes."""
    for piece in pieces:
        body = reader.feed(piece)
        while body is None and reader.unread:
            body = reader.feed(b"")
        if body is not None:
            return body
    return None


def refused(reader: BodyReader, data: bytes) -> int:
    with pytest.raises(Reject) as caught:
        read(reader, [data])
    return caught.value.status


# -- bounded steps -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        chunks(b"x" * 5000, 1),
        chunks(b"\n" * 5000, 1),
        chunks(b"x" * 50_000, 20_000),
        b"1;a\r\nx\r\n" * 500,
    ],
)
def test_a_step_reads_some_lines_and_some_bytes_and_keeps_the_rest(raw):
    reader = chunked()
    data, given = raw, []

    class Watched:
        def receive_data(self, share):
            given.append(bytes(share))
            real.receive_data(share)

        def next_event(self):
            return real.next_event()

    real, reader._h11 = reader._h11, Watched()
    while reader.feed(data) is None and reader.unread:
        data = b""
    assert b"".join(given) == raw
    for share in given:
        assert len(share) <= STEP_BYTES
        assert share.count(b"\n") <= STEP_LINES
    assert len(given) >= raw.count(b"\n") / STEP_LINES


def test_a_body_of_known_length_is_read_in_one_step():
    reader = BodyReader(Headers({"Content-Length": str(LIMIT)}), LIMIT)
    body = b"\r\n" * (LIMIT // 2)
    assert reader.feed(body + b"what comes behind") == body
    assert not reader.unread


def test_nothing_is_kept_behind_the_end():
    reader = chunked()
    assert read(reader, [chunks(b"abc", 3) + b"GET / HTTP/1.1\r\n" * 500]) == b"abc"
    assert not reader.unread


@given(
    raw=st.one_of(
        st.builds(chunks, st.binary(max_size=300), st.integers(1, 40)),
        st.lists(
            st.sampled_from(
                [b"1", b"2", b"0", b"A", b"\r\n", b"\n", b"x", b";a=b", b" ", b"T: v", b"0\r\n\r\n"]
            )
        ).map(b"".join),
    ),
    places=st.lists(st.integers(0, 600), max_size=6),
)
@example(raw=b"2\r\nab\r\n0\r\nT: v\r\n\r\n", places=[])
def test_in_any_cut_it_is_the_body_that_h11_reads(raw, places):
    edges = [0, *sorted(min(place, len(raw)) for place in places), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    expected = h11_reads(raw)
    if expected == "malformed":
        with pytest.raises(Reject) as caught:
            read(chunked(), pieces)
        assert caught.value.status == 400
    else:
        assert read(chunked(), pieces) == expected


def h11_reads(raw: bytes) -> bytes | str | None:
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
    other.next_event()
    body = b""
    try:
        while isinstance(event := other.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return "malformed"
    return None if event is h11.NEED_DATA else body


# -- what is refused ---------------------------------------------------------------------------


def test_a_full_body_in_small_chunks_and_a_short_one_in_single_bytes_are_read():
    full, short = b"x" * LIMIT, b"x" * (LIMIT // 6)
    assert read(chunked(), [chunks(full, 8)]) == full
    assert read(chunked(), [chunks(short, 1)]) == short
    assert read(chunked(10), [chunks(b"x" * 10, 1)]) == b"x" * 10


def test_a_body_that_is_mostly_framing_is_413():
    assert refused(chunked(), chunks(b"x" * LIMIT, 1)) == 413
    assert refused(chunked(), b"1;" + b"a" * 90 + b"\r\nx\r\n" * 2000) == 400
    assert refused(chunked(), (b"1;" + b"a" * 90 + b"\r\nx\r\n") * 2000) == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"1;" + b"a" * (LINES_LIMIT + STEP_BYTES),
        b"1" * (LINES_LIMIT + STEP_BYTES),
        b"0\r\n" + b"a:\r\n" * 2 * STEP_LINES,
        b"0\r\na:" + b"b" * (LINES_LIMIT + STEP_BYTES),
    ],
)
def test_a_long_chunk_header_or_trailer_is_431(raw):
    assert refused(chunked(), raw) == 431
