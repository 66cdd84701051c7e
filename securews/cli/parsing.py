"""What the subcommands share: a parser that says one line, and the error of a wrong command."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import NoReturn, TypeAlias

from securews.common.errors import ConfigurationError

__all__ = ["OneLineParser", "Subcommands", "UsageError", "usage"]


class UsageError(Exception):
    """The command line is wrong: exit code 2."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are raised, to be printed in one place."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the command to ask."""
        raise UsageError(f"{message} (see {self.prog} --help)")


Subcommands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"
"""What `add_subparsers()` returns (a text: the class takes no type argument at run time)."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """What is wrong inside is the fault of the command line."""
    try:
        yield
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
