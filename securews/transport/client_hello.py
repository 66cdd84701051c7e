"""Reading a ClientHello before OpenSSL does (RFC 8446, section 4.1.2).

Which certificate to serve, which name the client asked for and whether it speaks our protocol
at all stand in the first message. Python tells of the name through `sni_callback` only, which
is in the way twice: setting it changes a context that may be the user's, and a name that is not
ASCII ends in a traceback on stderr, written by a peer. Of the offered protocols (ALPN) Python
tells a server nothing. So the message is read here, by length, without judging what OpenSSL
judges anyway: whatever does not parse is left to it, and to its alert.
"""

from __future__ import annotations

import dataclasses
import re

__all__ = [
    "NO_APPLICATION_PROTOCOL",
    "UNRECOGNIZED_NAME",
    "ClientHello",
    "ClientHelloReader",
    "fatal_alert",
]

HANDSHAKE_RECORD = 22
ALERT_RECORD = 21
CLIENT_HELLO = 1
SERVER_NAME = 0  # RFC 6066, section 3
ALPN = 16  # RFC 7301, section 3.1

UNRECOGNIZED_NAME = 112  # RFC 6066, section 3
NO_APPLICATION_PROTOCOL = 120  # RFC 7301, section 3.2

MAX_RECORD = 1 << 14
MAX_HELLO = 16 << 10
"""Bytes of a ClientHello that are read here. Post-quantum keys and a ticket make 3 KiB."""

# Visible ASCII: names beyond it come as A-labels (RFC 6066, section 3).
_NAME = re.compile(rb"[\x21-\x7e]{1,255}")


@dataclasses.dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for.

    Attributes:
        server_name: lower case, without a trailing dot; None without one.
        alpn: the application protocols that it offers, in its order.
    """

    server_name: str | None = None
    alpn: tuple[str, ...] = ()


def fatal_alert(description: int) -> bytes:
    """A fatal alert in the clear, for before there are keys (RFC 8446, section 6)."""
    return bytes((ALERT_RECORD, 3, 3, 0, 2, 2, description))


class ClientHelloReader:
    """Collects a ClientHello from chunks of any size, at a cost linear in the bytes.

    Attributes:
        received: all bytes so far; OpenSSL gets them afterwards.
    """

    __slots__ = ("_message", "_position", "received")

    def __init__(self) -> None:
        self.received = bytearray()
        self._message = bytearray()
        self._position = 0  # of the first record that is not complete

    def feed(self, data: bytes) -> ClientHello | None:
        """Take more bytes; the ClientHello once it is whole, None before.

        Raises:
            ValueError: no ClientHello will come of this.
        """
        self.received += data
        while self._take_record():
            message = self._message
            if message[0] != CLIENT_HELLO:
                raise ValueError("the first message is no ClientHello")
            if len(message) >= 4:
                end = 4 + int.from_bytes(message[1:4], "big")
                if end > MAX_HELLO:
                    raise ValueError("an oversized ClientHello")
                if len(message) >= end:
                    return _client_hello(_Reader(bytes(message[4:end])))
        return None

    def _take_record(self) -> bool:
        """Move the next record's content to the message; False while it is not complete."""
        received, start = self.received, self._position
        if len(received) > 2 * MAX_HELLO:
            raise ValueError("a ClientHello in too many records")
        header = bytes(received[start : start + 5])
        # type, major version: what is there of them
        if header[:2] != bytes((HANDSHAKE_RECORD, 3))[: len(header)]:
            raise ValueError("not a handshake record")
        if len(header) < 5:
            return False
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= MAX_RECORD:
            raise ValueError("a record of no valid length")
        end = start + 5 + length
        if len(received) < end:
            return False
        self._message += received[start + 5 : end]
        self._position = end
        return True


def _client_hello(body: _Reader) -> ClientHello:
    body.take(2 + 32)  # legacy_version, random
    body.vector(1)  # legacy_session_id
    body.vector(2)  # cipher_suites
    body.vector(1)  # legacy_compression_methods
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    if body.left:  # a hello of TLS 1.2 may have no extensions at all
        extensions = body.vector(2)
        while extensions.left:
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind == SERVER_NAME:
                server_name = _server_name(content)
            elif kind == ALPN:
                alpn = _protocols(content)
    return ClientHello(server_name, alpn)


class _Reader:
    """Numbers and vectors in the order in which they stand (RFC 8446, section 3)."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise ValueError("a length points past the end")
        start = self._position
        self._position += length
        return self._data[start : self._position]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> _Reader:
        return _Reader(self.take(self.number(width)))


def _server_name(content: _Reader) -> str | None:
    names = content.vector(2)
    kind, name = names.number(1), names.vector(2)
    if kind != 0 or names.left:  # there is one kind, and one name of it
        raise ValueError("a list of names that is not one host name")
    raw = name.take(name.left)
    if not _NAME.fullmatch(raw):
        raise ValueError("a host name that is not visible ASCII")
    return raw.decode("ascii").lower().removesuffix(".") or None


def _protocols(content: _Reader) -> tuple[str, ...]:
    names = content.vector(2)
    protocols: list[str] = []
    while names.left:
        name = names.vector(1)
        protocols.append(name.take(name.left).decode("latin-1"))
    return tuple(protocols)
