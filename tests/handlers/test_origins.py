from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ConfigurationError
from securews.handlers.origins import ANY, check_origins, origin_allowed


@pytest.mark.d(16)
@pytest.mark.promise(34)
@pytest.mark.parametrize(
    ("origin", "host", "over_tls", "behind_proxy"),
    [
        (None, "example.com", True, True),
        ("https://example.com", "example.com", True, True),
        ("https://example.com", "EXAMPLE.com.:443", True, True),
        ("https://example.com:443", "example.com", True, True),
        ("HTTPS://Example.COM", "example.com", True, True),
        ("https://example.com:8443", "example.com:8443", True, True),
        ("https://[::1]:8443", "[0:0::1]:8443", True, True),
        ("http://example.com", "example.com", False, True),
        ("http://example.com", "example.com:80", False, True),
        ("http://example.com:8000", "example.com:8000", False, True),
        ("https://example.com:8444", "example.com:8443", False, False),
        ("https://example.com", "example.com:8443", False, False),
        ("https://example.com:8443", "example.com", False, False),
        ("http://example.com", "example.com:443", False, False),
        ("https://example.com", "example.com:80", False, False),
        ("https://evil.com", "example.com", False, False),
        ("https://evil.example.com", "example.com", False, False),
        ("https://example.com.evil.com", "example.com", False, False),
        ("https://notexample.com", "example.com", False, False),
        ("https://example.com@evil.com", "evil.com", False, False),
        ("https://example.com/", "example.com", False, False),
        ("https://example.com, https://example.com", "example.com", False, False),
        ("https://example.com ", "example.com", False, False),
        ("wss://example.com", "example.com", False, False),
        ("chrome-extension://example.com", "example.com", False, False),
        ("example.com", "example.com", False, False),
        ("null", "null", False, False),
        ("null", "example.com", False, False),
        ("", "example.com", False, False),
        ("https://", "example.com", False, False),
    ],
)
def test_by_default_a_page_has_to_come_from_the_same_origin(origin, host, over_tls, behind_proxy):
    assert origin_allowed(origin, host, True, None) is over_tls
    assert origin_allowed(origin, host, False, None) is behind_proxy


@pytest.mark.promise(34)
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://a.example", True),
        ("https://A.example:443", True),
        ("https://b.example:8443", True),
        ("http://c.example", True),
        ("chrome-extension://abcdef", True),
        ("http://a.example", False),
        ("https://a.example:8443", False),
        ("https://b.example", False),
        ("https://c.example", False),
        ("https://host.example", False),
        ("https://a.example/", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_list_allows_exactly_its_origins(origin: str | None, allowed: bool):
    origins = check_origins(
        [
            "https://a.example",
            "HTTPS://b.Example:8443",
            "http://c.example:80",
            "chrome-extension://abcdef",
        ]
    )
    assert origin_allowed(origin, "host.example", True, origins) is allowed


def test_an_empty_list_allows_no_page():
    origins = check_origins(())
    assert not origin_allowed("https://a", "a", True, origins)
    assert origin_allowed(None, "a", True, origins)


@pytest.mark.promise(34)
def test_null_is_allowed_where_the_list_names_it():
    assert origin_allowed("null", "a", True, check_origins(["null"]))


@pytest.mark.parametrize("origin", [None, "https://evil.com", "null", "", "x"])
def test_any_allows_every_page(origin: str | None):
    assert origin_allowed(origin, "a", True, check_origins(ANY))


def test_any_shows_how_it_is_written():
    assert repr(ANY) == "securews.ANY"


@pytest.mark.parametrize(
    ("origins", "text"),
    [
        ("https://a", "write origins=['https://a']"),
        ("*", "write origins=['*']"),
        (7, "origins is a list of origins or securews.ANY, not 7"),
        (["*"], "write origins=securews.ANY"),
        (["a.example"], "write 'https://a.example' (scheme and host, no path)"),
        (["a.example:8443/x"], "write 'https://a.example:8443' (scheme and host, no path)"),
        (["https://a/"], "write 'https://a' (scheme and host, no path)"),
        (["https://a?x"], "write 'https://a' (scheme and host, no path)"),
        (["wss://a"], "it begins with https:// or http://"),
        (["https://"], "write scheme and host, such as 'https://example.com'"),
        (["https://*.a"], "write scheme and host, such as 'https://example.com'"),
        (["https://a:99999"], "write scheme and host, such as 'https://example.com'"),
        ([""], "write scheme and host, such as 'https://example.com'"),
        ([None], "not None"),
        ([b"https://a"], "not b'https://a'"),
    ],
)
def test_what_is_no_origin_is_refused_when_it_is_registered(origins, text: str):
    with pytest.raises(ConfigurationError) as caught:
        check_origins(origins)
    assert text in str(caught.value)


def test_what_was_checked_can_be_checked_by_its_meaning_alone():
    assert check_origins(None) is None
    assert check_origins(["https://a", "https://A:443"]) == check_origins({"https://a."})


@given(origin=st.text(max_size=30), host=st.text(max_size=30), secure=st.booleans())
def test_nothing_that_a_peer_sends_raises(origin: str, host: str, secure: bool):
    assert origin_allowed(origin, host, secure, None) in (True, False)
    assert not origin_allowed(origin, host, secure, check_origins(["https://only.example"]))
