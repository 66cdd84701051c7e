"""What the interpreter that runs us is like."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["gil_enabled"]


def gil_enabled() -> bool:
    """Whether only one thread of this interpreter runs Python at a time."""
    asked: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return asked is None or asked()
