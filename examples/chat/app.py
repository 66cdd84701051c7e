"""One server on one port: the pages over HTTPS, the chat over WSS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import securews
from examples.chat.gate import Gate
from examples.chat.pages import add_pages
from examples.chat.room import Room

__all__ = ["chat_server"]


def chat_server(port: int, data: Path, **options: Any) -> securews.WebSocketServer:
    """The chat on `port`, ready to start.

    Args:
        port: 0 takes any free one; `server.url` says which.
        data: the directory of the users' file and the session key.
        options: those of `securews.serve`: tls, host and so on.

    Raises:
        securews.ConfigurationError: what cannot be served, and what to do about it.
    """
    gate = Gate(data)
    server = securews.serve(port, Room(gate), path="/chat", **options)
    add_pages(server, gate)
    return server
