"""The X.509 of the development certificates: an authority, server and client certificates.

Nothing here touches a disk. The profile is the one of RFC 5280, section 4.2, in the strict
reading of OpenSSL's X509_V_FLAG_X509_STRICT, which Python 3.13 switches on by default: critical
basic constraints and key usage, an authority key identifier on everything that is not its own
issuer, and names in the subject alternative name alone (clients ignore the common name,
RFC 9525, section 6.3).

There are no name constraints on the authority: it is trusted once and asked for new host names
later, and a constraint would make every new `--host` a new authority to trust.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from securews.transport.key_files import DEVELOPMENT_CA_ORGANIZATION

__all__ = [
    "AUTHORITY_DAYS",
    "CertifiedKey",
    "certificate_names",
    "has_usage",
    "is_authority",
    "is_issued_by",
    "issue_client",
    "issue_server",
    "new_authority",
]

AUTHORITY_DAYS = 3650
"""Days that the authority lives: trusting it is work, so it is not asked for every quarter."""

_CLOCK_SKEW = dt.timedelta(hours=1)
"""Certificates begin this long before they were made: device clocks are late."""


@dataclass(frozen=True)
class CertifiedKey:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS #8, not encrypted)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_authority(machine: str, *, days: int = AUTHORITY_DAYS) -> CertifiedKey:
    """A certificate authority that signs itself.

    Args:
        machine: the name of the machine, so that a list of trusted authorities tells them apart.
        days: how long it is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The short key identifier keeps two authorities of one machine apart: browsers find an issuer
    # by its name first.
    common_name = f"securews development CA {identifier.digest.hex()[:8]} {machine}"
    name = _name(DEVELOPMENT_CA_ORGANIZATION, common_name)
    builder = (
        _builder(name, name, key, _now() + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return CertifiedKey(builder.sign(key, hashes.SHA256()), key)


def issue_server(authority: CertifiedKey, names: tuple[str, ...], *, days: int) -> CertifiedKey:
    """A server certificate (serverAuth) for host names and IP addresses."""
    general_names = [_host(name) for name in names]
    return _issue(authority, names[0], general_names, ExtendedKeyUsageOID.SERVER_AUTH, days)


def issue_client(authority: CertifiedKey, name: str, *, days: int) -> CertifiedKey:
    """A client certificate (clientAuth).

    The name stands in the subject alternative name too, as an e-mail address where it is one and
    else as a DNS name: `authorize=` goes by these and never by the common name.
    """
    general_name = x509.RFC822Name(name) if "@" in name else x509.DNSName(name)
    return _issue(authority, name, [general_name], ExtendedKeyUsageOID.CLIENT_AUTH, days)


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and IP addresses that a certificate is for, in its order."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        str(name.value)
        for name in extension.value
        if isinstance(name, (x509.DNSName, x509.IPAddress))
    )


def has_usage(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    """Whether the certificate is for this extended key usage and no other."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return False
    return list(extension.value) == [usage]


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return extension.value.ca


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed the certificate, under the authority's name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):  # signature, names, kind of key
        return False
    return True


def _issue(
    authority: CertifiedKey,
    common_name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    days: int,
) -> CertifiedKey:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    # No certificate outlives its issuer: it would be refused from then on (RFC 5280, 6.1).
    until = min(_now() + dt.timedelta(days=days), issuer.not_valid_after_utc)
    issuer_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_name("securews development certificate", common_name), issuer.subject, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier),
            critical=False,
        )
    )
    return CertifiedKey(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    until: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCK_SKEW)
        .not_valid_after(until)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    # ECDSA keys sign and nothing else: no key encipherment, no agreement (RFC 5480, section 3).
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            # 64 characters are all that X.520 allows here (RFC 5280, appendix A).
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
