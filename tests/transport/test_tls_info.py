import hashlib
import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from transport_helpers import CLIENT, ODD_NAMES, SERVER

from securews.transport.tls_info import ClientCertificate


def read(paths):
    der = ssl.PEM_cert_to_DER_cert(Path(paths[0]).read_text())
    return ClientCertificate.from_der(der), der


def test_every_field(files):
    names = [
        x509.DNSName("a.example"),
        x509.DNSName("b.example"),
        x509.UniformResourceIdentifier("urn:a"),
        x509.RFC822Name("a@a.example"),
    ]
    found, der = read(files.client("pump", names=names, serial=99))
    assert found.subject == "O=Works,CN=pump"
    assert found.common_name == "pump"
    assert found.dns_names == ("a.example", "b.example")
    assert found.uris == ("urn:a",)
    assert found.emails == ("a@a.example",)
    assert found.serial_number == 99
    assert found.not_before.tzinfo is not None
    assert found.not_before < found.not_after
    assert found.fingerprint_sha256 == hashlib.sha256(der).hexdigest()
    assert found.der == der
    assert "der" not in repr(found)


def test_a_certificate_without_names(files):
    found, _ = read(files.client(names=[]))
    assert (found.dns_names, found.uris, found.emails) == ((), (), ())


def test_a_certificate_without_common_name(files):
    leaf = files.authority.issue_cert("a.example")
    found = ClientCertificate.from_der(
        ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    )
    assert found.common_name is None


@pytest.mark.parametrize(
    ("usages", "expected"),
    [(None, None), ([CLIENT], True), ([CLIENT, SERVER], True), ([SERVER], False)],
)
def test_the_usage(files, usages, expected):
    assert read(files.client(usages=usages))[0].client_auth is expected


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_where_the_names_cannot_be_read_there_are_none(files, caplog, kind):
    caplog.set_level(logging.DEBUG)
    found, der = read(files.client(raw_names=ODD_NAMES[kind], serial=0xABC))
    assert (found.dns_names, found.uris, found.emails) == ((), (), ())
    assert found.client_auth is None
    assert found.common_name == "pump-1"
    assert found.fingerprint_sha256 == hashlib.sha256(der).hexdigest()
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "'O=Works,CN=pump-1', serial number abc, cannot be read" in record.getMessage()


def test_a_certificate_of_a_version_that_there_is_not_is_no_certificate(files):
    _, der = read(files.client())
    version = b"\xa0\x03\x02\x01"
    assert der.count(version + b"\x02") == 1
    with pytest.raises(ValueError, match="version"):
        ClientCertificate.from_der(der.replace(version + b"\x02", version + b"\x08"))


@pytest.mark.parametrize("der", [b"", b"nonsense", b"\x30\x03\x02\x01\x00"])
def test_what_is_no_certificate(der):
    with pytest.raises(ValueError):
        ClientCertificate.from_der(der)
