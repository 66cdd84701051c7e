"""Every option once: its default, its unit and its reason.

`serve()`'s keyword arguments, the flags of the command line and the table in docs/options.md
derive from the fields below. `None` switches a timeout off.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from securews.common.errors import ConfigurationError

__all__ = [
    "AcceptingMethod",
    "Compression",
    "ConnectionOptions",
    "Limits",
    "ServerOptions",
    "SlowClient",
    "split_options",
]


class AcceptingMethod(enum.Enum):
    """Which thread runs `accept()` and then `handle_communication()`."""

    SERIAL = "serial"
    """The thread inside `start()`, one connection after another (the seed's samDefault)."""
    THREADED = "threaded"
    """A new thread for each connection (samThreaded)."""
    THREAD_POOL = "pool"
    """Threads that are used again, at most `pool_size` (samThreadPool)."""


SlowClient = Literal["close", "drop"]


def _option(
    default: Any,
    reason: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field with the facts that flags, docs and checks are made from."""
    return dataclasses.field(
        default=default,
        metadata={"reason": reason, "unit": unit, "at_least": at_least, "at_most": at_most},
    )


def _check(options: ConnectionOptions | ServerOptions | Limits | Compression) -> None:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        kind = str(field.type)
        if kind == "bool | Compression":
            if not isinstance(value, (bool, Compression)):
                raise ConfigurationError(
                    f"option {field.name!r} is True, False or a securews.Compression, not {value!r}"
                )
        elif kind == "Collection[str]":
            _check_texts(field.name, value)
        elif value is None:
            if "None" not in kind:
                raise ConfigurationError(f"option {field.name!r} cannot be None: it needs a limit")
        elif kind.startswith(("int", "float")):
            _check_number(field.name, value, whole=kind.startswith("int"))
            _check_bounds(field.name, value, field.metadata["at_least"], field.metadata["at_most"])
        elif kind.startswith("bool") and not isinstance(value, bool):
            raise ConfigurationError(f"option {field.name!r} is True or False, not {value!r}")
        elif kind == "AcceptingMethod" and not isinstance(value, AcceptingMethod):
            names = ", ".join(f"AcceptingMethod.{m.name}" for m in AcceptingMethod)
            raise ConfigurationError(f"option {field.name!r} is one of {names}, not {value!r}")
        elif kind == "SlowClient" and value not in ("close", "drop"):
            raise ConfigurationError(f"option {field.name!r} is 'close' or 'drop', not {value!r}")
        elif kind == "Limits" and not isinstance(value, Limits):
            raise ConfigurationError(f"option {field.name!r} is a securews.Limits, not {value!r}")


def _check_number(name: str, value: object, *, whole: bool) -> None:
    fits = isinstance(value, int) if whole else isinstance(value, (int, float))
    if isinstance(value, bool) or not fits or not math.isfinite(cast("float", value)):
        what = "a whole number" if whole else "a finite number of seconds, or None"
        raise ConfigurationError(f"option {name!r} is {what}, not {value!r}")


def _check_bounds(name: str, value: float, least: float | None, most: float | None) -> None:
    if least is not None and value < least:
        raise ConfigurationError(f"option {name!r} is at least {least}, not {value}")
    if most is not None and value > most:
        raise ConfigurationError(f"option {name!r} is at most {most}, not {value}")


def _check_texts(name: str, value: object) -> None:
    if isinstance(value, str):
        raise ConfigurationError(f"option {name!r} is a list; write {name}=[{value!r}]")
    if not isinstance(value, Collection) or not all(isinstance(text, str) for text in value):
        raise ConfigurationError(f"option {name!r} is a list of str, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How messages are compressed where both ends agree to: `compression=Compression(level=9)`.

    permessage-deflate of RFC 7692; docs/compression.md has the memory that each value costs. A
    direction with context takeover refers to its earlier messages: small ones that resemble each
    other become much smaller, and the memory is kept while the connection lives.
    """

    level: int = _option(
        6, "effort for what we send: 1 is fast, 9 is small; 6 is zlib's own", at_least=1, at_most=9
    )
    memory_level: int = _option(
        5, "memory while we compress: 2 ** (memory_level + 9) bytes", at_least=1, at_most=9
    )
    min_size: int = _option(
        64, "smaller messages are sent uncompressed: they gain nothing", unit="bytes", at_least=0
    )
    server_window_bits: int = _option(
        12,
        "the server compresses with a window of at most 2 ** bits bytes; zlib has no 8",
        at_least=9,
        at_most=15,
    )
    client_window_bits: int = _option(
        12,
        "the client compresses with a window of at most 2 ** bits bytes, if it can be told",
        at_least=9,
        at_most=15,
    )
    server_context_takeover: bool | None = _option(
        None,
        "whether the server's messages may refer to earlier ones; None is yes, unless the "
        "connection carries a client certificate, a cookie or credentials",
    )
    client_context_takeover: bool | None = _option(
        None, "whether the client's messages may refer to earlier ones; None as above"
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Options that a route, a handler class or the server may set, in this order."""

    ping_interval: float | None = _option(
        20.0, "a silent peer is asked for a sign of life this often", unit="s", at_least=0.01
    )
    ping_timeout: float | None = _option(
        20.0, "a peer that sends nothing this long after a ping is gone", unit="s", at_least=0.01
    )
    close_timeout: float | None = _option(
        10.0, "the peer has this long to answer our Close frame", unit="s", at_least=0.0
    )
    write_timeout: float | None = _option(
        10.0,
        "a peer whose socket is full has to take 1 KiB in each such time, or it is gone",
        unit="s",
        at_least=0.01,
    )
    outbox_bytes: int = _option(
        1 << 20,
        "what may wait to be sent before send() waits; four times as much is kept where nothing "
        "may wait (broadcast, I/O thread)",
        unit="bytes",
        at_least=1,
    )
    slow_client: SlowClient = _option(
        "close",
        "where nothing may wait, four times outbox_bytes wait and the socket takes no more: close "
        "with 1013, or drop the message",
    )
    message_timeout: float | None = _option(
        30.0,
        "a message has this long from its first byte to its last, unless it comes faster "
        "than 1 KiB/s",
        unit="s",
        at_least=0.01,
    )
    message_rate: float | None = _option(
        None,
        "messages that a peer may send; as many as one second's may come at once",
        unit="1/s",
        at_least=0.01,
    )
    max_size: int = _option(
        1 << 20, "the largest message that is received", unit="bytes", at_least=1
    )
    max_queue: int = _option(
        16,
        "received messages that wait for the handler; 0 drops them all",
        unit="messages",
        at_least=0,
    )
    max_queue_bytes: int = _option(
        4 << 20, "memory of the messages that wait for the handler", unit="bytes", at_least=1
    )
    compression: bool | Compression = _option(
        False,
        "whether permessage-deflate is agreed to, and with what; off, for it costs memory and "
        "can tell an onlooker about secrets by the length of messages",
    )

    def __post_init__(self) -> None:
        _check(self)

    @property
    def wanted_compression(self) -> Compression | None:
        """`compression`, with True and False resolved."""
        if isinstance(self.compression, Compression):
            return self.compression
        return Compression() if self.compression else None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that are rarely tuned: `limits=Limits(max_headers=50)`."""

    max_line: int = _option(
        8192, "the longest request line or header line", unit="bytes", at_least=16
    )
    max_headers: int = _option(100, "header lines of a request", at_least=1)
    max_header_bytes: int = _option(
        16 << 10, "all header lines together", unit="bytes", at_least=64
    )
    max_fragments: int = _option(1024, "frames of one message", at_least=1)
    control_rate: float = _option(
        50.0, "control frames that a peer may send", unit="1/s", at_least=0.01
    )
    control_burst: int = _option(200, "control frames that may come at once", at_least=1)
    max_handshakes: int = _option(
        64,
        "steps of handshakes that wait for a worker; with so many nobody new is accepted; silent "
        "peers that are waited for do not count",
        at_least=1,
    )
    backlog: int = _option(1024, "connections that the kernel holds for accept", at_least=1)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Options of the server as a whole."""

    accepting_method: AcceptingMethod = _option(
        AcceptingMethod.THREAD_POOL, "which thread runs accept() and handle_communication()"
    )
    open_timeout: float | None = _option(
        10.0, "from accept to 101, TLS and request included", unit="s", at_least=0.01
    )
    max_connections: int = _option(
        1000,
        "connections at once, unfinished ones too, and those whose handler, accept() or page goes "
        "on without its client",
        at_least=1,
    )
    max_per_ip: int | None = _option(
        100, "of these from one address (IPv6: one /64); loopback is exempt", at_least=1
    )
    max_buffered: int = _option(
        256 << 20,
        "what all connections hold together: messages to send, unread ones, unfinished ones; close "
        "to it who holds much is not read from; over it unread messages of clients that have gone "
        "are dropped, then who holds most is closed with 1013",
        unit="bytes",
        at_least=1,
    )
    pool_size: int | None = _option(
        None, "threads of the pool; None is max_connections", at_least=1
    )
    request_threads: int = _option(8, "accept() and pages that run at once", at_least=1)
    handshake_workers: int | None = _option(
        None,
        "threads for TLS handshakes; None leaves one core to the I/O loop: cores - 1, at least 1",
        at_least=1,
    )
    io_threads: int = _option(
        1,
        "threads that move bytes and call event handlers, each for its share of the connections; "
        "more than one needs a free-threaded Python",
        at_least=1,
    )
    reload_interval: float | None = _option(
        None,
        "certificate files are looked at this often, and changed ones are loaded; None: only "
        "reload_tls() and SIGHUP load them",
        unit="s",
        at_least=0.01,
    )
    revalidate_interval: float | None = _option(
        None,
        "under mutual TLS the certificates of open connections are judged again this often (dates, "
        "CRL, authorize=), and whose is refused is closed with 1008",
        unit="s",
        at_least=0.01,
    )
    allowed_hosts: Collection[str] = _option(
        (),
        "hosts that plain TCP on loopback answers beside those of this machine and of handlers; "
        "all others get 421 (DNS rebinding): a public one, where a proxy passes it on; '*' is any",
    )
    free_handlers: bool = _option(True, "whether handler.close() is called when the server stops")
    limits: Limits = _option(Limits(), "the limits that are rarely tuned")

    def __post_init__(self) -> None:
        _check(self)

    @property
    def pool_threads(self) -> int:
        """The size of the pool, None resolved."""
        return self.max_connections if self.pool_size is None else self.pool_size

    @property
    def handshake_threads(self) -> int:
        """The number of handshake workers, None resolved."""
        if self.handshake_workers is not None:
            return self.handshake_workers
        return max(1, (os.cpu_count() or 1) - 1)


_Options = TypeVar("_Options", ConnectionOptions, ServerOptions, Limits)


def field_names(*kinds: type[ConnectionOptions | ServerOptions | Limits]) -> list[str]:
    """The names of all options of these kinds."""
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


def replaced(options: _Options, changes: Mapping[str, Any]) -> _Options:
    """`options` with `changes`; a ConfigurationError for a value that does not fit."""
    return dataclasses.replace(options, **changes) if changes else options


def split_options(given: Mapping[str, Any]) -> tuple[ServerOptions, ConnectionOptions]:
    """Sort keyword arguments into the two kinds of options.

    Raises:
        ConfigurationError: an unknown name (with the one that was probably meant), or a value
            that does not fit.
    """
    for_server = set(field_names(ServerOptions))
    for_connection = set(field_names(ConnectionOptions))
    check_names(given, for_server | for_connection)
    return (
        ServerOptions(**{name: given[name] for name in given if name in for_server}),
        ConnectionOptions(**{name: given[name] for name in given if name in for_connection}),
    )


_ALSO_KNOWN = {
    "ssl": "tls",
    "ssl_context": "tls",
    "sslcontext": "tls",
    "certfile": "tls",
    "keyfile": "tls",
    "cert": "tls",
    "origin": "origins",
    "subprotocol": "subprotocols",
    "timeout": "open_timeout",
    "max_clients": "max_connections",
    "ping_period": "ping_interval",
    "heartbeat": "ping_interval",
    "max_message_size": "max_size",
    "rate_limit": "message_rate",
    "write_limit": "outbox_bytes",
    "permessage_deflate": "compression",
    "compress": "compression",
}
"""What other libraries call it."""

_OF_SERVE = {"tls", "host", "insecure", "handler"}
"""What `serve()` takes beside options."""
_OF_HANDLER = {"accept", "origins", "subprotocols"}
"""What goes with a handler."""


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigurationError for the first name that is not known; say what was meant."""
    choices = set(known)
    for name in given:
        if name in choices:
            continue
        if name in _OF_SERVE or name in field_names(ServerOptions):
            raise ConfigurationError(
                f"{name!r} is an option of the server as a whole: write serve(..., {name}=...)"
            )
        if name in _OF_HANDLER:
            raise ConfigurationError(
                f"{name!r} belongs to a handler: write register_handler(..., {name}=...)"
            )
        close = (
            [_ALSO_KNOWN[name]]
            if name in _ALSO_KNOWN
            else difflib.get_close_matches(name, choices | _OF_SERVE, 1)
        )
        hint = f"; did you mean {close[0]!r}?" if close else "; docs/options.md lists them all"
        raise ConfigurationError(f"unknown option {name!r}{hint}")
