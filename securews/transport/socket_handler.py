"""The contract between the server and whatever secures its bytes.

A `SocketHandler` is policy: one object for a whole listener. A `SocketStream` is one connection.
Authors of their own write both, and check them with
`securews.testing.socket_handler_contract`; `examples/proxy_protocol.py` is one that does.
"""

from __future__ import annotations

import abc
import datetime as dt
import enum
import ipaddress
import socket
from collections.abc import Collection
from typing import Protocol, TypeAlias, runtime_checkable

from securews.common.errors import ConfigurationError, HandshakeError
from securews.transport.tls_info import TLSInfo

__all__ = [
    "MAX_SEND",
    "PlainHTTPError",
    "SocketAddress",
    "SocketHandler",
    "SocketStream",
    "TLSError",
    "TruncatedError",
    "Want",
    "is_loopback",
]

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""What `socket.accept()` says of a peer: IPv4, IPv6, or the name of a Unix socket."""

ASSUMED_LIFETIME = dt.timedelta(days=90)
"""Of a certificate of which only the end is known."""

MAX_SEND = 68 << 10
"""Bytes that one `send()` takes: a message of 64 KiB leaves in one TLS write and one system call,
which measures 13 % quicker than two. It is also what a MemoryBIO grows to for good."""


class Want(enum.Enum):
    """What a stream waits for before the same call can get any further."""

    READ = "read"
    """The peer has to send something first."""
    WRITE = "write"
    """The socket has to take something first."""
    NOTHING = "nothing"
    """Done."""


class TLSError(ConnectionError):
    """TLS broke after its handshake: a bad record, or an alert of the peer."""


class TruncatedError(TLSError):
    """The bytes ended without close_notify: somebody cut the connection (RFC 8446, 6.1)."""


class PlainHTTPError(HandshakeError):
    """The peer speaks plain HTTP to a TLS port.

    No TLS was begun, so from here on the stream sends in the clear and a readable answer can
    go out through `send`, `flush` and `shutdown`. `status` is what to answer with.
    """

    def __init__(self) -> None:
        super().__init__("plain HTTP on the TLS port; the peer should use https or wss", status=400)


@runtime_checkable
class SocketStream(Protocol):
    """One connection's bytes. Owns a non-blocking socket and never waits.

    Inherit from it to be told what is missing; what has all of it will do as well.

    One thread at a time may be inside a stream, and the caller sees to that: two threads in
    one TLS object end the process. Nothing here locks.

    Errors of `recv`, `send` and `flush` are OSErrors (`TLSError` and `TruncatedError` are);
    the last one is kept in `last_error`.

    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def last_error(self) -> Exception | None:
        """What made the stream fail, None while it is sound."""

    @property
    @abc.abstractmethod
    def info(self) -> TLSInfo | None:
        """Facts of the TLS session once the handshake is done; None on a plain stream."""

    @property
    @abc.abstractmethod
    def remote_address(self) -> SocketAddress:
        """Who the peer is.

        A stream that learns better from a proxy's header says so here, from the end of the
        handshake on.
        """

    @property
    @abc.abstractmethod
    def local_address(self) -> SocketAddress:
        """The address that the peer reached."""

    @property
    @abc.abstractmethod
    def bytes_available(self) -> int:
        """More than 0: `recv()` has something to say without a system call.

        A poller does not know of these bytes, so whoever waits looks here first.
        """

    @property
    @abc.abstractmethod
    def bytes_pending(self) -> int:
        """Bytes that wait for the socket to take them; `send()` is refused until it is 0.

        `recv()` and `handshake()` may leave some too, where TLS itself had to answer.
        """

    @abc.abstractmethod
    def handshake(self) -> Want:
        """Go one step further: at most one read of the socket.

        Returns:
            READ or WRITE: call again then. NOTHING: done (also if it was done before).

        Raises:
            HandshakeError: it failed; what TLS has to say about it was sent. `shutdown()` and
                `close()` are what is left. `PlainHTTPError`: see there.
        """

    @abc.abstractmethod
    def recv(self) -> bytes | Want:
        """What one read of the socket (68 KiB at most) brings, or a bounded share of it.

        Where that read brought more than one call may decrypt, `bytes_available` stays more than
        0, also after READ: call again before the socket is waited for.

        Returns:
            Bytes; `b""`, an orderly end; READ, nothing yet; WRITE, nothing yet and TLS wants
            to answer first. After `shutdown()`: bytes without a meaning, which only show that
            the peer is not gone yet, then `b""`.

        Raises:
            OSError: reset, bad TLS, or an end without close_notify (`TruncatedError`). What
                came before the error was returned before it.
        """

    @abc.abstractmethod
    def send(self, data: bytes | bytearray | memoryview) -> Want:
        """Send up to `MAX_SEND` bytes; they are taken whole.

        Returns:
            NOTHING: the socket has them. WRITE: a rest is kept, `flush()` goes on with it.

        Raises:
            RuntimeError: something is pending, the handshake is not done, or `shutdown()` was
                called.
            ValueError: more than `MAX_SEND` bytes.
            OSError: the connection is broken.
        """

    @abc.abstractmethod
    def flush(self) -> Want:
        """Go on with what is pending. NOTHING: there is no rest. WRITE: call again then.

        Raises:
            OSError: the connection is broken.
        """

    @abc.abstractmethod
    def shutdown(self) -> Want:
        """End the sending half in order: what is pending, close_notify, FIN.

        Never raises: on a broken connection there is nothing left to do. Read until `b""`
        afterwards; closing a socket with unread input resets the connection, and that destroys
        what was sent.

        Returns:
            WRITE: call again then. NOTHING: done (also if it was done before).
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the descriptor at once; again is harmless. `recv` and `send` raise OSError then."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """The descriptor for a poller; -1 once closed."""


class SocketHandler(abc.ABC):
    """How the bytes of a listener, or of a client, are secured.

    One that wraps another one is a `WrappingSocketHandler`, which passes everything else on.

    Immutable but for `reload()` and `renew_if_due()`, which swap one reference; any thread may
    call them.

    Attributes:
        secure: whether its streams are encrypted and know whom they speak for.
        insecure: whether the program asked in writing to be served unencrypted off loopback.
        issued_by_development_ca: whether the certificate came from `securews gen-dev-certs`.
    """

    secure: bool = False
    insecure: bool = False

    @property
    def issued_by_development_ca(self) -> bool:
        """Whether the certificate is a development certificate; the server warns of it."""
        return False

    @abc.abstractmethod
    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        """The server's end of an accepted socket. Cheap: no byte is read or sent.

        The stream owns the socket from here on, and makes it non-blocking.
        """

    def connect(self, sock: socket.socket, server_name: str) -> SocketStream:
        """The client's end of a connected socket.

        Args:
            sock: the stream owns it from here on, and makes it non-blocking.
            server_name: the host name or IP address that the peer has to prove.

        Raises:
            ConfigurationError: this handler serves only, or the name cannot be one.
        """
        del sock
        raise ConfigurationError(
            f"{type(self).__name__} serves only; connect with a CA path, an SSLContext or a "
            f"TLSClientSocketHandler (for {server_name!r})"
        )

    def check(self, host: str | None) -> None:
        """Raise ConfigurationError if `host` cannot be served like this; called before binding."""
        if not (self.secure or self.insecure or is_loopback(host)):
            where = repr(host) if host else "every address"
            raise ConfigurationError(
                f"{type(self).__name__} does not encrypt, and {where} can be reached from other "
                "machines: serve with TLS, or write insecure=True if something in front of it "
                "does the encrypting"
            )

    def reload(self) -> None:  # noqa: B027  # nothing to read again is a valid answer
        """Read files again, for the connections to come; the open ones are untouched.

        Raises:
            ConfigurationError: the new ones do not work; the old ones stay in use.
        """

    def renew_if_due(self) -> None:  # noqa: B027  # nothing that ages is a valid answer
        """Make anew what is used for some hours only: the keys of session tickets. May block.

        A server calls it on a thread of its own, every half hour; without a server it is the
        program's to call. What fails is logged, and the old goes on.
        """

    @property
    def expires(self) -> dt.datetime | None:
        """When the first of its certificates ends; None where there is none."""
        return None

    @property
    def validities(self) -> Collection[tuple[dt.datetime, dt.datetime]]:
        """From when until when each of its certificates is valid, with time zone.

        The server warns when a third and when a tenth of such a time is left (of 90 days, where it
        is longer). A handler that only says `expires` has a certificate of 90 days.
        """
        expires = self.expires
        return () if expires is None else ((expires - ASSUMED_LIFETIME, expires),)

    def files_changed(self) -> bool:
        """Whether `reload()` would read something else now. May block: it looks at files."""
        return False

    def still_admitted(self, info: TLSInfo) -> bool:
        """Whether a peer whose handshake was right some time ago would be let in now.

        May block: `revalidate_interval` has it called on a thread of its own. False closes the
        connection with 1008; so does an exception, which is logged.
        """
        del info  # the base class refuses nobody
        return True

    def on_connect_query(self, address: SocketAddress) -> bool:
        """Whether to go on with a peer. On the accept loop: no waiting, no look-ups.

        False closes the socket before a byte is read; so does an exception, which is logged.
        """
        del address  # the base class knows nobody
        return True


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach `host`.

    True for "localhost", 127.0.0.0/8, ::1 (mapped and bracketed too), the path of a Unix socket,
    and None, where there is no host at all. Any other name is False: it is not resolved.
    "" is False: it binds every address.
    """
    if host is None or host.startswith(("/", "\0")):
        return True
    name = host.removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
