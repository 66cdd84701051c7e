"""The servers that are measured, and how each is started."""

from __future__ import annotations

import dataclasses
import enum
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "SERVERS",
    "Kind",
    "Server",
    "choose_servers",
    "installed",
    "pure_twin",
    "twin_of",
    "versions",
]


class Kind(enum.Enum):
    """What a server is to the ratios."""

    LIMIT = "limit"
    OURS = "ours"
    PEER = "peer"


@dataclasses.dataclass(frozen=True)
class Server:
    """One server in one configuration."""

    name: str
    title: str
    kind: Kind
    module: str = ""
    """In `benchmarks.servers`; the limit has none, it is a program of its own."""
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Distributions that it needs; their versions go into the results."""
    pure: bool = False
    """Without securews' compiled part."""
    setup: str = ""
    """Its configuration, for the tables."""
    tree: Path | None = None
    """Another checkout of securews that it is run from."""


_UVLOOP = ("uvloop",)

SERVERS = (
    Server("limit", "C limit", Kind.LIMIT, setup="epoll and OpenSSL in C, one thread"),
    Server(
        "securews",
        "securews, event",
        Kind.OURS,
        "securews_server",
        arguments=("--kind", "event"),
        setup="EventWebSocketHandler, nothing set",
    ),
    Server(
        "securews-blocking",
        "securews, blocking",
        Kind.OURS,
        "securews_server",
        arguments=("--kind", "blocking"),
        setup="`for message in ws`, nothing set",
    ),
    Server(
        "securews-threaded",
        "securews, threaded",
        Kind.OURS,
        "securews_server",
        arguments=("--kind", "threaded"),
        setup="ThreadedWebSocketHandler, nothing set",
    ),
    Server(
        "picows",
        "picows",
        Kind.PEER,
        "picows_server",
        packages=("picows", "aiofastnet", *_UVLOOP),
        setup="core API, aiofastnet, uvloop",
    ),
    Server(
        "aiohttp",
        "aiohttp",
        Kind.PEER,
        "aiohttp_server",
        packages=("aiohttp", *_UVLOOP),
        setup="uvloop, no access log",
    ),
    Server(
        "websockets",
        "websockets, asyncio",
        Kind.PEER,
        "websockets_asyncio_server",
        packages=("websockets", *_UVLOOP),
        setup="asyncio server, uvloop",
    ),
    Server(
        "websockets-threading",
        "websockets, threading",
        Kind.PEER,
        module="websockets_threading_server",
        packages=("websockets",),
        setup="threading server",
    ),
    Server(
        "uvicorn",
        "uvicorn",
        Kind.PEER,
        "uvicorn_server",
        packages=("uvicorn", "websockets", "httptools", *_UVLOOP),
        setup="ASGI, uvloop, httptools, websockets-sansio",
    ),
    Server(
        "granian",
        "granian",
        Kind.PEER,
        "granian_server",
        packages=("granian", *_UVLOOP),
        setup="RSGI, uvloop, one worker",
    ),
    Server(
        "socketify",
        "socketify",
        Kind.PEER,
        "socketify_server",
        packages=("socketify",),
        setup="native API, publish for broadcasts",
    ),
)


def choose_servers(words: Iterable[str]) -> list[Server]:
    """Those whose name contains one of the words; all without words, in the table's order."""
    wanted = list(words)
    return [s for s in SERVERS if not wanted or any(word in s.name for word in wanted)]


def pure_twin(server: Server) -> Server:
    """The same server without securews' compiled part."""
    return dataclasses.replace(
        server, name=f"{server.name}-pure", title=f"{server.title}, pure", pure=True
    )


def twin_of(server: Server, tree: Path) -> Server:
    """The same server from another checkout of securews: what it was before a change."""
    return dataclasses.replace(
        server, name=f"{server.name}-beside", title=f"{server.title}, beside", tree=tree
    )


def installed(server: Server) -> bool:
    """Whether all that it needs is here."""
    return None not in versions(server).values()


def versions(server: Server) -> dict[str, str | None]:
    """The version of each package that it needs; None where it is not installed."""
    return {package: _version(package) for package in server.packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
