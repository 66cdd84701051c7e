"""How many passwords are looked at: of one address, whatever the names, and of all at a time.

The throttle counts by name, and names can be made up; looking at a password costs a hash.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from examples.chat.bucket import Bucket
from examples.chat.throttle import network_of

__all__ = ["AddressLimit", "BusyError", "OneAtATime"]


class AddressLimit:
    """Says how long an address has to wait, whatever names it tries. Any thread; never waits.

    `burst` passwords may be tried at once, then one each `interval` seconds. A right one counts a
    tenth: so the people behind one address (a household, an office) come in, 190 of them at once,
    and who mistypes behind a busy one waits a minute at most. It does not clear what others have
    tried: else whoever has an account here would clear it between guesses, or hash without end.

    An address is an IPv4 address or an IPv6 /64. At most `capacity` of them are remembered; the
    one that tried longest ago is forgotten first.
    """

    def __init__(
        self,
        *,
        burst: int = 20,
        interval: float = 60.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._rate = 1.0 / interval
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def begin(self, address: str) -> int:
        """Count an attempt: 0. Where it is one too many, the seconds until the next may begin."""
        key = network_of(address)
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = Bucket(rate=self._rate, burst=self._burst, clock=self._clock)
                self._buckets[key] = bucket
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
            return math.ceil(bucket.take())

    def succeeded(self, address: str) -> None:
        """The password was right: nine tenths are given back."""
        self._give_back(address, 0.9)

    def withdrawn(self, address: str) -> None:
        """The password was not looked at."""
        self._give_back(address, 1.0)

    def _give_back(self, address: str, tokens: float) -> None:
        with self._lock:
            bucket = self._buckets.get(network_of(address))
            if bucket is not None:
                bucket.give_back(tokens)

    def __len__(self) -> int:
        with self._lock:
            return len(self._buckets)


class BusyError(Exception):
    """As many wait already as may."""


class OneAtATime:
    """A lock that at most `waiting` threads wait for; whoever comes then is refused at once.

    Args:
        waiting: threads.
        longest_wait: seconds.
    """

    def __init__(self, *, waiting: int = 2, longest_wait: float = 5.0) -> None:
        self._places = threading.Semaphore(1 + waiting)
        self._lock = threading.Lock()
        self._longest_wait = longest_wait

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it inside `with`.

        Raises:
            BusyError: so many wait, or it took so long.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            if not self._lock.acquire(timeout=self._longest_wait):
                raise BusyError
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._places.release()
