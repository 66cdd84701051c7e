"""Which hosts are answered: those that are served, and on plain loopback those of this machine.

DNS rebinding: a page lets its own name resolve to 127.0.0.1. By all that the browser knows, a
server there is of the page's own origin, and Origin and Host agree. But the browser sends the name
of the page as Host, and no script can change that. So plain TCP on loopback is answered only for
hosts that mean this machine or that the program names. Over TLS the browser has found the name in
our certificate before it sends a byte, and a unix socket can be reached by no browser.
"""

from __future__ import annotations

import socket
from collections.abc import Collection

from securews.common.errors import ConfigurationError, Reject, printable
from securews.handlers.request import Request
from securews.protocol.authority import split_authority
from securews.server.core import Core
from securews.transport.socket_handler import SocketAddress, is_loopback

__all__ = ["check_host", "named_hosts"]

ANY_HOST = "*"


def named_hosts(allowed: Collection[str], listening_on: str) -> frozenset[str]:
    """The hosts that a program has named, in their one spelling, and the name of this machine.

    Args:
        allowed: the option `allowed_hosts`; "*" stays as it is.
        listening_on: the host that the program has given to listen on, which `server.url` shows.

    Raises:
        ConfigurationError: one of `allowed` is no host.
    """
    names = {ANY_HOST if host == ANY_HOST else _allowed(host) for host in allowed}
    for host in (socket.gethostname(), listening_on):
        try:
            names.add(_spelling(host))
        except ValueError:
            pass  # a scoped address, for one: no Host header can say it
    return frozenset(names)


def check_host(core: Core, request: Request, local_address: SocketAddress) -> None:
    """Refuse a host that is not served here, or not at this address or under this certificate.

    Args:
        core: of the server.
        request: of the peer.
        local_address: that the peer has reached.

    Raises:
        Reject: 421 (RFC 9110, section 15.5.20).
    """
    host, tls = request.host, request.tls
    if not core.router.knows_host(host):
        raise Reject(421, None, f"host {printable(host)} is not served here\n")
    if not (
        core.socket_handler.secure
        or core.router.names_host(host)
        or not core.named_hosts.isdisjoint((host, ANY_HOST))
        or _means_this_machine(host)
        or not _on_loopback(local_address)
    ):
        core.warn_of_host(request)
        raise Reject(
            421,
            None,
            f"host {printable(host)} is not of this machine; the server's allowed_hosts= option "
            "allows it\n",
        )
    if (
        tls is not None
        and tls.client_certificate is not None
        and tls.server_name
        and tls.server_name.lower().rstrip(".") != host
    ):
        raise Reject(421, None, "the Host header and the TLS server name differ\n")


def _allowed(host: str) -> str:
    try:
        return _spelling(host)
    except ValueError:
        raise ConfigurationError(
            f"{host!r} in allowed_hosts is no host name; write one such as 'chat.example.org', or "
            "'*' for any"
        ) from None


def _spelling(host: str) -> str:
    """The one spelling of a host; brackets around an IPv6 address may be left out."""
    try:
        return split_authority(host)[0]
    except ValueError:
        return split_authority(f"[{host}]")[0]


def _means_this_machine(host: str) -> bool:
    """Whether no name server has a say in what `host` resolves to (RFC 6761, section 6.3)."""
    return is_loopback(host) or host.endswith(".localhost")


def _on_loopback(address: SocketAddress) -> bool:
    """Whether it is loopback's; a unix socket is not, its address is a path."""
    return not isinstance(address, (str, bytes)) and is_loopback(str(address[0]))
