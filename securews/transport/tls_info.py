"""Facts about a TLS session and about the certificate of a client."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["ClientCertificate", "TLSInfo"]


@dataclasses.dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who the client proved to be (RFC 5280). Verified before anybody sees it.

    Attributes:
        subject: the distinguished name as RFC 4514 text, such as "CN=pump-1,O=Works".
        common_name: the first CN of the subject, None without one. For display: names that
            decide something belong into the SANs.
        dns_names: subjectAltName entries of kind DNS, as they stand.
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
    """Whether the extended key usage names clientAuth; None where there is no such extension."""

    @classmethod
    def from_der(cls, der: bytes) -> ClientCertificate:
        """Read a certificate.

        Raises:
            ValueError: it is none, or has an extension that cannot be read.
        """
        certificate = x509.load_der_x509_certificate(der)
        names = _alternative_names(certificate)
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
            client_auth=_client_auth(certificate),
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


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
    except x509.DuplicateExtension as exc:
        raise ValueError(str(exc)) from exc
    return found.value


def _client_auth(certificate: x509.Certificate) -> bool | None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
