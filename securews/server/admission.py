"""Who may come in: connections at once, connections per address, and who goes first.

Any thread: connections come on the first I/O thread and leave on their own. Loopback and unix
peers are exempt from the bound per address: a reverse proxy on this machine carries everybody.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from typing import Protocol

from securews.transport.socket_handler import SocketAddress

__all__ = ["Admission", "Silent"]

CROWDED = 0.9
"""From this share of `max_connections` on, the oldest silent peer makes room for a new one..."""
PATIENCE = 1.0
"""... if it has been silent for this many seconds: a burst of honest peers is silent for less. Only
where the server is full the oldest goes whatever its age."""


class Silent(Protocol):
    """A connection whose peer has not said anything yet."""

    def make_room(self) -> None:
        """Any thread: give up this connection for another."""


class Admission:
    """Counts connections. `max_per_ip` None is any number."""

    def __init__(self, max_connections: int, max_per_ip: int | None) -> None:
        self._max = max_connections
        self._max_per_ip = max_per_ip
        self._per_ip: Counter[str] = Counter()
        self._silent: dict[Silent, float] = {}  # since when, in the order of their arrival
        self._lock = threading.Lock()
        self.count = 0

    def admit(self, address: SocketAddress, now: float) -> bool:
        """Count a connection in; False if there is no room. `leave` follows each True."""
        key = _key(address)
        with self._lock:
            room = self.count < self._max
            oldest = self._who_makes_room(now)
            admitted = (room or oldest is not None) and not (
                key is not None
                and self._max_per_ip is not None
                and self._per_ip[key] >= self._max_per_ip
            )
            if admitted:
                self.count += 1
                if key is not None:
                    self._per_ip[key] += 1
        if oldest is not None:
            oldest.make_room()  # it leaves at the end of its loop's turn
        return admitted

    def leave(self, address: SocketAddress) -> None:
        """Count a connection out."""
        key = _key(address)
        with self._lock:
            self.count -= 1
            if key is not None:
                self._per_ip[key] -= 1
                if self._per_ip[key] <= 0:
                    del self._per_ip[key]

    def is_silent(self, connection: Silent, now: float) -> None:
        """The connection waits for its peer's first byte."""
        with self._lock:
            self._silent[connection] = now

    def has_spoken(self, connection: Silent) -> None:
        """The peer sent something, or is gone."""
        with self._lock:
            self._silent.pop(connection, None)

    def _who_makes_room(self, now: float) -> Silent | None:
        """With the lock held: the oldest silent connection, where it has to go."""
        if not self._silent or self.count < CROWDED * self._max:
            return None
        oldest, since = next(iter(self._silent.items()))
        if self.count < self._max and now - since < PATIENCE:
            return None
        del self._silent[oldest]
        return oldest


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
