"""The request, as `accept()`, pages and handlers see it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from securews.common.errors import Reject, printable
from securews.handlers.authorization import Authorization
from securews.protocol.opening import offered_subprotocols

if TYPE_CHECKING:
    from securews.common.headers import Headers
    from securews.protocol.http_head import RequestHead
    from securews.transport.tls_info import TLSInfo

__all__ = ["FORM_LIMIT", "Form", "Request", "parse_cookies"]

FORM_LIMIT = 64 << 10
"""The longest body of a form, in bytes."""
_MAX_FIELDS = 1000

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORM_TYPE = re.compile(
    r"application/x-www-form-urlencoded[ \t]*(?:;[ \t]*charset=\"?utf-8\"?[ \t]*)?", re.IGNORECASE
)


class Form(Mapping[str, str]):
    """The fields of a form: `form[name]` is the first of that name, `get_all` gives every one.

    The repr shows names only: values are passwords, sooner or later.
    """

    __slots__ = ("_fields",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in pairs:
            self._fields.setdefault(name, []).append(value)

    def get_all(self, name: str) -> list[str]:
        """All values of `name`, in order; an empty list where there is none."""
        return list(self._fields.get(name, ()))

    def __getitem__(self, name: str) -> str:
        return self._fields[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Form {list(self._fields)}>"


class Request:
    """What a client asked for. `identity` is the user's to set; the rest is to be read.

    One thread at a time has it (first `accept()` or a page, then the handler). The repr leaves
    out query, headers and identity, which carry credentials.
    """

    method: str
    target: str
    """The request target as sent."""
    path: str
    """Decoded, not merged, without query."""
    query: str
    """Behind the "?", as sent; `urllib.parse.parse_qs` takes it apart."""
    host: str
    """From the Host header: lower case, without port, trailing dot and brackets."""
    headers: Headers
    remote_address: Any
    """As the socket gives it: (host, port, ...) or, on a unix socket, a str."""
    tls: TLSInfo | None
    """None on a plain listener."""
    identity: object
    """Who it is. Under mutual TLS it starts as `tls.client_certificate`, elsewhere as None."""

    def __init__(
        self,
        head: RequestHead,
        *,
        remote_address: Any = None,
        tls: TLSInfo | None = None,
        body: bytes = b"",
    ) -> None:
        self.method = head.method
        self.target = head.target
        self.path = head.path
        self.query = head.query
        self.host = head.host
        self.headers = head.headers
        self.remote_address = remote_address
        self.tls = tls
        self.identity = None if tls is None else tls.client_certificate
        self._body = body

    @cached_property
    def cookies(self) -> dict[str, str]:
        """Cookies by name; the first of a name counts (RFC 6265, section 5.4 sends it first)."""
        return parse_cookies(self.headers.get_all("Cookie"))

    @property
    def origin(self) -> str | None:
        """The Origin header as sent; browsers send it, programs mostly do not."""
        return self.headers.get("Origin")

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order."""
        return offered_subprotocols(self.headers)

    @cached_property
    def authorization(self) -> Authorization | None:
        """The Authorization header, taken apart; None if there is none."""
        value = self.headers.get("Authorization")
        return None if value is None else Authorization.parse(value)

    @cached_property
    def form(self) -> Form:
        """The fields of a form that was posted to a page; empty where nothing was.

        Raises:
            Reject: 415 where the body is no urlencoded form in UTF-8, 400 where it is a
                malformed one. Not caught by a page, it is the answer.
        """
        if not self._body:
            return Form()
        if not _FORM_TYPE.fullmatch(self.headers.get("Content-Type", "")):
            raise Reject(
                415,
                {"Accept": "application/x-www-form-urlencoded"},
                "the body is no form; send application/x-www-form-urlencoded\n",
            )
        try:
            return Form(
                parse_qsl(
                    self._body.decode(),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=_MAX_FIELDS,
                )
            )
        except ValueError:  # not UTF-8, before or behind the escapes, or too many fields
            raise Reject(
                400, None, f"the form is not UTF-8, or has over {_MAX_FIELDS} fields\n"
            ) from None

    def __repr__(self) -> str:
        return (
            f"<Request {self.method[:20]} {printable(self.path)} host={printable(self.host)} "
            f"from={self.remote_address!r}>"
        )


def parse_cookies(values: Iterable[str]) -> dict[str, str]:
    """The cookies in the values of the Cookie header.

    The first of a name wins, pairs without "=" or with a name that is no token are skipped, and
    the quotes around a value go (RFC 6265, sections 4.1.1 and 5.4).
    """
    cookies: dict[str, str] = {}
    for value in values:
        for pair in value.split(";"):
            name, equals, content = pair.strip(" \t").partition("=")
            if not equals or not _TOKEN.fullmatch(name):
                continue
            content = content.strip(" \t")
            if len(content) >= 2 and content[0] == content[-1] == '"':
                content = content[1:-1]
            cookies.setdefault(name, content)
    return cookies
