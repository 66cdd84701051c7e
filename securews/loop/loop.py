"""The I/O loop: one thread that moves all bytes and keeps all deadlines.

Theory of operation
-------------------
One turn: wait for descriptors (until the next deadline, or for ever), tell each owner that its own
is ready, run the timers that are due, run what other threads asked for, go on with work that was
left over, close what has ended, wake the threads that got messages. Nothing in a turn waits, but
for a millisecond at most at its end (`relay.py`).

What one owner does in a turn is bounded: what it has left over (bytes that are received and not
parsed yet) it hands to `continue_later`. All owners that have something left share one slice of
each turn, one bounded step after another, and between two slices the loop looks for descriptors:
so a peer whose bytes cost much work makes its own connection slow and not those of others.

Whoever raises in a turn is a bug of ours (user code is caught where it is called): it is logged,
its connection is aborted, and the loop goes on. What is raised between them (the poller is broken,
there is no memory, an exception came from another thread) ends the loop, for its state is unknown:
`on_failure` is told, and all owners are aborted, so that no thread waits for them for ever.

Other threads only append to two lists under the loop's lock and, if the loop sleeps, write one
byte to wake it. "Asleep" and "the lists are empty" are read and written under that one lock; two
separate flags would lose wake-ups.

The clock and the poller can be given, so that a test turns both.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Protocol

from securews.common.locks import Lock
from securews.common.syscalls import drain, poke
from securews.loop.poller import EndedPoller, Poller, make_poller
from securews.loop.relay import Relay
from securews.loop.timers import Timer, Timers

__all__ = ["Caller", "Loop", "Owner", "Watched", "on_io_thread"]

log = logging.getLogger("securews.server")

SLICE = 0.0005
"""Seconds of a turn in which left-over work goes on."""

LAST_SECONDS = 1.0
"""In which left-over work goes on when the loop has ended."""

_running: set[int] = set()
"""The threads that run a loop at present, of all servers and clients of this process."""


def on_io_thread() -> bool:
    """Whether the calling thread runs a loop, and so must not wait."""
    return get_ident() in _running


class Watched(Protocol):
    """Who is told that a descriptor is ready."""

    fd: int

    def on_ready(self, mask: int) -> None:
        """The descriptor is ready: READABLE, WRITABLE, HANGUP (see `poller.py`)."""

    def abort(self, error: Exception | None = None) -> None:
        """`on_ready` has raised, or the loop ends."""


class Owner:
    """Who owns a descriptor and has work to do on the loop's thread.

    A base class and no Protocol: what is compiled calls it as C does.
    """

    __slots__ = ("fd",)

    fd: int

    def on_ready(self, mask: int) -> None:
        """The descriptor is ready; see `Watched`."""
        raise NotImplementedError

    def flush_scheduled(self) -> None:
        """It was scheduled: do what other threads asked for, and send."""
        raise NotImplementedError

    def continue_work(self) -> None:
        """Take one bounded step of what was left over."""
        raise NotImplementedError

    def abort(self, error: Exception | None = None) -> None:
        """End it: it has raised, or the loop ends."""
        raise NotImplementedError

    def release(self) -> None:
        """Close the descriptor."""
        raise NotImplementedError


class Caller(Protocol):
    """Who calls the user's code on a loop."""

    def callback_name(self) -> str:
        """What the log calls it."""


class Loop:
    """An I/O loop. `run()` makes the calling thread its own; `stop()` ends it.

    Args:
        poller: which descriptors are ready; None is the best of this platform.
        clock: seconds that only go forward.
    """

    def __init__(
        self, poller: Poller | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.clock = clock
        self.now = clock()
        """Seconds of the clock, when the loop last looked."""
        self.timers = Timers()
        self.relay = Relay()
        """Wakes the threads that receive."""
        self._poller = make_poller() if poller is None else poller
        self._owners: dict[int, Watched | Owner] = {}
        self._lock = Lock()
        self._scheduled: list[Owner] = []
        self._calls: list[Callable[[], None]] = []
        self._left_over: deque[Owner] = deque()
        self._ended: list[Owner] = []
        self._asleep = False
        self._stopping = False
        self._over = False
        """Under the lock: nothing that is asked for is done any more."""
        self._thread: int | None = None
        self.caller: Caller | None = None
        """Who calls the user's code at present; None where nobody does."""
        self.on_failure: Callable[[BaseException], None] | None = None
        """Called on the loop's thread when `run` ends by what was raised, before all is aborted."""
        self.on_signals: Callable[[bytes], None] | None = None
        """Called on the loop's thread with what others wrote to `signal_fd`: signals' numbers."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        # Closed with the last reference, not at the end of run(): a thread that is about to wake a
        # loop that has just ended must not write into somebody else's descriptor. Nor when the
        # interpreter exits: other threads may go on until the process ends, which closes it.
        weakref.finalize(self, _close_pair, self._wake_read, self._wake_write).atexit = False
        self._poller.watch(self._wake_read, read=True, write=False)

    # -- any thread ------------------------------------------------------------------------

    def callback_name(self) -> str:
        """What the log calls the user's code that runs on the loop's thread; "" for none."""
        caller = self.caller
        return "" if caller is None else caller.callback_name()

    def on_loop_thread(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return get_ident() == self._thread

    def on_io_thread(self) -> bool:
        """Whether the calling thread runs this loop or another one, and so must not wait."""
        return get_ident() in _running

    def schedule(self, owner: Owner) -> None:
        """Call `owner.flush_scheduled()` soon, and wake the loop if it sleeps."""
        self._lock.acquire()  # not `with`, which costs four times as much where it is compiled
        if not self._over:  # else it would keep the owner, which refers to it
            self._scheduled.append(owner)
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

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back after `seconds`. Loop thread.

        They are counted from this moment. `now` is older: a callback may have taken long.
        """
        return self.timers.call_at(self.clock() + seconds, callback)

    @property
    def signal_fd(self) -> int:
        """For `signal.set_wakeup_fd`: each signal's number as a byte, which ends a wait, too."""
        return self._wake_write

    def wake(self) -> None:
        """End a wait."""
        poke(self._wake_write)

    def wait_for_turn(self, seconds: float = 1.0) -> None:
        """Wait until everything that was scheduled had its turn; not on an I/O thread."""
        over = threading.Event()

        def call_again() -> None:
            if not self.call_soon(over.set):
                over.set()

        # In a turn calls come before what is scheduled: the second call comes after it.
        if self.call_soon(call_again):
            over.wait(seconds)

    def stop(self) -> None:
        """End `run()` after the present turn."""
        self.call_soon(self._stop)

    # -- the loop's thread -----------------------------------------------------------------

    def watch(self, owner: Watched | Owner, *, read: bool, write: bool) -> None:
        """Tell `owner` when its descriptor is ready; while neither is wanted, of its end alone."""
        self._owners[owner.fd] = owner
        self._poller.watch(owner.fd, read=read, write=write)

    def unwatch(self, owner: Watched | Owner) -> None:
        """Tell `owner` nothing more."""
        self._owners.pop(owner.fd, None)
        self._poller.unwatch(owner.fd)

    def continue_later(self, owner: Owner) -> None:
        """Call `owner.continue_work()`, in a slice of this turn or of the next. Once each call."""
        self._left_over.append(owner)

    def close_later(self, owner: Owner) -> None:
        """Close the owner's descriptor at the end of this turn."""
        self.unwatch(owner)
        self._ended.append(owner)

    def run(self) -> None:
        """Turn until `stop()`, in the calling thread.

        Raises:
            BaseException: what ended the loop, where no `on_failure` is told.
        """
        self.enter()
        try:
            while not self._stopping:
                self.turn()
        except BaseException as error:
            self._drop_poller()  # it may be what is broken
            if self.on_failure is None:
                raise
            self.on_failure(error)
        finally:
            self.leave()

    def enter(self) -> None:
        """Make the calling thread the loop's own; `turn` follows, and then `leave`."""
        self._thread = get_ident()
        _running.add(self._thread)

    def leave(self) -> None:
        """The loop has ended: do what was promised, abort who is left, promise nothing more."""
        try:
            self._drop_poller()
            self._finish_work()
            self._release_ended()
            self.relay.wake(self.now)
        finally:
            if self._thread is not None:
                _running.discard(self._thread)
            self._thread = None  # the system gives the number to another thread

    def turn(self) -> None:
        """Take one turn."""
        ready = self._poller.poll(self._time_to_sleep())
        polled = self.clock()
        self._asleep = False  # without the lock: at worst another thread wakes us in vain
        for fd, mask in ready:
            self.now = self.clock()
            owner = self._owners.get(fd)
            if owner is not None:
                self._tell(owner, mask)
            elif fd == self._wake_read:
                self._clear_wake_up()
        # The time of the poll: a callback may have taken long since, and what a peer has sent
        # meanwhile is read before it is judged.
        self.now = polled
        for timer in self.timers.take_due(polled):
            callback = timer.take_callback()
            if callback is not None:
                self._call(callback)
        self.now = self.clock()
        # Without the lock: what is added later is seen before the loop sleeps.
        if self._scheduled or self._calls:
            self._do_what_was_asked()
        if self._left_over:
            self._continue_for_a_slice()
        if self._ended:
            self._release_ended()
        self.relay.wake(self.now)

    def _do_what_was_asked(self) -> None:
        with self._lock:
            scheduled, self._scheduled = self._scheduled, []
            calls, self._calls = self._calls, []
        for callback in calls:
            self._call(callback)
        for owner in scheduled:
            try:
                owner.flush_scheduled()
            except BaseException as error:
                self._abort(owner, error)

    def _continue_for_a_slice(self) -> None:
        until = self.clock() + SLICE
        while self._left_over:
            self.now = self.clock()
            if self.now >= until:
                break
            self._continue_next()

    def _continue_next(self) -> None:
        owner = self._left_over.popleft()
        try:
            owner.continue_work()
        except BaseException as error:
            self._abort(owner, error)

    def _time_to_sleep(self) -> float | None:
        due = self.timers.next_due()
        self._lock.acquire()
        idle = self._asleep = not (self._scheduled or self._calls or self._left_over)
        self._lock.release()
        if not idle:
            return 0.0
        return None if due is None else max(0.0, due - self.clock())

    def _tell(self, owner: Watched | Owner, mask: int) -> None:
        try:
            owner.on_ready(mask)
        except BaseException as error:
            self._abort(owner, error)

    def _abort(self, owner: Watched | Owner, error: BaseException) -> None:
        log.error("internal error; the connection is aborted", exc_info=error)
        try:
            owner.abort()
        except BaseException:
            log.exception("internal error while a connection was aborted")

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException:
            log.exception("internal error in a call of the I/O loop")

    def _drop_poller(self) -> None:
        poller, self._poller = self._poller, EndedPoller()
        try:
            poller.close()
        except Exception:
            log.exception("internal error while a poller was closed")

    def _finish_work(self) -> None:
        """What was promised is done, and all owners are aborted; nothing more is promised."""
        while not self._over:
            owners, self._owners = self._owners, {}  # so that each is aborted once
            for owner in owners.values():
                try:
                    owner.abort()
                except BaseException:
                    log.exception("internal error while a connection was aborted")
            self._do_what_was_asked()
            until = self.clock() + LAST_SECONDS
            while self._left_over and self.clock() < until:
                self._continue_next()  # what had come before the end; after it nothing more comes
            self._left_over.clear()
            with self._lock:
                self._over = not (self._calls or self._scheduled or self._owners)

    def _clear_wake_up(self) -> None:
        written = drain(self._wake_read)
        signals = written.replace(b"\0", b"")
        if signals and self.on_signals is not None:
            self.on_signals(signals)

    def _release_ended(self) -> None:
        while self._ended:
            ended, self._ended = self._ended, []
            for owner in ended:
                try:
                    owner.release()
                except BaseException:
                    log.exception("internal error while a descriptor was closed")

    def _stop(self) -> None:
        self._stopping = True


def _close_pair(one: int, other: int) -> None:
    os.close(one)
    os.close(other)
