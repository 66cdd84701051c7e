"""TLS for servers: the default, and what `tls=(cert, key)` makes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import socket
import ssl
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from cryptography import x509

from securews.common.errors import ConfigurationError
from securews.transport.admission import Admission
from securews.transport.key_files import (
    CertificateFiles,
    FileIdentities,
    KeyFiles,
    StrPath,
    file_identities,
    issued_by_development_ca,
    key_files,
    load_key_files,
)
from securews.transport.renewal import CONTEXT_LIFETIME, Renewed
from securews.transport.socket_handler import SocketAddress, SocketHandler, SocketStream
from securews.transport.stream import TransformStream
from securews.transport.tls_client import system_trust
from securews.transport.tls_info import UNREADABLE, TLSInfo
from securews.transport.tls_policy import (
    check_minimum_version,
    check_server_context,
    server_context,
    try_handshake,
)
from securews.transport.tls_transform import TLSTransform

__all__ = ["ServerContexts", "TLSSocketHandler"]

SNIUnknown = Literal["default", "alert"]


@dataclasses.dataclass(frozen=True, slots=True)
class ServerContexts:
    """What a listener serves with at one time: the contexts, and who is let in. Immutable.

    Attributes:
        default: for clients that name no host, or one without a certificate of its own.
        by_name: lower-case host names, "*.example.org" for one label in front.
        known_names: names that are served; None serves every name.
        admission: judges a client's certificate.
        development: whether the development CA issued a certificate.
        validities: from when until when each certificate is valid, as far as that is known.
        files: what the files were when they were read.
    """

    default: ssl.SSLContext
    by_name: Mapping[str, ssl.SSLContext] = dataclasses.field(
        default_factory=lambda: MappingProxyType({})
    )
    known_names: frozenset[str] | None = None
    admission: Admission = dataclasses.field(default_factory=Admission)
    development: bool = False
    validities: tuple[tuple[dt.datetime, dt.datetime], ...] = ()
    files: FileIdentities = ()

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        """The context that serves a name; None refuses it."""
        if server_name is None:
            return self.default
        wildcard = "*." + server_name.partition(".")[2]
        found = self.by_name.get(server_name) or self.by_name.get(wildcard)
        if found is not None:
            return found
        if self.known_names is None or not self.known_names.isdisjoint((server_name, wildcard)):
            return self.default
        return None

    def admit(self, info: TLSInfo) -> None:
        """Raise HandshakeError to refuse a peer whose handshake was right."""
        self.admission.judge(info)


class TLSSocketHandler(SocketHandler):
    """TLS for a server.

    Args:
        context_or_cert: the path of a certificate (PEM, the leaf first, then its chain), of one
            file that holds certificate and key, or a finished `ssl.SSLContext`. A context is
            taken as it is, with its own policy, and never changed; change it no more either.
        key: the path of the key.
        password: of the key.
        certificates: other certificates for other hosts: `{"example.org": (cert, key)}`. "*."
            stands for one label. Certificates only: the policy is the listener's.
        minimum_version: TLS 1.2 or 1.3.
        sni_unknown: what a client gets that asks for a host in none of the certificates:
            "default", the first certificate; "alert", unrecognized_name.

    Raises:
        ConfigurationError: something of this cannot work; the text says what.
    """

    secure = True

    def __init__(
        self,
        context_or_cert: ssl.SSLContext | StrPath,
        key: StrPath | None = None,
        password: str | bytes | None = None,
        *,
        certificates: Mapping[str, CertificateFiles] | None = None,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        sni_unknown: SNIUnknown = "default",
    ) -> None:
        check_minimum_version(minimum_version)
        if sni_unknown not in ("default", "alert"):
            raise ConfigurationError(f"sni_unknown is 'default' or 'alert', not {sni_unknown!r}")
        self._minimum_version = minimum_version
        self._sni_unknown = sni_unknown
        self._context: ssl.SSLContext | None = None
        if isinstance(context_or_cert, ssl.SSLContext):
            if key is not None or password is not None or certificates or sni_unknown != "default":
                raise ConfigurationError(
                    "an SSLContext brings its own certificate and sni_callback; key, password, "
                    "certificates and sni_unknown go with paths"
                )
            self._context = context_or_cert
        elif isinstance(context_or_cert, (str, os.PathLike)):
            self._files = KeyFiles.of(context_or_cert, key, password)
        else:
            raise ConfigurationError(
                "TLSSocketHandler takes the paths of a certificate and a key, or an SSLContext, "
                f"not a {type(context_or_cert).__name__}"
            )
        self._certificates = {
            name.lower().removesuffix("."): key_files(given)
            for name, given in (certificates or {}).items()
        }
        lifetime = CONTEXT_LIFETIME if self._context is None else math.inf
        self._contexts = Renewed(self._build, lifetime)

    @property
    def issued_by_development_ca(self) -> bool:
        """Whether one of the certificates is a development certificate."""
        return self._contexts.latest.development

    @property
    def expires(self) -> dt.datetime | None:
        """When the first of the certificates ends; None for a given SSLContext."""
        return min((until for _, until in self.validities), default=None)

    @property
    def validities(self) -> Collection[tuple[dt.datetime, dt.datetime]]:
        """Of each certificate; none for a given SSLContext."""
        return self._contexts.latest.validities

    def renew_if_due(self) -> None:
        """Build the contexts anew, if they are nearly 12 hours old: new keys for session tickets.

        Without a server that calls this it is done by itself, on a thread, when the first
        connection after the 12 hours is accepted (with the old ones).
        """
        self._contexts.renew_if_due()

    def files_changed(self) -> bool:
        """Whether a file is not what it was when it was read."""
        return file_identities(self._paths()) != self._contexts.latest.files

    def accept(self, sock: socket.socket, address: SocketAddress) -> SocketStream:
        """The server's end."""
        return TransformStream(sock, address, TLSTransform.server(self._contexts.current()))

    def connect(self, sock: socket.socket, server_name: str) -> SocketStream:
        """The client's end, verified by what the system trusts. See `TLSClientSocketHandler`."""
        return system_trust().connect(sock, server_name)

    def reload(self) -> None:
        """Read the files again, for the connections to come. Nothing older resumes afterwards.

        Raises:
            ConfigurationError: they do not work; the old ones stay in use.
        """
        if self._context is not None:
            raise ConfigurationError(
                "a given SSLContext cannot be read again; give the paths of certificate and key "
                "instead, or start with a new context"
            )
        try:
            self._contexts.reload()
        except ConfigurationError as exc:
            raise ConfigurationError(f"reload failed, the old certificate stays: {exc}") from exc

    def _build(self) -> ServerContexts:
        """Everything anew from the files, tried before anybody gets it."""
        if self._context is not None:
            check_server_context(self._context, self._minimum_version)
            try_handshake(self._context)
            return ServerContexts(self._context)
        identities = file_identities(self._paths())  # before reading: a change between is seen
        admission = self._admission()
        default, leaf = self._context_of(self._files, admission)
        leaves = [leaf]
        by_name: dict[str, ssl.SSLContext] = {}
        for name, files in self._certificates.items():
            by_name[name], leaf = self._context_of(files, admission)
            leaves.append(leaf)
        return ServerContexts(
            default,
            MappingProxyType(by_name),
            _dns_names(leaves) if self._sni_unknown == "alert" else None,
            admission,
            any(issued_by_development_ca(leaf) for leaf in leaves),
            tuple((leaf.not_valid_before_utc, leaf.not_valid_after_utc) for leaf in leaves),
            identities,
        )

    def _paths(self) -> list[Path]:
        """Every file that `_build` reads."""
        if self._context is not None:
            return []
        pairs = [self._files, *self._certificates.values()]
        return [path for files in pairs for path in (files.cert, files.key)]

    def _context_of(
        self, files: KeyFiles, admission: Admission
    ) -> tuple[ssl.SSLContext, x509.Certificate]:
        context = server_context(self._minimum_version)
        self._verify_clients(context, admission)
        leaf = load_key_files(context, files)
        try_handshake(context)
        return context, leaf

    def _admission(self) -> Admission:
        """How the certificates of clients are judged; `MutualTLSSocketHandler` says more."""
        return Admission()

    def _verify_clients(self, context: ssl.SSLContext, admission: Admission) -> None:
        """Let a new context ask clients for certificates. Here it does not."""


def _dns_names(leaves: Iterable[x509.Certificate]) -> frozenset[str]:
    names: set[str] = set()
    for leaf in leaves:
        try:
            found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            continue
        except UNREADABLE as exc:
            raise ConfigurationError(
                f"the names of the certificate of {leaf.subject.rfc4514_string()} cannot be read "
                f"({exc}), and sni_unknown='alert' goes by them: take another certificate, or "
                "leave sni_unknown out"
            ) from exc
        names.update(name.lower() for name in found.value.get_values_for_type(x509.DNSName))
    return frozenset(names)
