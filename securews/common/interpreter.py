"""What the interpreter that runs us is like."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

__all__ = ["ends_the_program", "gil_enabled"]


def gil_enabled() -> bool:
    """Whether only one thread of this interpreter runs Python at a time."""
    asked: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return asked is None or asked()


def ends_the_program(error: BaseException) -> bool:
    """Whether an exception of user code goes on up: KeyboardInterrupt, in the main thread.

    In every other thread it is an error of that code like any other, whatever its class.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )
