"""Reading a ClientHello before OpenSSL does (RFC 8446, section 4.1.2).

Which certificate to serve, which name the client asked for and whether it speaks our protocol
at all stand in the first message. Python tells of the name through `sni_callback` only, which
is in the way twice: setting it changes a context that may be the user's, and a name that is not
ASCII ends in a traceback on stderr, written by a peer. Of the offered protocols (ALPN) Python
tells a server nothing. So the message is read here, by length.

What is not read here, OpenSSL does not get: it takes more than we do (128 KiB, the form of SSL 2,
names of any bytes), and would serve whom nobody has judged. Such a hello is a `ClientHelloError`,
and `Alert` says with which words it is refused. What OpenSSL refuses by itself, suites and versions
and keys, is left to it.

After a HelloRetryRequest OpenSSL reads a second hello, and we do not: it may bring another key and
nothing else (RFC 8446, section 4.1.2), and what was decided stands on the first one.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import NoReturn

from securews.common.errors import HandshakeError

__all__ = [
    "MAX_HELLO",
    "Alert",
    "ClientHello",
    "ClientHelloError",
    "ClientHelloReader",
    "fatal_alert",
]

HANDSHAKE_RECORD = 22
ALERT_RECORD = 21
CLIENT_HELLO = 1
SERVER_NAME = 0  # RFC 6066, section 3
ALPN = 16  # RFC 7301, section 3.1

MAX_RECORD = 1 << 14
MAX_HELLO = 16 << 10
"""Bytes of a ClientHello that are read here. X25519MLKEM768 makes 2 KiB; every ML-KEM group at
once, Encrypted ClientHello and a ticket beside them 13 KiB."""
MAX_RECORDS = 2 * MAX_HELLO
"""Bytes of the records that it may come in: their headers may double it."""

# Visible ASCII: names beyond it come as A-labels (RFC 6066, section 3).
_NAME = re.compile(rb"[\x21-\x7e]{1,255}")


class Alert(enum.IntEnum):
    """What a client is told whose hello is refused (RFC 8446, section 6.2)."""

    UNEXPECTED_MESSAGE = 10
    """It begins with something else: another record or message, SSL 2, noise."""
    RECORD_OVERFLOW = 22
    """A record announces more than 16 KiB."""
    ILLEGAL_PARAMETER = 47
    """Too long, in too many records, or with an extension twice."""
    DECODE_ERROR = 50
    """A length in it does not fit."""
    PROTOCOL_VERSION = 70
    """A record of a version that is not TLS."""
    UNRECOGNIZED_NAME = 112
    """It asks for a host that is not served, or for one that cannot be a name."""
    NO_APPLICATION_PROTOCOL = 120
    """It offers protocols, and HTTP/1.1 is none of them."""


class ClientHelloError(HandshakeError):
    """A client is refused by its hello, before OpenSSL gets it.

    Attributes:
        alert: what the client is told.
    """

    def __init__(self, alert: Alert, message: str) -> None:
        super().__init__(message)
        self.alert = alert


@dataclasses.dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for.

    Attributes:
        server_name: lower case, without a trailing dot; None without one.
        alpn: the application protocols that it offers, in its order.
    """

    server_name: str | None = None
    alpn: tuple[str, ...] = ()


def fatal_alert(description: Alert) -> bytes:
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
            ClientHelloError: no ClientHello that can be judged will come of this.
        """
        self.received += data
        while self._take_record():
            message = self._message
            if message[0] != CLIENT_HELLO:
                _refuse(Alert.UNEXPECTED_MESSAGE, "begins with another message than a ClientHello")
            if len(message) >= 4:
                size = int.from_bytes(message[1:4], "big")
                if size > MAX_HELLO:
                    _refuse(
                        Alert.ILLEGAL_PARAMETER,
                        f"sends a ClientHello of {size} bytes; at most {MAX_HELLO} are read",
                    )
                if len(message) >= 4 + size:
                    return _client_hello(_Reader(bytes(message[4 : 4 + size])))
        return None

    def _take_record(self) -> bool:
        """Move the next record's content to the message; False while it is not complete."""
        received, start = self.received, self._position
        header = bytes(received[start : start + 5])
        if header[:1] not in (b"", bytes((HANDSHAKE_RECORD,))):
            _refuse(Alert.UNEXPECTED_MESSAGE, "does not speak TLS, or does not begin with a hello")
        if header[1:2] not in (b"", b"\x03"):
            _refuse(Alert.PROTOCOL_VERSION, "speaks no version of TLS")
        if len(header) < 5:
            return False
        length = int.from_bytes(header[3:5], "big")
        if length == 0:
            _refuse(Alert.DECODE_ERROR, "sends a handshake record without content")
        if length > MAX_RECORD:
            _refuse(Alert.RECORD_OVERFLOW, f"sends a record of {length} bytes")
        end = start + 5 + length
        if end > MAX_RECORDS:
            _refuse(Alert.ILLEGAL_PARAMETER, "sends a ClientHello in too many records")
        if len(received) < end:
            return False
        self._message += received[start + 5 : end]
        self._position = end
        return True


def _refuse(alert: Alert, what: str) -> NoReturn:
    raise ClientHelloError(alert, f"the peer {what}")


def _client_hello(body: _Reader) -> ClientHello:
    body.take(2 + 32)  # legacy_version, random
    body.vector(1)  # legacy_session_id
    body.vector(2)  # cipher_suites
    body.vector(1)  # legacy_compression_methods
    extensions: dict[int, _Reader] = {}
    if body.left:  # a hello of TLS 1.2 may have no extensions at all
        listed = body.vector(2)
        while listed.left:
            kind = listed.number(2)
            if kind in extensions:
                _refuse(Alert.ILLEGAL_PARAMETER, f"sends the extension {kind} twice")
            extensions[kind] = listed.vector(2)
    body.end()
    name, protocols = extensions.get(SERVER_NAME), extensions.get(ALPN)
    return ClientHello(
        None if name is None else _server_name(name),
        () if protocols is None else _protocols(protocols),
    )


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
            _refuse(Alert.DECODE_ERROR, "sends a ClientHello with a length past its end")
        start = self._position
        self._position += length
        return self._data[start : self._position]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> _Reader:
        return _Reader(self.take(self.number(width)))

    def end(self) -> None:
        """Refuse what is left."""
        if self.left:
            _refuse(Alert.DECODE_ERROR, "sends a ClientHello with bytes that belong to nothing")


def _server_name(content: _Reader) -> str | None:
    names = content.vector(2)
    content.end()
    kind, name = names.number(1), names.vector(2)
    if kind != 0 or names.left:  # there is one kind, and one name of it
        _refuse(Alert.DECODE_ERROR, "asks for something else than one host name")
    raw = name.take(name.left)
    if not _NAME.fullmatch(raw):
        _refuse(Alert.UNRECOGNIZED_NAME, "asks for a host name that is not visible ASCII")
    return raw.decode("ascii").lower().removesuffix(".") or None


def _protocols(content: _Reader) -> tuple[str, ...]:
    names = content.vector(2)
    content.end()
    protocols: list[str] = []
    while names.left:
        name = names.vector(1)
        protocols.append(name.take(name.left).decode("latin-1"))
    if not all(protocols):
        _refuse(Alert.DECODE_ERROR, "offers an application protocol without a name")
    return tuple(protocols)
