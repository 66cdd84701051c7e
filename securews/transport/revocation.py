"""Certificate revocation lists, failing closed (RFC 5280, section 5).

OpenSSL refuses everybody once a list is stale or missing. That is right, and a surprise at
three in the morning: so a list that could refuse everybody is refused here first, and the log
says so a day before one becomes stale.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import ssl
import time
from pathlib import Path

from cryptography import x509

from securews.common.errors import ConfigurationError
from securews.transport.key_files import StrPath, read_file
from securews.transport.tls_info import ClientCertificate

__all__ = ["RevocationLists"]

log = logging.getLogger("securews.tls")

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

WARN_BEFORE = dt.timedelta(hours=24)
"""How long before a list becomes stale the log says so."""


class RevocationLists:
    """The lists of one file, checked. Any thread.

    Args:
        path: PEM, one list or more.
        client_ca: the CAs that may have signed them.

    Attributes:
        until: when the first of them becomes stale.

    Raises:
        ConfigurationError: missing, damaged or stale, or not of one of these CAs.
    """

    __slots__ = ("_lists", "_path", "_remind_at", "_revoked", "until")

    def __init__(self, path: StrPath, client_ca: StrPath) -> None:
        text = read_file(Path(path), "crl file")
        if b"-----BEGIN CERTIFICATE" in text:
            # load_verify_locations() would trust it.
            raise ConfigurationError(f"crl file {path} holds a certificate; it may hold CRLs only")
        try:
            lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(text)]
            issuers = x509.load_pem_x509_certificates(read_file(Path(client_ca), "client_ca file"))
        except ValueError as exc:
            raise ConfigurationError(f"crl file {path} or {client_ca} is damaged: {exc}") from exc
        if not lists:
            raise ConfigurationError(
                f"crl file {path} holds no CRL (PEM, -----BEGIN X509 CRL-----)"
            )
        self._path = path
        self._lists = sorted(lists, key=lambda revocations: revocations.last_update_utc)
        self._revoked: dict[str, frozenset[int]] | None = None
        self.until = min(_checked(revocations, issuers, path) for revocations in lists)
        self._remind_at = (self.until - WARN_BEFORE).timestamp()

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a context that is not in use yet refuse whom the lists revoke."""
        try:
            context.load_verify_locations(cafile=self._path)
        except OSError as exc:  # SSLError is one
            raise ConfigurationError(f"crl file {self._path} cannot be loaded: {exc}") from exc
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def refuses(self, certificate: ClientCertificate) -> bool:
        """Whether the newest list of its issuer revokes it, or there is no list of its issuer.

        What OpenSSL finds in a handshake, for a certificate that it verified earlier.
        """
        if self._revoked is None:  # two threads that meet here both make it, and alike
            self._revoked = {
                revocations.issuer.rfc4514_string(): frozenset(
                    revoked.serial_number for revoked in revocations
                )
                for revocations in self._lists
            }
        revoked = self._revoked.get(certificate.issuer)
        return revoked is None or certificate.serial_number in revoked

    def remind(self) -> None:
        """Say once that a list becomes stale within a day, and once that it is.

        Cheap, one look at the clock: called on every accept. Two threads that meet here may say
        it twice, which harms nobody.
        """
        now = time.time()
        if now < self._remind_at:
            return
        if now < self.until.timestamp():
            self._remind_at = self.until.timestamp()
            log.warning(
                "the CRL in %s becomes stale at %s UTC; from then on every client is refused: put "
                "a new one in its place and reload",
                self._path,
                f"{self.until:%Y-%m-%d %H:%M}",
            )
        else:
            self._remind_at = float("inf")
            log.error(
                "the CRL in %s is stale: every client is refused until a new one is reloaded",
                self._path,
            )


def _checked(
    revocations: x509.CertificateRevocationList, issuers: list[x509.Certificate], path: StrPath
) -> dt.datetime:
    if not any(_signed_by(revocations, issuer) for issuer in issuers):
        raise ConfigurationError(
            f"a CRL in {path} is not signed by a CA in client_ca: it is of "
            f"{revocations.issuer.rfc4514_string()}"
        )
    until = revocations.next_update_utc
    if until is None or until <= dt.datetime.now(dt.UTC):
        raise ConfigurationError(
            f"a CRL in {path} is stale (nextUpdate {until}): with it every client is refused; "
            "fetch a new one"
        )
    return until


def _signed_by(revocations: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if revocations.issuer != issuer.subject:
        return False
    key = issuer.public_key()
    try:
        return revocations.is_signature_valid(key)  # type: ignore[arg-type]  # judged by the except
    except TypeError:  # a key that cannot sign
        return False
