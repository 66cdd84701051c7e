"""Contexts are replaced, never changed: one reference, swapped.

A changed context reaches neither resumed sessions nor, with a key that does not match, anybody.
So `reload()` builds a new one, tries it and swaps it in; and every 12 hours the same happens by
itself, because OpenSSL makes the keys that encrypt session tickets once per context, and whoever
steals an old one reads every session that was resumed with it.

Building reads files, which may wait for a disk, and shakes hands for each certificate. So whoever
accepts never builds. A server has it done ahead of time, on a thread; where nobody does that, the
first accept after the lifetime starts a thread for it, and goes on with the old one meanwhile.
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

AHEAD = 3600.0
"""Seconds before that from which on `renew_if_due` renews; a server calls it twice as often."""

RETRY = 3600.0
"""Seconds after a renewal that failed until the next one."""

T = TypeVar("T")


class Renewed(Generic[T]):
    """Something immutable that is built anew now and then. Any thread.

    Args:
        build: makes one, or raises ConfigurationError. Never called on a thread that accepts.
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
        self._lock = threading.Lock()  # guards what is below; never held while building
        self._numbers = itertools.count()
        self._number = next(self._numbers)
        self._due = clock() + lifetime
        self._failure = ""
        self._latest = build()

    @property
    def latest(self) -> T:
        """The one in use."""
        return self._latest

    def current(self) -> T:
        """The one in use. When it is overdue, a thread begins to build a new one."""
        if self._clock() >= self._due and self._claim(0.0):
            thread = threading.Thread(target=self._renew, name="securews-renewal", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # the process has no threads left
                self._failed(exc)
        return self._latest

    def renew_if_due(self) -> None:
        """Build a new one if the one in use is about to be overdue. May block.

        The old one goes on if that fails: a warning says so, and after an hour it is tried again.
        """
        if self._claim(AHEAD):
            self._renew()

    def _claim(self, ahead: float) -> bool:
        """True in one thread only: it renews, the others go on with the old one."""
        with self._lock:
            if self._clock() < self._due - ahead:
                return False
            self._due = self._clock() + self._lifetime
            return True

    def _renew(self) -> None:
        try:
            self.reload()
        except Exception as exc:  # whatever it is, accepting goes on
            self._failed(exc)

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._due = self._clock() + RETRY + AHEAD
            known, self._failure = self._failure == str(error), str(error)
        if not known:
            log.warning("the TLS context could not be renewed; the old one goes on: %s", error)

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
                self._failure = ""
