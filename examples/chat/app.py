"""One server on one port: the pages over HTTPS, the chat over WSS."""

from __future__ import annotations

from pathlib import Path

import securews
from examples.chat.gate import Gate
from examples.chat.pages import add_pages
from examples.chat.revocation import Revocation
from examples.chat.room import Room

__all__ = ["chat_server"]


def chat_server(
    port: int, data: Path, *, host: str = "localhost", tls: tuple[str, str] | None = None
) -> securews.WebSocketServer:
    """The chat on `port`, ready to start.

    Args:
        port: 0 takes any free one; `server.url` says which.
        data: the directory of the users' file and the session key.
        host: other than localhost, it needs a certificate of its own.
        tls: (certificate, key) files; None is the development certificate in ./certs.

    Raises:
        securews.ConfigurationError: what cannot be served, and what to do about it.
    """
    gate = Gate(data)
    if tls is None:
        server = securews.serve(port, host=host)
    else:
        server = securews.serve(port, host=host, tls=tls)
    revocation = Revocation(server, gate.users, gate.sessions)
    server.register_handler("*", "/chat", Room(gate, revocation))
    add_pages(server, gate, revocation)
    return server
