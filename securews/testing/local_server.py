"""A real wss server for a program's own tests: `with securews.testing.server(handler)`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from securews.certificates.dev_certificates import ensure_certificates
from securews.client.connect import ClientTLS, connect
from securews.common.headers import HeaderSource
from securews.handlers.communicator import Communicator
from securews.handlers.handler import AcceptFunction, HandlerFunction, WebSocketHandler
from securews.handlers.origins import AnyOrigin
from securews.server.server import WebSocketServer
from securews.transport.key_files import CertificateFiles
from securews.transport.mutual_tls import MutualTLSSocketHandler
from securews.transport.tls import TLSSocketHandler

__all__ = ["LocalServer", "server"]


class LocalServer(WebSocketServer):
    """A `WebSocketServer` on a free port of localhost, with a CA of its own that nobody trusts.

    The CA and all keys live in a temporary directory, which goes with the server.

    Args:
        mutual: whether clients must show a certificate of that CA.
        options: every option of docs/options.md.
    """

    ca_file: str
    """The CA's certificate: what a foreign client has to trust."""

    def __init__(self, *, mutual: bool = False, **options: object) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="securews-testing-"))
        self._remove_directory = weakref.finalize(
            self, shutil.rmtree, self._directory, ignore_errors=True
        )
        try:
            ca, pair, *_ = ensure_certificates(self._directory).entries
            self.ca_file = str(ca.certificate)
            self.mutual = mutual
            super().__init__(
                "localhost",
                0,
                MutualTLSSocketHandler(pair.certificate, pair.key, client_ca=self.ca_file)
                if mutual
                else TLSSocketHandler(pair.certificate, pair.key),
                path=None,
                sockets=None,
                **options,
            )
        except BaseException:
            self._remove_directory()
            raise

    def client_cert(self, name: str) -> tuple[str, str]:
        """(cert, key) files of a client that this server knows; made when first asked for.

        Raises:
            ConfigurationError: a name that no file name can hold.
        """
        ensure_certificates(self._directory, clients=[name])
        return (
            str(self._directory / f"client-{name}.pem"),
            str(self._directory / f"client-{name}-key.pem"),
        )

    def connect(
        self,
        path: str = "/",
        client: str | None = "pump-1",
        *,
        tls: ClientTLS = None,
        client_cert: CertificateFiles | None = None,
        headers: HeaderSource | None = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        timeout: float | None = 10.0,
        **options: object,
    ) -> Communicator:
        """Open a WebSocket to this server: `securews.connect` with the right trust.

        Args:
            path: with its query.
            client: whose certificate is shown, if the server is `mutual`; None shows none.
            tls: as `securews.connect`; None trusts this server's CA.
            client_cert: shown instead of `client`'s.
            headers: as `securews.connect`, and so the rest.
            subprotocols: offered.
            origin: None sends none.
            timeout: seconds for all of it.
            options: connection options of docs/options.md.

        Raises:
            HandshakeError: the server refused, or TLS failed.
        """
        if tls is None and client_cert is None and self.mutual and client is not None:
            client_cert = self.client_cert(client)
        return connect(
            self.url.rstrip("/") + path,
            tls=self.ca_file if tls is None else tls,
            client_cert=client_cert,
            headers=headers,
            subprotocols=subprotocols,
            origin=origin,
            timeout=timeout,
            **options,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._remove_directory()


def server(
    handler: WebSocketHandler | HandlerFunction | None = None,
    *,
    mutual: bool = False,
    accept: AcceptFunction | None = None,
    origins: Iterable[str] | AnyOrigin | None = None,
    subprotocols: Sequence[str] | None = None,
    **options: object,
) -> LocalServer:
    """A wss server for tests, for `with`: port, CA and certificates are its own.

        with securews.testing.server(echo) as server, server.connect() as ws:
            ws.send("hello")
            assert ws.recv(timeout=5) == "hello"

    Args:
        handler: as in `securews.serve`; None if `register_handler` or `@server.route` follow.
        mutual: whether clients must show a certificate; `server.connect` makes them.
        accept: with `handler`; see WebSocketHandler.accept.
        origins: with `handler`; see WebSocketHandler.origins.
        subprotocols: with `handler`; see WebSocketHandler.subprotocols.
        options: every option of docs/options.md.

    Raises:
        ConfigurationError: something of this cannot work.
    """
    made = LocalServer(mutual=mutual, **options)
    if handler is not None:
        try:
            made.register_handler(
                "*",
                "*",
                handler,
                default_host=True,
                default_path=True,
                accept=accept,
                origins=origins,
                subprotocols=subprotocols,
            )
        except BaseException:
            made.stop()
            made._remove_directory()
            raise
    return made
