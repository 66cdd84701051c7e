"""Listening sockets: IPv4 and IPv6 on one port number, a unix socket, or ready-made ones."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from securews.common.errors import ConfigurationError
from securews.server.unix_socket import open_unix
from securews.transport.socket_handler import SocketAddress, is_loopback

__all__ = [
    "adopt_listeners",
    "exposed_host",
    "give_up_unstarted",
    "open_listeners",
    "open_shared_listeners",
    "url_of",
]

log = logging.getLogger("securews.server")

PORT_ATTEMPTS = 20
"""Port 0 takes a free port of one family; the other family's may be taken."""

TOP_PORT = 65535

SPREADS = sys.platform == "linux"
"""Whether the kernel spreads connections over the sockets of a port that have SO_REUSEPORT.

macOS knows the option, too, and gives all of them to one socket.
"""


def open_listeners(
    host: str | None, port: int | None, path: str | None, backlog: int, *, shared: bool = False
) -> list[socket.socket]:
    """Bind and listen.

    Args:
        host: a name or address; None or "" is every address of this machine.
        port: 0 is any free one, the same for all families.
        path: of a unix socket, instead of host and port (see unix_socket.py).
        backlog: connections that the kernel holds for accept.
        shared: whether other sockets of this user may listen on the port after this one.

    Raises:
        ConfigurationError: it cannot be bound; the text says why and what to do.
    """
    if path is not None:
        if port is not None:
            raise ConfigurationError(
                "path= is the file of a unix socket, which has no port: write serve(None, ..., "
                "path=...); a path of the URL goes into register_handler() or @server.route()"
            )
        return [open_unix(path, backlog)]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= TOP_PORT:
        raise ConfigurationError(f"a port is a number from 0 to {TOP_PORT}, not {port!r}")
    for attempt in range(PORT_ATTEMPTS):
        try:
            return _open_tcp(host, port, backlog, shared=shared)
        except UnicodeError as error:  # a label of the name is empty, or over 63 characters
            raise ConfigurationError(f"host {host!r} is no host name") from error
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt < PORT_ATTEMPTS - 1:
                continue
            raise _explained(error, host, port) from error
    raise AssertionError("the loop returns or raises")


def open_shared_listeners(
    host: str | None, port: int | None, backlog: int, workers: int
) -> list[list[socket.socket]]:
    """Bind and listen as `open_listeners`, once for each of several processes on one port.

    On Linux each has a socket of its own, and the kernel deals the connections out by a hash of
    their addresses (SO_REUSEPORT, socket(7)), so that each gets its share. One socket for all of
    them would give nearly everything to one process: whoever wakes first takes all that wait
    from the queue, and epoll, exclusively or not, prefers to wake the same one. WebSockets stay
    where they were accepted, so a bad start is never mended. Elsewhere there is no such spread:
    there all share one socket.

    The first socket is bound alone, so that a port that somebody else has, another server with
    workers too, is in use.
    """
    first = open_listeners(host, port, None, backlog, shared=SPREADS)
    if not SPREADS:
        return [first] * workers
    sets = [first]
    with ExitStack() as opened:
        for sock in first:
            opened.callback(sock.close)
        for _ in range(workers - 1):
            more = []
            for sock in first:
                more.append(_bound(sock.family, sock.getsockname(), backlog, joins=True))
                opened.callback(more[-1].close)
            sets.append(more)
        opened.pop_all()
    return sets


def adopt_listeners(sockets: Sequence[socket.socket]) -> list[socket.socket]:
    """Take over sockets that another process, or another part of this one, has opened.

    Raises:
        ConfigurationError: there are none, or one that does not listen.
    """
    if not sockets:
        raise ConfigurationError("sockets=[] has nothing to listen on; give it listening sockets")
    for sock in sockets:
        if not isinstance(sock, socket.socket):
            raise ConfigurationError(
                f"sockets= is a list of socket.socket, not of {type(sock).__name__}; a descriptor "
                "becomes one by socket.socket(fileno=...)"
            )
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigurationError("a socket of sockets= does not listen; call its listen()")
        sock.setblocking(False)
    return list(sockets)


def exposed_host(
    host: str | None,
    port: int | None,
    path: str | None,
    sockets: Sequence[socket.socket] | None,
) -> str | None:
    """The host that decides what may be served there, of whatever says where that is.

    Returns:
        "" for every address; None for a unix socket, which has no host; of ready-made sockets the
        first that is not on loopback.

    Raises:
        ConfigurationError: the sockets do not listen, or something else says where, too.
    """
    if sockets is None:
        return None if path is not None else host or ""
    if port is not None or path is not None:
        raise ConfigurationError(
            "sockets= listen already: leave port and path out, as in serve(None, handler, "
            "sockets=[...])"
        )
    hosts = [
        None if sock.family == socket.AF_UNIX else str(sock.getsockname()[0])
        for sock in adopt_listeners(sockets)
    ]
    return next((host for host in hosts if not is_loopback(host)), hosts[0])


def url_of(host: str, address: SocketAddress, *, secure: bool) -> str:
    """What a client on this machine connects to, where `host` listens at `address`."""
    scheme = "wss" if secure else "ws"
    if isinstance(address, (str, bytes)):
        return f"{scheme}+unix://{os.fsdecode(address)}"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{address[1]}/"


def _open_tcp(host: str | None, port: int, backlog: int, *, shared: bool) -> list[socket.socket]:
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        refused: OSError | None = None
        for family, address in _addresses(host, port):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sock = _bound(family, (address[0], chosen, *address[2:]), backlog, shared=shared)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                refused = error  # this machine has no such family, or none on loopback
                continue
            opened.callback(sock.close)
            sockets.append(sock)
        if not sockets:
            raise refused or OSError(errno.EADDRNOTAVAIL, "no address")
        opened.pop_all()
        return sockets


def _addresses(
    host: str | None, port: int
) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """What a host resolves to. "localhost" is both loopbacks, whatever the hosts file says."""
    if host == "localhost":
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    distinct = {(info[0], info[4]): None for info in found}
    return sorted(distinct, key=lambda entry: entry[0] != socket.AF_INET)


def _bound(
    family: int,
    address: tuple[object, ...],
    backlog: int,
    *,
    shared: bool = False,
    joins: bool = False,
) -> socket.socket:
    """A listening socket; a `shared` one lets others in, and one that `joins` is among them."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for old connections' TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if joins:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if shared:  # only now: with it bind() would have joined another server's port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _explained(error: OSError, host: str | None, port: int) -> ConfigurationError:
    where = f"port {port} on {host or 'all addresses'}"
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"{where} is in use, by another process or by this one: stop that server or choose "
            f"another port (ss -ltnp 'sport = :{port}' shows who has it)"
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"{where} needs privileges: choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(f"{where}: this machine has no such address; use one of its own")
    if isinstance(error, socket.gaierror):
        return ConfigurationError(f"host {host!r} cannot be resolved: {error.strerror}")
    return ConfigurationError(f"{where} cannot be opened: {error.strerror or error}")


def give_up_unstarted(url: str, process: int, listeners: list[socket.socket]) -> None:
    """Close the listeners of a server that nobody refers to any more, and say so."""
    for sock in listeners:
        sock.close()
    if os.getpid() == process:
        log.warning(
            "the server on %s was never started: call serve_forever(), start_background(), or "
            "use 'with server:'",
            url,
        )
