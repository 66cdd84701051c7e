"""Certificates and keys from files, with an error for every way in which they can be wrong.

The texts name paths and say what mends it. They never hold what stands in a key file.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import os
import re
import shlex
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from cryptography import x509
from cryptography.x509.oid import NameOID

from securews.common.errors import ConfigurationError
from securews.transport.tls_errors import reason, reason_code
from securews.transport.tls_info import UNREADABLE

__all__ = [
    "DEVELOPMENT_CA_ORGANIZATION",
    "CertificateFiles",
    "KeyFiles",
    "StrPath",
    "foreign_owner",
    "issued_by_development_ca",
    "key_files",
    "load_key_files",
    "load_trust",
    "read_file",
]

log = logging.getLogger("securews.tls")

DEVELOPMENT_CA_ORGANIZATION = "securews development CA"
"""The issuer's Organization Name in certificates of `securews gen-dev-certs`."""

FORBIDDEN_MODE = 0o037
"""Others may do nothing and the group may at most read (0640: Debian's ssl-cert, fsGroup)."""
WRITABLE_BY_OTHERS = 0o022
"""Who may write in a file, or in a directory without the sticky bit, can exchange a key."""

StrPath: TypeAlias = str | os.PathLike[str]

CertificateFiles: TypeAlias = (
    StrPath | tuple[StrPath, StrPath] | tuple[StrPath, StrPath, str | bytes]
)
"""One path that holds both, (cert, key), or (cert, key, password)."""


FileIdentities: TypeAlias = tuple[tuple[int, int, int, int] | None, ...]
"""Device, inode, size and time of change of some files; None for one that is not there."""


@dataclasses.dataclass(frozen=True, slots=True)
class KeyFiles:
    """Where a certificate and its key are. `cert` holds the leaf first, then its chain."""

    cert: Path
    key: Path
    password: str | bytes | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(
        cls, cert: StrPath, key: StrPath | None = None, password: str | bytes | None = None
    ) -> KeyFiles:
        """Two paths, or one that holds both."""
        return cls(Path(cert), Path(cert if key is None else key), password)


def key_files(given: CertificateFiles) -> KeyFiles:
    """Understand `(cert, key)`, `(cert, key, password)` or one path.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(given, (str, os.PathLike)):
        return KeyFiles.of(given)
    if isinstance(given, ssl.SSLContext):
        # An SNI callback that assigns a context swaps the certificate and nothing else: verify
        # mode, versions and options stay. A context here would promise a policy of its own.
        raise ConfigurationError(
            "certificates={host: ...} takes (cert, key) paths, not an SSLContext: a host may "
            "have its own certificate, the policy is the listener's"
        )
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise ConfigurationError(
            f"a certificate is (cert, key), (cert, key, password) or one path, not a "
            f"{type(given).__name__}"
        )
    return KeyFiles.of(*given)


def load_key_files(context: ssl.SSLContext, files: KeyFiles) -> x509.Certificate:
    """Load a certificate with its chain and key into a context that is not in use.

    Returns:
        The leaf.

    Raises:
        ConfigurationError: missing, unreadable, damaged, swapped, expired or encrypted files, a
            key that does not match or that others may read.
    """
    certificate_text = read_file(files.cert, "certificate file")
    with _opened(files.key, "key file") as opened:
        identity = _check_permissions(files.key, os.fstat(opened.fileno()))
        key_text = opened.read()
    _check_kinds(files, certificate_text, key_text)
    leaf = _leaf(files.cert, certificate_text)
    _check_dates(files.cert, leaf)
    _load(context, files)
    with _opened(files.key, "key file") as opened:
        same = _identity(os.fstat(opened.fileno())) == identity
    if not same:
        # OpenSSL opens the path again: what it read has to be what was judged.
        raise ConfigurationError(f"key file {files.key} was replaced while it was read; try again")
    return leaf


def issued_by_development_ca(leaf: x509.Certificate) -> bool:
    """Whether `securews gen-dev-certs` made it."""
    organizations = leaf.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return any(name.value == DEVELOPMENT_CA_ORGANIZATION for name in organizations)


def load_trust(context: ssl.SSLContext, path: StrPath, option: str) -> None:
    """Trust the CA certificates of a PEM file.

    Args:
        context: not in use yet.
        path: one or more certificates.
        option: what the file was given as, for the error's text.

    Raises:
        ConfigurationError: missing, unreadable, or no certificate in it.
    """
    before = context.cert_store_stats()["x509"]
    read_file(Path(path), f"{option} file")
    try:
        context.load_verify_locations(cafile=path)
        loaded = context.cert_store_stats()["x509"] - before
    except OSError:  # SSLError is one
        loaded = 0
    if not loaded:
        raise ConfigurationError(
            f"{option} file {path} holds no readable certificate (PEM, -----BEGIN CERTIFICATE-----)"
        )


def read_file(path: Path, what: str) -> bytes:
    """What stands in a file.

    Raises:
        ConfigurationError: it is missing or unreadable; the text calls it `what`.
    """
    with _opened(path, what) as opened:
        return opened.read()


def _opened(path: Path, what: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"{what} {path} does not exist (`securews gen-dev-certs` makes certificates for "
            "development)"
        ) from exc
    except PermissionError as exc:
        raise ConfigurationError(
            f"{what} {path} may not be read by this user (uid {os.geteuid()})"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{what} {path} cannot be read: {exc.strerror}") from exc


def file_identities(paths: Iterable[Path]) -> FileIdentities:
    """What stands at these paths now, to tell later whether something else does."""
    identities: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            identities.append(_identity(path.stat()))
        except OSError:
            identities.append(None)  # that it is missing is a fact, too
    return tuple(identities)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def foreign_owner(status: os.stat_result) -> str:
    """That neither root nor this user owns a file or directory, in words; empty where one does."""
    if status.st_uid in (0, os.geteuid()):
        return ""
    return f"belongs to another user (uid {status.st_uid}), who can change it"


def _check_permissions(path: Path, status: os.stat_result) -> tuple[int, int, int, int]:
    """Judge the opened file, not its name: a link or a rename cannot come in between."""
    quoted = shlex.quote(str(path))
    if foreign := foreign_owner(status):
        raise ConfigurationError(
            f"key file {path} {foreign}; mend it with: sudo chown {os.geteuid()} {quoted}"
        )
    if status.st_mode & FORBIDDEN_MODE:
        raise ConfigurationError(
            f"key file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it, "
            f"or its group may change it; mend it with: chmod g-wx,o-rwx {quoted}"
        )
    return _identity(status)


_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----")


def _check_kinds(files: KeyFiles, certificate_text: bytes, key_text: bytes) -> None:
    """Tell swapped, missing and DER files apart before OpenSSL says "no start line"."""
    has_certificate = _CERTIFICATE.search(certificate_text) is not None
    has_key = _PRIVATE_KEY.search(key_text) is not None
    if not has_certificate and _PRIVATE_KEY.search(certificate_text) and not has_key:
        raise ConfigurationError(
            f"certificate and key are swapped: {files.cert} holds a private key; the certificate "
            "comes first, as in tls=(cert, key)"
        )
    for path, what, found, text in (
        (files.cert, "certificate", has_certificate, certificate_text),
        (files.key, "private key", has_key, key_text),
    ):
        if found:
            continue
        if text[:1] == b"\x30":  # ASN.1 SEQUENCE
            raise ConfigurationError(
                f"{path} is in DER form; PEM is needed: openssl "
                f"{'x509' if what == 'certificate' else 'pkey'} -inform der "
                f"-in {shlex.quote(str(path))}"
            )
        if what == "private key" and files.key == files.cert:
            raise ConfigurationError(
                f"{path} holds a certificate but no private key; give both: tls=(cert, key)"
            )
        raise ConfigurationError(f"{path} holds no {what} (PEM, -----BEGIN ...-----)")


def _leaf(path: Path, text: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(text)[0]
    except UNREADABLE as exc:
        raise ConfigurationError(
            f"certificate file {path} is damaged or cut short; nothing in it was loaded"
        ) from exc


def _check_dates(path: Path, leaf: x509.Certificate) -> None:
    now = dt.datetime.now(dt.UTC)
    if leaf.not_valid_after_utc <= now:
        raise ConfigurationError(
            f"the certificate in {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            "renew it (development certificates: securews gen-dev-certs)"
        )
    if leaf.not_valid_before_utc > now:
        # Not an error: a board without a battery clock starts in 1970, and learns the time later.
        log.warning(
            "the certificate in %s is valid from %s UTC, and this machine's clock says %s UTC",
            path,
            f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M}",
            f"{now:%Y-%m-%d %H:%M}",
        )


class _PasswordNeeded(Exception):
    """Raised in OpenSSL's question, which would otherwise wait at the terminal."""


def _load(context: ssl.SSLContext, files: KeyFiles) -> None:
    def ask() -> str | bytes:
        if files.password is None:
            raise _PasswordNeeded
        return files.password

    try:
        context.load_cert_chain(files.cert, files.key, ask)
    except _PasswordNeeded:
        raise ConfigurationError(
            f"key file {files.key} is encrypted; give its password: tls=(cert, key, password)"
        ) from None
    except ssl.SSLError as exc:
        raise ConfigurationError(_load_failure(files, exc)) from exc
    except (OSError, ValueError) as exc:  # ValueError: a password that is too long
        raise ConfigurationError(f"{files.cert} and {files.key} cannot be loaded: {exc}") from exc


def _load_failure(files: KeyFiles, error: ssl.SSLError) -> str:
    name = reason_code(error)
    if name == "KEY_VALUES_MISMATCH":
        return f"the key in {files.key} does not belong to the certificate in {files.cert}"
    if files.password is not None and ("DECRYPT" in name or name == "PEM_LIB"):
        return f"key file {files.key} cannot be opened with this password"
    if name in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return (
            f"the certificate in {files.cert} is too weak ({name.lower().replace('_', ' ')}); "
            "make one with an ECDSA P-256 key, or RSA from 2048 bits"
        )
    return f"{files.cert} and {files.key} cannot be loaded: damaged or cut short ({reason(error)})"
