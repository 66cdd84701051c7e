"""Pages: small answers to ordinary requests. Forms, health checks; not a web framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from securews.common.errors import ConfigurationError, Reject, Response, printable
from securews.handlers.callables import check_callable, name_of
from securews.handlers.origins import origin_allowed
from securews.handlers.request import Request
from securews.server.answers import Answer, encode_answer, internal_error
from securews.server.router import Page, PageFunction

__all__ = ["answer", "check_page_request", "make_page"]

log = logging.getLogger("securews.server")

DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
}
"""Sent with every page that does not set them itself."""

SAFE_METHODS = frozenset({"GET", "HEAD"})


def make_page(function: PageFunction, methods: Iterable[str]) -> Page:
    """A page of a function.

    Raises:
        ConfigurationError: methods that are no list of method names.
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names or not all(isinstance(n, str) and n.isalpha() and n.isupper() for n in names):
        raise ConfigurationError(f"methods are names such as ('GET', 'POST'), not {methods!r}")
    if not callable(function):
        raise ConfigurationError(f"a page is a function f(request), not {function!r}")
    name = name_of(function)
    check_callable(name, function, 1, f"a page takes one argument: def {name}(request)")
    allowed = frozenset(names) | ({"HEAD"} if "GET" in names else frozenset())
    return Page(function, allowed)


def check_page_request(page: Page, request: Request, raw_host: str, *, secure: bool) -> None:
    """What is decided before the page's own code runs.

    Raises:
        Reject: 405 for another method, 403 for a form that another site's page has sent.
    """
    if request.method not in page.methods:
        raise Reject(405, {"Allow": ", ".join(sorted(page.methods))})
    if request.method not in SAFE_METHODS and not _from_here(request, raw_host, secure=secure):
        raise Reject(403, None, "this form was sent by a page of another site\n")


def _from_here(request: Request, raw_host: str, *, secure: bool) -> bool:
    """Whether a form was sent by a page of this server (or by no page at all).

    Under our own Referrer-Policy, no-referrer, browsers send a form with "Origin: null" (Fetch,
    section 3.2). Sec-Fetch-Site then says where it came from, and no page can set that header.
    """
    if request.origin == "null":
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    return origin_allowed(request.origin, raw_host, secure, None)


def answer(page: Page, request: Request) -> Answer:
    """Run the page's function. On a thread of the pool; never raises."""
    response = _run(page.function, request, name_of(page.function))
    return encode_answer(response, DEFAULT_HEADERS, head_only=request.method == "HEAD")


def _run(function: Callable[[Request], object], request: Request, name: str) -> Response:
    try:
        result = function(request)
    except Reject as rejected:
        # A page may raise the same object again and again: its traceback would grow each time,
        # and keep every request.
        return rejected.with_traceback(None)
    except BaseException:
        log.exception("page %s: %s() raised; answered with 500", printable(request.path), name)
        return internal_error()
    if isinstance(result, Response):
        return result
    if isinstance(result, str):
        return Response(200, {"Content-Type": "text/html; charset=utf-8"}, result)
    if isinstance(result, bytes):
        return Response(200, {"Content-Type": "application/octet-stream"}, result)
    log.error(
        "page %s: %s() returned %s; return a Response, str or bytes; answered with 500",
        printable(request.path),
        name,
        type(result).__name__,
    )
    return internal_error()
