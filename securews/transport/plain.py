"""Plain TCP: for loopback, and for behind a proxy that does the encrypting."""

from __future__ import annotations

import socket

from securews.transport.socket_handler import SocketAddress, SocketHandler, SocketStream
from securews.transport.stream import PlainTransform, TransformStream

__all__ = ["PlainSocketHandler"]


class PlainSocketHandler(SocketHandler):
    """No encryption. Served on loopback only, unless the program asks for more in writing.

    Args:
        insecure: allow other addresses too. Everybody on the way reads and changes everything.
    """

    secure = False

    def __init__(self, *, insecure: bool = False) -> None:
        self.insecure = insecure

    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        """The server's end."""
        return TransformStream(sock, address, PlainTransform())

    def connect(self, sock: socket.socket, server_name: str) -> SocketStream:
        """The client's end; nobody proves to be `server_name`."""
        del server_name
        return TransformStream(sock, sock.getpeername(), PlainTransform())
