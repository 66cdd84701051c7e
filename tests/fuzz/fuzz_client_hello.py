"""Fuzz target: the first bytes of a connection that should be TLS.

Whatever comes, in whatever cut: a ClientHello, or a ClientHelloError, or neither yet; and from the
transform above it (which looks at the first byte, and lets OpenSSL read what was read) a
HandshakeError with an alert or with the readable 400's cause.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from fuzz_input import FuzzInput

from securews.common.errors import HandshakeError
from securews.transport.client_hello import (
    MAX_HELLO,
    MAX_RECORD,
    ClientHelloError,
    ClientHelloReader,
    fatal_alert,
)
from securews.transport.socket_handler import PlainHTTPError
from securews.transport.tls import ServerContexts
from securews.transport.tls_policy import server_context
from securews.transport.tls_transform import TLSTransform

# Without a certificate every handshake fails, but not before the ClientHello was read.
_CONTEXT = server_context(ssl.TLSVersion.TLSv1_2)
POLICIES = (
    ServerContexts(_CONTEXT),
    ServerContexts(_CONTEXT, known_names=frozenset({"localhost", "*.example.org"})),
)


PLAIN_HTTP = 400


def check_client_hello(data: bytes) -> None:
    """Read one input in one piece and in many, and let the transform begin with it."""
    given = FuzzInput.of(data)
    whole = read([given.payload])
    assert read(given.pieces()) == whole
    policy = POLICIES[given.flags & 1]
    outcome = begin([given.payload], policy)
    assert begin(given.pieces(), policy) == outcome
    if isinstance(whole, tuple) and outcome != PLAIN_HTTP:
        assert outcome == (1, fatal_alert(whole[0])), "OpenSSL got what was not read"
    assert (outcome == PLAIN_HTTP) == (b"A" <= given.payload[:1] <= b"Z")
    if isinstance(outcome, tuple):
        assert outcome[0] == 1, "an error of more than one line"


def read(pieces: Iterable[bytes]) -> object:
    """The ClientHello, alert and words of the ClientHelloError, or None."""
    reader = ClientHelloReader()
    given = b""
    for piece in pieces:
        given += piece
        try:
            hello = reader.feed(piece)
        except ClientHelloError as error:
            return error.alert, str(error)
        assert reader.received == given
        assert len(reader._message) <= MAX_HELLO + MAX_RECORD
        if hello is not None:
            name = hello.server_name
            assert name is None or (name.isascii() and name.isprintable() and name == name.lower())
            return hello
    return None


def begin(pieces: Iterable[bytes], policy: ServerContexts) -> object:
    """How a handshake ends: 400, or the lines of its error and the alert, or None."""
    transform = TLSTransform.server(policy)
    for piece in pieces:
        try:
            assert not transform.handshake(piece), "a handshake without a certificate"
        except PlainHTTPError as error:
            return error.status
        except HandshakeError as error:
            return len(str(error).splitlines()), transform.take_outgoing()
    return None
