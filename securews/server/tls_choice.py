"""What `tls=` may be, and what it means when it is left out."""

from __future__ import annotations

import enum
import logging
import os
import shlex
import ssl
from typing import Final, TypeAlias

from securews.certificates.directory import development_directory
from securews.common.errors import ConfigurationError
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketHandler, is_loopback
from securews.transport.tls import TLSSocketHandler

__all__ = [
    "FIND",
    "Find",
    "TLSChoice",
    "checked_socket_handler",
    "choose_socket_handler",
]

log = logging.getLogger("securews.server")


class Find(enum.Enum):
    """The type of `FIND`."""

    FIND = "the development certificate"


FIND: Final = Find.FIND
"""`tls=` was left out."""

StrPath: TypeAlias = str | os.PathLike[str]
TLSChoice: TypeAlias = (
    SocketHandler
    | ssl.SSLContext
    | StrPath
    | tuple[StrPath, StrPath]
    | tuple[StrPath, StrPath, str | bytes | None]
    | bool
    | Find
)

COMMAND = "securews gen-dev-certs"


def choose_socket_handler(tls: TLSChoice, host: str | None, *, insecure: bool) -> SocketHandler:
    """The SocketHandler that `tls=` asks for, checked against the address that it will serve.

    Raises:
        ConfigurationError: no certificate, one that does not work, or plain TCP (or a
            certificate that was merely found) off loopback.
    """
    if tls is FIND:
        return _found(host)
    if tls is False:
        handler: SocketHandler = PlainSocketHandler(insecure=insecure)
        handler.check(host)
        return handler
    if insecure:
        raise ConfigurationError("insecure=True goes with tls=False, and with nothing else")
    if isinstance(tls, SocketHandler):
        handler = tls
    elif isinstance(tls, (ssl.SSLContext, str, os.PathLike)):
        handler = TLSSocketHandler(tls)
    elif isinstance(tls, tuple) and len(tls) in (2, 3):
        handler = TLSSocketHandler(*tls)
    else:
        raise ConfigurationError(
            "tls is (cert, key), (cert, key, password), one path that holds both, an "
            "ssl.SSLContext, a SocketHandler (an instance, not the class), or False for plain "
            f"TCP; not {_shown(tls)}"
        )
    handler.check(host)
    return handler


def checked_socket_handler(handler: SocketHandler | None, host: str | None) -> SocketHandler:
    """A SocketHandler that may serve `host`; None is the development certificate's.

    Raises:
        ConfigurationError: it may not, or there is no certificate.
    """
    if handler is None:
        handler = _found(host)
    else:
        handler.check(host)
    if handler.issued_by_development_ca and not is_loopback(host):
        log.warning(
            "a development certificate is served on %s: only machines that trust your "
            "development CA can connect",
            host or "all addresses",
        )
    return handler


def _shown(tls: object) -> str:
    """What was given, in words; a password may stand in it."""
    if tls is None or isinstance(tls, (bool, int)):
        return repr(tls)
    size = f" of {len(tls)}" if isinstance(tls, (tuple, list)) else ""
    return f"a {type(tls).__name__}{size}"


def _found(host: str | None) -> SocketHandler:
    directory = development_directory()
    cert, key = directory / "server.pem", directory / "server-key.pem"
    if not cert.exists() or not key.exists():
        raise ConfigurationError(
            f"there is no certificate in {str(directory)!r}: make one for development with: "
            f"{COMMAND} --out {shlex.quote(str(directory))}, or pass yours: tls=(cert, key)"
        )
    if not is_loopback(host):
        raise ConfigurationError(
            f"the certificate that was found in {str(directory)!r} is for development, and "
            f"{host or 'every address'} can be reached from other machines: pass tls=(cert, key)"
        )
    return TLSSocketHandler(cert, key)
