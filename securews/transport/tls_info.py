"""Facts about a TLS session and about the certificate of a client."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import logging
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from securews.common.errors import printable

__all__ = ["UNREADABLE", "ClientCertificate", "TLSInfo"]

log = logging.getLogger("securews.tls")

UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises where it cannot read a certificate or CRL; not all are ValueErrors."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who the client proved to be (RFC 5280). Verified before anybody sees it.

    Attributes:
        subject: the distinguished name as RFC 4514 text, such as "CN=pump-1,O=Works".
        common_name: the first CN of the subject, None without one. For display: names that
            decide something belong into the SANs.
        dns_names: subjectAltName entries of kind DNS, as they stand. There are no names of any kind
            where one extension of the certificate cannot be read: `cryptography` reads all of them
            or none, and knows no EDI party names and X.400 addresses.
        uris: those of kind URI.
        emails: those of kind e-mail.
        issuer: the distinguished name of the CA.
        serial_number: unique for that CA.
        not_before: valid from, with time zone (UTC).
        not_after: valid until, with time zone (UTC).
        fingerprint_sha256: SHA-256 of the whole certificate, 64 lower case hexadecimal digits.
        der: the certificate itself.
    """

    subject: str
    common_name: str | None
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    issuer: str
    serial_number: int
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint_sha256: str
    der: bytes = dataclasses.field(repr=False)
    client_auth: bool | None = dataclasses.field(default=None, repr=False)
    """Whether the extended key usage names clientAuth; None where none can be read."""

    @classmethod
    def from_der(cls, der: bytes) -> ClientCertificate:
        """Read a certificate.

        Raises:
            ValueError: it cannot be read. Extensions that cannot be are left out.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
        except x509.InvalidVersion as exc:
            raise ValueError(str(exc)) from exc
        extensions = _extensions(certificate)
        names = _alternative_names(extensions)
        common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return cls(
            subject=certificate.subject.rfc4514_string(),
            common_name=_text(common_names[0].value) if common_names else None,
            dns_names=_unique(names.get_values_for_type(x509.DNSName)),
            uris=_unique(names.get_values_for_type(x509.UniformResourceIdentifier)),
            emails=_unique(names.get_values_for_type(x509.RFC822Name)),
            issuer=certificate.issuer.rfc4514_string(),
            serial_number=certificate.serial_number,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            fingerprint_sha256=hashlib.sha256(der).hexdigest(),
            der=der,
            client_auth=_client_auth(extensions),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class TLSInfo:
    """Facts about a TLS session, fixed when its handshake is done.

    Attributes:
        version: "TLSv1.2" or "TLSv1.3".
        cipher: the suite's OpenSSL name.
        server_name: the host that the client asked for (SNI), lower case; None without one.
        alpn: the agreed application protocol, None without one.
        resumed: whether an earlier session was taken up again.
        client_certificate: the client's, None without one; None on a client.
    """

    version: str
    cipher: str
    server_name: str | None
    alpn: str | None
    resumed: bool
    client_certificate: ClientCertificate | None


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    """Its extensions, all or none: OpenSSL has verified it, so what we cannot read is no fault."""
    try:
        return certificate.extensions
    except UNREADABLE as exc:
        log.debug(
            "the extensions of the certificate of %s, serial number %x, cannot be read, so it has "
            "no names: %s",
            printable(certificate.subject.rfc4514_string()),
            certificate.serial_number,
            printable(str(exc)),
        )
        return x509.Extensions([])


def _alternative_names(extensions: x509.Extensions) -> x509.SubjectAlternativeName:
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _client_auth(extensions: x509.Extensions) -> bool | None:
    try:
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
