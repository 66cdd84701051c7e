"""TLS for clients: always verified."""

from __future__ import annotations

import functools
import os
import socket
import ssl

from securews.common.errors import ConfigurationError
from securews.transport.key_files import (
    CertificateFiles,
    StrPath,
    key_files,
    load_key_files,
    load_trust,
)
from securews.transport.socket_handler import SocketAddress, SocketHandler, SocketStream
from securews.transport.stream import TransformStream
from securews.transport.tls_policy import check_client_context, client_context
from securews.transport.tls_transform import TLSTransform

__all__ = ["TLSClientSocketHandler", "system_trust"]


class TLSClientSocketHandler(SocketHandler):
    """TLS for a client. The server's certificate is verified, and so is its name.

    Args:
        trust: None, what the system trusts; the path of a CA certificate (PEM); or an
            `ssl.SSLContext` that verifies, taken as it is.
        client_cert: what to show to a server that asks who we are: `(cert, key)`,
            `(cert, key, password)`, or one path that holds both.

    Raises:
        ConfigurationError: something of this cannot work, or the context does not verify.
    """

    secure = True

    def __init__(
        self,
        trust: StrPath | ssl.SSLContext | None = None,
        *,
        client_cert: CertificateFiles | None = None,
    ) -> None:
        if isinstance(trust, ssl.SSLContext):
            if client_cert is not None:
                raise ConfigurationError(
                    "an SSLContext brings its own certificate: call context.load_cert_chain() "
                    "instead of giving client_cert"
                )
            check_client_context(trust)
            self._context = trust
            return
        context = client_context()
        if trust is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        elif isinstance(trust, (str, os.PathLike)):
            load_trust(context, trust, "CA")
        else:
            raise ConfigurationError(
                "trust is the path of a CA certificate or an SSLContext; verification cannot be "
                f"turned off (got {trust!r})"
            )
        if client_cert is not None:
            load_key_files(context, key_files(client_cert))
        self._context = context

    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        """A client serves nobody: ConfigurationError."""
        del sock, address
        raise ConfigurationError("a TLSClientSocketHandler connects only; serve with (cert, key)")

    def connect(self, sock: socket.socket, server_name: str) -> SocketStream:
        """The client's end; the peer has to prove that it is `server_name`.

        Raises:
            ConfigurationError: `server_name` is no name, or the context was changed since and
                does not verify any more.
        """
        check_client_context(self._context)
        try:
            transform = TLSTransform.client(self._context, server_name)
        except ValueError as exc:
            raise ConfigurationError(f"{server_name!r} is no host name: {exc}") from exc
        address: SocketAddress = sock.getpeername()
        return TransformStream(sock, address, transform)


@functools.cache
def system_trust() -> TLSClientSocketHandler:
    """One handler for everybody who has nothing to say about trust: loading it takes 20 ms."""
    return TLSClientSocketHandler()
