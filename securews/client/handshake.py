"""TLS, the request and its answer, in the calling thread and within one deadline.

The deadline is looked at before every read and every wait: a server that keeps sending, or sends
a byte now and then, ends it no later than one that is silent.
"""

from __future__ import annotations

import select
import ssl

from securews.common.deadlines import Deadline
from securews.common.errors import HandshakeError
from securews.common.headers import Headers
from securews.protocol.opening_client import ResponseParser
from securews.transport.socket_handler import SocketStream, Want

__all__ = ["open_websocket"]

_UNTRUSTED = frozenset({18, 19, 20, 21})
"""X509_V_ERR codes of OpenSSL: self-signed, or signed by nobody who is trusted."""
_LONGEST_WAIT = 3600.0
"""Seconds. A poll cannot wait longer than 24 days; what is longer is waited for in several."""


def open_websocket(
    stream: SocketStream, request: bytes, parser: ResponseParser, deadline: Deadline
) -> Headers:
    """Shake hands, send the request and read the answer; the headers of the 101.

    The stream stays the caller's, to be closed if this raises.

    Raises:
        HandshakeError: TLS failed, the server refused or broke off, or its answer is none.
        TimeoutError: it took too long.
    """
    try:
        _shake_hands(stream, deadline)
        _send(stream, request, deadline)
        return _receive(stream, parser, deadline)
    except OSError as error:
        if parser.refused:
            parser.end()  # only the rest of a refusal's body is missing
        if isinstance(error, TimeoutError):
            raise
        # In TLS 1.3 a certificate of ours is refused only after the handshake is done.
        raise HandshakeError(f"the connection broke during the opening: {error}") from error


def _shake_hands(stream: SocketStream, deadline: Deadline) -> None:
    try:
        while (want := stream.handshake()) is not Want.NOTHING:
            _wait(stream, want, deadline)
    except HandshakeError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _UNTRUSTED:
            advice = "pass tls='ca.pem', the CA that signed the server's certificate"
            raise HandshakeError(f"{error}; {advice}") from cause
        raise


def _send(stream: SocketStream, request: bytes, deadline: Deadline) -> None:
    want = stream.send(request)
    while want is Want.WRITE:
        _wait(stream, want, deadline)
        want = stream.flush()


def _receive(stream: SocketStream, parser: ResponseParser, deadline: Deadline) -> Headers:
    while True:
        _check(deadline)
        data = stream.recv()
        if isinstance(data, Want):
            _wait(stream, data, deadline)
            if data is Want.WRITE:
                stream.flush()
        elif not data:
            parser.end()
        elif (answer := parser.feed(data)) is not None:
            return answer


def _wait(stream: SocketStream, want: Want, deadline: Deadline) -> None:
    """Wait until the stream can go on, or a while: the caller tries again, and comes back."""
    _check(deadline)
    if want is Want.READ and stream.bytes_available:
        return
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN if want is Want.READ else select.POLLOUT)
    left = deadline.remaining()
    poller.poll(None if left is None else min(left, _LONGEST_WAIT) * 1000)


def _check(deadline: Deadline) -> None:
    if deadline.passed:
        raise TimeoutError("the server did not answer in time")
