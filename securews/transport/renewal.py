"""Contexts are replaced, never changed: one reference, swapped.

A changed context reaches neither resumed sessions nor, with a key that does not match, anybody.
So `reload()` builds a new one, tries it and swaps it in; and every 12 hours the same happens by
itself, because OpenSSL makes the keys that encrypt session tickets once per context, and whoever
steals an old one reads every session that was resumed with it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["CONTEXT_LIFETIME", "Renewed"]

log = logging.getLogger("securews.tls")

CONTEXT_LIFETIME = 12 * 3600.0
"""Seconds that one set of ticket keys is used."""

T = TypeVar("T")


class Renewed(Generic[T]):
    """Something immutable that is built anew now and then. Any thread.

    Args:
        build: makes one, or raises ConfigurationError.
        lifetime: seconds after which it is built anew by itself.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        build: Callable[[], T],
        lifetime: float = CONTEXT_LIFETIME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below; never held while building
        self._numbers = itertools.count()
        self._number = next(self._numbers)
        self._due = clock() + lifetime
        self._latest = build()

    @property
    def latest(self) -> T:
        """The one in use."""
        return self._latest

    def current(self) -> T:
        """The one in use; when it is due, a new one first. The old goes on if that fails."""
        if self._clock() >= self._due and self._claim():
            try:
                self.reload()
            except Exception as exc:  # whatever it is, accepting goes on
                log.warning("the TLS context could not be renewed; the old one goes on: %s", exc)
        return self._latest

    def _claim(self) -> bool:
        """True in one thread only: it renews, the others go on with the old one."""
        with self._lock:
            if self._clock() < self._due:
                return False
            self._due = self._clock() + self._lifetime
            return True

    def reload(self) -> None:
        """Build a new one and swap it in.

        Raises:
            ConfigurationError: that failed; the old one stays in use.
        """
        with self._lock:
            number = next(self._numbers)
        fresh = self._build()
        with self._lock:
            # A reload that began later has read newer files, even if it was done earlier.
            if number > self._number:
                self._number = number
                self._latest = fresh
                self._due = self._clock() + self._lifetime
