"""A route from what a program says: its own words first, then the handler's, then the server's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from securews.common.errors import ConfigurationError
from securews.common.options import ConnectionOptions, check_names, field_names, replaced
from securews.handlers.handler import AcceptFunction, WebSocketHandler, check_accept
from securews.handlers.origins import AnyOrigin, check_origins
from securews.server.router import Route

__all__ = ["make_route"]


def make_route(
    handler: WebSocketHandler,
    server_options: ConnectionOptions,
    *,
    accept: AcceptFunction | None,
    origins: Iterable[str] | AnyOrigin | None,
    subprotocols: Sequence[str] | None,
    options: Mapping[str, object],
) -> Route:
    """Put a route together.

    Raises:
        ConfigurationError: an unknown option, or a value that does not fit.
    """
    names = field_names(ConnectionOptions)
    check_names(options, [*names, "accept", "origins", "subprotocols"])
    of_class = {name: getattr(handler, name) for name in names if hasattr(handler, name)}
    if accept is not None:
        check_accept(accept)
    builtin = getattr(type(handler), "accept", None) is WebSocketHandler.accept
    return Route(
        handler=handler,
        accept=handler.accept if accept is None else accept,
        asks=accept is not None or not builtin,
        origins=check_origins(handler.origins if origins is None else origins),
        subprotocols=_checked(handler.subprotocols if subprotocols is None else subprotocols),
        options=replaced(server_options, {**of_class, **options}),
    )


def _checked(subprotocols: Sequence[str]) -> tuple[str, ...]:
    if isinstance(subprotocols, str):
        raise ConfigurationError(f"subprotocols is a list; write subprotocols=[{subprotocols!r}]")
    return tuple(subprotocols)
