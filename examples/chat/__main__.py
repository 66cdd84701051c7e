"""`python -m examples.chat`: serve the chat, or manage its users."""

from __future__ import annotations

import argparse
import getpass
import logging
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import securews
from examples.chat.app import chat_server
from examples.chat.gate import Gate

DATA = Path(__file__).parent / "data"
DEMO_USERS = ("alice", "bob")
# Without 0 and o, 1 and l, which people mistake for each other.
_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    commands = {"serve": _serve, "demo": _demo, "add-user": _add_user, "token": _token}
    try:
        commands[given.command](given)
    except (securews.ConfigurationError, ValueError) as error:
        print(f"chat: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("chat: stopped", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.chat", description="A chat over TLS.")
    parser.set_defaults(command="serve")
    _server_flags(parser)
    commands = parser.add_subparsers(metavar="COMMAND")
    # SUPPRESS: a flag before the command is not undone by the command's own default.
    serve = commands.add_parser("serve", help="serve the chat (what happens without a command)")
    demo = commands.add_parser("demo", help="serve it with two users, made at the first start")
    demo.add_argument(
        "--new-passwords", action="store_true", help="give the two users new passwords"
    )
    add_user = commands.add_parser("add-user", help="add a user, or set a new password")
    token = commands.add_parser("token", help="print a Bearer token for a script")
    for command in (add_user, token):
        command.add_argument("name", metavar="NAME")
        _data_flag(command, default=argparse.SUPPRESS)
    for command in (serve, demo):
        _server_flags(command, default=argparse.SUPPRESS)
    for name, command in commands.choices.items():
        command.set_defaults(command=name)
    return parser


def _server_flags(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    parser.add_argument("--port", type=int, default=default or 8443, metavar="N")
    parser.add_argument("--host", default=default or "localhost", metavar="H")
    parser.add_argument("--tls-cert", default=default, metavar="F", help="instead of ./certs")
    parser.add_argument("--tls-key", default=default, metavar="F")
    _data_flag(parser, default=default)


def _data_flag(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    parser.add_argument(
        "--data", type=Path, default=default or DATA, metavar="DIR", help="users and session key"
    )


def _serve(given: argparse.Namespace) -> None:
    server = _server(given)
    if not Gate(given.data).users.names():
        print("nobody can log in yet: python -m examples.chat add-user NAME")
    _run(server, [])


def _demo(given: argparse.Namespace) -> None:
    server = _server(given)  # first: a password that is made is printed, port in use or not
    users = Gate(given.data).users
    known = users.names()
    lines = []
    for name in DEMO_USERS:
        if given.new_passwords or name not in known:
            password = _made_up()
            users.set_password(name, password)
            lines.append(f"log in as {name:<6} with the password {password}")
        else:
            lines.append(f"log in as {name:<6} with the password printed at the first start")
    if not given.new_passwords and set(known) & set(DEMO_USERS):
        lines.append("forgotten? --new-passwords makes new ones")
    _run(server, lines)


def _server(given: argparse.Namespace) -> securews.WebSocketServer:
    if (given.tls_cert is None) != (given.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    tls = None if given.tls_cert is None else (given.tls_cert, given.tls_key)
    return chat_server(given.port, given.data, host=given.host, tls=tls)


def _run(server: securews.WebSocketServer, lines: list[str]) -> None:
    print(f"\n  the chat is at {server.url.replace('wss:', 'https:', 1)}")
    for line in [*lines, "stop it with Ctrl-C"]:
        print(f"  {line}")
    print(flush=True)
    server.serve_forever()


def _add_user(given: argparse.Namespace) -> None:
    users = Gate(given.data).users
    password, made_up = _asked_for(given.name)
    name = users.set_password(given.name, password)
    print(f"{name} can log in" + (f" with the password {password}" if made_up else ""))


def _token(given: argparse.Namespace) -> None:
    sessions = Gate(given.data).sessions
    print(sessions.seal(sessions.begin(given.name.strip().lower()), "token"))


def _asked_for(name: str) -> tuple[str, bool]:
    """A password from the terminal or standard input, and whether it was made up instead."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"password for {name} (empty: have one made up): ")
        if password and password != getpass.getpass("again: "):
            raise ValueError("the two differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    return (password, False) if password else (_made_up(), True)


def _made_up() -> str:
    """59 bits in three groups that can be typed on a phone."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))


if __name__ == "__main__":
    sys.exit(main())
