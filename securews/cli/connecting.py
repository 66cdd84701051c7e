"""`securews connect`: a WebSocket in the terminal.

Two threads: the main one prints what comes, because only it can be interrupted; the other reads
standard input and sends. The connection ends with the input, with Ctrl-C, or when the peer wants.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from securews.cli.parsing import Subcommands, UsageError
from securews.common.errors import ConnectionClosed, HandshakeError
from securews.common.headers import Headers

if TYPE_CHECKING:
    from securews import Communicator

__all__ = ["add_command"]

QUIET = 1.0
"""Seconds without a message after which nothing more is expected, where the input was a pipe."""


def add_command(commands: Subcommands) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "connect",
        help="talk to a server from the terminal",
        description="Send each line of standard input as a text message and print what comes. "
        "Ctrl-D and Ctrl-C close the connection in order. Input from a file or a pipe: it is "
        f"closed when nothing has come for {QUIET:g} s after the end.",
    )
    parser.add_argument("url", metavar="URL", help="wss://HOST[:PORT]/PATH")
    parser.add_argument(
        "--ca",
        metavar="F",
        help="trust the authorities in this file (default: the system's, and the development CA "
        "for this machine)",
    )
    parser.add_argument("--cert", metavar="F", help="client certificate (PEM)")
    parser.add_argument("--key", metavar="F", help="its key, where --cert does not hold it")
    parser.add_argument(
        "--header",
        metavar="'K: V'",
        dest="headers",
        action="append",
        default=[],
        type=_header,
        help="a header of the request (again for more)",
    )
    parser.set_defaults(run=_run)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is no header: write 'Name: value'")
    pair = (name, value.strip())
    try:
        Headers([pair])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return pair


def _run(arguments: argparse.Namespace) -> int:
    if arguments.key and not arguments.cert:
        raise UsageError("--key needs --cert")
    if sys.stdin is None:
        # Descriptor 0 is free then, and the socket would be what is read.
        raise UsageError("standard input is closed: give it /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a peer may send what we cannot show
    ws = _connect(arguments)
    if sys.stdin.isatty():
        print(f"connected to {arguments.url}; Ctrl-D closes", file=sys.stderr)
    # A daemon: a read from a terminal cannot be interrupted from here.
    heard = threading.Event()
    threading.Thread(target=_send_lines, args=(ws, heard), daemon=True).start()
    try:
        for message in ws:
            heard.set()
            print(_shown(message), flush=True)
    except KeyboardInterrupt:
        ws.close()
    return 0


def _connect(arguments: argparse.Namespace) -> Communicator:
    import securews

    headers = Headers(arguments.headers)
    origin = headers.pop("Origin", None)  # connect() takes it as an argument of its own
    cert = (arguments.cert, arguments.key or arguments.cert) if arguments.cert else None
    try:
        return securews.connect(
            arguments.url, tls=arguments.ca, client_cert=cert, headers=headers, origin=origin
        )
    except ValueError as error:  # a header that is the handshake's own
        raise UsageError(str(error)) from error
    except OSError as error:
        # Ours names host and port, which the URL does here; what it came from is the reason.
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = reason.strerror or reason
        raise HandshakeError(f"{arguments.url} cannot be reached: {why}") from error


def _send_lines(ws: Communicator, heard: threading.Event) -> None:
    """Send the input, then close. `heard` is set with each message that comes."""
    try:
        for line in _lines(sys.stdin.fileno(), sys.stdin.encoding):
            ws.send(line)
        if not sys.stdin.isatty():
            # What comes behind our Close is discarded, and a pipe ends before the answers come.
            while heard.wait(QUIET):
                heard.clear()
        ws.close()
    except ConnectionClosed:
        pass  # the main thread meets it too, and says so
    except TimeoutError:
        ws.abort()  # nobody reads at the other end: the main thread says that it is over


def _lines(descriptor: int, encoding: str) -> Iterator[str]:
    """The lines that can be read from a descriptor, without their ends.

    Not by `sys.stdin`: a daemon thread inside its buffer aborts the interpreter at exit.
    """
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    rest = ""
    while data := os.read(descriptor, 65536):
        *lines, rest = (rest + decoder.decode(data)).split("\n")
        yield from lines
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def _shown(message: str | bytes) -> str:
    """A message as a line: binary as hex, and nothing that steers a terminal."""
    if isinstance(message, bytes):
        return f"binary: {message.hex(' ')}"
    if not sys.stdout.isatty():
        return message
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in message)
