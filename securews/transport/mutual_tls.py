"""Mutual TLS: both ends show a certificate, and the handler learns who the client is."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from securews.common.errors import HandshakeError
from securews.transport.admission import Admission, Authorize, allow_list
from securews.transport.key_files import CertificateFiles, StrPath, load_trust
from securews.transport.revocation import RevocationLists
from securews.transport.socket_handler import SocketAddress, SocketStream
from securews.transport.tls import SNIUnknown, TLSSocketHandler
from securews.transport.tls_info import TLSInfo

__all__ = ["MutualTLSSocketHandler"]

log = logging.getLogger("securews.tls")


class MutualTLSSocketHandler(TLSSocketHandler):
    """TLS that also verifies the client, by a CA of yours.

    **Without `authorize` every certificate of that CA is let in.** A client that is refused is
    refused in the handshake, before a byte of HTTP is read.

    Args:
        cert: the server's certificate (PEM, the leaf first, then its chain), or one file that
            holds certificate and key.
        key: the path of the key.
        password: of the key.
        client_ca: PEM, the CAs that may issue client certificates, and nothing but them: give a
            CA of your own, never the system's.
        required: False lets clients without a certificate in, with no identity. A certificate
            that is shown is verified all the same.
        certificates: other server certificates for other hosts.
        minimum_version: TLS 1.3 by default, so that no session is ever resumed. TLS 1.2 is for
            old devices: Python cannot switch off its session IDs, so dates, `authorize` and the
            CRL's age are judged on every connection.
        sni_unknown: see `TLSSocketHandler`.
        crl: PEM, the lists of revoked certificates. Fails closed: a stale one refuses everybody.
        authorize: a callable that gets the `ClientCertificate` and returns whether to let it
            in, on any handshake thread, and on a thread of its own where `revalidate_interval`
            asks again; or the exact SANs and "sha256:..." fingerprints that are let in.
        require_client_auth_eku: also refuse certificates without an extended key usage. Those
            for servers only are refused in any case.

    Raises:
        ConfigurationError: something of this cannot work; the text says what.
    """

    def __init__(
        self,
        cert: StrPath,
        key: StrPath | None = None,
        password: str | bytes | None = None,
        *,
        client_ca: StrPath,
        required: bool = True,
        certificates: Mapping[str, CertificateFiles] | None = None,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        sni_unknown: SNIUnknown = "default",
        crl: StrPath | None = None,
        authorize: Authorize | None = None,
        require_client_auth_eku: bool = False,
    ) -> None:
        self._client_ca = client_ca
        self._required = required
        self._crl = crl
        self._require_client_auth_eku = require_client_auth_eku
        self._authorize = (
            authorize if authorize is None or callable(authorize) else allow_list(authorize)
        )
        super().__init__(
            cert,
            key,
            password,
            certificates=certificates,
            minimum_version=minimum_version,
            sni_unknown=sni_unknown,
        )

    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        """The server's end. Reminds of a CRL that is about to become stale."""
        crl = self._contexts.latest.admission.crl
        if crl is not None:
            crl.remind()
        return super().accept(sock, address)

    def still_admitted(self, info: TLSInfo) -> bool:
        """Whether dates, CRL and `authorize`, as they are now, let this client in. May block."""
        try:
            self._contexts.latest.admission.judge_again(info)
        except HandshakeError as refusal:
            log.info("%s", refusal)
            return False
        return True

    def _paths(self) -> list[Path]:
        more = (self._client_ca, self._crl)
        return [*super()._paths(), *(Path(path) for path in more if path is not None)]

    def _admission(self) -> Admission:
        return Admission(
            self._authorize,
            self._require_client_auth_eku,
            None if self._crl is None else RevocationLists(self._crl, self._client_ca),
        )

    def _verify_clients(self, context: ssl.SSLContext, admission: Admission) -> None:
        context.verify_mode = ssl.CERT_REQUIRED if self._required else ssl.CERT_OPTIONAL
        # What stands in client_ca is trusted, also if it is an intermediate CA.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        load_trust(context, self._client_ca, "client_ca")
        # A resumed session shows no certificate: a revoked one would live on in its ticket.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if admission.crl is not None:
            admission.crl.load_into(context)
