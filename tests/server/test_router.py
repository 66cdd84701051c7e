"""Hosts, paths, defaults and pages."""

from __future__ import annotations

import pytest

from securews.common.errors import ConfigurationError
from securews.common.options import ConnectionOptions
from securews.handlers.handler import FunctionHandler
from securews.server.pages import make_page
from securews.server.router import Route, Router
from securews.server.routes import make_route


def route(name: str) -> Route:
    handler = FunctionHandler(lambda ws: None)
    handler.name = name  # type: ignore[attr-defined]  # tells routes apart
    return make_route(
        handler, ConnectionOptions(), accept=None, origins=None, subprotocols=None, options={}
    )


def add(router: Router, host: str, path: str, *, default_host=False, default_path=False) -> None:
    router.add(
        host, path, route(f"{host}{path}"), default_host=default_host, default_path=default_path
    )


def found(router: Router, host: str, path: str) -> str | None:
    there = router.route(host, path)
    return None if there is None else there.handler.name  # type: ignore[attr-defined]


@pytest.mark.d(13)
@pytest.mark.parametrize("host", ["Example.COM", "example.com.", "example.com:8443"])
def test_hosts_are_registered_without_case_port_and_trailing_dot(host):
    router = Router()
    add(router, host, "/")
    assert found(router, "example.com", "/") == f"{host}/"


def test_an_unknown_host_is_served_by_the_default_host_only():
    router = Router()
    add(router, "a.example", "/")
    assert not router.knows_host("b.example")
    assert found(router, "b.example", "/") is None
    add(router, "c.example", "/", default_host=True)
    assert router.knows_host("b.example")
    assert found(router, "b.example", "/") == "c.example/"


def test_an_unknown_path_is_served_by_the_default_path_only():
    router = Router()
    add(router, "a.example", "/one")
    assert found(router, "a.example", "/two") is None
    add(router, "a.example", "/rest", default_path=True)
    assert found(router, "a.example", "/two") == "a.example/rest"


def test_the_star_is_every_host_and_every_path():
    router = Router()
    add(router, "*", "*")
    assert found(router, "any.example", "/any/path") == "**"


def test_an_exact_path_of_every_host_goes_before_a_hosts_default_path():
    router = Router()
    add(router, "*", "/chat")
    add(router, "a.example", "*")
    assert found(router, "a.example", "/chat") == "*/chat"
    assert found(router, "a.example", "/other") == "a.example*"
    assert found(router, "b.example", "/chat") == "*/chat"


def test_ipv6_literals_are_hosts():
    router = Router()
    add(router, "[::1]:8443", "/")
    assert found(router, "::1", "/") == "[::1]:8443/"


@pytest.mark.parametrize(
    ("host", "path", "words"),
    [
        ("*", "chat", "no path"),
        ("*", "/chat?x=1", "query"),
        ("not a host", "/", "no host name"),
        ("https://example.com", "/", "no host name"),
    ],
)
def test_what_is_no_host_or_path_is_refused_with_words(host, path, words):
    with pytest.raises(ConfigurationError, match=words):
        add(Router(), host, path)


def test_the_same_pair_and_second_defaults_are_refused():
    router = Router()
    add(router, "a.example", "/", default_host=True, default_path=True)
    for again in (
        {"host": "A.example:1", "path": "/"},
        {"host": "a.example", "path": "/x", "default_path": True},
        {"host": "b.example", "path": "/", "default_host": True},
    ):
        with pytest.raises(ConfigurationError, match="already"):
            add(router, **again)
    assert found(router, "a.example", "/x") == "a.example/"


def test_a_page_has_one_path_and_head_comes_with_get():
    router = Router()
    router.add_page("/", make_page(lambda request: "", ["GET"]))
    page = router.page("/")
    assert page is not None
    assert page.methods == {"GET", "HEAD"}
    with pytest.raises(ConfigurationError, match="already"):
        router.add_page("/", make_page(lambda request: "", ["GET"]))
    with pytest.raises(ConfigurationError, match="one path"):
        router.add_page("*", make_page(lambda request: "", ["GET"]))
