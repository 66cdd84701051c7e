"""The server: listeners, accepting, handlers, and its life from bind to stop."""

from __future__ import annotations

import enum
import logging
import os
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from securews.common.errors import ConfigurationError
from securews.common.options import AcceptingMethod, split_options
from securews.handlers.communicator import Communicator
from securews.handlers.handler import (
    AcceptFunction,
    HandlerFunction,
    WebSocketHandler,
    as_handler,
)
from securews.handlers.messages import BytesLike
from securews.handlers.origins import AnyOrigin
from securews.loop.at_exit import end_at_exit
from securews.protocol.close_codes import encode_close_payload
from securews.server import broadcast, listener, pages
from securews.server.acceptor import Acceptors
from securews.server.arguments import check_arguments
from securews.server.certificate_care import CertificateCare, check_revalidation
from securews.server.core import Core
from securews.server.descriptors import allow_descriptors
from securews.server.hosts import named_hosts
from securews.server.io_threads import check_io_threads
from securews.server.router import PageFunction, check_path
from securews.server.routes import make_route
from securews.server.signals import signals_handled
from securews.server.stopping import GRACE, Stopping
from securews.server.sudden_ends import SuddenEnds
from securews.server.tls_choice import checked_socket_handler
from securews.transport.socket_handler import SocketAddress, SocketHandler

__all__ = ["WebSocketServer"]

log = logging.getLogger("securews.server")

Option: TypeAlias = object
"""A value of an option in common/options.py; checked there."""


class State(enum.Enum):
    """The life of a server; there is no way back."""

    NEW = "not started"
    RUNNING = "running"
    STOPPED = "stopped"


class WebSocketServer:
    """A WebSocket server. It binds and listens at once, and accepts from `start` on.

    `WebSocketServer(port)` serves localhost with the development certificate;
    `WebSocketServer(address, port, socket_handler)` says all three. `securews.serve` is the
    shorter way.

    Args:
        address: host name or IP address; "" or None is every address of this machine.
        port: 0 is any free one: see `address` and `url`.
        socket_handler: how bytes are secured; None is the development certificate.
        path: of a unix socket, instead of address and port.
        sockets: that listen already, instead of port and path; they are closed at the stop. The
            address is then only what `url` says.
        options: every option of docs/options.md.

    Raises:
        ConfigurationError: something of this cannot work; the text says what to do.
    """

    def __init__(
        self,
        address: str | int | None = "localhost",
        port: int | None = None,
        socket_handler: SocketHandler | None = None,
        *,
        path: str | None = None,
        sockets: Sequence[socket.socket] | None = None,
        **options: Option,
    ) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("securews serves on Linux and macOS, not on Windows")
        check_arguments(address, port, socket_handler)
        if isinstance(address, int):
            address, port = "localhost", int(address)
        host = listener.exposed_host(address, port, path, sockets)
        server_options, self._connection_options = split_options(options)
        check_io_threads(server_options.io_threads)
        socket_handler = checked_socket_handler(socket_handler, host)
        check_revalidation(server_options.revalidate_interval, socket_handler)
        self._host = address or "localhost"
        hosts = named_hosts(server_options.allowed_hosts, self._host)
        backlog = server_options.limits.backlog
        listeners = (
            listener.adopt_listeners(sockets)
            if sockets
            else listener.open_listeners(host, port, path, backlog)
        )
        self._addresses: list[SocketAddress] = [s.getsockname() for s in listeners]
        self._core = Core(self, socket_handler, server_options, hosts)
        self._acceptors = Acceptors(self._core, listeners)
        self._care = CertificateCare(self._core)
        self._stopping = Stopping(self._core, self._acceptors.close, self._core.io.stop)
        self._state = State.NEW
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sudden_ends = SuddenEnds(
            self._core, self._stopping, self._acceptors.close, self._stopped
        )
        self._process = os.getpid()
        self._never_started = weakref.finalize(
            self, listener.give_up_unstarted, self.url, self._process, listeners
        )

    # -- what is served --------------------------------------------------------------------

    def register_handler(
        self,
        host: str,
        path: str,
        handler: WebSocketHandler | HandlerFunction,
        default_host: bool = False,
        default_path: bool = False,
        *,
        accept: AcceptFunction | None = None,
        origins: Iterable[str] | AnyOrigin | None = None,
        subprotocols: Sequence[str] | None = None,
        **options: Option,
    ) -> None:
        """Serve `handler` at a host and path.

        Args:
            host: compared without case, port and trailing dot; "*" is every host.
            path: without query; "*" is every path.
            handler: a function `f(ws)` or an instance of WebSocketHandler.
            default_host: whether this host's handlers also serve hosts without an entry.
            default_path: whether this handler also serves paths of the host without an entry.
            accept: a function `accept(request, response_headers)`; see WebSocketHandler.
            origins: see WebSocketHandler.
            subprotocols: see WebSocketHandler.
            options: connection options of docs/options.md; they go before the handler's own.

        Raises:
            ConfigurationError: the pair is registered already, the handler could never serve,
                or an option does not fit.
        """
        route = make_route(
            as_handler(handler),
            self._connection_options,
            accept=accept,
            origins=origins,
            subprotocols=subprotocols,
            options=options,
        )
        self._core.router.add(
            host, path, route, default_host=default_host, default_path=default_path
        )

    def route(
        self,
        path: str,
        host: str | None = None,
        *,
        accept: AcceptFunction | None = None,
        origins: Iterable[str] | AnyOrigin | None = None,
        subprotocols: Sequence[str] | None = None,
        **options: Option,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """`@server.route("/path")` over a function `f(ws)`; arguments as `register_handler`.

        Raises:
            ConfigurationError: as `register_handler`.
        """
        check_path(path, "@server.route('/path')")

        def register(function: HandlerFunction) -> HandlerFunction:
            self.register_handler(
                "*" if host is None else host,
                path,
                function,
                default_host=False,
                default_path=False,
                accept=accept,
                origins=origins,
                subprotocols=subprotocols,
                **options,
            )
            return function

        return register

    def page(
        self, path: str, methods: Iterable[str] = ("GET",)
    ) -> Callable[[PageFunction], PageFunction]:
        """`@server.page("/")` over a function `f(request) -> Response | str | bytes`.

        str is sent as HTML. HEAD comes with GET. The function runs on a thread of the pool.

        Raises:
            ConfigurationError: the path has a page already.
        """
        check_path(path, "@server.page('/path')")

        def register(function: PageFunction) -> PageFunction:
            self._core.router.add_page(path, pages.make_page(function, methods))
            return function

        return register

    # -- its life --------------------------------------------------------------------------

    def start(self) -> None:
        """Accept and serve until `stop`; blocks.

        In the main thread SIGINT and SIGTERM stop it in order, and a second one at once; SIGHUP
        has the certificate files read again, unless there is a terminal to hang up.

        Raises:
            ConfigurationError: nothing is registered.
            RuntimeError: it was started before, or in a process that has forked, or there are no
                threads left; or, at last, an I/O thread has failed and the server has stopped.
        """
        with signals_handled(self._core.loop, self._signalled, self._care.reload_soon):
            self._begin()
            self._run_serial()
            self._stopped.wait()
        self._sudden_ends.raise_failure()

    def serve_forever(self) -> None:
        """The same as `start`."""
        self.start()

    def start_background(self) -> Self:
        """Accept and serve in daemon threads; returns the server. Raises as `start`."""
        self._begin()
        if self._core.options.accepting_method is AcceptingMethod.SERIAL:
            threading.Thread(target=self._run_serial, name="securews-serial", daemon=True).start()
        return self

    def stop(self, grace: float = GRACE, *, jitter: float = 0.0, code: int = 1001) -> None:
        """End the server: no new connections, a Close to everybody, then abort what is left.

        Waits until it is over, at most `grace` and `jitter` seconds and a moment; in a handler
        or on an I/O thread it begins the stop and returns. Any thread; again is harmless, and
        again with grace 0 ends it at once.

        Args:
            grace: seconds for the closing handshakes and for the handlers; 0 aborts.
            jitter: seconds over which the Close frames are spread, so that not all clients
                come back at the same moment.
            code: of the Close; 1001 is going away, 1012 is a restart.

        Raises:
            ValueError: a negative number, or a code that may not be sent.
        """
        if grace < 0 or jitter < 0:
            raise ValueError("grace and jitter are seconds, not negative")
        encode_close_payload(code)  # raises before anything is stopped
        with self._lock:
            never_ran, self._state = self._state is State.NEW, State.STOPPED
        if never_ran:
            self._never_started.detach()
            self._acceptors.close()
            self._stopped.set()
            return
        self._core.stop_asked = True
        self._core.loop.call_soon(partial(self._stopping.begin, grace, jitter, code))
        if not self._core.own_thread():
            self._stopped.wait(min(grace + jitter + 5.0, threading.TIMEOUT_MAX))

    def __enter__(self) -> Self:
        return self.start_background()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self._sudden_ends.raise_failure()

    # -- while it runs ---------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it takes connections: from its start until a stop begins. Any thread.

        While the open connections are being closed it is False already, and the port refuses.
        """
        begun = self._state is not State.NEW
        return begun and not (self._core.stop_asked or self._stopped.is_set())

    @property
    def connections(self) -> list[Communicator]:
        """The open connections, as they are now. Any thread."""
        return [session.ws for session in self._core.sessions()]

    def broadcast(
        self,
        message: str | BytesLike,
        to: str | Iterable[Communicator] | Callable[[Communicator], bool] | None = None,
        *,
        compress: bool = True,
    ) -> list[Communicator]:
        """Send one message to many, without waiting for any of them. Any thread.

        Where so much waits for one of them that it may be too slow, the I/O thread has a turn
        first, for at most a second; on an I/O thread nothing waits. There the message leaves when
        the callback has returned, however long that takes: one flush for each receiver.

        Args:
            message: str is text, bytes-like is binary.
            to: a path, some Communicators, a predicate, or None for all.
            compress: as in `Communicator.send`.

        Returns:
            Those that were skipped: closed meanwhile, or too slow (see `slow_client`).
        """
        receivers = broadcast.chosen(self.connections, to)
        return broadcast.broadcast(message, receivers, compress=compress)

    def close_where(
        self, predicate: Callable[[Communicator], bool], code: int = 1000, reason: str = ""
    ) -> int:
        """Begin to close the connections that match; how many. Any thread; does not wait."""
        matching = [s for s in self._core.sessions() if predicate(s.ws)]
        return sum(s.connection.start_close(code, reason) for s in matching)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and what is open now. Any thread."""
        return self._core.stats()

    def reload_tls(self) -> None:
        """Read certificate files again, for the connections to come. Any thread.

        Raises:
            ConfigurationError: they do not work; the old ones stay in use.
        """
        self._core.socket_handler.reload()

    @property
    def address(self) -> SocketAddress:
        """Where it listens: (host, port) of the first listener, or the unix socket's path."""
        return self._addresses[0]

    @property
    def addresses(self) -> list[SocketAddress]:
        """Every address that it listens on."""
        return list(self._addresses)

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""
        return listener.url_of(self._host, self.address, secure=self._core.socket_handler.secure)

    # -- internal --------------------------------------------------------------------------

    def _begin(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                "this process was forked after the server was made; make the server in the "
                "process that runs it"
            )
        if self._core.router.empty:
            raise ConfigurationError(
                "nothing is served: give serve() a handler, or use register_handler(), "
                "@server.route() or @server.page() before start()"
            )
        with self._lock:
            if self._state is not State.NEW:
                raise RuntimeError(f"the server is {self._state.value}; make a new one")
            self._state = State.RUNNING
        self._never_started.detach()
        allow_descriptors(self._core.options.max_connections)
        self._acceptors.start()
        self._core.loop.call_soon(self._care.start)
        end_at_exit(self._sudden_ends)
        self._core.io.start(self._end, self._sudden_ends.failed)

    def _end(self) -> None:
        """In the last thread that has moved bytes."""
        self._acceptors.close()
        self._core.serial.close()
        self._stopped.set()

    def _run_serial(self) -> None:
        if self._core.options.accepting_method is AcceptingMethod.SERIAL:
            self._core.serial.run()

    def _signalled(self, count: int) -> None:
        """First I/O thread: the first signal stops in order, the next at once."""
        log.info("stopping on a signal" if count == 1 else "stopping at once")
        self._stopping.begin(GRACE if count == 1 else 0.0, 0.0, 1001)
