"""The receiving half of a connection: the inbox, who waits for it, and back-pressure.

The loop puts the messages of one read in, and has the receiver woken once all sockets that were
ready have been read: a thread that is woken earlier takes the GIL from the loop (see `relay.py` for
those that are woken at the same time). Where the inbox is full (judged before a read, so one read
may run over) reading stops, and the kernel and the peer hold the rest; it goes on when three
quarters of it are free again, so that it does not stop and go at every message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from securews.common.deadlines import Deadline
from securews.common.locks import Lock
from securews.connection.inbox import Inbox, Message
from securews.protocol.events import Pong

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["Receiving"]

_T = TypeVar("_T")

SIGNAL_SECONDS = 0.5
"""The main thread looks so often whether a signal came: one that comes just before a wait for a
lock, or to another thread, does not end that wait."""


class Receiving:
    """Received messages and the threads that wait. Shared state is under the channel's lock."""

    __slots__ = (
        "_changed",
        "_channel",
        "_connection",
        "_discard",
        "_max_bytes",
        "_max_messages",
        "_receiver",
        "_waiting",
        "_wake_up",
        "curbed",
        "inbox",
        "paused",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.channel
        self._max_messages = connection.options.max_queue
        self._max_bytes = connection.options.max_queue_bytes
        self._discard = connection.options.max_queue == 0
        self._changed: threading.Condition | None = None
        self._receiver: int | None = None
        self._wake_up: Lock | None = None
        """Held but for the moment of waking: who receives waits for it. Cheaper than a Condition,
        and one thread at a time receives."""
        self._waiting = False
        """The receiver waits, and was not told to wake up yet."""
        self.inbox = Inbox()
        self.paused = False
        """Whether reading has stopped because the inbox is full."""
        self.curbed = False
        """Whether the server's budget wants to know of every message that is taken."""

    # -- with the lock held ----------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes of messages that one pass may parse, at least 1: what may still be queued."""
        return max(1, self._max_bytes - self.inbox.size)

    def queue(self, messages: list[Message]) -> bool:
        """Take the messages of one read. True if any was queued."""
        if self._discard or not messages:
            return False
        self.inbox.extend(messages)
        self.paused = (
            len(self.inbox.messages) >= self._max_messages or self.inbox.size >= self._max_bytes
        )
        self.notify()
        return True

    def set_pong(self, pong: Pong) -> None:
        """Keep the newest Pong that the user asked for."""
        self.inbox.pong = pong
        self.notify()

    def notify(self) -> None:
        """Loop thread: something came, or the end: wake who waits."""
        if self._waiting:
            assert self._wake_up is not None
            self._waiting = False
            self._channel.loop.relay.add(self._wake_up)
        if self._changed is not None:
            self._changed.notify_all()

    def discard(self) -> None:
        """Throw away what comes from now on (we are closing, or nobody wants it)."""
        self._discard = True
        self.paused = False

    # -- any thread but the loop's ---------------------------------------------------------

    def take(
        self,
        what: str,
        find: Callable[[Inbox], _T | None],
        timeout: float | None,
    ) -> _T:
        """Wait until `find` gives something.

        Raises:
            TimeoutError: nothing within `timeout` seconds.
            ConnectionClosed: the connection ended, and everything received was taken.
            RuntimeError: on an I/O thread, or while another thread waits here.
        """
        self._connection.refuse_on_loop(what)
        self._channel.lock.acquire()  # see channel.py
        try:
            if self._receiver is not None:
                raise RuntimeError(
                    f"{what}: another thread is receiving on this connection already; let one "
                    "thread receive and hand the messages on, for example by a queue.Queue"
                )
            found = find(self.inbox)
            if found is None:
                found = self._wait(what, find, timeout)
            resume = self._resume()
        finally:
            self._channel.lock.release()
        if resume:
            self._channel.loop.schedule(self._channel)
        return found

    def look(self, find: Callable[[Inbox], _T]) -> _T:
        """Without waiting. Any thread, the loop's too."""
        with self._channel.lock:
            found = find(self.inbox)
            resume = self._resume()
        if resume:
            self._channel.loop.schedule(self._channel)
        return found

    def wait_closed(self, timeout: float | None, *, discard: bool) -> bool:
        """Wait until the connection has ended; whether it has. `discard` drops what comes."""
        deadline = Deadline(timeout)
        with self._channel.lock:
            resume = False
            if discard:
                self.inbox.clear()
                self.discard()
                resume = self._channel.mark_locked()
        if resume:
            self._channel.loop.schedule(self._channel)
        with self._channel.lock:
            while not self._connection.ended:
                if deadline.passed:
                    return False
                self._condition().wait(deadline.remaining())
        return True

    # -- internal, with the lock held ------------------------------------------------------

    def _condition(self) -> threading.Condition:
        if self._changed is None:
            self._changed = threading.Condition(self._channel.lock)
        return self._changed

    def _wait(
        self,
        what: str,
        find: Callable[[Inbox], _T | None],
        timeout: float | None,
    ) -> _T:
        deadline = Deadline(timeout)
        self._receiver = threading.get_ident()
        try:
            while (found := find(self.inbox)) is None:
                if self._connection.ended:
                    raise self._connection.closed_error()
                if deadline.passed:
                    raise TimeoutError(f"{what}: nothing came within {timeout:g} s")
                self._wait_for_wake_up(deadline.remaining())
        finally:
            self._receiver = None
        return found

    def _wait_for_wake_up(self, seconds: float | None) -> None:
        """Wait, without the lock. May return for nothing: ask again what there is."""
        if self._wake_up is None:
            self._wake_up = Lock()
            self._wake_up.acquire()
        if self._receiver == threading.main_thread().ident:
            seconds = SIGNAL_SECONDS if seconds is None else min(seconds, SIGNAL_SECONDS)
        self._waiting = True
        self._channel.lock.release()
        try:
            self._channel.loop.relay.wait(self._wake_up, seconds)
        finally:
            self._channel.lock.acquire()
            self._waiting = False

    def _resume(self) -> bool:
        """Whether the channel must be marked because the inbox has room again."""
        if self.curbed:
            return self._channel.mark_locked()
        if (
            self.paused
            and len(self.inbox.messages) * 4 <= self._max_messages
            and self.inbox.size * 4 <= self._max_bytes
        ):
            self.paused = False
            return self._channel.mark_locked()
        return False
