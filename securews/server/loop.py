"""The I/O loop: one thread that moves all bytes and keeps all deadlines.

Theory of operation
-------------------
One turn: wait for descriptors (until the next deadline, or for ever), hand each to its owner, run
the timers that are due, run what other threads asked for, close what has ended, wake the threads
that got messages. Nothing in a turn waits, but for a millisecond at most at its end (`relay.py`).
An owner that raises is a bug of ours (user code is caught where it is called): it is logged, its
connection is aborted, and the loop goes on.

Other threads only append to two lists under the loop's lock and, if the loop sleeps, write one
byte to wake it. "Asleep" and "the lists are empty" are read and written under that one lock; two
separate flags would lose wake-ups.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Protocol

from securews.connection.channel import Channel
from securews.connection.interfaces import IOLoop
from securews.connection.relay import Relay
from securews.ground.deadlines import Timers
from securews.ground.locks import Lock
from securews.server.poller import make_poller
from securews.transport.syscalls import drain, poke

__all__ = ["Loop", "Watched"]

log = logging.getLogger("securews.server")


_running: set[int] = set()
"""The threads that run a loop at present, of all servers and clients of this process."""


class Watched(Protocol):
    """Who is told that a descriptor is ready."""

    fd: int

    def on_ready(self, mask: int) -> None:
        """The descriptor is ready: READABLE, WRITABLE, HANGUP (see `channel.py`)."""


class Loop(IOLoop):
    """An I/O loop. `run()` makes the calling thread its own; `stop()` ends it."""

    def __init__(self) -> None:
        self.now = monotonic()
        self.timers = Timers()
        self.relay = Relay()
        self._poller = make_poller()
        self._owners: dict[int, Watched] = {}
        self._lock = Lock()
        self._marked: list[Channel] = []
        self._calls: list[Callable[[], None]] = []
        self._ended: list[Channel] = []
        self._asleep = False
        self._stopping = False
        self._over = False
        """Under the lock: nothing that is asked for is done any more."""
        self._thread: int | None = None
        self.on_signals: Callable[[bytes], None] | None = None
        """Called on the loop's thread with what others wrote to `signal_fd`: signals' numbers."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        # Closed with the last reference, not at the end of run(): a thread that is about to
        # wake a loop that has just ended must not write into somebody else's descriptor.
        weakref.finalize(self, _close_pair, self._wake_read, self._wake_write)
        self._poller.watch(self._wake_read, read=True, write=False)

    # -- any thread ------------------------------------------------------------------------

    def on_loop_thread(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return get_ident() == self._thread

    def on_io_thread(self) -> bool:
        """Whether the calling thread runs this loop or another one, and so must not wait."""
        return get_ident() in _running

    def mark(self, channel: Channel) -> None:
        """Give the channel a turn soon."""
        self._lock.acquire()  # see channel.py
        self._marked.append(channel)
        wake, self._asleep = self._asleep, False
        self._lock.release()
        if wake:
            self.wake()

    def call_soon(self, callback: Callable[[], None]) -> bool:
        """Call back on the loop's thread, in the order of the calls. False: the loop has ended."""
        with self._lock:
            if self._over:
                return False
            self._calls.append(callback)
            wake, self._asleep = self._asleep, False
        if wake:
            self.wake()
        return True

    @property
    def signal_fd(self) -> int:
        """For `signal.set_wakeup_fd`: each signal's number as a byte, which ends a wait, too."""
        return self._wake_write

    def wake(self) -> None:
        """End a wait."""
        poke(self._wake_write)

    def stop(self) -> None:
        """End `run()` after the present turn."""
        self.call_soon(self._stop)

    # -- the loop's thread -----------------------------------------------------------------

    def watch(self, owner: Watched, *, read: bool, write: bool) -> None:
        """Tell `owner` when its descriptor is ready."""
        self._owners[owner.fd] = owner
        self._poller.watch(owner.fd, read=read, write=write)

    def unwatch(self, owner: Watched) -> None:
        """Tell `owner` nothing more."""
        self._owners.pop(owner.fd, None)
        self._poller.unwatch(owner.fd)

    def close_later(self, channel: Channel) -> None:
        """Close the channel's descriptor at the end of this turn."""
        self.unwatch(channel)
        self._ended.append(channel)

    def run(self) -> None:
        """Turn until `stop()`, in the calling thread."""
        self._thread = get_ident()
        _running.add(self._thread)
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._make_last_calls()
            self._release_ended()
            self.relay.wake(self.now)
            self._poller.close()
            _running.discard(self._thread)
            self._thread = None  # the system gives the number to another thread

    def _turn(self) -> None:
        ready = self._poller.poll(self._time_to_sleep())
        self._asleep = False  # without the lock: at worst another thread wakes us in vain
        for fd, mask in ready:
            self.now = monotonic()
            owner = self._owners.get(fd)
            if owner is not None:
                self._tell(owner, mask)
            elif fd == self._wake_read:
                self._clear_wake_up()
        self.now = monotonic()
        for callback in self.timers.take_due(self.now):
            self._call(callback)
        # Without the lock: what is added later is seen before the loop sleeps.
        if self._marked or self._calls:
            self._do_what_was_asked()
        if self._ended:
            self._release_ended()
        self.relay.wake(self.now)

    def _do_what_was_asked(self) -> None:
        with self._lock:
            marked, self._marked = self._marked, []
            calls, self._calls = self._calls, []
        for callback in calls:
            self._call(callback)
        for channel in marked:
            self._give_turn(channel)

    def _time_to_sleep(self) -> float | None:
        due = self.timers.next_due()
        self._lock.acquire()  # see channel.py
        idle = self._asleep = not (self._marked or self._calls)
        self._lock.release()
        if not idle:
            return 0.0
        return None if due is None else max(0.0, due - monotonic())

    def _tell(self, owner: Watched, mask: int) -> None:
        try:
            owner.on_ready(mask)
        except Exception:
            log.exception("internal error; the connection is aborted")
            if isinstance(owner, Channel):
                owner.abort()

    def _give_turn(self, channel: Channel) -> None:
        try:
            channel.turn()
        except Exception:
            log.exception("internal error; the connection is aborted")
            channel.abort()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("internal error in a call of the I/O loop")

    def _make_last_calls(self) -> None:
        """What was promised is done; nothing more is promised."""
        while not self._over:
            with self._lock:
                calls, self._calls = self._calls, []
                self._over = not calls
            for callback in calls:
                self._call(callback)

    def _clear_wake_up(self) -> None:
        written = drain(self._wake_read)
        signals = written.replace(b"\0", b"")
        if signals and self.on_signals is not None:
            self.on_signals(signals)

    def _release_ended(self) -> None:
        while self._ended:
            ended, self._ended = self._ended, []
            for channel in ended:
                try:
                    channel.release()
                except Exception:
                    log.exception("internal error while a descriptor was closed")

    def _stop(self) -> None:
        self._stopping = True


def _close_pair(one: int, other: int) -> None:
    os.close(one)
    os.close(other)
