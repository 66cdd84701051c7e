"""Which descriptors are ready: epoll where it is, `selectors` elsewhere, behind one interface.

epoll is used directly for one reason beyond speed: while reading is paused, the peer's end must
still be noticed without a level-triggered event that would spin (EPOLLRDHUP, edge-triggered).
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol

from securews.common.syscalls import wait_ready

__all__ = ["HANGUP", "READABLE", "WRITABLE", "EndedPoller", "Poller", "make_poller"]

READABLE, WRITABLE, HANGUP = 1, 4, 0x8 | 0x10 | 0x2000
"""Bits of what a poller reports: the values of epoll, whose masks so need no translation."""


class Poller(Protocol):
    """One thread at a time."""

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """Report these, and the peer's end; changes what was asked before."""

    def unwatch(self, fd: int) -> None:
        """Report nothing more. Harmless where nothing was asked."""

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; (descriptor, mask) for each that is ready."""

    def close(self) -> None:
        """Give up the poller's own descriptor."""


class SelectorPoller:
    """kqueue (or whatever `selectors` finds). A paused descriptor is not watched at all."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """As in Poller."""
        self.unwatch(fd)
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if events:
            self._selector.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """As in Poller."""
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """As in Poller."""
        return [
            (
                key.fd,
                (READABLE if events & selectors.EVENT_READ else 0)
                | (WRITABLE if events & selectors.EVENT_WRITE else 0),
            )
            for key, events in self._selector.select(timeout)
        ]

    def close(self) -> None:
        """As in Poller."""
        self._selector.close()


class EpollPoller:
    """Linux; defined everywhere, for a class that is compiled cannot stand under an `if`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._known: set[int] = set()

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """As in Poller."""
        mask = select.EPOLLOUT if write else 0
        if read:
            mask |= select.EPOLLIN
        else:  # edge-triggered: a peer's end that nobody reads would be reported for ever
            mask |= select.EPOLLRDHUP | select.EPOLLET
        if fd in self._known:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
            self._known.add(fd)

    def unwatch(self, fd: int) -> None:
        """As in Poller."""
        if fd in self._known:
            self._known.remove(fd)
            self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """As in Poller."""
        return wait_ready(self._epoll, timeout)

    def close(self) -> None:
        """As in Poller."""
        self._epoll.close()


class EndedPoller:
    """The poller of a loop that has ended: nothing is reported any more."""

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """As in Poller."""

    def unwatch(self, fd: int) -> None:
        """As in Poller."""

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """As in Poller."""
        del timeout
        return []

    def close(self) -> None:
        """As in Poller."""


def make_poller() -> Poller:
    """The best poller of this platform."""
    return EpollPoller() if sys.platform == "linux" else SelectorPoller()
