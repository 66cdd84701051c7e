"""`securews echo` and `securews serve`: a server from the command line."""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from securews.cli import worker
from securews.cli.option_flags import add_option_flags, given_options
from securews.cli.parsing import Subcommands, UsageError
from securews.common.errors import ConfigurationError
from securews.common.options import AcceptingMethod, Limits

__all__ = ["add_commands"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
WORKER_LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"

_HANDLER_NAMES = ("event", "blocking", "threaded")


def add_commands(commands: Subcommands) -> None:
    """Add `echo` and `serve` to the parser."""
    echo = commands.add_parser(
        "echo",
        help="a server that sends every message back",
        description="Serve an echo over wss. Without --tls-cert it uses the development "
        "certificate that `securews gen-dev-certs` makes.",
    )
    _add_server_flags(echo)
    echo.add_argument(
        "--handler",
        choices=_HANDLER_NAMES,
        default="event",
        help="which kind of handler answers (default: %(default)s)",
    )
    echo.add_argument(
        "--broadcast",
        action="store_true",
        help="send to everybody connected, not to the sender alone",
    )
    add_option_flags(echo)
    echo.set_defaults(run=_echo)

    serve = commands.add_parser(
        "serve",
        help="serve a handler of yours",
        description="Serve a handler: a function f(ws) or an instance of a WebSocketHandler "
        "class. Modules are looked for in the current directory too.",
    )
    serve.add_argument("handler", metavar="MODULE:ATTRIBUTE", help="for example chat:room")
    _add_server_flags(serve)
    add_option_flags(serve)
    serve.set_defaults(run=_serve)


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=8443,
        help="0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="H",
        default="localhost",
        help="address to listen on (default: %(default)s)",
    )
    group = parser.add_argument_group("processor cores")
    group.add_argument(
        "--workers",
        metavar="N",
        type=_workers,
        help="serve with N processes on one port. Each has its own clients, and the limits below "
        "hold in each: N times --max-connections, for one (default: serve in this process)",
    )
    group.add_argument(
        "--switch-interval",
        metavar="S",
        type=_switch_interval,
        help="seconds after which a busy thread lets others run; a smaller one helps many "
        "connections beside a handler that computes (default: Python's own, 0.005)",
    )
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls-cert", metavar="F", help="certificate chain (PEM)")
    group.add_argument("--tls-key", metavar="F", help="its key, where --tls-cert does not hold it")
    group.add_argument(
        "--client-ca",
        metavar="F",
        help="mutual TLS: clients need a certificate that an authority in this file issued",
    )
    group.add_argument("--plain", action="store_true", help="no TLS: on this machine only")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes: 1 or more")
    return int(text)


def _switch_interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1e-6 <= seconds <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no switch interval: 0.000001 to 1 s")
    return seconds


def _echo(arguments: argparse.Namespace) -> int:
    if arguments.broadcast and arguments.workers is not None:
        raise UsageError("--broadcast would reach one worker's clients only: leave --workers out")

    def make() -> Any:
        # Not at the top: a wrong option need not wait for the library.
        from securews.cli.echo_handlers import ECHO_HANDLERS

        return ECHO_HANDLERS[arguments.handler](broadcast=arguments.broadcast)

    return _run(arguments, make)


def _serve(arguments: argparse.Namespace) -> int:
    return _run(arguments, lambda: _load(arguments.handler))


def _run(arguments: argparse.Namespace, make_handler: Callable[[], Any]) -> int:
    """Serve until SIGINT or SIGTERM, in this process or in workers."""
    settings = _settings(arguments)
    inheritance = worker.inherited()
    if inheritance is None and arguments.workers is not None:
        return _run_workers(arguments, settings)
    if arguments.switch_interval is not None:
        sys.setswitchinterval(arguments.switch_interval)
    handler = make_handler()
    import securews

    if inheritance is not None:
        logging.basicConfig(format=WORKER_LOG_FORMAT)
        settings |= {"port": None, "sockets": inheritance.listeners}
        inheritance.serve(securews.serve(handler=handler, **settings))
        return 0
    logging.basicConfig(format=LOG_FORMAT)
    server = securews.serve(handler=handler, **settings)
    _announce(server.url)
    server.serve_forever()
    return 0


def _run_workers(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Hold the port, and let workers serve on it."""
    if settings.get("accepting_method") is AcceptingMethod.SERIAL:
        raise UsageError(
            "--accepting serial serves one client after another, and workers would not: leave one "
            "of them out"
        )
    from securews.cli.workers import Workers
    from securews.server.listener import open_shared_listeners

    logging.basicConfig(format=WORKER_LOG_FORMAT)
    listeners = open_shared_listeners(
        arguments.host, arguments.port, Limits().backlog, arguments.workers
    )
    return Workers(listeners, _announce).run()


def _announce(url: str) -> None:
    # Flushed, so that a program that waits for the line can connect.
    print(f"listening on {url} (Ctrl-C stops)", flush=True)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `serve()`; `tls` is left out where the library is to find it."""
    settings = {"port": arguments.port, "host": arguments.host, **given_options(arguments)}
    cert, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.client_ca
    if arguments.plain:
        if cert or key or client_ca:
            raise UsageError("--plain means no TLS: leave --tls-cert, --tls-key, --client-ca out")
        settings["tls"] = False
    elif key and not cert:
        raise UsageError("--tls-key needs --tls-cert")
    elif client_ca and not cert:
        raise UsageError("--client-ca needs --tls-cert and --tls-key")
    elif client_ca:
        import securews

        settings["tls"] = securews.MutualTLSSocketHandler(cert, key, client_ca=client_ca)
    elif cert:
        settings["tls"] = (cert, key) if key else cert
    return settings


def _load(target: str) -> Any:
    """The object that `module:attribute` names."""
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"{target!r} is not of the form MODULE:ATTRIBUTE, for example chat:room")
    module = _import(module_name)
    found: Any = module
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"{module_name} has no attribute {attribute!r}") from None
    if isinstance(found, type):
        name = found.__name__
        raise ConfigurationError(
            f"{target} is a class; write {name.lower()} = {name}() in {module_name}, and serve "
            f"{module_name}:{name.lower()}"
        )
    return found


def _import(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the console script has its own folder there
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"there is no module {name!r}: neither in {Path.cwd()} nor installed"
            ) from None
        raise ConfigurationError(_import_failure(name, error)) from error
    except Exception as error:
        raise ConfigurationError(_import_failure(name, error)) from error


def _import_failure(name: str, error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"importing {name} failed: {type(error).__name__}: {error} "
        f"({where.filename}, line {where.lineno})"
    )
