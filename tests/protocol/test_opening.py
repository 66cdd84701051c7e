from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import Reject, Response
from securews.common.headers import Headers
from securews.common.options import Limits
from securews.protocol.http_head import RequestHead, RequestParser
from securews.protocol.opening import (
    CONTINUE,
    accept_key,
    check_upgrade,
    choose_subprotocol,
    encode_101,
    encode_response,
    offered_subprotocols,
    wants_websocket,
)

# The example of RFC 6455, section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

GOOD = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head_of(method: str = "GET", extra: str = "", **changes: str | None) -> RequestHead:
    """The head of a good opening request, with these headers changed, or left out for None."""
    fields = {**GOOD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    head = RequestParser(Limits()).feed(
        f"{method} /chat HTTP/1.1\r\n{lines}{extra}\r\n".encode("latin-1")
    )
    assert head is not None
    return head


def refusal_of(head: RequestHead) -> bytes:
    with pytest.raises(Reject) as caught:
        check_upgrade(head)
    return encode_response(caught.value)


def test_the_accept_key_is_that_of_the_rfc():
    assert accept_key(KEY) == ACCEPT


@pytest.mark.d(3)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "keep-alive,,\tUPGRADE"},
        {"Content_Length": "0"},
        {"Content_Length": "00"},
    ],
)
def test_a_good_opening_gives_its_key(changes: dict[str, str]):
    assert check_upgrade(head_of(**changes)) == KEY


def answer(status_line: str, body: str, *fields: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status_line}",
        "Connection: close, Upgrade" if "426" in status_line else "Connection: close",
        f"Content-Length: {len(body)}",
        *fields,
        "Content-Type: text/plain; charset=utf-8",
    ]
    return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode()


@pytest.mark.d(1, 2, 3)
@pytest.mark.promise(33)
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (
            head_of("POST"),
            answer(
                "405 Method Not Allowed", "a WebSocket is opened with GET\n", "Allow: GET"
            ),
        ),
        (
            head_of(Upgrade=None),
            answer(
                "426 Upgrade Required",
                "a WebSocket is served here; send 'Upgrade: websocket'\n",
                "Upgrade: websocket",
            ),
        ),
        (
            head_of(Connection=None),
            answer(
                "400 Bad Request",
                "the Connection header does not name Upgrade; a proxy may drop it\n",
            ),
        ),
        (
            head_of(Sec_WebSocket_Version="8"),
            answer(
                "426 Upgrade Required",
                "only version 13 of WebSocket is spoken here (RFC 6455)\n",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
            ),
        ),
        (
            head_of(Sec_WebSocket_Key="x"),
            answer("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64, sent once\n"),
        ),
        (
            head_of(Content_Length="5"),
            answer(
                "400 Bad Request", "a request that opens a WebSocket has no body; leave it out\n"
            ),
        ),
    ],
)  # fmt: skip
def test_each_refusal_has_exactly_these_bytes(head: RequestHead, expected: bytes):
    assert refusal_of(head) == expected


@pytest.mark.d(2, 3)
@pytest.mark.promise(29, 33)
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (head_of("HEAD"), 405),
        (head_of("get"), 405),
        (head_of(Upgrade="not-websocket"), 426),
        (head_of(Upgrade="websocket/13"), 426),
        (head_of(Upgrade="h2c"), 426),
        (head_of(Connection="not-an-upgrade"), 400),
        (head_of(Connection="keep-alive"), 400),
        (head_of(Sec_WebSocket_Version=None), 426),
        (head_of(Sec_WebSocket_Version="13, 8"), 426),
        (head_of(extra="Sec-WebSocket-Version: 13\r\n"), 426),
        (head_of(Sec_WebSocket_Key=None), 400),
        (head_of(Sec_WebSocket_Key=""), 400),
        (head_of(Sec_WebSocket_Key=KEY[:-2]), 400),
        (head_of(Sec_WebSocket_Key=KEY[1:]), 400),
        (head_of(Sec_WebSocket_Key="A" * 24), 400),
        (head_of(Sec_WebSocket_Key="_-" * 11 + "=="), 400),
        (head_of(Sec_WebSocket_Key=f"{KEY}, {KEY}"), 400),
        (head_of(extra=f"Sec-WebSocket-Key: {KEY}\r\n"), 400),
        (head_of(Content_Length="1"), 400),
        (head_of(Transfer_Encoding="chunked"), 400),
    ],
)
def test_a_wrong_opening_is_refused(head: RequestHead, status: int):
    with pytest.raises(Reject) as caught:
        check_upgrade(head)
    assert caught.value.status == status


def test_of_several_faults_the_first_in_the_order_of_the_checks_is_named():
    faults = {
        "method": "POST",
        "Upgrade": "x",
        "Connection": "x",
        "Sec_WebSocket_Version": "8",
        "Sec_WebSocket_Key": "x",
        "Content_Length": "5",
    }
    named = []
    for mended in list(faults):
        named.append(refusal_of(head_of(**faults)).split(b"\r\n\r\n")[1])
        del faults[mended]
    words = [b"GET", b"Upgrade:", b"Connection", b"version 13", b"Key", b"no body"]
    assert [word in text for word, text in zip(words, named, strict=True)] == [True] * 6


def test_what_asks_for_a_websocket_is_told_from_a_page():
    assert wants_websocket(head_of())
    assert not wants_websocket(head_of(Upgrade=None))
    assert not wants_websocket(head_of(Upgrade="h2c"))


@pytest.mark.d(51)
@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ([], []),
        (["chat"], ["chat"]),
        (["chat, superChat"], ["chat", "superChat"]),
        (["chat,,\tv2 ", " v3"], ["chat", "v2", "v3"]),
    ],
)
def test_offered_subprotocols_keep_order_and_case(fields: list[str], offered: list[str]):
    headers = Headers(("Sec-WebSocket-Protocol", value) for value in fields)
    assert offered_subprotocols(headers) == offered


@pytest.mark.d(51)
@pytest.mark.parametrize(
    ("offered", "ours", "chosen"),
    [
        ([], ["a"], None),
        (["a"], [], None),
        (["a", "b"], ["b", "a"], "b"),
        (["A"], ["a"], None),
        (["x"], ["a"], None),
    ],
)
def test_the_first_of_ours_that_is_offered_is_chosen(offered, ours, chosen):
    assert choose_subprotocol(offered, ours) == chosen


@pytest.mark.d(1)
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (
            Response(200, {"X": "1"}, b"hi"),
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
        ),
        (
            Response(404),
            b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            Response(599, body=b"x"),
            b"HTTP/1.1 599 Status\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        ),
        (Response(204, body=b"x"), b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        (Reject(304), None),
        (
            Response(421, body="caf\xe9"),
            (
                b"HTTP/1.1 421 Misdirected Request\r\nConnection: close\r\nContent-Length: 5\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\n\r\ncaf\xc3\xa9"
            ),
        ),
    ],
)
def test_a_response_has_exactly_these_bytes(response: Response, expected: bytes | None):
    encoded = encode_response(response)
    if expected is None:
        assert encoded.endswith(b"\r\n\r\n")
        assert b"Content-Length" not in encoded
    else:
        assert encoded == expected


def test_the_answer_to_head_says_the_length_of_what_it_leaves_out():
    encoded = encode_response(Response(200, body=b"page"), head_only=True)
    assert encoded == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.promise(35)
@pytest.mark.parametrize("name", ["connection", "Content-Length", "TRANSFER-ENCODING"])
def test_a_response_cannot_frame_itself(name: str):
    with pytest.raises(ValueError, match=f"(?i)'{name}' is written by securews"):
        encode_response(Response(200, {name: "x"}))


def test_cookies_of_a_response_go_out_apart():
    response = Response(200)
    response.headers.set_cookie("a", "1")
    response.headers.set_cookie("b", "2")
    assert encode_response(response).count(b"\r\nSet-Cookie: ") == 2


def test_the_101_has_exactly_these_bytes():
    headers = Headers()
    headers.set_cookie("a", "1")
    assert encode_101(KEY, "chat", headers) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"Set-Cookie: a=1; Path=/; Secure; HttpOnly; SameSite=Lax\r\n"
        b"\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in encode_101(KEY, None, headers)


@pytest.mark.promise(35)
@pytest.mark.parametrize(
    "name",
    [
        "Upgrade", "connection", "Sec-WebSocket-Accept", "sec-websocket-protocol",
        "Sec-WebSocket-Extensions", "Sec-WebSocket-Version", "Content-Length",
        "Transfer-Encoding",
    ],
)  # fmt: skip
def test_the_handshakes_own_headers_cannot_be_overridden(name: str):
    with pytest.raises(ValueError, match=f"(?i)'{name}' is written by securews"):
        encode_101(KEY, None, Headers({name: "x"}))


@pytest.mark.d(15)
@pytest.mark.promise(35)
@given(name=st.text(max_size=20), value=st.text(max_size=40), body=st.binary(max_size=20))
def test_no_header_of_the_user_can_inject_a_line(name: str, value: str, body: bytes):
    try:
        encoded = encode_response(Response(200, {name: value}, body))
    except ValueError:
        return
    head, separator, rest = encoded.partition(b"\r\n\r\n")
    assert (separator, rest) == (b"\r\n\r\n", body)
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Connection: close, Upgrade" if name.lower() == "upgrade" else b"Connection: close",
        b"Content-Length: %d" % len(body),
        f"{name}: ".encode() + value.strip(" \t").encode("latin-1"),
    ]
    assert not {0, 10, 13} & set(head.replace(b"\r\n", b""))


def test_the_100_is_an_answer_without_headers():
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
