import os
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from transport_helpers import DAY, NOW, Files, private_file

from securews.common.errors import ConfigurationError
from securews.transport.key_files import (
    DEVELOPMENT_CA_ORGANIZATION,
    KeyFiles,
    issued_by_development_ca,
    key_files,
    load_key_files,
    load_trust,
)


def load(*files):
    return load_key_files(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), KeyFiles.of(*files))


def encrypted(files, password):
    cert, key = files.server()
    secret = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    data = secret.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    return cert, private_file(files.directory / "encrypted.pem", data)


def both_in_one(files):
    cert, key = files.server()
    data = b"".join(Path(path).read_bytes() for path in (cert, key))
    return private_file(files.directory / "both.pem", data)


def test_a_certificate_and_its_key_load(files):
    assert load(*files.server()).subject is not None


def test_one_path_may_hold_both(files):
    load(both_in_one(files))


def test_an_encrypted_key_loads_with_its_password(files):
    load(*encrypted(files, b"open sesame"), "open sesame")


def refused(words, *files):
    with pytest.raises(ConfigurationError, match=words) as raised:
        load(*files)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.promise(23)
def test_a_missing_file_is_named_with_the_command_that_makes_one(files, tmp_path):
    cert, _ = files.server()
    refused(r"certificate file .*none\.pem does not exist .*gen-dev-certs", tmp_path / "none.pem")
    refused(r"key file .*none\.pem does not exist", cert, tmp_path / "none.pem")


def test_a_directory_is_no_file(files, tmp_path):
    refused("cannot be read: Is a directory", tmp_path, tmp_path)


def test_an_unreadable_file_is_named(files, monkeypatch):
    cert, key = files.server()

    def denied(*_):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.open", denied)
    refused(rf"certificate file .* may not be read by this user \(uid {os.geteuid()}\)", cert, key)


def test_swapped_paths_are_told(files):
    cert, key = files.server()
    refused("swapped", key, cert)


def test_a_key_of_another_certificate(files):
    cert, _ = files.server()
    _, other = files.server(file="other")
    refused("does not belong to the certificate", cert, other)


def test_a_certificate_without_a_key(files):
    cert, _ = files.server()
    refused(r"no private key; give both", cert)


def test_a_file_with_neither(files, tmp_path):
    cert, key = files.server()
    empty = private_file(tmp_path / "empty.pem", b"hello\n")
    refused("holds no certificate", empty, key)
    refused("holds no private key", cert, empty)


def test_der_is_told_with_the_command_that_converts_it(files, tmp_path):
    _, key = files.server()
    der = private_file(
        tmp_path / "server.der", ssl.PEM_cert_to_DER_cert(Path(files.ca).read_text())
    )
    refused("DER form; PEM is needed: openssl x509 -inform der", der, key)


@pytest.mark.promise(27)
def test_a_truncated_certificate(files):
    cert, key = files.server()
    data = Path(cert).read_bytes()
    private_file(files.directory / "server.pem", data[: len(data) // 2])
    refused("damaged or cut short", cert, key)


def test_a_truncated_key_shows_nothing_of_itself(files):
    cert, key = files.server()
    data = Path(key).read_bytes()
    private_file(files.directory / "server-key.pem", data[: len(data) // 2])
    words = refused("damaged or cut short", cert, key)
    assert data.splitlines()[1].decode()[:16] not in words


def test_an_encrypted_key_without_password_does_not_ask_at_the_terminal(files):
    refused(r"is encrypted; give its password", *encrypted(files, b"x" * 8))


def test_a_wrong_password(files):
    words = refused("cannot be opened with this password", *encrypted(files, b"s3cret"), "0ther")
    assert "s3cret" not in words
    assert "0ther" not in words


@pytest.mark.promise(22)
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602, 0o601, 0o650])
def test_a_key_that_others_may_read_or_the_group_may_change_is_refused(files, mode):
    cert, key = files.server()
    Path(key).chmod(mode)
    words = refused(rf"has mode {mode:04o}", cert, key)
    command = words.partition("mend it with: ")[2]
    subprocess.run(command, shell=True, check=True)
    load(cert, key)


@pytest.mark.promise(22)
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_that_is_kept_is_accepted(files, mode):
    cert, key = files.server()
    Path(key).chmod(mode)
    load(cert, key)


@pytest.mark.promise(22)
def test_the_mode_of_a_links_target_counts(files, tmp_path):
    cert, key = files.server()
    Path(key).chmod(0o644)
    link = tmp_path / "link.pem"
    link.symlink_to(key)
    refused("has mode 0644", cert, link)


@pytest.mark.promise(22)
def test_a_key_in_one_file_with_its_certificate_is_judged_too(files):
    both = both_in_one(files)
    Path(both).chmod(0o644)
    refused("has mode 0644", both)


@pytest.mark.promise(22)
def test_a_key_of_another_user_is_refused(files, monkeypatch):
    cert, key = files.server()
    real = os.fstat

    def of_another_user(descriptor):
        values = list(real(descriptor))
        values[4] = 4711
        return os.stat_result(values)

    monkeypatch.setattr("os.fstat", of_another_user)
    refused(r"belongs to another user \(uid 4711\).*chown", cert, key)


def test_a_key_that_is_replaced_while_it_is_read_is_refused(files, monkeypatch):
    cert, key = files.server()
    real = ssl.SSLContext.load_cert_chain

    def replace(context, *paths):
        real(context, *paths)
        os.utime(key, ns=(1, 1))

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", replace)
    refused("was replaced while it was read", cert, key)


def test_an_expired_certificate(files):
    refused("expired on .* UTC; renew it", *files.client(not_after=NOW - DAY))


def test_a_certificate_of_the_future_is_a_warning(files, caplog):
    load(*files.client(not_before=NOW + DAY))
    assert "this machine's clock says" in caplog.text


def test_a_weak_key_is_told(files):
    cert, key = files.client(secret=rsa.generate_private_key(65537, 1024))
    refused(r"too weak \(ee key too small\)", cert, key)


def test_development_certificates_are_known(files):
    assert not issued_by_development_ca(load(*files.server()))
    development = Files(files.directory / "development", DEVELOPMENT_CA_ORGANIZATION)
    assert issued_by_development_ca(load(*development.server()))


@pytest.mark.parametrize("given", [("a",), ("a", "b", "c", "d"), 5, ["a", "b"], None])
def test_what_is_no_pair_of_paths(given):
    with pytest.raises(ConfigurationError, match=r"\(cert, key\)"):
        key_files(given)


def test_the_ways_to_write_a_pair_of_paths():
    assert key_files("a.pem") == KeyFiles(Path("a.pem"), Path("a.pem"))
    assert key_files(("a", Path("b"))) == KeyFiles(Path("a"), Path("b"))
    assert key_files(("a", "b", b"c")).password == b"c"


@pytest.mark.promise(15)
def test_a_host_has_a_certificate_and_no_policy():
    with pytest.raises(ConfigurationError, match="the policy is the listener's"):
        key_files(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_a_password_is_not_shown():
    assert "secret" not in repr(key_files(("a", "b", "secret")))


def test_trust_needs_a_certificate(files, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ConfigurationError, match=r"client_ca file .* does not exist"):
        load_trust(context, tmp_path / "none.pem", "client_ca")
    for data in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n"):
        path = private_file(tmp_path / "bad.pem", data)
        with pytest.raises(ConfigurationError, match=r"CA file .* holds no readable certificate"):
            load_trust(context, path, "CA")
    load_trust(context, files.ca, "CA")
