"""A certificate and its key as two files of one directory.

Every file is written beside its place and renamed into it, so that a reader meets the old one or
the new one and never a half; a key is born with mode 0600 and never passes through a wider one.
Two renames are no single step: who dies between them leaves a key that does not match, which the
next run finds and renews. One writer at a time works in a directory (`locked`).

What is kept is trusted from then on, so it has to be this user's or root's: the directory, each
file, and a link to it. The rule is that of keys that are served (transport/key_files.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from securews.certificates.issuing import CertifiedKey
from securews.common.errors import ConfigurationError
from securews.transport.key_files import (
    FORBIDDEN_MODE,
    WRITABLE_BY_OTHERS,
    foreign_owner,
    issued_by_development_ca,
)

__all__ = ["PairFiles", "UnusableError", "locked"]

_LOCK_NAME = ".gen-dev-certs.lock"
_TEMPORARY_SUFFIX = ".tmp"


class UnusableError(Exception):
    """A pair of files that cannot be used; the text says why, after "because"."""


class PairFiles:
    """`STEM.pem` and `STEM-key.pem` in a directory."""

    def __init__(self, directory: Path, stem: str) -> None:
        self.certificate = directory / f"{stem}.pem"
        self.key = directory / f"{stem}-key.pem"

    @property
    def exist(self) -> bool:
        """Whether either file is there."""
        return os.path.lexists(self.certificate) or os.path.lexists(self.key)

    def read(self) -> CertifiedKey:
        """Both files, checked against each other.

        Raises:
            UnusableError: one is missing or damaged, or they do not belong together.
            ConfigurationError: the key is encrypted: somebody meant it to be; or a file belongs
                to another user.
        """
        for path in (self.certificate, self.key):
            if not path.exists():
                raise UnusableError(f"{path.name} was missing")
        certificate = self.read_certificate()
        if certificate is None:
            raise UnusableError(f"{self.certificate.name} was truncated or damaged")
        text, status = _read_own(self.key)
        if status.st_mode & WRITABLE_BY_OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise UnusableError(f"{self.key.name} had mode {mode:04o}, and others could change it")
        try:
            key = load_pem_private_key(text, password=None)
        except TypeError as error:
            raise ConfigurationError(
                f"{self.key} is encrypted and development keys are not: take the password off, "
                f"or delete {self.certificate} and {self.key}"
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableError(f"{self.key.name} was truncated or damaged") from error
        if certificate.public_key() != key.public_key():
            raise UnusableError(f"{self.key.name} did not match {self.certificate.name}")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UnusableError(f"{self.key.name} was no ECDSA key")
        return CertifiedKey(certificate, key)

    def check_owners(self) -> None:
        """See that a pair which is there may be used.

        Raises:
            ConfigurationError: another user's file, or a certificate that is not one of ours.
        """
        self.read_certificate()
        with contextlib.suppress(FileNotFoundError):
            _read_own(self.key)

    def read_certificate(self) -> x509.Certificate | None:
        """The certificate alone; None where it is missing or damaged.

        Raises:
            ConfigurationError: it is not one of ours, and so not ours to replace; or the file
                belongs to another user.
        """
        try:
            certificate = x509.load_pem_x509_certificate(_read_own(self.certificate)[0])
        except (FileNotFoundError, ValueError):
            return None
        if not issued_by_development_ca(certificate):
            raise ConfigurationError(
                f"{self.certificate} was not made by gen-dev-certs and is left alone: "
                "move it away, or choose another directory (--out)"
            )
        return certificate

    def write(self, pair: CertifiedKey) -> None:
        """Replace both files, the key first: a certificate in place has its key."""
        _write_atomically(self.key, pair.key_pem(), 0o600)
        _write_atomically(self.certificate, pair.certificate_pem(), 0o644)

    def mend_mode(self) -> str:
        """Close a key that others may read; what was done, or an empty text."""
        mode = stat.S_IMODE(self.key.stat().st_mode)
        if not mode & FORBIDDEN_MODE:
            return ""
        self.key.chmod(0o600)
        return f"{self.key.name} had mode {mode:04o} and has 0600 now; others could read it"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make the directory, and hold it against other writers (processes and threads).

    A directory that this makes has mode 0700. Waits for the other writer, which is done in
    milliseconds.

    Raises:
        ConfigurationError: others may write in the directory, or it belongs to another user.
    """
    _make(directory)
    _check_directory(directory)
    # A file of its own, because NFS cannot lock a directory. It stays: a lock file that is
    # deleted can be held by two.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(directory / _LOCK_NAME, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for leftover in directory.glob(f".*.pem{_TEMPORARY_SUFFIX}"):
            leftover.unlink()  # of a run that was killed
        yield
    finally:
        os.close(descriptor)


def _make(directory: Path) -> None:
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another process was first, or it is a file
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)  # whatever the umask took away
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is not a directory")


def _check_directory(directory: Path) -> None:
    for status in (directory.lstat(), directory.stat()):
        if foreign := foreign_owner(status):
            raise ConfigurationError(
                f"{directory} {foreign}, and so exchange its keys: run this as that user, or "
                "choose another directory (--out)"
            )
    if status.st_mode & WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"others may write in {directory}, and so exchange its keys: "
            f"chmod go-w {shlex.quote(str(directory))}"
        )


def _read_own(path: Path) -> tuple[bytes, os.stat_result]:
    """What stands in a file of this user or root, and its owner and mode.

    Raises:
        ConfigurationError: the file, or the link that leads to it, belongs to another user.
        OSError: it is missing or cannot be read.
    """
    _check_owner(path, path.lstat())  # first: another user's pipe would never open
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        _check_owner(path, status)
        return file.read(), status


def _check_owner(path: Path, status: os.stat_result) -> None:
    if foreign := foreign_owner(status):
        raise ConfigurationError(
            f"{path} {foreign}, and is not used: delete it, or choose another directory (--out)"
        )


def _write_atomically(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
