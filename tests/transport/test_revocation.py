import base64
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from transport_helpers import DAY, NOW, Files, private_file

from securews.common.errors import ConfigurationError
from securews.transport import revocation
from securews.transport.revocation import RevocationLists
from securews.transport.tls_info import ClientCertificate


@pytest.fixture
def lists(files):
    return RevocationLists(files.crl(next_update=NOW + 7 * DAY), files.ca)


def test_the_first_list_to_become_stale_counts(files):
    texts = [
        Path(files.crl(next_update=NOW + days * DAY, file=f"{days}.pem")).read_bytes()
        for days in (5, 3, 9)
    ]
    path = private_file(files.directory / "all.pem", b"".join(texts))
    assert abs(RevocationLists(path, files.ca).until - (NOW + 3 * DAY)) < DAY / 100


def test_a_context_checks_leaves_with_it(lists):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lists.load_into(context)
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert context.cert_store_stats()["crl"] == 1


def test_a_file_that_is_gone_between_two_looks_is_told(files, lists):
    (files.directory / "crl.pem").unlink()
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        lists.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.promise(19)
def test_lists_that_would_refuse_everybody_are_refused(files):
    other = Files(files.directory / "other")
    garbage = private_file(files.directory / "garbage.pem", b"hello")
    broken = private_file(
        files.directory / "broken.pem",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    )
    for path, words in (
        (files.directory / "none.pem", "does not exist"),
        (garbage, "holds no CRL"),
        (broken, "is damaged"),
        (other.crl(), "not signed by a CA in client_ca"),
        (files.crl(next_update=NOW - DAY), "is stale"),
        (
            files.crl(last_update=NOW + DAY, file="ahead.pem"),
            rf"ahead.pem is valid from {NOW + DAY:%Y-%m-%d %H:%M:%S} UTC .*set the clock, or take",
        ),
    ):
        with pytest.raises(ConfigurationError, match=words):
            RevocationLists(path, files.ca)


def test_a_list_of_the_same_name_and_another_key_is_refused(files):
    # Same subject, another key: only the signature tells them apart.
    forged = Files(files.directory / "forged")
    forged.ca_certificate = files.ca_certificate
    with pytest.raises(ConfigurationError, match="not signed by"):
        RevocationLists(forged.crl(), files.ca)


def test_a_list_of_a_version_that_there_is_not_is_damaged(files):
    der = x509.load_pem_x509_crl(Path(files.crl()).read_bytes()).public_bytes(Encoding.DER)
    of_version_8 = der.replace(b"\x02\x01\x01", b"\x02\x01\x07", 1)
    path = private_file(
        files.directory / "version.pem",
        b"-----BEGIN X509 CRL-----\n%s-----END X509 CRL-----\n" % base64.encodebytes(of_version_8),
    )
    with pytest.raises(ConfigurationError, match="is damaged"):
        RevocationLists(path, files.ca)


def test_a_ca_whose_key_is_of_an_unknown_kind_has_signed_no_list(files):
    der = ssl.PEM_cert_to_DER_cert(Path(files.ca).read_text())
    ec_key = bytes.fromhex("06072a8648ce3d0201")
    assert der.count(ec_key) == 1
    odd = ssl.DER_cert_to_PEM_cert(der.replace(ec_key, ec_key[:-1] + b"\x7f"))
    ca = private_file(files.directory / "odd.pem", odd.encode())
    with pytest.raises(ConfigurationError, match="not signed by"):
        RevocationLists(files.crl(), ca)


def test_a_certificate_in_the_file_would_become_trusted_and_is_refused(files):
    text = Path(files.crl()).read_bytes() + Path(files.ca).read_bytes()
    path = private_file(files.directory / "both.pem", text)
    with pytest.raises(ConfigurationError, match="may hold CRLs only"):
        RevocationLists(path, files.ca)


@pytest.mark.promise(19)
def test_the_log_says_once_that_it_becomes_stale_and_once_that_it_is(lists, caplog, monkeypatch):
    moment = lists.until.timestamp() - 25 * 3600
    monkeypatch.setattr(revocation.time, "time", lambda: moment)
    lists.remind()
    assert caplog.records == []
    moment += 2 * 3600
    lists.remind()
    lists.remind()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    moment += 24 * 3600
    lists.remind()
    lists.remind()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def shown(pair):
    certificate = x509.load_pem_x509_certificate(Path(pair[0]).read_bytes())
    return ClientCertificate.from_der(certificate.public_bytes(Encoding.DER))


@pytest.mark.promise(20)
def test_what_is_listed_is_refused_and_so_is_what_no_list_is_about(files):
    lists = RevocationLists(files.crl(13, 14), files.ca)
    assert lists.refuses(shown(files.client("bad", serial=13)))
    assert not lists.refuses(shown(files.client("good", serial=12)))
    other = Files(files.directory / "other", "Another CA")
    assert lists.refuses(shown(other.client(serial=12)))


@pytest.mark.promise(20)
def test_of_two_cas_of_one_name_each_has_its_own_list(files):
    # A CA that was made anew with the name of the old one, say. Only the keys tell them apart.
    other = Files(files.directory / "other")
    other.ca_certificate = self_signed(files.ca_certificate.subject, other.ca_key)
    assert other.ca_certificate.subject == files.ca_certificate.subject
    both = Path(files.ca).read_bytes() + other.ca_certificate.public_bytes(Encoding.PEM)
    authorities = private_file(files.directory / "both.pem", both)
    older = Path(files.crl(13, last_update=NOW - 3 * DAY)).read_bytes()
    newer = Path(other.crl(14, last_update=NOW - 2 * DAY)).read_bytes()
    for text in (older + newer, newer + older):
        lists = RevocationLists(private_file(files.directory / "lists.pem", text), authorities)
        for authority, serial, refused in (
            (files, 13, True),
            (files, 14, False),
            (other, 13, False),
            (other, 14, True),
        ):
            assert lists.refuses(shown(authority.client(serial=serial))) is refused
    lists = RevocationLists(private_file(files.directory / "lists.pem", newer), authorities)
    assert lists.refuses(shown(files.client(serial=12))), "no list is about it"


def self_signed(name, key):
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 20 * DAY)
        .not_valid_after(NOW + 20 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )


def test_of_two_lists_of_an_issuer_the_newer_counts(files):
    held = shown(files.client(serial=13))
    older = Path(files.crl(13, file="older.pem", last_update=NOW - 3 * DAY)).read_bytes()
    newer = Path(files.crl(14, file="newer.pem", last_update=NOW - 2 * DAY)).read_bytes()
    for text in (older + newer, newer + older):
        path = private_file(files.directory / "both.pem", text)
        assert not RevocationLists(path, files.ca).refuses(held)
