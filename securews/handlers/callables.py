"""What can be known of a user's function before it is called: better now than at the first peer."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from securews.common.errors import ConfigurationError

__all__ = ["check_callable", "name_of"]


def name_of(function: object) -> str:
    """What a log line or an error calls a function."""
    return getattr(function, "__name__", type(function).__name__)


def check_callable(name: str, function: Callable[..., object], count: int, advice: str) -> None:
    """Check a function that will be called with `count` arguments.

    Raises:
        ConfigurationError: it is an `async def`, or takes other arguments; then `advice` says
            what to write.
    """
    _refuse_async(name, function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in callables do not say what they take
    try:
        signature.bind(*range(count))
    except TypeError:
        raise ConfigurationError(f"{name}{signature} does not fit: {advice}") from None


def _refuse_async(name: str, function: object) -> None:
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 - the method itself is inspected
    if any(
        test(f)
        for f in (function, call)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    ):
        raise ConfigurationError(
            f"{name} is an 'async def'; securews calls handlers in threads: write 'def', and "
            "call ws.send() and ws.recv() without await"
        )
