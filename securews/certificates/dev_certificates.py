"""Development certificates: a local authority, a server certificate, client certificates.

`ensure_certificates` makes what is missing, renews what no longer serves, and leaves alone what
is good. The authority is kept for ten years, because trusting it is done by hand; all else lives
90 days and is renewed on the first run that finds under 14 days left. No trust store is touched.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from securews.certificates import issuing
from securews.certificates.issuing import CertifiedKey
from securews.certificates.pair_files import PairFiles, UnusableError, locked
from securews.common.errors import ConfigurationError, printable

__all__ = [
    "Action",
    "Entry",
    "Report",
    "checked_client",
    "checked_days",
    "checked_host",
    "ensure_certificates",
]

DEFAULT_DAYS = 90
"""Days that server and client certificates live."""

LONGEST_DAYS = 824
"""Apple's systems refuse server certificates that live longer than 825 days, also of authorities
that the user trusts (support.apple.com/HT210176); ours begin an hour before they are made."""

RENEW_DAYS = 14
"""A certificate is renewed when less is left, or less than a third of `days` where that is less."""

_BASE_HOSTS = ("localhost", "127.0.0.1", "::1")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.{_LABEL}\.)?(?:{_LABEL}\.)*{_LABEL}")
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLIENT = re.compile(rf"{_WORD}(?:@{_WORD})?")


class Action(enum.Enum):
    """What was done to a certificate and its key."""

    MADE = "made"
    """They were not there."""
    RENEWED = "renewed"
    """They were replaced by new ones."""
    MENDED = "mended"
    """The key's file mode was too open and was closed; nothing else was changed."""
    KEPT = "kept"
    """Nothing was changed."""


@dataclass(frozen=True)
class Entry:
    """One certificate of a `Report`.

    Attributes:
        certificate: its file.
        key: the file of its private key.
        action: what was done.
        reason: why, in a few words; empty where the action says it all.
        expires: until when it is valid (aware, UTC).
        names: the host names and IP addresses that it is for; empty for the authority.
    """

    certificate: Path
    key: Path
    action: Action
    reason: str
    expires: dt.datetime
    names: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `ensure_certificates` found and did: the authority, the server, then the clients."""

    entries: tuple[Entry, ...]

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority, for clients to trust."""
        return self.entries[0].certificate

    @property
    def changed(self) -> bool:
        """Whether any file was changed."""
        return any(entry.action is not Action.KEPT for entry in self.entries)

    @property
    def new_authority(self) -> bool:
        """Whether the authority is new, so that it has to be trusted (again)."""
        return self.entries[0].action in (Action.MADE, Action.RENEWED)


def ensure_certificates(
    directory: str | Path,
    hosts: Iterable[str] = (),
    clients: Iterable[str] = (),
    *,
    days: int = DEFAULT_DAYS,
    force: bool = False,
) -> Report:
    """Make or renew the development certificates in `directory`, where that is needed. Any thread.

    The server certificate is for localhost, 127.0.0.1, ::1, this machine's name and `hosts`; a
    renewed one keeps the names that it had. Client certificates that are there already are looked
    after too, named or not. Processes and threads take turns.

    Args:
        directory: where the files are; it is made (mode 0700) if it is not there.
        hosts: more host names and IP addresses of the server.
        clients: names of clients; each gets `client-NAME.pem` and `client-NAME-key.pem`.
        days: how long new server and client certificates live, 1 to 824.
        force: renew the server's and all clients' certificates, even good ones. The authority
            is kept: it is trusted somewhere.

    Raises:
        ConfigurationError: a host, a name or a number of days that does not fit; a file that
            gen-dev-certs did not make; a directory or file that cannot be read or written, or
            that another user can change.
    """
    asked = tuple(checked_host(host) for host in hosts)
    names = {checked_client(client) for client in clients}
    checked_days(days)
    directory = Path(directory)
    try:
        with locked(directory):
            ca_files, server_files = PairFiles(directory, "ca"), PairFiles(directory, "server")
            names.update(_clients_in(directory))
            client_files = {name: PairFiles(directory, f"client-{name}") for name in sorted(names)}
            for files in (ca_files, server_files, *client_files.values()):
                files.check_owners()  # before any change
            authority, entry = _ensure_authority(ca_files)
            job = _Job(authority, days, force)
            server = _ensure_server(job, server_files, asked)
            made = [_ensure_client(job, files, name) for name, files in client_files.items()]
    except OSError as error:
        where = error.filename or directory
        raise ConfigurationError(f"{where}: {error.strerror or error}") from error
    return Report((entry, server, *made))


def checked_host(text: str) -> str:
    """A host name in lower case, or an IP address, in the form that certificates compare.

    Raises:
        ConfigurationError: it is neither.
    """
    bare = text.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        name = text.removesuffix(".").lower()
        if _HOST.fullmatch(name) and len(name) <= 253 and not name.rpartition(".")[2].isdigit():
            return name
        raise ConfigurationError(
            f"host {printable(text)} is no host name and no IP address: write pi.local or "
            "192.168.1.5, without scheme, port or path (an international name as xn--...)"
        ) from None
    if address.is_unspecified or "%" in bare:
        raise ConfigurationError(
            f"host {printable(text)} is nothing that a client can connect to from elsewhere: "
            "give the address that stands in its URL"
        )
    return str(address)


def checked_client(name: str) -> str:
    """The name of a client, if it is safe in a file name.

    Raises:
        ConfigurationError: it is not.
    """
    if not _CLIENT.fullmatch(name) or len(name) > 64:  # 64: a common name holds no more
        raise ConfigurationError(
            f"client name {printable(name)} is none that a file name can hold: up to 64 letters, "
            "digits and . _ - with a letter or digit at both ends, or an e-mail address of these"
        )
    if name.endswith("-key"):
        # client-pump-key.pem is the key file of the client "pump".
        raise ConfigurationError(f"client name {printable(name)} may not end in '-key'")
    return name


def checked_days(days: int) -> int:
    """The number of days, if certificates may live so long.

    Raises:
        ConfigurationError: they may not.
    """
    if not 1 <= days <= LONGEST_DAYS:
        raise ConfigurationError(
            f"certificates live 1 to {LONGEST_DAYS} days, not {days} "
            "(Apple's systems accept no more)"
        )
    return days


@dataclass(frozen=True)
class _Job:
    """What the certificates of one run have in common."""

    authority: CertifiedKey
    days: int
    force: bool

    def fault(self, pair: CertifiedKey, usage: x509.ObjectIdentifier) -> str:
        """Why the pair has to be renewed; empty if it does not."""
        certificate = pair.certificate
        if self.force:
            return "as asked"
        if not issuing.is_issued_by(certificate, self.authority.certificate):
            return "another authority signed it"
        if not issuing.has_usage(certificate, usage):
            return "it was for another usage"
        return _age(certificate, min(float(RENEW_DAYS), self.days / 3))


def _ensure_authority(files: PairFiles) -> tuple[CertifiedKey, Entry]:
    action, reason = Action.MADE, ""
    if files.exist:
        try:
            pair = files.read()
            reason = _authority_fault(pair.certificate)
        except UnusableError as error:
            reason = str(error)
        if not reason:
            return pair, _kept(files, pair)
        action = Action.RENEWED
        if not files.key.exists():
            reason = f"{files.key.name} was lost, and without it nothing can be signed"
    pair = issuing.new_authority(_machine() or "localhost")
    files.write(pair)
    return pair, _entry(files, pair, action, reason)


def _authority_fault(certificate: x509.Certificate) -> str:
    if not issuing.is_authority(certificate):
        return "it was no certificate authority"
    if not issuing.is_issued_by(certificate, certificate):
        return "its signature was not its own"
    return _age(certificate, float(RENEW_DAYS))


def _ensure_server(job: _Job, files: PairFiles, asked: tuple[str, ...]) -> Entry:
    machine = _machine()
    wanted = (*_BASE_HOSTS, *((machine,) if machine else ()), *asked)
    old = files.read_certificate()
    had = () if old is None else issuing.certificate_names(old)
    reason = ""
    if files.exist:
        try:
            pair = files.read()
            missing = [name for name in dict.fromkeys(wanted) if name not in had]
            reason = job.fault(pair, ExtendedKeyUsageOID.SERVER_AUTH) or (
                f"{', '.join(missing)} was not in it" if missing else ""
            )
        except UnusableError as error:
            reason = str(error)
            if old is None:
                reason += "; give --host again for names that it had"
        if not reason:
            return _kept(files, pair)
    names = tuple(dict.fromkeys((*wanted, *had)))
    pair = issuing.issue_server(job.authority, names, days=job.days)
    files.write(pair)
    return _entry(files, pair, Action.RENEWED if reason else Action.MADE, reason)


def _ensure_client(job: _Job, files: PairFiles, name: str) -> Entry:
    reason = ""
    if files.exist:
        try:
            pair = files.read()
            reason = job.fault(pair, ExtendedKeyUsageOID.CLIENT_AUTH)
        except UnusableError as error:
            reason = str(error)
        if not reason:
            return _kept(files, pair)
    pair = issuing.issue_client(job.authority, name, days=job.days)
    files.write(pair)
    return _entry(files, pair, Action.RENEWED if reason else Action.MADE, reason)


def _clients_in(directory: Path) -> list[str]:
    """The clients with a file of ours in the directory, whichever of the two it is."""
    found = []
    for stem in {path.stem.removesuffix("-key") for path in directory.glob("client-*.pem")}:
        try:
            name = checked_client(stem.removeprefix("client-"))
            PairFiles(directory, stem).read_certificate()
        except ConfigurationError:
            continue  # nobody asked for it, and it is not ours
        found.append(name)
    return found


def _kept(files: PairFiles, pair: CertifiedKey) -> Entry:
    mended = files.mend_mode()
    return _entry(files, pair, Action.MENDED if mended else Action.KEPT, mended)


def _entry(files: PairFiles, pair: CertifiedKey, action: Action, reason: str) -> Entry:
    certificate = pair.certificate
    names = issuing.certificate_names(certificate)
    expires = certificate.not_valid_after_utc
    return Entry(files.certificate, files.key, action, reason, expires, names)


def _age(certificate: x509.Certificate, days: float) -> str:
    """Why the certificate is too old, or too young; empty if it is neither."""
    now = dt.datetime.now(dt.UTC)
    left = certificate.not_valid_after_utc - now
    if now < certificate.not_valid_before_utc:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if left <= dt.timedelta():
        return f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if left < dt.timedelta(days=days):
        return f"{left.days} days were left"
    return ""


def _machine() -> str:
    """This machine's name; empty where it has none that a certificate can hold."""
    try:
        return checked_host(socket.gethostname())
    except ConfigurationError:
        return ""
