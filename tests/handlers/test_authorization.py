from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.handlers.authorization import Authorization


def basic(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return "Basic " + base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("text", "username", "password"),
    [
        ("ann:secret", "ann", "secret"),
        ("ann:", "ann", ""),
        (":secret", "", "secret"),
        ("ann:se:cret", "ann", "se:cret"),
        ("zo\xeb:p\xe4ss \u20ac", "zo\xeb", "p\xe4ss \u20ac"),
    ],
)
def test_basic_gives_name_and_password(text: str, username: str, password: str):
    found = Authorization.parse(basic(text))
    assert (found.scheme, found.username, found.password) == ("basic", username, password)
    assert found.token is None


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "bAsIc"])
def test_the_scheme_is_compared_without_case_and_given_in_lower_case(scheme: str):
    found = Authorization.parse(f"{scheme}   YTpi ")
    assert (found.scheme, found.credentials) == ("basic", "YTpi")
    assert (found.username, found.password) == ("a", "b")


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YTpi YTpi",
        "Basic YTp",
        "Basic \xe9",
        basic("no colon"),
        basic(b"\xff:\xfe"),
        basic("a\x00:b"),
        basic("a:b\r\n"),
        "Basic YTpi, Basic YTpi",
    ],
)
def test_malformed_basic_leaves_its_fields_none(value: str):
    found = Authorization.parse(value)
    assert found.scheme == "basic"
    assert (found.username, found.password, found.token) == (None, None, None)


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc.DEF-_~+/==", "abc.DEF-_~+/=="),
        ("bearer x", "x"),
        ("Bearer", None),
        ("Bearer a b", None),
        ("Bearer a,b", None),
        ("Bearer =", None),
        ("Bearer \xe9", None),
    ],
)
def test_bearer_gives_a_token(value: str, token: str | None):
    found = Authorization.parse(value)
    assert (found.scheme, found.token) == ("bearer", token)
    assert (found.username, found.password) == (None, None)


def test_other_schemes_give_their_credentials_only():
    found = Authorization.parse('Digest username="a", response="b"')
    assert (found.scheme, found.credentials) == ("digest", 'username="a", response="b"')
    assert (found.username, found.password, found.token) == (None, None, None)


@pytest.mark.promise(38)
@pytest.mark.parametrize("value", [basic("ann:s3cret"), "Bearer s3cret", "Other s3cret"])
def test_the_repr_shows_no_secret(value: str):
    found = Authorization.parse(value)
    for secret in (found.credentials, "s3cret", "ann"):
        assert secret not in repr(found)
    assert found.scheme in repr(found)


@given(st.one_of(st.text(), st.text().map("Basic {}".format), st.binary().map(basic)))
def test_nothing_that_a_peer_sends_raises(value: str):
    found = Authorization.parse(value)
    assert (found.username is None) == (found.password is None)
