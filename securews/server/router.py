"""Which handler serves which host and path, and which function answers which page.

Hosts compare without case, port and trailing dot; paths as decoded, without their query. "*" is
the entry for every host or every path, as in the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from securews.common.errors import ConfigurationError, Response
from securews.common.options import ConnectionOptions
from securews.handlers.handler import (
    AcceptFunction,
    EventWebSocketHandler,
    WebSocketHandler,
)
from securews.handlers.origins import AllowedOrigins
from securews.handlers.request import Request
from securews.protocol.authority import split_authority

__all__ = ["Page", "PageFunction", "Route", "Router", "check_path"]

PageFunction: TypeAlias = Callable[[Request], Response | str | bytes]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and everything that decides about its connections."""

    handler: WebSocketHandler
    accept: AcceptFunction
    asks: bool
    """Whether `accept` is the user's; the built-in one says yes and needs no thread."""
    origins: AllowedOrigins
    subprotocols: Sequence[str]
    options: ConnectionOptions

    @property
    def event_driven(self) -> bool:
        """Whether the handler is called on the I/O thread."""
        return isinstance(self.handler, EventWebSocketHandler)


@dataclass(frozen=True, slots=True)
class Page:
    """A function that answers ordinary requests."""

    function: PageFunction
    methods: frozenset[str]


@dataclass(slots=True)
class _Host:
    routes: dict[str, Route] = field(default_factory=dict)
    default: Route | None = None


class Router:
    """Filled before or while serving, by one thread at a time; read by the I/O loop."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._default: _Host | None = None
        self._pages: dict[str, Page] = {}

    @property
    def empty(self) -> bool:
        """Whether there is nothing to serve."""
        return not self._hosts and not self._pages

    @property
    def handlers(self) -> list[WebSocketHandler]:
        """Each registered handler once, in the order of registration."""
        every = (route.handler for host in self._hosts.values() for route in host.routes.values())
        return list({id(handler): handler for handler in every}.values())

    def add(
        self, host: str, path: str, route: Route, *, default_host: bool, default_path: bool
    ) -> None:
        """Register a route.

        Raises:
            ConfigurationError: the pair is taken, or is no host and path.
        """
        name = _host_name(host)
        check_path(path)
        entry = self._hosts.get(name, _Host())
        if path in entry.routes:
            raise ConfigurationError(
                f"a handler for host {host!r} and path {path!r} is registered already"
            )
        if default_path and entry.default is not None:
            raise ConfigurationError(f"host {host!r} has a default path already")
        if default_host and self._default not in (None, entry):
            raise ConfigurationError("there is a default host already")
        entry.routes[path] = route
        if default_path or path == "*":
            entry.default = route
        if default_host or name == "*":
            self._default = entry
        self._hosts[name] = entry

    def add_page(self, path: str, page: Page) -> None:
        """Register a page on every host."""
        check_path(path)
        if path == "*":
            raise ConfigurationError("a page has one path, such as '/'; '*' is for handlers")
        if path in self._pages:
            raise ConfigurationError(f"a page for path {path!r} is registered already")
        self._pages[path] = page

    def page(self, path: str) -> Page | None:
        """The page at `path`."""
        return self._pages.get(path)

    def knows_host(self, host: str) -> bool:
        """Whether requests for `host` are served at all."""
        return self._default is not None or host in self._hosts or not self._hosts

    def names_host(self, host: str) -> bool:
        """Whether a handler is registered for `host` by this name, and not for any."""
        return host in self._hosts

    def route(self, host: str, path: str) -> Route | None:
        """The route of a request: exact paths first, this host's before the default host's."""
        entries = [e for e in (self._hosts.get(host), self._default) if e is not None]
        for entry in entries:
            if path in entry.routes:
                return entry.routes[path]
        return next((e.default for e in entries if e.default is not None), None)


def _host_name(host: str) -> str:
    if host == "*":
        return host
    try:
        return split_authority(host)[0]
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{host!r} is no host name; write one such as 'example.com', or '*' for all"
        ) from None


def check_path(path: str, usage: str = "'/chat', or '*' for all") -> None:
    """Raise ConfigurationError for what can be no path; the text gives `usage`."""
    if not isinstance(path, str) or (path != "*" and not path.startswith("/")):
        raise ConfigurationError(f"{path!r} is no path; write one, such as {usage}")
    if "?" in path or "#" in path:
        raise ConfigurationError(f"path {path!r} has a query or fragment; handlers see the query")
