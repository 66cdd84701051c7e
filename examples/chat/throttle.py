"""Guessing passwords made slow, without a thread that waits and without locking anybody out.

Failures are counted per user *and* address: who guesses from one address does not keep the user
out at another.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Throttle", "network_of"]


@dataclasses.dataclass(slots=True)
class _Failures:
    count: int
    last: float
    wait: float = 0.0

    def left(self, now: float) -> int:
        """Whole seconds, rounded up, until the next password is looked at; 0 is now."""
        # Not `last + wait - now`: such a sum is rounded, perhaps up, and 30 s would be told as 31.
        return max(0, math.ceil(self.wait - (now - self.last)))


class Throttle:
    """Says how long a user at an address has to wait. Any thread; never waits itself.

    From failure number `free` on there is a wait after each, doubling from `first_wait` seconds
    to `longest_wait`. A right password ends the counting, and so does an hour (`forget_after`)
    without a failure. At most `capacity` pairs are remembered; the one that failed longest ago
    is forgotten first.
    """

    def __init__(
        self,
        *,
        free: int = 5,
        first_wait: float = 30.0,
        longest_wait: float = 900.0,
        forget_after: float = 3600.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free = free
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._forget_after = forget_after
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait(self, name: str, address: str) -> int:
        """Seconds until the next password is looked at; 0 is now."""
        with self._lock:
            found = self._failures.get(_key(name, address))
            return 0 if found is None else found.left(self._clock())

    def failed(self, name: str, address: str) -> int:
        """Count a wrong password; the seconds to wait now, 0 for the first few."""
        key = _key(name, address)
        with self._lock:
            now = self._clock()  # under the lock: never before `last`
            found = self._failures.pop(key, None)
            if found is None or now - found.last > self._forget_after:
                found = _Failures(0, now)
            self._failures[key] = found  # at the end: the order is that of the last failure
            # Attempts that were under way when the block began do not make it longer.
            if not found.left(now):
                found.count += 1
                found.last = now
                doublings = found.count - self._free
                if doublings >= 0:
                    wait = self._first_wait * 2.0 ** min(doublings, 32)
                    found.wait = min(wait, self._longest_wait)
            while len(self._failures) > self._capacity:
                self._failures.popitem(last=False)
            return found.left(now)

    def succeeded(self, name: str, address: str) -> int:
        """Forget the failures of a user who knew the password.

        Returns:
            0; or the seconds to wait, where a block began while the password was being checked:
            then the answer has to be the same as to a wrong one, or else many attempts at once
            would get more guesses than one after another.
        """
        key = _key(name, address)
        with self._lock:
            found = self._failures.get(key)
            if found is not None and (seconds := found.left(self._clock())):
                return seconds
            self._failures.pop(key, None)
            return 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._failures)


def network_of(host: str) -> str:
    """What counts as one address: an IPv6 peer owns a /64, and IPv4 may come mapped into IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _key(name: str, address: str) -> tuple[str, str]:
    # Names come from the peer: cut, so that the table's size is bounded by its length.
    return name.strip().lower()[:64], network_of(address)
