"""The command `securews`: subcommands, and errors as one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import securews
from securews.cli import connecting, gen_dev_certs, serving
from securews.cli.parsing import OneLineParser, UsageError
from securews.common.errors import SecureWSError
from securews.common.version import __version__

__all__ = ["main"]

FAILURE = 1
"""It could not be done: a missing file, a port in use, a server that refuses."""
USAGE = 2
"""The command line is wrong."""
INTERRUPTED = 130
"""Ctrl-C, where nothing was open that could be closed in order (128 + SIGINT)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments without the program's name; None is those of the process.
    """
    try:
        arguments = _parser().parse_args(argv)
        run: Callable[..., int] = arguments.run
        return run(arguments)
    except UsageError as error:
        return _complain(error, USAGE)
    except BrokenPipeError:
        # Whoever read our output is gone; what is buffered has nowhere to go at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except SecureWSError as error:
        return _complain(error, FAILURE)
    except OSError as error:
        return _complain(error.strerror or error, FAILURE, error.filename)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="securews", description="Secure WebSocket servers.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, title="commands", parser_class=OneLineParser
    )
    gen_dev_certs.add_command(commands)
    serving.add_commands(commands)
    connecting.add_command(commands)
    return parser


def _version() -> str:
    part = "with its compiled part" if securews.ACCELERATED else "in pure Python"
    return f"securews {__version__} {part}"


def _complain(what: object, code: int, where: object = None) -> int:
    text = f"{where}: {what}" if where else str(what)
    print(f"securews: {' '.join(text.split())}", file=sys.stderr)
    return code
