from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import Reject
from securews.common.options import Limits
from securews.handlers.request import Form, Request, parse_cookies
from securews.protocol.http_head import RequestHead, RequestParser
from securews.transport.tls_info import TLSInfo

FORM = "Content-Type: application/x-www-form-urlencoded"


def head_of(*lines: str, target: str = "/chat?token=s3cret") -> RequestHead:
    fields = "".join(f"{line}\r\n" for line in ("Host: Example.com:8443", *lines))
    head = RequestParser(Limits()).feed(f"POST {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1"))
    assert head is not None
    return head


def tls_info(certificate) -> TLSInfo:
    facts = dict.fromkeys(field.name for field in dataclasses.fields(TLSInfo))
    return TLSInfo(**{**facts, "client_certificate": certificate})


def test_the_facts_of_the_head_are_there():
    request = Request(head_of("X: 1"), remote_address=("192.0.2.1", 5))
    assert (request.method, request.target) == ("POST", "/chat?token=s3cret")
    assert (request.path, request.query) == ("/chat", "token=s3cret")
    assert request.host == "example.com"
    assert request.headers["x"] == "1"
    assert request.remote_address == ("192.0.2.1", 5)


def test_what_was_not_sent_is_none_or_empty():
    request = Request(head_of())
    assert request.origin is None
    assert request.authorization is None
    assert request.subprotocols == []
    assert request.cookies == {}
    assert dict(request.form) == {}
    assert request.tls is None
    assert request.identity is None


def test_headers_are_taken_apart():
    request = Request(
        head_of(
            "Origin: https://a",
            "Authorization: Bearer abc",
            "Sec-WebSocket-Protocol: v2, v1",
            "Cookie: a=1",
        )
    )
    assert request.origin == "https://a"
    assert request.authorization is not None
    assert request.authorization.token == "abc"
    assert request.subprotocols == ["v2", "v1"]
    assert request.cookies == {"a": "1"}


def test_two_origins_are_not_one_of_them():
    assert (
        Request(head_of("Origin: https://a", "Origin: https://b")).origin == "https://a, https://b"
    )


def test_the_identity_starts_as_the_client_certificate_and_can_be_set():
    certificate = object()
    request = Request(head_of(), tls=tls_info(certificate))
    assert request.identity is certificate
    request.identity = "ann"
    assert request.identity == "ann"
    assert Request(head_of(), tls=tls_info(None)).identity is None


@pytest.mark.promise(38)
def test_the_repr_leaks_nothing_and_is_one_safe_line():
    request = Request(
        head_of(
            "Cookie: sid=s3cret",
            "Authorization: Bearer s3cret",
            target="/%C2%9B" + "a" * 1000 + "?token=s3cret",
        ),
        remote_address=("192.0.2.1", 5),
    )
    request.identity = "s3cret"
    assert "s3cret" not in repr(request)
    assert "POST" in repr(request)
    assert "192.0.2.1" in repr(request)
    assert repr(request).isprintable()
    assert len(repr(request)) < 600


@pytest.mark.parametrize(
    ("values", "cookies"),
    [
        ([], {}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (["a=1;b=2 ;\tc=3"], {"a": "1", "b": "2", "c": "3"}),
        (["a=1; a=2"], {"a": "1"}),
        (["a=1", "a=2; b=3"], {"a": "1", "b": "3"}),
        (["A=1; a=2"], {"A": "1", "a": "2"}),
        (["a="], {"a": ""}),
        (["a=b=c"], {"a": "b=c"}),
        (['a="1"'], {"a": "1"}),
        (['a=""'], {"a": ""}),
        (['a="'], {"a": '"'}),
        (['a="1'], {"a": '"1'}),
        (["a = 1"], {}),
        (["a"], {}),
        (["=1"], {}),
        (["__Host-a"], {}),
        (["=__Host-a=1"], {}),
        (["caf\xe9=1; b=2"], {"b": "2"}),
        (["\xa0a=1"], {}),
        (["b=caf\xe9"], {"b": "caf\xe9"}),
        ([";;; a=1;"], {"a": "1"}),
    ],
)
def test_cookies_are_read_as_the_rfc_says(values: list[str], cookies: dict[str, str]):
    assert parse_cookies(values) == cookies


@given(st.lists(st.text(max_size=50), max_size=3))
def test_no_cookie_that_a_peer_sends_raises(values: list[str]):
    assert all(isinstance(value, str) for value in parse_cookies(values).values())


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_-]{1,10}", fullmatch=True),
        st.from_regex(r"[!#-+\--:<-\[\]-~]{0,20}", fullmatch=True),
        max_size=5,
    )
)
def test_cookies_come_back_as_they_were_set(cookies: dict[str, str]):
    assert parse_cookies(["; ".join(f"{k}={v}" for k, v in cookies.items())]) == cookies


@pytest.mark.parametrize(
    "content_type",
    [
        FORM,
        "content-type: APPLICATION/x-www-form-urlencoded",
        f"{FORM};charset=UTF-8",
        f'{FORM} ; charset="utf-8"',
    ],
)
def test_a_form_is_read(content_type: str):
    form = Request(head_of(content_type), body=b"a=1&b=x+y%21&a=2&c=&d=%C3%A9").form
    assert dict(form) == {"a": "1", "b": "x y!", "c": "", "d": "\xe9"}
    assert form.get_all("a") == ["1", "2"]
    assert form.get_all("missing") == []
    assert form.get("missing") is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Content-Type: application/json"],
        ["Content-Type: multipart/form-data; boundary=x"],
        [f"{FORM}-not"],
        [f"{FORM}; charset=latin-1"],
        [FORM, FORM],
    ],
)
def test_a_body_that_is_no_form_is_415(lines: list[str]):
    request = Request(head_of(*lines), body=b"a=1")
    with pytest.raises(Reject) as caught:
        request.form  # noqa: B018
    assert caught.value.status == 415
    assert caught.value.headers["Accept"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("body", [b"a=\xff", b"a=%ff", b"a=1&" * 1001 + b"b=2"])
def test_a_malformed_form_is_400(body: bytes):
    request = Request(head_of(FORM), body=body)
    with pytest.raises(Reject) as caught:
        request.form  # noqa: B018
    assert caught.value.status == 400
    assert caught.value.body.count(b"\n") == 1


def test_the_repr_of_a_form_shows_names_only():
    form = Form([("password", "s3cret")])
    assert repr(form) == "<Form ['password']>"
    assert (len(form), list(form)) == (1, ["password"])
