from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.headers import Headers


def test_names_are_compared_without_case_and_kept_as_written():
    headers = Headers({"X-Thing": "1"})
    assert headers["x-thing"] == "1"
    assert "X-THING" in headers
    assert headers.raw() == [("X-Thing", "1")]
    assert list(headers) == ["x-thing"]


def test_add_keeps_and_setting_replaces():
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    assert headers.get_all("A") == ["1", "3"]
    assert headers["a"] == "1, 3"
    assert (len(headers), len(headers.raw())) == (2, 3)
    headers["A"] = "4"
    assert headers.raw() == [("B", "2"), ("A", "4")]


def test_what_is_missing_is_a_key_error_or_empty():
    headers = Headers()
    assert headers.get_all("X") == []
    assert headers.get("X") is None
    with pytest.raises(KeyError):
        headers["X"]
    with pytest.raises(KeyError):
        del headers["X"]
    assert "X" not in headers


def test_deleting_takes_every_value_of_the_name():
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    del headers["A"]
    assert headers.raw() == [("B", "2")]


def test_tokens_are_the_members_of_all_fields_in_lower_case():
    headers = Headers([("Connection", "keep-alive, ,\tUpgrade"), ("connection", "X")])
    assert headers.tokens("Connection") == ["keep-alive", "upgrade", "x"]


def test_a_copy_changes_alone():
    headers = Headers({"A": "1"})
    copy = headers.copy()
    copy["A"] = "2"
    copy.add("B", "3")
    assert headers.raw() == [("A", "1")]


def test_equal_headers_have_the_same_fields_in_the_same_order():
    assert Headers({"A": "1"}) == Headers([("a", "1")])
    assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])
    assert Headers() != {}


@pytest.mark.promise(38)
def test_the_repr_shows_names_only():
    assert repr(Headers({"Cookie": "sid=s3cret"})) == "<Headers ['Cookie']>"


@pytest.mark.d(15)
@pytest.mark.promise(35)
@pytest.mark.parametrize("name", ["", " ", "A B", "A:", "A\r\n", "\xc4", "A\x00", "A(b)", "\uff21"])
def test_a_name_that_is_no_token_is_refused(name: str):
    with pytest.raises(ValueError, match="not a token"):
        Headers().add(name, "x")


@pytest.mark.d(15)
@pytest.mark.promise(35)
@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "\r", "a\x00", "a\x1b", "a\x7f", "\u20ac"])
def test_a_value_that_would_inject_is_refused_and_changes_nothing(value: str):
    headers = Headers({"A": "old"})
    for change in (headers.add, headers.__setitem__):
        with pytest.raises(ValueError, match="control character or one outside latin-1"):
            change("A", value)
    assert headers.raw() == [("A", "old")]


@pytest.mark.parametrize(("name", "value"), [("A", 1), (b"A", "x"), ("A", None)])
def test_what_is_no_str_is_a_type_error_that_says_so(name, value):
    with pytest.raises(TypeError, match=r"write str\(value\)"):
        Headers().add(name, value)


@pytest.mark.promise(35)
@given(name=st.text(max_size=20), value=st.text(max_size=40))
def test_what_is_taken_is_one_line_on_the_wire(name: str, value: str):
    headers = Headers()
    try:
        headers.add(name, value)
    except ValueError:
        return
    ((written, content),) = headers.raw()
    line = f"{written}: {content}".encode("latin-1")
    assert not {0, 10, 13, 127} & set(line)
    assert len(line.splitlines()) == 1
    assert written.isascii()
    assert written == name


@pytest.mark.promise(36)
def test_a_cookie_has_every_protection_unless_it_is_switched_off():
    headers = Headers()
    headers.set_cookie("sid", "abc")
    headers.set_cookie("x", "", secure=False, http_only=False, same_site="Strict", path="/a")
    assert headers.get_all("Set-Cookie") == [
        "sid=abc; Path=/; Secure; HttpOnly; SameSite=Lax",
        "x=; Path=/a; SameSite=Strict",
    ]


def test_a_cookie_can_last_and_be_shared():
    headers = Headers()
    headers.set_cookie("a", "b", max_age=60, domain="example.com", same_site="None")
    assert headers["Set-Cookie"] == (
        "a=b; Path=/; Max-Age=60; Domain=example.com; Secure; HttpOnly; SameSite=None"
    )


def test_deleting_a_cookie_sets_it_to_end_at_once():
    headers = Headers()
    headers.delete_cookie("sid", path="/a", domain="example.com")
    assert headers["Set-Cookie"] == (
        "sid=; Path=/a; Max-Age=0; Domain=example.com; Secure; HttpOnly; SameSite=Lax"
    )


@pytest.mark.promise(36)
@pytest.mark.parametrize("prefix", ["__Host-", "__host-", "__HOST-"])
@pytest.mark.parametrize("broken", [{"domain": "a.example"}, {"path": "/a"}, {"secure": False}])
def test_a_host_cookie_is_bound_to_its_host(prefix: str, broken: dict[str, Any]):
    headers = Headers()
    with pytest.raises(ValueError, match="__Host- needs secure, path='/' and no domain"):
        headers.set_cookie(f"{prefix}sid", "x", **broken)
    headers.set_cookie(f"{prefix}sid", "x")
    assert len(headers.raw()) == 1


@pytest.mark.promise(36)
def test_a_secure_cookie_is_secure():
    with pytest.raises(ValueError, match="__Secure- needs secure"):
        Headers().set_cookie("__secure-sid", "x", secure=False)


@pytest.mark.promise(36)
def test_same_site_none_is_secure_and_other_words_are_none():
    with pytest.raises(ValueError, match="needs secure"):
        Headers().set_cookie("a", "b", secure=False, same_site="None")
    with pytest.raises(ValueError, match="'Strict', 'Lax' or 'None'"):
        Headers().set_cookie("a", "b", same_site="lax")  # type: ignore[arg-type]


@pytest.mark.d(15)
@pytest.mark.promise(35)
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"},
        {"name": "a=b"},
        {"name": ""},
        {"value": "a;b"},
        {"value": "a,b"},
        {"value": "a b"},
        {"value": '"a"'},
        {"value": "a\r\nB: c"},
        {"value": "\xe9"},
        {"path": "/; Domain=evil"},
        {"path": "/\r\n"},
        {"domain": "a; Secure"},
        {"domain": "a\n"},
    ],
)
def test_a_cookie_cannot_inject(changes: dict[str, str]):
    headers = Headers()
    with pytest.raises(ValueError, match="cookie"):
        headers.set_cookie(**{"name": "a", "value": "b", **changes})  # type: ignore[arg-type]
    assert headers.raw() == []


@pytest.mark.promise(35)
@given(
    name=st.text(max_size=10),
    value=st.text(max_size=20),
    path=st.text(max_size=10),
    domain=st.one_of(st.none(), st.text(max_size=10)),
)
def test_a_cookie_that_is_taken_has_only_the_attributes_that_were_asked_for(
    name: str, value: str, path: str, domain: str | None
):
    headers = Headers()
    try:
        headers.set_cookie(name, value, path=path, domain=domain)
    except ValueError:
        return
    parts = headers["Set-Cookie"].split("; ")
    asked = [f"{name}={value}", f"Path={path}", *([] if domain is None else [f"Domain={domain}"])]
    assert parts == [*asked, "Secure", "HttpOnly", "SameSite=Lax"]
