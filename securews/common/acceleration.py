"""Compiled or in pure Python: chosen once, when securews is imported.

`pip install` compiles the modules of the hot path where it can (see setup.py). Python prefers a
compiled module to its source of the same name, so nothing here chooses but this: with
SECUREWS_PURE=1 in the environment only sources are found. Both are the same code, and pass the
same tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    SOURCE_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from types import ModuleType

__all__ = ["choose", "is_compiled"]


class _SourcesOnly(MetaPathFinder):
    """Finds the modules of this package, and only in source."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the protocol of importers has it."""
        if path is None or not fullname.startswith("securews."):
            return None
        for folder in path:
            finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
            if (spec := finder.find_spec(fullname, target)) is not None:
                return spec
        return None


def choose() -> None:
    """Heed SECUREWS_PURE. Before any module that may be compiled is imported."""
    if os.environ.get("SECUREWS_PURE", "0") not in ("", "0"):
        # Before the finder that prefers what is compiled, and behind those that others have put
        # first: a tool that instruments sources asks the finders behind its own.
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _SourcesOnly())


def is_compiled(module: ModuleType) -> bool:
    """Whether a module is the compiled one."""
    return not isinstance(module.__loader__, SourceFileLoader)
