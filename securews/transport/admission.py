"""Which verified clients are let in: judged after every handshake, before any byte of HTTP.

OpenSSL verifies a certificate when it is shown. A resumed session shows none, so what can change
while a session lives is judged here, on every connection, resumed or not; and again while a
connection is open, where `revalidate_interval` asks for it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import re
from collections.abc import Callable, Collection
from threading import current_thread, main_thread
from typing import TypeAlias

from securews.common.errors import ConfigurationError, HandshakeError, printable
from securews.transport.revocation import RevocationLists
from securews.transport.tls_info import ClientCertificate, TLSInfo

__all__ = ["Admission", "Authorize", "allow_list"]

log = logging.getLogger("securews.tls")

Authorize: TypeAlias = Callable[[ClientCertificate], bool] | Collection[str]
"""A judge, or the exact SANs (DNS, URI, e-mail) and "sha256:..." fingerprints that are let in."""

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """What a client's certificate has to meet beside OpenSSL's verification. Any thread.

    Attributes:
        authorize: lets a certificate in, or does not.
        require_client_auth_eku: refuse certificates that do not name the usage clientAuth.
        crl: the lists in use; nobody is let in once they are stale.
    """

    authorize: Callable[[ClientCertificate], bool] | None = None
    require_client_auth_eku: bool = False
    crl: RevocationLists | None = None

    def judge(self, info: TLSInfo) -> None:
        """Raise HandshakeError for a client that is not let in.

        A client without a certificate, where none is required, has nothing to be judged.
        """
        certificate = info.client_certificate
        if certificate is None:
            return
        who = f"the client {printable(certificate.subject)}"
        now = dt.datetime.now(dt.UTC)
        if not certificate.not_before <= now <= certificate.not_after:
            raise HandshakeError(f"{who} has a certificate that is expired or not yet valid")
        if self.crl is not None and now >= self.crl.until:
            raise HandshakeError(f"{who} is refused: the CRL is stale")
        if self.require_client_auth_eku and not certificate.client_auth:
            raise HandshakeError(f"{who} has a certificate that is not for clients")
        if self.authorize is not None and not self._authorized(self.authorize, certificate):
            raise HandshakeError(f"{who} is not authorized")

    def judge_again(self, info: TLSInfo) -> None:
        """As `judge`, for an open connection: OpenSSL is not asked again, so the CRL is read."""
        certificate = info.client_certificate
        if certificate is not None and self.crl is not None and self.crl.refuses(certificate):
            raise HandshakeError(f"the client {printable(certificate.subject)} is revoked")
        self.judge(info)

    @staticmethod
    def _authorized(
        authorize: Callable[[ClientCertificate], bool], certificate: ClientCertificate
    ) -> bool:
        try:
            verdict: object = authorize(certificate)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # Ctrl-C, where no server is between
            log.exception("authorize failed; the client is refused")
            return False
        if not isinstance(verdict, bool):
            log.error(
                "authorize returned %s; the client is refused: return True or False",
                type(verdict).__name__,
            )
            return False
        return verdict


def allow_list(members: Collection[str]) -> Callable[[ClientCertificate], bool]:
    """A judge that lets in who has one of these SANs or fingerprints, exactly.

    Raises:
        ConfigurationError: a member that could never match as it was meant.
    """
    if isinstance(members, (str, bytes)):
        raise ConfigurationError(f"authorize takes a set of names: {{{members!r}}}")
    names: set[str] = set()
    fingerprints: set[str] = set()
    for member in members:
        if not isinstance(member, str) or not member:
            raise ConfigurationError(f"authorize takes names as str, not {member!r}")
        kind, _, rest = member.partition(":")
        if kind.lower() == "sha256":
            fingerprints.add(_fingerprint(member, rest))
        elif "=" in member and "://" not in member:
            raise ConfigurationError(
                f"authorize does not take {member!r}: a subject or common name is not unique; "
                "use a SAN or a 'sha256:...' fingerprint"
            )
        else:
            names.add(member)

    def listed(certificate: ClientCertificate) -> bool:
        return certificate.fingerprint_sha256 in fingerprints or not names.isdisjoint(
            (*certificate.dns_names, *certificate.uris, *certificate.emails)
        )

    return listed


def _fingerprint(member: str, digits: str) -> str:
    plain = digits.replace(":", "").lower()  # openssl x509 -fingerprint writes AB:CD:...
    if not _FINGERPRINT.fullmatch(plain):
        raise ConfigurationError(f"{member!r} is no fingerprint: 'sha256:' and 64 hex digits")
    return plain
