"""What the server holds for a connection, from accept to its end: one lease.

A lease is a place of `max_connections`, a place of its address (`max_per_ip`) and, while user code
runs for the connection, a thread. It is taken at accept, and given back when the descriptor is
closed *and* no user code is at work or waits for a thread: a peer that sends, leaves and comes
again while its handler is busy takes one place each time, and so one thread, whatever threads the
handler runs in.

Any thread: connections come on the first I/O thread, and handlers end where they run. Loopback and
unix peers are exempt from the bound per address: a reverse proxy on this machine carries everybody.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from securews.common.log_interval import LogInterval
from securews.transport.socket_handler import SocketAddress

__all__ = ["AtWork", "Evict", "Lease", "Leases", "Task"]

log = logging.getLogger("securews.server")

Evict: TypeAlias = Callable[[], None]
"""Closes the descriptor of a connection that has lost its place."""

CROWDED = 0.9
"""From this share of `max_connections` on, the oldest silent peer makes room for a new one..."""
PATIENCE = 1.0
"""... if it has been silent for this many seconds: a burst of honest peers is silent for less. Only
where the server is full the oldest goes whatever its age."""
GONE_SHARE = 0.5
"""From this share of `max_connections` on, handlers whose peer is gone are warned of."""
NAMED = 5
"""Handlers that a warning names."""


class AtWork(NamedTuple):
    """User code that runs at present: for whom, which, and the name of its thread."""

    peer: str
    name: str
    thread: str


class Leases:
    """The leases of one server.

    Args:
        max_connections: leases at once.
        max_per_ip: of these from one address; None is any number.
        changed: called, in any thread, when a descriptor was closed or a lease given back.
    """

    def __init__(
        self,
        max_connections: int,
        max_per_ip: int | None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._max = max_connections
        self._max_per_ip = max_per_ip
        self._changed = changed
        self._lock = threading.Lock()
        """Guards everything below, and all of a lease and of a task."""
        self._places = 0
        self._descriptors = 0
        self._per_ip: Counter[str] = Counter()
        self._silent: dict[Lease, tuple[float, Evict]] = {}  # since when, in order of arrival
        self._at_work: set[Task] = set()
        self._gone: set[Lease] = set()  # whose descriptor is closed, while user code holds them
        self._log_interval = LogInterval()

    def take(self, address: SocketAddress, now: float) -> Lease | None:
        """A lease for a peer that has come, or None if there is no room for it.

        Where the server is crowded, the oldest silent peer gives its place to the new one: only to
        one that may come in, so that who is refused harms nobody.
        """
        key = _key(address)
        with self._lock:
            full = key is not None and self._per_ip[key] >= (self._max_per_ip or float("inf"))
            oldest = None if full else self._who_makes_room(now)
            evict = None if oldest is None else self._evicted(oldest)
            lease = None
            if not full and self._places < self._max:
                lease = Lease(self, key)
                self._places += 1
                self._descriptors += 1
                if key is not None:
                    self._per_ip[key] += 1
            gone = self._gone_to_warn_of(now)
            held = len(self._gone)
        if evict is not None:
            evict()
        self._warn_of(gone, held)
        return lease

    def nothing(self) -> Lease:
        """The lease of a peer that is refused: it holds nothing, and has nothing to give back."""
        lease = Lease(self, None)
        lease._holds_place = lease._has_descriptor = False
        return lease

    @property
    def count(self) -> int:
        """Leases that are taken."""
        return self._places

    def stats(self) -> dict[str, int]:
        """What `server.stats()` says of them."""
        with self._lock:
            return {
                "sockets": self._descriptors,
                "leases": self._places,
                "handlers": len(self._at_work),
                "gone": sum(task.lease in self._gone for task in self._at_work),
            }

    def at_work(self) -> list[AtWork]:
        """The user code that runs at present."""
        with self._lock:
            return [AtWork(t.peer, t.name, t.thread.name) for t in self._at_work if t.thread]

    # -- for leases and tasks --------------------------------------------------------------

    def _is_silent(self, lease: Lease, evict: Evict, now: float) -> None:
        with self._lock:
            self._silent[lease] = now, evict

    def _has_spoken(self, lease: Lease) -> bool:
        with self._lock:
            self._silent.pop(lease, None)
            return lease._holds_place

    def _descriptor_closed(self, lease: Lease, now: float) -> None:
        with self._lock:
            if not lease._has_descriptor:
                return
            lease._has_descriptor = False
            self._descriptors -= 1
            self._silent.pop(lease, None)
            self._settle(lease)
            gone = self._gone_to_warn_of(now)
            held = len(self._gone)
        self._warn_of(gone, held)
        self._changed()

    def _task_taken(self, lease: Lease) -> None:
        with self._lock:
            lease._tasks += 1

    def _task_begun(self, task: Task) -> None:
        with self._lock:
            if not task.over:
                task.thread = threading.current_thread()
                self._at_work.add(task)

    def _task_ended(self, task: Task, *, if_waiting: bool) -> None:
        with self._lock:
            if task.over or (if_waiting and task.thread is not None):
                return
            task.over, task.thread = True, None
            self._at_work.discard(task)
            task.lease._tasks -= 1
            changed = self._settle(task.lease)
        if changed:
            self._changed()

    # -- with the lock held ----------------------------------------------------------------

    def _settle(self, lease: Lease) -> bool:
        """Give back what nobody needs any more; whether anything was."""
        if lease._has_descriptor:
            return False
        if lease._tasks:
            self._gone.add(lease)
            return False
        self._gone.discard(lease)
        return self._give_back_place(lease)

    def _give_back_place(self, lease: Lease) -> bool:
        if not lease._holds_place:
            return False
        lease._holds_place = False
        self._places -= 1
        key = lease._key
        if key is not None:
            self._per_ip[key] -= 1
            if self._per_ip[key] <= 0:
                del self._per_ip[key]
        return True

    def _who_makes_room(self, now: float) -> Lease | None:
        """The oldest silent connection, where it has to go."""
        if not self._silent or self._places < CROWDED * self._max:
            return None
        oldest, (since, _) = next(iter(self._silent.items()))
        if self._places < self._max and now - since < PATIENCE:
            return None
        return oldest

    def _evicted(self, lease: Lease) -> Evict:
        """Take the place of a silent connection; who is to be called without the lock."""
        _, evict = self._silent.pop(lease)
        self._give_back_place(lease)
        return evict

    def _gone_to_warn_of(self, now: float) -> Counter[str] | None:
        if len(self._gone) < GONE_SHARE * self._max or not self._log_interval.is_over(now):
            return None
        names = Counter(task.name for task in self._at_work if task.lease in self._gone)
        if names:
            self._log_interval.begin(now)
        return names

    def _warn_of(self, gone: Counter[str] | None, held: int) -> None:
        """Without the lock."""
        if not gone:
            return
        names = [f"{name} ({count})" for name, count in gone.most_common(NAMED)]
        if len(gone) > NAMED:
            names.append("and others")
        log.warning(
            "%d handlers are at work though their peers are gone, and hold %d of %d places "
            "(max_connections); when all are held, new peers are refused: %s. A handler learns "
            "that its peer has left from recv(timeout=...), from ws.open or from ws.wait_closed()",
            gone.total(),
            held,
            self._max,
            ", ".join(names),
        )


class Lease:
    """What is held for one connection. Every method: any thread, and again is harmless."""

    __slots__ = ("_has_descriptor", "_holds_place", "_key", "_leases", "_tasks")

    def __init__(self, leases: Leases, key: str | None) -> None:
        self._leases = leases
        self._key = key
        self._holds_place = True
        self._has_descriptor = True
        self._tasks = 0

    def is_silent(self, evict: Evict, now: float) -> None:
        """The connection waits for its peer's first byte.

        Until `has_spoken`, its place can be given to another. `evict` is then called once, in any
        thread, and has to close the descriptor.
        """
        self._leases._is_silent(self, evict, now)

    def has_spoken(self) -> bool:
        """The peer sent something, or is gone. False: its place was given away already."""
        return self._leases._has_spoken(self)

    def task(self, name: str, peer: str) -> Task:
        """Take what one call of user code needs, before it is given to a thread.

        Args:
            name: of the user's code, for the log.
            peer: for whom, likewise.
        """
        self._leases._task_taken(self)
        return Task(self, name, peer)

    def descriptor_closed(self, now: float) -> None:
        """Give back the descriptor, and all else unless user code is at work for it."""
        self._leases._descriptor_closed(self, now)


class Task:
    """User code that runs for one connection, or waits for a thread: `run` or `cancel` it."""

    __slots__ = ("lease", "name", "over", "peer", "thread")

    def __init__(self, lease: Lease, name: str, peer: str) -> None:
        self.lease = lease
        self.name = name
        self.peer = peer
        self.over = False
        self.thread: threading.Thread | None = None

    def run(self, job: Callable[[], None]) -> None:
        """Run `job` in the calling thread, and give back what it holds.

        A job that was cancelled runs as well, for it may have to give back other things; it must
        not call user code then, for it holds nothing.
        """
        with self:
            job()

    def __enter__(self) -> None:
        self.lease._leases._task_begun(self)

    def __exit__(self, *exc: object) -> None:
        self.lease._leases._task_ended(self, if_waiting=False)

    def cancel(self) -> None:
        """Give back what it holds if it has not begun: nobody waits for it any more."""
        self.lease._leases._task_ended(self, if_waiting=True)


def _key(address: SocketAddress) -> str | None:
    """What counts as one address: IPv4, or the /64 of IPv6; None where it is exempt."""
    if isinstance(address, (str, bytes)):
        return None
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)
