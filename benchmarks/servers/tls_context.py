"""The TLS context of the peers that take one: Python's own defaults for servers."""

from __future__ import annotations

import ssl

__all__ = ["make_context"]


def make_context(cert: str, key: str) -> ssl.SSLContext:
    """What `ssl.create_default_context` gives a server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context
