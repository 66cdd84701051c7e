"""Certificates that trustme does not make, and two transforms joined in memory."""

import datetime as dt
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from securews.transport.admission import Admission
from securews.transport.tls import ServerContexts
from securews.transport.tls_transform import TLSTransform

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ALTERNATIVE_NAMES = ExtensionOID.SUBJECT_ALTERNATIVE_NAME


def der(tag: int, content: bytes) -> bytes:
    """A value of less than 128 bytes in DER."""
    return bytes((tag, len(content))) + content


# General names that `cryptography` refuses and OpenSSL takes (RFC 5280, section 4.2.1.6).
A_DNS_NAME = der(0x82, b"pump-1.example.org")
ODD_NAMES = {
    "EDI party name": A_DNS_NAME + der(0xA5, der(0xA1, der(0x0C, b"party"))),
    "X.400 address": A_DNS_NAME + der(0xA3, der(0x30, b"")),
    "address of five bytes": A_DNS_NAME + der(0x87, bytes(5)),
    "DNS name that is not ASCII": der(0x82, b"\xff\xfe"),
}


def private_file(path: Path, data: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(data)
    path.chmod(0o600)
    return str(path)


class Files:
    """A directory of certificates of one CA."""

    def __init__(self, directory: Path, organization: str | None = None) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.authority = trustme.CA(organization_name=organization)
        self.ca = private_file(directory / "ca.pem", self.authority.cert_pem.bytes())
        self.ca_certificate = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())
        self.ca_key = serialization.load_pem_private_key(
            self.authority.private_key_pem.bytes(), None
        )

    def server(self, *names: str, file: str = "server", **options) -> tuple[str, str]:
        """(cert, key) of a server, by trustme."""
        leaf = self.authority.issue_cert(*(names or ("localhost", "127.0.0.1", "::1")), **options)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return (
            private_file(self.directory / f"{file}.pem", chain),
            private_file(self.directory / f"{file}-key.pem", leaf.private_key_pem.bytes()),
        )

    def client(
        self,
        name: str = "pump-1",
        *,
        usages=(CLIENT,),
        not_before=NOW - 2 * DAY,
        not_after=NOW + 30 * DAY,
        names=None,
        raw_names=None,
        serial=None,
        secret=None,
    ) -> tuple[str, str]:
        """(cert, key) of a client, with every part of it as asked; `raw_names` are DER."""
        key = secret or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Works"),
            ]
        )
        if names is None:
            names = [x509.DNSName(f"{name}.example.org")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.ca_certificate.subject)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()),
                critical=False,
            )
        )
        if raw_names is not None:
            names = []
            builder = builder.add_extension(
                x509.UnrecognizedExtension(ALTERNATIVE_NAMES, der(0x30, raw_names)), critical=False
            )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self.ca_key, hashes.SHA256())
        return (
            private_file(
                self.directory / f"client-{name}.pem",
                certificate.public_bytes(serialization.Encoding.PEM),
            ),
            private_file(
                self.directory / f"client-{name}-key.pem",
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            ),
        )

    def crl(
        self,
        *serials: int,
        last_update=NOW - 10 * DAY,
        next_update=NOW + 7 * DAY,
        file: str = "crl.pem",
    ) -> str:
        """A list that revokes these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ca_certificate.subject)
            .last_update(last_update)
            .next_update(next_update)
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(NOW - DAY)
                .build()
            )
        signed = builder.sign(self.ca_key, hashes.SHA256())
        return private_file(self.directory / file, signed.public_bytes(serialization.Encoding.PEM))

    def client_context(self, version: ssl.TLSVersion | None = None, cert=None) -> ssl.SSLContext:
        """A verifying client, of one TLS version if asked."""
        context = ssl.create_default_context(cafile=self.ca)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if cert is not None:
            context.load_cert_chain(*cert)
        return context


def server_transform(context: ssl.SSLContext, admission: Admission | None = None) -> TLSTransform:
    return TLSTransform.server(ServerContexts(context, admission=admission or Admission()))


def join(client: TLSTransform, server: TLSTransform) -> None:
    """Run both handshakes in memory, and hand the client what comes behind (tickets)."""
    for _ in range(5):
        to_client = server.take_outgoing()
        if not client.ready:
            client.handshake(to_client)
        elif to_client:
            assert client.receive(to_client) is None
        if not server.ready:
            server.handshake(client.take_outgoing())
    assert client.ready
    assert server.ready
