"""The accept loop: it only accepts, and nothing but a closed listener ends it.

What one peer does wrong ends with that peer. Running out of descriptors or memory pauses
accepting, 5 ms at first and up to 1 s, and one descriptor is kept in reserve so that while
this lasts a connection each second can at least be taken from the queue and closed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from functools import partial

from securews.common.errors import Reject
from securews.common.log_interval import LogInterval
from securews.connection.channel import Channel
from securews.server.answers import RETRY
from securews.server.core import Core, printable_address
from securews.server.io_threads import IOThread
from securews.server.leases import Lease
from securews.server.opening import Opening
from securews.transport.socket_handler import SocketAddress

__all__ = ["Acceptor", "Acceptors"]

log = logging.getLogger("securews.server")

BATCH = 64
"""Connections that are accepted before others get their turn."""
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 1.0
MAX_REFUSALS = 64
"""Connections over the limit that are being told so, in the clear."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 20, 5, 4
"""Seconds, seconds, probes: finds a dead peer while we are not reading from it."""


class Acceptor:
    """Accepts on one listening socket. First I/O thread only, except where said."""

    def __init__(self, core: Core, sock: socket.socket) -> None:
        self._core = core
        self._socket = sock
        self._pause = FIRST_PAUSE
        self._reserve = _open_reserve()
        self._log_interval = LogInterval()
        self._refusals = 0
        self._closed = False
        self.fd = sock.fileno()

    def start(self) -> None:
        """Begin to accept."""
        try:
            self._core.loop.watch(self, read=True, write=False)
        except OSError as error:  # the kernel has no memory left to watch it
            self._pause_for(error)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._core.loop.unwatch(self)
        self._socket.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def on_ready(self, mask: int) -> None:
        """Peers wait."""
        del mask
        for _ in range(BATCH):
            if self._closed or self._core.handshakes.busy:
                break
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._back_off(error)
                    return
                continue  # ECONNABORTED and the like: that peer is gone, the next may be fine
            self._pause = FIRST_PAUSE
            try:
                self._admit(sock, address)
            except BaseException:  # a SocketHandler is the user's code
                log.exception("internal error while a connection was accepted")
                sock.close()
        if self._core.handshakes.busy and not self._closed:
            self._core.loop.unwatch(self)
            self._core.handshakes.when_room(self._core.loop, self._resume)

    def abort(self, error: Exception | None = None) -> None:
        """`on_ready` has raised: what it accepted is closed; accept again after a pause."""
        del error
        self._wait()

    def _admit(self, sock: socket.socket, address: SocketAddress) -> None:
        """Open the connection, or close it. Whatever this raises, the caller closes `sock`."""
        core = self._core
        if not self._query(address):
            sock.close()
            return
        lease = core.leases.take(address, core.loop.now)
        if lease is None:
            self._refuse(sock, address)
            return
        io = core.io.least_loaded()
        try:
            _set_keepalive(sock)
            released = partial(self._released, io, lease)
            channel = self._channel(sock, address, io, core.options.open_timeout, released)
        except BaseException as error:
            lease.descriptor_closed(core.loop.now)
            if not isinstance(error, OSError):
                raise
            sock.close()  # it was reset already
            return
        if io is core.io.first:
            self._begin(io, lease, channel)
        elif not io.loop.call_soon(partial(self._begin, io, lease, channel)):
            channel.release()  # that loop has ended, so nobody else will

    def _channel(
        self,
        sock: socket.socket,
        address: SocketAddress,
        io: IOThread,
        write_timeout: float | None,
        released: Callable[[Channel], None],
    ) -> Channel:
        """The channel of a peer; where this raises, all that it has made is closed."""
        stream = self._core.socket_handler.accept(sock, address)
        try:
            channel = Channel(stream, io.loop, write_timeout=write_timeout, released=released)
        except BaseException:
            stream.close()
            raise
        io.add(channel)
        return channel

    def _begin(self, io: IOThread, lease: Lease, channel: Channel) -> None:
        """On the thread of the channel's loop."""
        try:
            Opening(self._core, io, channel, lease).start()
        except BaseException:  # the kernel may have no memory left to watch a descriptor
            log.exception("internal error while a connection was opened; it is aborted")
            channel.abort()

    def _query(self, address: SocketAddress) -> bool:
        try:
            return bool(self._core.socket_handler.on_connect_query(address))
        except BaseException:
            log.exception("on_connect_query raised; %s is refused", printable_address(address))
            return False

    def _refuse(self, sock: socket.socket, address: SocketAddress) -> None:
        """There is no room: 503 in the clear; before TLS nothing can be said, so a plain close."""
        core = self._core
        core.count("refused")
        self._warn(
            "the connection of %s was refused: max_connections or max_per_ip is reached",
            printable_address(address),
        )
        if core.socket_handler.secure or self._refusals >= MAX_REFUSALS:
            sock.close()
            return
        self._refusals += 1
        io = core.io.first
        try:
            channel = self._channel(sock, address, io, 1.0, self._refusal_over)
        except BaseException as error:
            self._refusals -= 1
            if not isinstance(error, OSError):
                raise
            sock.close()
            return
        try:
            answer = Reject(503, RETRY, "too many connections; try again soon\n")
            Opening(core, io, channel, core.leases.nothing()).answer(answer, counted=True)
        except BaseException:
            log.exception("internal error while a connection was refused; it is aborted")
            channel.abort()

    def _refusal_over(self, channel: Channel) -> None:
        self._refusals -= 1
        self._core.io.first.remove(channel)
        self._core.check_stopped()

    def _released(self, io: IOThread, lease: Lease, channel: Channel) -> None:
        """On the thread of the channel's loop."""
        io.remove(channel)
        lease.descriptor_closed(io.loop.now)

    def _back_off(self, error: OSError) -> None:
        """Wait until something may have been freed, and let one peer go where nothing is.

        Not while the pauses are short: a crowd that leaves gives its descriptors back one turn
        after the other, and whoever waits behind it will be served.
        """
        if self._pause >= LONGEST_PAUSE:
            self._shed_one()
        self._pause_for(error)

    def _pause_for(self, error: OSError) -> None:
        self._warn(
            "no connection can be accepted: %s; trying again every %g s at most (raise the limit "
            "on open files, or lower max_connections)",
            error.strerror,
            LONGEST_PAUSE,
        )
        self._wait()

    def _wait(self) -> None:
        """Accept nothing for a while, twice as long each time."""
        self._core.loop.unwatch(self)
        self._core.loop.call_later(self._pause, self._resume)
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _shed_one(self) -> None:
        if self._reserve is None:
            return
        os.close(self._reserve)
        try:
            self._socket.accept()[0].close()
        except OSError:
            pass  # it is gone, or the descriptor went to somebody else: the pause is the cure
        self._reserve = _open_reserve()

    def _resume(self) -> None:
        if not self._closed:
            if self._reserve is None:
                self._reserve = _open_reserve()
            self.start()

    def _warn(self, message: str, *args: object) -> None:
        now = self._core.loop.now
        if self._log_interval.is_over(now):
            self._log_interval.begin(now)
            log.warning(message, *args)


class Acceptors:
    """Accept on all listening sockets of a server, which they own.

    Args:
        core: of the server.
        sockets: that listen; closed, and removed from the list, by `close`.
    """

    def __init__(self, core: Core, sockets: list[socket.socket]) -> None:
        self._core = core
        self._sockets = sockets
        self._acceptors: list[Acceptor] = []

    def start(self) -> None:
        """Begin to accept, when the loop runs."""
        self._acceptors = [Acceptor(self._core, sock) for sock in self._sockets]
        for acceptor in self._acceptors:
            self._core.loop.call_soon(acceptor.start)

    def close(self) -> None:
        """First I/O thread, or while none runs: accept no more. Idempotent."""
        for acceptor in self._acceptors:
            acceptor.close()
        while self._sockets:
            self._sockets.pop().close()


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _set_keepalive(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        # macOS calls the first one TCP_KEEPALIVE, and has no user timeout.
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), KEEPALIVE_PROBES),
    ]
    for level, name, value in options:
        if name is not None:
            sock.setsockopt(level, name, value)
