"""The Authorization field of a request, taken apart."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

__all__ = ["Authorization"]

# RFC 6750, section 2.1: b64token.
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
# RFC 7617, section 2: neither name nor password has control characters.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a client says to prove who it is. The repr shows the scheme alone.

    Compare secrets with `hmac.compare_digest`, on bytes.
    """

    scheme: str
    """In lower case: "basic", "bearer"."""
    credentials: str = field(repr=False)
    """What stands behind the scheme, as sent."""
    username: str | None = field(default=None, repr=False)
    """With Basic; None otherwise, and where the credentials are malformed."""
    password: str | None = field(default=None, repr=False)
    """With Basic; None exactly where `username` is."""
    token: str | None = field(default=None, repr=False)
    """With Bearer; None otherwise, and where it is malformed."""

    @classmethod
    def parse(cls, value: str) -> Authorization:
        """Take apart the value of an Authorization header (RFC 9110, section 11.4).

        Never raises: credentials that are malformed leave the fields of their scheme None, so
        that a peer cannot turn a wrong header into an error of the handler.
        """
        scheme, _, credentials = value.strip(" \t").partition(" ")
        scheme, credentials = scheme.lower(), credentials.strip(" \t")
        if scheme == "basic":
            username, password = _basic(credentials)
            return cls(scheme, credentials, username=username, password=password)
        if scheme == "bearer" and _BEARER.fullmatch(credentials):
            return cls(scheme, credentials, token=credentials)
        return cls(scheme, credentials)


def _basic(credentials: str) -> tuple[str, str] | tuple[None, None]:
    """User name and password of RFC 7617, section 2, read as UTF-8."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        return None, None
    username, colon, password = text.partition(":")
    if not colon or _CONTROL.search(text):
        return None, None
    return username, password
