"""TLS as a transform of bytes: two MemoryBIOs and an SSLObject, and no socket.

Theory of operation. `_incoming` holds ciphertext that OpenSSL has not read, `_outgoing` what it
wants sent. Every call below feeds the one, lets OpenSSL work until it wants more, and leaves the
other for the stream to take. Nothing waits, so nothing here can wait on the wrong direction.

Invariants, and why:

- One thread at a time. Two inside one SSLObject or MemoryBIO end the process; Python does not
  prevent it before 3.13 (https://docs.python.org/3/library/ssl.html#ssl.MemoryBIO).
- A MemoryBIO grows and never shrinks, so at most `PIECE` bytes come into one at a time, and go out
  of one after `MAX_SEND`: an idle connection keeps what its busiest moment needed.
- One call decrypts a bounded number of records, whatever they are. A record may be of 22 bytes and
  costs 3 us, and one that changes the key costs 40: all of one read would be 9 or 95 ms. OpenSSL
  reads on by itself over records that carry nothing, so we count them before it gets them, by the
  lengths in their headers. What waits for the next call is in `_kept` and `bytes_available`.
- OpenSSL reads record by record (no read-ahead), so once `_incoming` is empty there is nothing
  to read, and the read that would only raise SSLWantReadError, at 1.3 us, is not made.
- What was decrypted is handed over before the error or the end behind it (`_verdict`).
- After `close()` nothing is read any more: OpenSSL would take what still comes for an error.
- A FIN is told to OpenSSL (`write_eof`); then a read says `b""` after close_notify, and
  SSLEOFError where the peer was cut off (RFC 8446, section 6.1). Never guess from the FIN alone.
- The server's SSLObject is made once the whole ClientHello is there and judged: a silent socket
  costs nothing, and the context is chosen by the name in it, so no context needs a callback.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from typing import Protocol

from securews.common.errors import HandshakeError, printable, without_frames
from securews.transport.client_hello import (
    Alert,
    ClientHello,
    ClientHelloError,
    ClientHelloReader,
    fatal_alert,
)
from securews.transport.socket_handler import PlainHTTPError, TLSError, TruncatedError
from securews.transport.stream import Transform
from securews.transport.tls_errors import reason
from securews.transport.tls_info import ClientCertificate, TLSInfo

__all__ = ["HTTP_1_1", "ServerPolicy", "TLSTransform"]

RECORD = 16 << 10
"""Plaintext of one TLS record at most (RFC 8446, section 5.1): what one read returns."""

HEADER = 5
"""Bytes in front of each record; the last two say how many follow."""

PIECE = 32 << 10
"""Ciphertext that is put into a MemoryBIO at once."""

SHARE = 64
"""Work of one call, in records of data: 0.2 ms. A message of 64 KiB is five records."""

GROUP = 8
"""Records that OpenSSL gets at once; and what one without data counts for in a `SHARE`."""

USELESS = 64 << 10
"""Ciphertext in a row that may yield no plaintext. A record in pieces is 16.25 KiB at most; key
updates and empty records come without end, and each costs us work (RFC 8446, section 4.6.3)."""

HTTP_1_1 = "http/1.1"
"""The protocol that a WebSocket's opening is written in (RFC 7301, section 6)."""


class ServerPolicy(Protocol):
    """What a server's transform asks of its handler. Shared by all connections and threads."""

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        """The context that serves a name; None refuses it (alert unrecognized_name)."""

    def admit(self, info: TLSInfo) -> None:
        """Raise HandshakeError to refuse a peer whose handshake was right."""


class TLSTransform(Transform):
    """One end of a TLS session over bytes.

    Made by `TLSTransform.server` or `TLSTransform.client`.
    """

    __slots__ = (
        "_hello",
        "_incoming",
        "_kept",
        "_missing",
        "_outgoing",
        "_policy",
        "_read",
        "_server_name",
        "_tls",
        "_useless",
        "_verdict",
        "_write",
    )

    def __init__(self, policy: ServerPolicy | None) -> None:
        super().__init__(ready=False)
        self._policy = policy
        self._hello: ClientHelloReader | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._read: Callable[[int], bytes]
        self._write: Callable[[bytes | bytearray | memoryview], int]
        self._server_name: str | None = None
        self._verdict: TLSError | bytes | None = None
        self._useless = 0
        self._kept = b""
        """Ciphertext that OpenSSL was not given yet; it begins with the header of a record."""
        self._missing = 0
        """Bytes that are still to come of the record whose beginning OpenSSL has."""

    @classmethod
    def server(cls, policy: ServerPolicy) -> TLSTransform:
        """The server's end."""
        return cls(policy)

    @classmethod
    def client(cls, context: ssl.SSLContext, server_name: str) -> TLSTransform:
        """The client's end.

        Raises:
            ValueError: `server_name` can be neither a host name nor an address.
        """
        transform = cls(None)
        transform._server_name = server_name
        transform._begin_session(
            context.wrap_bio(transform._incoming, transform._outgoing, server_hostname=server_name)
        )
        return transform

    def _begin_session(self, tls: ssl.SSLObject) -> None:
        self._tls = tls
        # What SSLObject wraps, without the call of Python around each call of OpenSSL.
        session = getattr(tls, "_sslobj", tls)
        self._read, self._write = session.read, session.write

    def handshake(self, data: bytes) -> bool:
        """Take bytes of the peer; True once the handshake is done.

        Raises:
            HandshakeError: it failed or the peer is refused; `take_outgoing()` has what TLS
                says about it. `PlainHTTPError`: the first byte was a letter.
        """
        if self._tls is None:
            data = self._begin(data)
        tls = self._tls
        if tls is None:
            return False
        self._incoming.write(data)  # one read of a stream, 16 KiB at most
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            raise HandshakeError(f"the TLS handshake failed: {reason(exc)}") from exc
        try:
            info = self._facts(tls)
            if self._policy is not None:
                self._policy.admit(info)
        except HandshakeError:
            self._notify(tls)
            raise
        self.info = info
        self._policy = None
        self._kept = self._incoming.read()  # it came behind the handshake
        self.bytes_available = len(self._kept)
        self.ready = True
        return True

    def _begin(self, data: bytes) -> bytes:
        """Collect the ClientHello. Once it is whole, make the SSLObject that it asks for.

        Returns:
            What OpenSSL gets: nothing before.

        Raises:
            ClientHelloError: the client is refused, and its alert goes out.
        """
        if not data:
            return b""
        if self._hello is None:
            # A method's first letter (RFC 9110, section 9.1). No TLS record begins with one.
            if b"A" <= data[:1] <= b"Z":
                raise PlainHTTPError
            self._hello = ClientHelloReader()
        try:
            hello = self._hello.feed(data)
            if hello is None:
                return b""
            context = self._context_for(hello)
        except ClientHelloError as exc:
            self._outgoing.write(fatal_alert(exc.alert))
            raise
        self._server_name = hello.server_name
        self._begin_session(context.wrap_bio(self._incoming, self._outgoing, server_side=True))
        received, self._hello = bytes(self._hello.received), None
        return received

    def _context_for(self, hello: ClientHello) -> ssl.SSLContext:
        """The context that serves what a client asks for. ClientHelloError: there is none."""
        assert self._policy is not None
        if hello.alpn and HTTP_1_1 not in hello.alpn:
            raise ClientHelloError(
                Alert.NO_APPLICATION_PROTOCOL,
                f"the peer speaks only {printable(', '.join(hello.alpn))}",
            )
        context = self._policy.context_for(hello.server_name)
        if context is None:
            raise ClientHelloError(
                Alert.UNRECOGNIZED_NAME,
                f"the peer asks for {printable(hello.server_name)}, unknown here",
            )
        return context

    def _facts(self, tls: ssl.SSLObject) -> TLSInfo:
        der = tls.getpeercert(binary_form=True) if self._policy is not None else None
        try:
            certificate = None if der is None else ClientCertificate.from_der(der)
        except ValueError as exc:
            raise HandshakeError("the client's certificate cannot be read") from exc
        cipher = tls.cipher()
        # Interned: a thousand connections share these strings.
        return TLSInfo(
            version=sys.intern(tls.version() or ""),
            cipher=sys.intern(cipher[0] if cipher else ""),
            server_name=self._server_name,
            alpn=tls.selected_alpn_protocol(),
            resumed=bool(tls.session_reused),
            client_certificate=certificate,
        )

    def receive(self, data: bytes) -> bytes | None:
        """Take ciphertext; return the plaintext, None for none yet, `b""` after close_notify.

        One call decrypts a `SHARE`. While `bytes_available` is more than 0 there may be more, also
        after None: call again, with `b""`.

        Raises:
            TLSError: a record is bad, the peer sent an alert, or nothing but records that carry
                nothing.
        """
        if self._verdict is not None:
            return self._say()
        parts: list[bytes] = []
        rest = len(data) - HEADER
        if not self._missing and rest > 0 and data[3] << 8 | data[4] == rest and not self._kept:
            self._decrypt(data, 1, parts)  # one record and a whole one: nearly every message
        else:
            self._decrypt_share(data, parts)
        if not parts:
            return self._outcome()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decrypt_share(self, data: bytes, parts: list[bytes]) -> None:
        """Decrypt the first records of `_kept` and `data`, and keep the others."""
        if self._kept:
            data = self._kept + data
        self.bytes_available = 0
        begin, size, share = 0, len(data), SHARE
        while share > 0 and self._verdict is None:
            begun = self._missing > 0
            end, records = self._next_group(data, begin)
            if begin == end:
                break
            share -= self._decrypt(memoryview(data)[begin:end], records, parts, begun)
            begin = end
        if self._verdict is not None:
            self._kept = b""
            return
        self._kept = data[begin:]
        if share <= 0:
            self.bytes_available = size - begin

    def _next_group(self, data: bytes, begin: int) -> tuple[int, int]:
        """Where the records that OpenSSL gets next end, and how many of them end there.

        The last one may have its end still to come; the beginning of a header is not given away.
        """
        end, records = begin + self._missing, 1 if self._missing else 0
        limit, last_header = begin + PIECE, len(data) - HEADER
        while end <= last_header and records < GROUP:
            behind = end + HEADER + (data[end + 3] << 8 | data[end + 4])
            if behind > limit and records:
                break
            end = behind
            records += 1
        if end <= len(data):
            self._missing = 0
            return end, records
        self._missing = end - len(data)
        return len(data), records - 1

    def receive_eof(self) -> bytes:
        """The peer's FIN came: `b""` if close_notify came before it. Not while more is available.

        Raises:
            TruncatedError: it did not.
        """
        if self._verdict is None:
            self._incoming.write_eof()
            self._decrypt_eof()
        return self._say()

    def _decrypt(
        self,
        data: bytes | memoryview,
        records: int,
        parts: list[bytes],
        begun: bool = False,
    ) -> int:
        """Let OpenSSL have `data`, and add the plaintext of each record to `parts`.

        Args:
            data: at most `PIECE` bytes, or one record.
            records: how many end in it.
            parts: what ends them goes into `_verdict`.
            begun: whether OpenSSL has the beginning of the first one already.

        Returns:
            The work that it was, as parts of a `SHARE`.
        """
        incoming, read, before = self._incoming, self._read, len(parts)
        incoming.write(data)
        try:
            while pending := incoming.pending:
                # Plaintext is shorter than its record: a small one needs no large buffer.
                part = read(RECORD if begun or pending > RECORD else pending)
                begun = False
                if not part:
                    self._end(b"")
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self._end(without_frames(_tls_error(exc)))
        found = len(parts) - before
        if found:
            self._useless = 0
        else:
            self._useless += len(data)
            if self._useless > USELESS and self._verdict is None:
                self._end(TLSError(f"{USELESS >> 10} KiB of TLS records without a byte of data"))
        return found + GROUP * (records - found)

    def _decrypt_eof(self) -> None:
        try:
            self._read(RECORD)
            self._end(b"")
        except ssl.SSLError:  # SSLEOFError, whether a record was begun or not
            self._end(TruncatedError("the peer cut the connection: no close_notify before its end"))

    def _end(self, verdict: TLSError | bytes) -> None:
        self._verdict = verdict
        self.bytes_available = 1  # until it is said

    def _outcome(self) -> bytes | None:
        return None if self._verdict is None else self._say()

    def _say(self) -> bytes:
        self.bytes_available = 0
        verdict = self._verdict
        if isinstance(verdict, TLSError):
            # A new one each time: an error that was raised holds the frames that hold us.
            raise type(verdict)(str(verdict)) from verdict.__cause__
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> bytes:
        """The records that carry `data`, and before them what TLS itself had to say.

        Raises:
            TLSError: the session is broken.
        """
        try:
            written = self._write(data)
            if written < len(data):  # one record at a time (SSL_MODE_ENABLE_PARTIAL_WRITE)
                rest = memoryview(data)[written:]
                while rest:
                    rest = rest[self._write(rest) :]
        except ssl.SSLError as exc:
            raise _tls_error(exc) from exc
        return self._outgoing.read()

    def take_outgoing(self) -> bytes:
        """What TLS itself wants to tell the peer: handshake, KeyUpdate, alerts."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """close_notify, and whatever alert was still there. Never raises."""
        self._kept = b""
        if self._tls is not None:
            self._notify(self._tls)
        return self._outgoing.read()

    def _notify(self, tls: ssl.SSLObject) -> None:
        """One `unwrap()`. Its error is the rule: the peer's own close_notify is not there yet."""
        try:
            tls.unwrap()
        except ssl.SSLError:
            pass


def _tls_error(error: ssl.SSLError) -> TLSError:
    failure = TLSError(f"TLS failed: {reason(error)}")
    failure.__cause__ = error
    return failure
