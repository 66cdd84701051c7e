"""What every server program understands, and how it is made busy."""

from __future__ import annotations

import argparse
import threading

__all__ = ["Arguments", "parse", "start_spinning"]


class Arguments(argparse.Namespace):
    """The command line of a server program."""

    port: int
    cert: str
    key: str
    broadcast: bool
    busy: bool
    kind: str
    connections: int


def parse(kinds: tuple[str, ...] = ("",)) -> Arguments:
    """Read the command line.

    Args:
        kinds: what `--kind` may be, the first by default; for programs with several handlers.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", required=True, help="the chain, PEM")
    parser.add_argument("--key", required=True, help="the private key, PEM")
    parser.add_argument("--broadcast", action="store_true", help="each message goes to all")
    parser.add_argument("--busy", action="store_true", help="a thread beside it computes")
    parser.add_argument("--kind", choices=kinds, default=kinds[0], help="of handler")
    parser.add_argument("--connections", type=int, default=0, help="that will come at once")
    arguments = parser.parse_args(namespace=Arguments())
    if arguments.busy:
        start_spinning()
    return arguments


def start_spinning() -> None:
    """Compute in pure Python for ever, on a thread of its own, as a careless handler might."""

    def spin() -> None:
        number = 0
        while True:
            number += 1

    threading.Thread(target=spin, name="busy", daemon=True).start()
