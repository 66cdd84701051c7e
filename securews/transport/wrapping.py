"""What a SocketHandler inherits that wraps another one: everything but the bytes is passed on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from securews.transport.socket_handler import SocketAddress, SocketHandler
from securews.transport.tls_info import TLSInfo

__all__ = ["WrappingSocketHandler"]


class WrappingSocketHandler(SocketHandler):
    """A handler around another one: whatever it does not say itself, `inner` says.

    Write `accept`, and `connect` where it connects too: what happens to the bytes is the subclass's
    own. All the rest, from `reload` to `expires`, goes to `inner`; methods that SocketHandler gets
    later do, too.

    Args:
        inner: the handler that goes on.
    """

    def __init__(self, inner: SocketHandler) -> None:
        self.inner = inner
        self.secure = inner.secure
        self.insecure = inner.insecure

    @property
    def issued_by_development_ca(self) -> bool:
        """As `inner`."""
        return self.inner.issued_by_development_ca

    def check(self, host: str | None) -> None:
        """As `inner`."""
        self.inner.check(host)

    def reload(self) -> None:
        """As `inner`."""
        self.inner.reload()

    def renew_if_due(self) -> None:
        """As `inner`."""
        self.inner.renew_if_due()

    @property
    def expires(self) -> dt.datetime | None:
        """As `inner`."""
        return self.inner.expires

    @property
    def validities(self) -> Collection[tuple[dt.datetime, dt.datetime]]:
        """As `inner`."""
        return self.inner.validities

    def files_changed(self) -> bool:
        """As `inner`."""
        return self.inner.files_changed()

    def still_admitted(self, info: TLSInfo) -> bool:
        """As `inner`."""
        return self.inner.still_admitted(info)

    def on_connect_query(self, address: SocketAddress) -> bool:
        """As `inner`, for the peer of the socket."""
        return self.inner.on_connect_query(address)
