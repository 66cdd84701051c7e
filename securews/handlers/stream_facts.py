"""`ws.socket_stream`: what can be known of the stream underneath, and nothing that moves bytes."""

from __future__ import annotations

from securews.connection.connection import Connection
from securews.transport.tls_info import TLSInfo

__all__ = ["StreamFacts"]


class StreamFacts:
    """What can be known of the connection's SocketStream; read-only."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def info(self) -> TLSInfo | None:
        """Facts of the TLS session; None on a plain connection."""
        return self._connection.channel.stream.info

    @property
    def bytes_available(self) -> int:
        """Bytes that were received and wait, as messages, for the handler."""
        return self._connection.link.receiving.size

    @property
    def last_error(self) -> Exception | None:
        """What broke the stream; None while it is sound."""
        return self._connection.channel.stream.last_error
