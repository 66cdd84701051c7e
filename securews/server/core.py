"""What the parts of one server share."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from securews.common.errors import printable
from securews.common.log_interval import LogInterval
from securews.common.options import AcceptingMethod, ServerOptions
from securews.handlers.communicator import Communicator
from securews.handlers.request import Request
from securews.handlers.server_interface import Server
from securews.server.handshakes import HandshakeWorkers
from securews.server.io_threads import IOThreads
from securews.server.leases import Leases
from securews.server.request_gate import RequestGate
from securews.server.router import Router
from securews.server.session import Session
from securews.server.threads import AcceptingThreads, NewThreads, Pool, SerialThread
from securews.transport.socket_handler import SocketAddress, SocketHandler

__all__ = ["Core", "peer_name", "printable_address"]

log = logging.getLogger("securews.server")

ORIGINS_REMEMBERED = 100
"""Refused origins that have had their warning; peers choose them, so they are bounded."""


def printable_address(address: SocketAddress) -> str:
    """An address for log lines: host:port, or the path of a unix socket."""
    if isinstance(address, (str, bytes)):
        return "unix" if not address else printable(address)
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_name(request: Request) -> str:
    """Who asks for what, for log lines."""
    return f"{printable_address(request.remote_address)} {printable(request.path)}"


class Core:
    """The working parts of a server, made once; `server` is the public face of them."""

    def __init__(
        self,
        server: Server[Communicator],
        socket_handler: SocketHandler,
        options: ServerOptions,
        named_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.server = server
        self.socket_handler = socket_handler
        self.options = options
        self.named_hosts = named_hosts
        """By the program, beside the hosts of handlers: see hosts.py."""
        self.io = IOThreads(options.io_threads, options.max_buffered)
        self.loop = self.io.first.loop
        """Of the server's own affairs; a connection has its own."""
        self.router = Router()
        self.leases = Leases(options.max_connections, options.max_per_ip, self._lease_changed)
        self.handshakes = HandshakeWorkers(options.handshake_threads, options.limits.max_handshakes)
        self.gate = RequestGate(options.request_threads)
        self.pool = Pool(options.pool_threads, "securews-pool")
        self.new_threads = NewThreads("securews-thread")
        self.serial = SerialThread()
        self.running: dict[Session, threading.Thread] = {}
        """Under `lock`: handlers that are at work, and where."""
        self.lock = threading.Lock()
        self.stop_asked = False
        """Any thread: `stop` was called; nothing new begins."""
        self.stopping = False
        """Written by the first I/O thread: the server is being stopped."""
        self.check_stopped: Callable[[], None] = _nothing
        """Any thread: called when a descriptor was closed, or a handler has ended after that."""
        self._counters: Counter[str] = Counter()
        self._sessions: dict[Session, None] = {}
        self._refused_origins: set[str] = set()
        self._hosts_log_interval = LogInterval()

    @property
    def accepting(self) -> AcceptingThreads:
        """The threads of the accepting method."""
        method = self.options.accepting_method
        if method is AcceptingMethod.SERIAL:
            return self.serial
        return self.new_threads if method is AcceptingMethod.THREADED else self.pool

    def sessions(self) -> list[Session]:
        """The open connections, as they are now. Any thread."""
        with self.lock:
            return list(self._sessions)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and what is open now. Any thread."""
        counted = ("accepted", "pages", "refused", "handshake_failures")
        with self.lock:
            return {
                **{name: self._counters[name] for name in counted},
                "open": len(self._sessions),
                **self.leases.stats(),
            }

    def count(self, what: str) -> None:
        """Any thread: one more, for `stats`."""
        with self.lock:
            self._counters[what] += 1

    def add_session(self, session: Session) -> None:
        """Any thread."""
        with self.lock:
            self._sessions[session] = None

    def remove_session(self, session: Session) -> None:
        """Any thread."""
        with self.lock:
            self._sessions.pop(session, None)

    def run_handler(self, session: Session) -> None:
        """Run a blocking handler to its end, in the calling thread.

        Raises:
            KeyboardInterrupt: the handler has, and this is the main thread.
        """
        with self.lock:
            self.running[session] = threading.current_thread()
        try:
            session.communicate()
        finally:
            with self.lock:
                del self.running[session]

    def _lease_changed(self) -> None:
        self.check_stopped()

    def own_thread(self) -> bool:
        """Whether the calling thread must not wait for the server to stop: it is part of it."""
        me = threading.current_thread()
        if (
            self.io.has_caller()
            or self.serial.has_caller()
            or self.handshakes.has_caller()
            or me in self.pool.threads
            or me in self.new_threads.threads
        ):
            return True
        with self.lock:
            return me in self.running.values()

    def warn_of_origin(self, origin: str) -> None:
        """Any thread: one WARNING per refused origin, with the line to paste."""
        with self.lock:
            known = self._refused_origins
            if origin in known or len(known) >= ORIGINS_REMEMBERED:
                return
            known.add(origin)
        log.warning(
            "a page of origin %s was refused: it is not this server's own; if it may connect, "
            "write origins=[%s]",
            printable(origin),
            printable(origin),
        )

    def warn_of_host(self, request: Request) -> None:
        """Any thread: one WARNING each `LOG_INTERVAL`, with the line to paste."""
        now = time.monotonic()
        with self.lock:
            if not self._hosts_log_interval.is_over(now):
                return
            self._hosts_log_interval.begin(now)
        log.warning(
            "%s asked for host %s, which is not of this machine, and was refused with 421: plain "
            "TCP on loopback answers no others, against DNS rebinding; if a proxy passes this host "
            "on, or it is your own, write allowed_hosts=[%s]",
            printable_address(request.remote_address),
            printable(request.host),
            printable(request.host),
        )


def _nothing() -> None:
    pass
