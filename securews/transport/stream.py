"""The one class that reads and writes a socket.

Theory of operation. A stream is a non-blocking socket and a `Transform`, which turns the
peer's bytes into ours and back and never sees the socket. Plain TCP and TLS are the same code
with another transform. Why not `ssl.SSLSocket`: it makes two system calls for each record and
reads and writes the socket behind the caller's back, inside OpenSSL, so that a read may have to
wait for writing in ways that a loop cannot see.

Invariants:

- At most one thread is inside a stream (OpenSSL forbids it). Nothing locks.
- `_pending` holds bytes that left the transform and that the socket has not taken. They leave in
  the order in which the transform made them: a TLS record that overtakes another ends the
  session. So `send()` is refused while there are any, and TLS' own answers queue behind them.
- A peer can make TLS answer (KeyUpdate, alerts) without reading our answers. Past
  `PENDING_LIMIT` nothing more is read until the socket has taken some.
- A closed stream holds facts only, and is freed without the cyclic collector: the error that it
  keeps lets go of its frames, which hold the stream.
- After `shutdown()` the transform is not asked again: what still comes is counted by the caller
  and thrown away, so it is not decrypted.
"""

from __future__ import annotations

import socket
from typing import NoReturn

from securews.common.errors import HandshakeError, without_frames
from securews.common.syscalls import receive, send
from securews.transport.socket_handler import (
    MAX_SEND,
    PlainHTTPError,
    SocketAddress,
    Want,
)
from securews.transport.tls_info import TLSInfo

__all__ = ["PlainTransform", "Transform", "TransformStream"]

READ_SIZE = 68 << 10
"""Bytes of one read: a message of 64 KiB, with what the frame and its TLS records add. In Python
`recv()` of so much and shrinking its result measures 5 % to 20 % faster than `recv_into()` a shared
buffer and a copy, for 64 bytes and for 32 KiB alike."""

# Names of the module are found faster than members of an enum.
READ, WRITE, NOTHING = Want.READ, Want.WRITE, Want.NOTHING

HANDSHAKE_READ = 16 << 10
"""Bytes of one read while a peer is nobody yet: a flight of a handshake fits."""

PENDING_LIMIT = 2 * MAX_SEND
"""Bytes that may wait before reading stops: one `send()` and as much of TLS' own."""


class Transform:
    """Bytes of the peer to bytes of ours, and back. No socket, no waiting, one thread at a time.

    A base class and no Protocol: what is compiled calls it as C does.

    Attributes:
        ready: whether the handshake is done, or there is none.
        info: facts of the TLS session, None before its handshake is done or where there is none.
        bytes_available: more than 0: `receive(b"")` has something to say.
    """

    __slots__ = ("bytes_available", "info", "ready")

    def __init__(self, *, ready: bool, info: TLSInfo | None = None) -> None:
        self.ready = ready
        self.info = info
        self.bytes_available = 0

    def handshake(self, data: bytes) -> bool:
        """Take bytes of the peer; True once the handshake is done. HandshakeError: it failed."""
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes of the peer; return what they say, None for nothing yet, `b""` for an end.

        It may say a bounded share of it; then more than 0 `bytes_available` have their turn in
        the next call.
        """
        raise NotImplementedError

    def receive_eof(self) -> bytes:
        """The peer's FIN came, and nothing is available. `b""`, or TruncatedError."""
        raise NotImplementedError

    def send(self, data: bytes | bytearray | memoryview) -> bytes:
        """The bytes for the peer that carry `data`."""
        raise NotImplementedError

    def take_outgoing(self) -> bytes:
        """What the transform itself wants to tell the peer; `b""` for nothing."""
        raise NotImplementedError

    def close(self) -> bytes:
        """The bytes that end our half. Errors are ignored: there is nothing to do about them."""
        raise NotImplementedError


class PlainTransform(Transform):
    """Bytes as they are.

    Args:
        info: facts of a TLS session that is over.
    """

    __slots__ = ()

    def __init__(self, info: TLSInfo | None = None) -> None:
        super().__init__(ready=True, info=info)

    def handshake(self, data: bytes) -> bool:
        """There is none."""
        del data
        return True

    def receive(self, data: bytes) -> bytes | None:
        """As it came."""
        return data

    def receive_eof(self) -> bytes:
        """TCP's FIN is all there is."""
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> bytes:
        """As it is, but ours: the caller's buffer may change."""
        return bytes(data)

    def take_outgoing(self) -> bytes:
        """Nothing of its own."""
        return b""

    def close(self) -> bytes:
        """FIN says it."""
        return b""


class TransformStream:
    """A socket and a transform: a `SocketStream`.

    Args:
        sock: connected; owned and made non-blocking from here on.
        address: of the peer.
        transform: what stands between the socket and the caller.
    """

    __slots__ = (
        "_ending",
        "_fin_sent",
        "_pending",
        "_ready",
        "_sock",
        "_transform",
        "last_error",
        "local_address",
        "remote_address",
    )

    def __init__(self, sock: socket.socket, address: SocketAddress, transform: Transform) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                # Every write is a whole message or a whole piece: nothing is worth Nagle's wait.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass  # macOS: EINVAL on a connection that was reset; the first read tells
        self._sock = sock
        self._transform = transform
        self._pending = b""
        self._ready = transform.ready
        self._ending = False
        self._fin_sent = False
        self.last_error: Exception | None = None
        self.remote_address: SocketAddress = address
        self.local_address: SocketAddress = sock.getsockname()

    @property
    def info(self) -> TLSInfo | None:
        """Facts of the TLS session, None before its handshake is done and on a plain stream."""
        return self._transform.info

    @property
    def bytes_available(self) -> int:
        """More than 0: `recv()` has something to say without a system call."""
        return 0 if self._ending else self._transform.bytes_available

    @property
    def bytes_pending(self) -> int:
        """Bytes that wait for the socket to take them."""
        return len(self._pending)

    def handshake(self) -> Want:
        """Go one step further; see `SocketStream`."""
        try:
            if self._pending and self.flush() is WRITE:
                return WRITE
            if self._ready:
                return NOTHING
            self._ready = self._transform.handshake(self._handshake_bytes())
            self._pending += self._transform.take_outgoing()
            if self._pending and self.flush() is WRITE:
                return WRITE
        except PlainHTTPError as exc:
            self._transform = PlainTransform()
            self._ready = True
            self.last_error = exc
            raise
        except HandshakeError as exc:
            self.last_error = exc
            self._answer()  # the alert that says why
            raise
        except OSError as exc:
            failure = HandshakeError(f"the connection broke during the handshake: {exc}")
            self.last_error = failure
            raise failure from exc
        return NOTHING if self._ready else READ

    def _handshake_bytes(self) -> bytes:
        try:
            data = self._sock.recv(HANDSHAKE_READ)
        except BlockingIOError:
            return b""
        if not data:
            raise HandshakeError("the peer closed the connection during the handshake")
        return data

    def recv(self) -> bytes | Want:
        """What one read of the socket brings, or a share of it; see `SocketStream`."""
        if self._ending:
            return self._drain()
        if not self._ready:
            raise RuntimeError("recv() before the handshake is done")
        if len(self._pending) > PENDING_LIMIT:
            return WRITE
        transform = self._transform
        try:
            if transform.bytes_available:
                plain = transform.receive(b"")
            else:
                data = receive(self._sock, READ_SIZE)
                plain = transform.receive(data) if data else transform.receive_eof()
        except BlockingIOError:
            return READ
        except OSError as exc:
            self.last_error = exc
            self._answer()
            raise
        if self._answer() is WRITE and plain is None:
            return WRITE
        return READ if plain is None else plain

    def _drain(self) -> bytes | Want:
        try:
            return self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return READ

    def _answer(self) -> Want:
        """Send what the transform has to say of its own accord.

        An error of the socket is kept for the next call that uses it: what was received before
        it is to be read before it.
        """
        outgoing = self._transform.take_outgoing()
        if not outgoing:
            return NOTHING
        self._pending += outgoing
        try:
            return self.flush()
        except OSError:
            return NOTHING

    def send(self, data: bytes | bytearray | memoryview) -> Want:
        """Send up to `MAX_SEND` bytes; see `SocketStream`."""
        if self._pending or self._ending or not self._ready:
            self._refuse_send()
        if len(data) > MAX_SEND:
            raise ValueError(f"send() takes at most {MAX_SEND} bytes, not {len(data)}")
        if not data:
            return NOTHING
        try:
            self._pending = self._transform.send(data)
        except OSError as exc:
            self.last_error = exc
            raise
        return self.flush()

    def _refuse_send(self) -> NoReturn:
        if self._sock.fileno() < 0:
            raise OSError("send() on a closed stream")
        if self._pending:
            raise RuntimeError("send() while bytes are pending; flush() them first")
        if self._ending:
            raise RuntimeError("send() after shutdown()")
        raise RuntimeError("send() before the handshake is done")

    def flush(self) -> Want:
        """Go on with what is pending; see `SocketStream`."""
        pending = self._pending
        if not pending:
            return NOTHING
        try:
            sent = send(self._sock, pending)
        except BlockingIOError:
            return WRITE
        except OSError as exc:
            self.last_error = exc
            self._pending = b""
            raise
        if sent == len(pending):
            self._pending = b""
            return NOTHING
        self._pending = pending[sent:]
        return WRITE

    def shutdown(self) -> Want:
        """End the sending half in order; see `SocketStream`."""
        if not self._ending:
            self._ending = True
            self._pending += self._transform.close()
        try:
            if self.flush() is WRITE:
                return WRITE
            if not self._fin_sent:
                self._fin_sent = True
                self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self.last_error = self.last_error or exc
        return NOTHING

    def close(self) -> None:
        """Close the descriptor at once, and let go of all but the facts."""
        self._ending = self._fin_sent = True
        self._pending = b""
        self._transform = PlainTransform(self._transform.info)
        if self.last_error is not None:
            without_frames(self.last_error)  # they hold the stream
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor for a poller; -1 once closed."""
        return self._sock.fileno()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.remote_address!r} {type(self._transform).__name__}>"
