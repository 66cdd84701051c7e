from __future__ import annotations

import base64
import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import HandshakeError, Reject, Response
from securews.common.headers import Headers
from securews.common.options import Compression, Limits
from securews.protocol.deflate_negotiation import DeflateOffer
from securews.protocol.http_head import RequestParser
from securews.protocol.opening import check_upgrade, encode_101, encode_response
from securews.protocol.opening_client import ResponseParser, build_request, new_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = encode_101(KEY, None, Headers({"X-Thing": "1"}))


def failure(raw: bytes, *, subprotocols: tuple[str, ...] = (), ended: bool = False):
    parser = ResponseParser(KEY, subprotocols)
    with pytest.raises(HandshakeError) as caught:
        assert parser.feed(raw) is None
        assert ended
        parser.end()
    assert not isinstance(caught.value, Reject)
    return caught.value


@pytest.mark.d(50)
def test_keys_are_16_bytes_and_never_the_same():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


def test_a_request_has_exactly_these_bytes():
    assert build_request(
        "a:8443", "/chat?x=1", KEY, Headers({"Cookie": "a=1"}), ["v2", "v1"], origin="https://b"
    ) == (
        b"GET /chat?x=1 HTTP/1.1\r\n"
        b"Host: a:8443\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: v2, v1\r\n"
        b"Origin: https://b\r\n"
        b"Cookie: a=1\r\n"
        b"\r\n"
    )


def test_our_server_takes_our_request_and_our_client_its_answer():
    key = new_key()
    head = RequestParser(Limits()).feed(build_request("a", "/", key, Headers()))
    assert head is not None
    parser = ResponseParser(key)
    headers = parser.feed(encode_101(check_upgrade(head), None, Headers({"X": "1"})) + b"frame")
    assert headers is not None
    assert headers["X"] == "1"
    assert parser.leftover == b"frame"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("host", "leave it out"),
        ("Upgrade", "leave it out"),
        ("Connection", "leave it out"),
        ("Content-Length", "leave it out"),
        ("Transfer-Encoding", "leave it out"),
        ("Sec-WebSocket-Key", "leave it out"),
        ("Sec-WebSocket-Version", "leave it out"),
        ("Sec-WebSocket-Extensions", "compression="),
        ("Sec-WebSocket-Protocol", "subprotocols="),
        ("origin", "origin="),
    ],
)
def test_the_handshakes_own_headers_cannot_be_overridden(name: str, word: str):
    with pytest.raises(ValueError, match=f"(?i)'{name}' is written by securews; .*{word}"):
        build_request("a", "/", KEY, Headers({name: "x"}))


OFFER = DeflateOffer(Compression(), confidential=False)


def test_an_offer_of_compression_is_sent_and_its_answer_understood():
    request = build_request("a", "/", KEY, Headers(), offer=OFFER)
    assert b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12" in request
    for extension in ("permessage-deflate; server_max_window_bits=10", None):
        parser = ResponseParser(KEY, offer=OFFER)
        assert parser.feed(encode_101(KEY, None, Headers(), extension=extension)) is not None
        assert (parser.deflate is None) is (extension is None)


@pytest.mark.parametrize(
    ("offer", "extension"),
    [
        (None, "permessage-deflate"),
        (OFFER, "permessage-deflate; server_max_window_bits=13"),
        (OFFER, "permessage-deflate; server_max_window_bits=12; surprise"),
        (OFFER, "x-other"),
        (OFFER, "permessage-deflate;;"),
    ],
)
def test_an_extension_that_was_not_offered_fails_the_handshake(offer, extension):
    parser = ResponseParser(KEY, offer=offer)
    with pytest.raises(HandshakeError) as caught:
        parser.feed(encode_101(KEY, None, Headers(), extension=extension))
    assert caught.value.status == 101
    assert caught.value.headers["Sec-WebSocket-Extensions"] == extension


@pytest.mark.parametrize("target", ["", "a", "/a b", "/a\r\nX: y", "/#a", "/caf\xe9", "/\x00"])
def test_a_target_that_is_not_escaped_is_refused(target: str):
    with pytest.raises(ValueError, match="no path with a query"):
        build_request("a", target, KEY, Headers())


@pytest.mark.parametrize(
    ("subprotocols", "word"),
    [
        ("chat", r"write \['chat'\]"),
        (["a b"], "not a token"),
        ([""], "not a token"),
        (["a", "a"], "twice"),
    ],
)
def test_subprotocols_that_cannot_be_offered_are_refused(subprotocols, word: str):
    with pytest.raises(ValueError, match=word):
        build_request("a", "/", KEY, Headers(), subprotocols)


@given(places=st.lists(st.integers(0, len(GOOD) + 5), max_size=6))
def test_chunks_change_nothing(places: list[int]):
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + GOOD
        + b"frame"
    )
    edges = [0, *sorted(places), len(raw)]
    parser = ResponseParser(KEY)
    for start, end in itertools.pairwise(edges):
        if (headers := parser.feed(raw[start:end])) is not None:
            assert headers["X-Thing"] == "1"
            assert parser.leftover + raw[end:] == b"frame"
            return
    pytest.fail("the answer was not understood")


def test_the_chosen_subprotocol_is_in_the_headers():
    headers = ResponseParser(KEY, ["v1", "v2"]).feed(encode_101(KEY, "v2", Headers()))
    assert headers is not None
    assert headers["Sec-WebSocket-Protocol"] == "v2"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"Upgrade: websocket", b"Upgrade: h2c", "Upgrade"),
        (b"Upgrade: websocket", b"X: y", "Upgrade"),
        (b"Connection: Upgrade", b"Connection: close", "Connection"),
        (b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", "answer our key"),
        (b"X-Thing: 1", b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "answer our key"),
        (b"X-Thing: 1", b"Sec-WebSocket-Extensions: permessage-deflate", "extension"),
        (b"X-Thing: 1", b"Sec-WebSocket-Protocol: v3", "subprotocol"),
        (b"X-Thing: 1", b"Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v2", "subprotocol"),
    ],
)
def test_a_101_that_is_not_ours_fails(old: bytes, new: bytes, word: str):
    assert old in GOOD
    error = failure(GOOD.replace(old, new), subprotocols=("v1", "v2"))
    assert error.status == 101
    assert word in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/2.0 101 Switching Protocols\r\n",
        b"HTTP/1.1 101\tSwitching\r\n",
        b"HTTP/1.1 1 x\r\n",
        b"HTTP/1.1 101 x\n",
        b"HTTP/1.1 200 OK\r\n folded\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_no_http_fails_at_once(raw: bytes):
    error = failure(raw)
    assert str(error).startswith("the server's answer is not HTTP/1.1: ")
    assert error.status == 0


@pytest.mark.parametrize(
    "raw",
    [
        encode_response(Response(403, {"X-Why": "no"}, "not you")),
        b"HTTP/1.1 403 No\r\nX-Why: no\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot you\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nX-Why: no\r\nContent-Length: 7\r\n\r\nnot you",
    ],
)
def test_a_refusal_carries_status_headers_and_body(raw: bytes):
    parser = ResponseParser(KEY)
    for byte in raw[:-1]:
        assert parser.feed(bytes([byte])) is None
    with pytest.raises(HandshakeError) as caught:
        parser.feed(raw[-1:])
    error = caught.value
    assert (error.status, error.headers["X-Why"], error.body) == (403, "no", b"not you")
    assert str(error) == "the server answered 403 Forbidden: 'not you'"


@pytest.mark.promise(73)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_interim_answers_are_bounded_whatever_the_chunks(size: int):
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    parser = ResponseParser(KEY)
    assert parser.feed(hint * 16) is None
    raw = hint * 1000
    with pytest.raises(HandshakeError, match=r"17 interim answers \(the last one: 103 ") as caught:
        for start in range(0, len(raw), size):
            assert parser.feed(raw[start : start + size]) is None
    assert caught.value.status == 0


def test_sixteen_interim_answers_are_read_over():
    assert ResponseParser(KEY).feed(b"HTTP/1.1 100 Continue\r\n\r\n" * 16 + GOOD) is not None


def test_it_is_known_that_the_server_has_refused_while_the_body_comes():
    parser = ResponseParser(KEY)
    parser.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n")
    assert not parser.refused
    parser.feed(b"\r\nnot")
    assert parser.refused


def test_a_body_without_length_lasts_until_the_end():
    error = failure(b"HTTP/1.0 502 Bad Gateway\r\n\r\nproxy\x1b[31m", ended=True)
    assert (error.status, error.body) == (502, b"proxy\x1b[31m")
    assert str(error) == r"the server answered 502 Bad Gateway: 'proxy\x1b[31m'"


def test_a_body_that_never_ends_is_cut():
    error = failure(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 100_000)
    assert (error.status, len(error.body)) == (200, 64 << 10)
    assert len(str(error)) < 300


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 101 Sw", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_end_without_an_answer_fails(raw: bytes):
    error = failure(raw, ended=True)
    assert "before it answered" in str(error)
    assert error.status == 0


def test_h11_reads_our_101():
    client = h11.Connection(h11.CLIENT)
    client.send(
        h11.Request(
            method="GET",
            target="/",
            headers=[("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
        )
    )
    client.send(h11.EndOfMessage())
    client.receive_data(GOOD)
    event = client.next_event()
    assert isinstance(event, h11.InformationalResponse)
    assert client.their_state is h11.SWITCHED_PROTOCOL
