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
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from securews.common.errors import ConfigurationError
from securews.transport.key_files import StrPath, read_file
from securews.transport.tls_info import UNREADABLE, ClientCertificate

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
        ConfigurationError: missing, damaged, stale or not yet valid, or not of one of these CAs.
    """

    __slots__ = ("_issuers", "_lists", "_path", "_remind_at", "_revoked", "until")

    def __init__(self, path: StrPath, client_ca: StrPath) -> None:
        text = read_file(Path(path), "crl file")
        if b"-----BEGIN CERTIFICATE" in text:
            # load_verify_locations() would trust it.
            raise ConfigurationError(f"crl file {path} holds a certificate; it may hold CRLs only")
        try:
            lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(text)]
            issuers = x509.load_pem_x509_certificates(read_file(Path(client_ca), "client_ca file"))
        except UNREADABLE as exc:
            raise ConfigurationError(f"crl file {path} or {client_ca} is damaged: {exc}") from exc
        if not lists:
            raise ConfigurationError(
                f"crl file {path} holds no CRL (PEM, -----BEGIN X509 CRL-----)"
            )
        self._path = path
        self._lists = sorted(lists, key=lambda revocations: revocations.last_update_utc)
        self._issuers = issuers
        self._revoked: list[tuple[x509.Certificate, frozenset[int]]] | None = None
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

        What OpenSSL finds in a handshake, for a certificate that it verified earlier. The issuer is
        whose key has signed it: more than one CA may have the same name.
        """
        if self._revoked is None:  # two threads that meet here both make it, and alike
            self._revoked = list(self._by_issuer())
        leaf = x509.load_der_x509_certificate(certificate.der)
        for issuer, revoked in self._revoked:
            if _has_issued(issuer, leaf):
                return certificate.serial_number in revoked
        return True

    def _by_issuer(self) -> Iterator[tuple[x509.Certificate, frozenset[int]]]:
        """The CAs of which there is a list, with what their newest one revokes."""
        for issuer in self._issuers:
            signed = [each for each in self._lists if _signed_by(each, issuer)]
            if signed:  # in the order of their dates
                yield issuer, frozenset(revoked.serial_number for revoked in signed[-1])

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
    now = dt.datetime.now(dt.UTC)
    if revocations.last_update_utc > now:
        raise ConfigurationError(
            f"a CRL in {path} is valid from {revocations.last_update_utc:%Y-%m-%d %H:%M:%S} UTC "
            f"(thisUpdate), and this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC: with it "
            "every client is refused; set the clock, or take an older list until then"
        )
    until = revocations.next_update_utc
    if until is None or until <= now:
        raise ConfigurationError(
            f"a CRL in {path} is stale (nextUpdate {until}): with it every client is refused; "
            "fetch a new one"
        )
    return until


def _signed_by(revocations: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if revocations.issuer != issuer.subject:
        return False
    try:
        key = issuer.public_key()
        return revocations.is_signature_valid(key)  # type: ignore[arg-type]  # judged by the except
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a key that is unknown or cannot sign
        return False


def _has_issued(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # another name or key
        return False
    return True
