"""Which web pages may connect: the Origin rule against cross-site hijacking.

A browser sends cookies along with a WebSocket that any page opens, and lets that page read the
answer: no same-origin policy stands in between (RFC 6455, section 10.2). The server has to look
at the Origin header, and does so unless the program says otherwise.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final

from securews.common.errors import ConfigurationError
from securews.protocol.authority import DEFAULT_PORTS, split_authority

__all__ = ["ANY", "AllowedOrigins", "AnyOrigin", "check_origins", "origin_allowed"]


class AnyOrigin(enum.Enum):
    """The type of `ANY`, which is its only member."""

    ANY = "any"

    def __repr__(self) -> str:
        return "securews.ANY"


ANY: Final = AnyOrigin.ANY
"""`origins=securews.ANY`: pages of every site may connect."""

AllowedOrigins = frozenset[str] | AnyOrigin | None
"""What `check_origins` makes: normalised origins, `ANY`, or None for the same origin only."""

_ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]+)")


def check_origins(origins: Iterable[str] | AnyOrigin | None) -> AllowedOrigins:
    """Check and normalise what a program gave as `origins`, when it registers a handler.

    Args:
        origins: None is the same origin only; `ANY` is every one; otherwise exact origins,
            "https://example.com:8443". "null" may be one of them, and is never implied.

    Raises:
        ConfigurationError: a str instead of a list, or an entry that is no origin.
    """
    if origins is None or isinstance(origins, AnyOrigin):
        return origins
    if isinstance(origins, (str, bytes)) or not isinstance(origins, Iterable):
        raise ConfigurationError(
            f"origins is a list of origins or securews.ANY, not {origins!r}; "
            f"write origins=[{origins!r}]"
        )
    return frozenset(map(_checked, origins))


def origin_allowed(
    request_origin: str | None,
    raw_host: str,
    secure_listener: bool,
    origins: AllowedOrigins,
) -> bool:
    """Whether a page of `request_origin` may use this server.

    Args:
        request_origin: the Origin header; None if there is none, as programs send it, whom no
            browser holds to any rule: allowed.
        raw_host: the Host header as sent.
        secure_listener: whether we speak TLS ourselves. If so the page must have come by https;
            a plain listener may stand behind a proxy that does, and takes http and https.
        origins: from `check_origins`.
    """
    if request_origin is None or origins is ANY:
        return True
    if isinstance(origins, frozenset):
        return _normalised(request_origin) in origins
    return _same_origin(request_origin, raw_host, secure_listener)


def _same_origin(request_origin: str, raw_host: str, secure_listener: bool) -> bool:
    match = _ORIGIN.fullmatch(request_origin)
    if match is None:
        return False
    scheme = match["scheme"].lower()
    if scheme not in (("https",) if secure_listener else ("http", "https")):
        return False
    try:
        return _endpoint(scheme, match["authority"]) == _endpoint(scheme, raw_host)
    except ValueError:
        return False


def _endpoint(scheme: str, authority: str) -> tuple[str, int | None]:
    host, port = split_authority(authority)
    return host, DEFAULT_PORTS.get(scheme) if port is None else port


def _normalised(origin: str) -> str | None:
    """The one spelling of an origin (RFC 6454, section 6.1); None where it is none."""
    if origin == "null":
        return origin
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    try:
        host, port = _endpoint(scheme, match["authority"])
    except ValueError:
        return None
    return f"{scheme}://{host} {port}"


def _checked(entry: str) -> str:
    if not isinstance(entry, str):
        raise ConfigurationError(f"an origin is a str such as 'https://example.com', not {entry!r}")
    if entry == "*":
        raise ConfigurationError("'*' is no origin; write origins=securews.ANY")
    origin = _normalised(entry)
    if origin is None:
        raise ConfigurationError(f"{entry!r} is no origin; {_meant(entry)}")
    if origin.startswith(("ws://", "wss://")):
        raise ConfigurationError(
            f"{entry!r} is no origin: that is where a page came from, so it begins with "
            "https:// or http://"
        )
    return origin


def _meant(entry: str) -> str:
    """What to write instead of an entry that is no origin."""
    written = entry if "://" in entry else f"https://{entry}"
    match = _ORIGIN.match(written)
    if match is not None and _normalised(match[0]) is not None:
        return f"write {match[0]!r} (scheme and host, no path)"
    return "write scheme and host, such as 'https://example.com'"
