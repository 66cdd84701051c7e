"""Host names with an optional port, as the Host field, a target or an Origin carries them."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["DEFAULT_PORTS", "split_authority"]

DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
"""The port that a scheme means where none is written."""

_PORT = r"(?::(?P<port>[0-9]{0,5}))?"
# RFC 3986, section 3.2.2 allows more in a reg-name, but nothing more can be a host in the DNS;
# the underscore is in use inside container networks.
_NAME = re.compile(r"(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?" + _PORT)
_IPV6 = re.compile(r"\[(?P<name>[0-9A-Fa-f:.]+)\]" + _PORT)
_LONGEST = 255
"""RFC 1035, section 2.3.4."""
_LONGEST_WITH_PORT = _LONGEST + len("[]:65535")
_NO_HOST = "not a host name or address, with at most a port up to 65535 behind it"


def split_authority(authority: str) -> tuple[str, int | None]:
    """Split `host[:port]` into the host in its one spelling, and the port.

    The host is lower case and has no trailing dot; an IPv6 literal has no brackets and is
    written as RFC 5952 says. The port is None where none is written.

    Raises:
        ValueError: this is no host (RFC 3986, section 3.2): empty, with user information, a
            scheme, a path, characters outside ASCII, or a port over 65535.
    """
    if len(authority) > _LONGEST_WITH_PORT:  # before the pattern tries every split of it
        raise ValueError(_NO_HOST)
    match = (_IPV6 if authority.startswith("[") else _NAME).fullmatch(authority)
    if match is None or len(match["name"]) > _LONGEST or int(match["port"] or 0) > 65535:
        raise ValueError(_NO_HOST)
    port = int(match["port"]) if match["port"] else None
    if match.re is _NAME:
        return match["name"].lower(), port
    try:
        return ipaddress.IPv6Address(match["name"]).compressed, port
    except ipaddress.AddressValueError:
        raise ValueError(_NO_HOST) from None
