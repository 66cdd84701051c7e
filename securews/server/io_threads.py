"""The I/O threads of a server: one loop each, and the connections that are pinned to it.

Nearly everything of a connection happens on the thread of its loop alone, so most of the code
knows one loop and asks no questions. What the threads share (who may come in, the threads for
user code, the list of sessions, counters) has a lock of its own. The first thread does the
server's own work, too: it accepts, keeps the server's deadlines, and runs the stop.
"""

from __future__ import annotations

import sysconfig
import threading
from collections.abc import Callable
from functools import partial

from securews.common.deadlines import Deadline
from securews.common.errors import ConfigurationError
from securews.common.interpreter import gil_enabled
from securews.connection.budget import Budget
from securews.connection.channel import Channel
from securews.loop.loop import Loop

__all__ = ["IOThread", "IOThreads", "check_io_threads"]


class IOThread:
    """A loop, the connections that are pinned to it, and what they may hold together."""

    def __init__(self, name: str, max_buffered: int) -> None:
        self.name = name
        self.loop = Loop()
        self.budget = Budget(max_buffered)
        self._channels: set[Channel] = set()
        self._lock = threading.Lock()

    def add(self, channel: Channel) -> None:
        """Any thread: a descriptor that a peer has open here."""
        with self._lock:
            self._channels.add(channel)

    def remove(self, channel: Channel) -> None:
        """Any thread: it is closed."""
        with self._lock:
            self._channels.discard(channel)

    def channels(self) -> list[Channel]:
        """Any thread: those that are open, as they are now."""
        with self._lock:
            return list(self._channels)

    @property
    def load(self) -> int:
        """Any thread: how many are open."""
        with self._lock:
            return len(self._channels)


class IOThreads:
    """All of them; `first` is the one that accepts.

    Args:
        count: how many.
        max_buffered: of the server. Each thread has an even share for itself: a sum over all
            would be a lock in every read and write.
    """

    def __init__(self, count: int, max_buffered: int) -> None:
        names = ["securews-io", *(f"securews-io-{number}" for number in range(2, count + 1))]
        self.every = [IOThread(name, max(1, max_buffered // count)) for name in names]
        self.first = self.every[0]
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._lock = threading.Lock()

    def least_loaded(self) -> IOThread:
        """Where the next connection goes: WebSockets stay, so turns would not keep it even."""
        return self.first if len(self.every) == 1 else min(self.every, key=lambda io: io.load)

    def has_channels(self) -> bool:
        """Any thread: whether a peer has anything open."""
        return any(io.load for io in self.every)

    def has_caller(self) -> bool:
        """Any thread: whether the calling one is one of these."""
        return any(io.loop.on_loop_thread() for io in self.every)

    def start(self, over: Callable[[], None], failed: Callable[[str, BaseException], None]) -> None:
        """Start them as daemons.

        Args:
            over: called once, by the last that ends.
            failed: called by a thread that has to end because of what was raised in its loop,
                with its name, before it aborts its connections.

        Raises:
            RuntimeError: the process has no threads left; those that were started end.
        """

        def run(io: IOThread) -> None:
            try:
                io.loop.run()
            finally:
                with self._lock:
                    self._running -= 1
                    last = self._running == 0
                if last:
                    over()

        self._running = len(self.every)
        for io in self.every:
            io.loop.on_failure = partial(failed, io.name)
            thread = threading.Thread(target=run, args=(io,), name=io.name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._give_up(over)
                raise
            self._threads.append(thread)

    def _give_up(self, over: Callable[[], None]) -> None:
        """One could not be started, so none is wanted."""
        self.stop()
        with self._lock:
            self._running -= len(self.every) - len(self._threads)
            none = self._running == 0
        if none:
            over()

    def join(self, deadline: Deadline) -> None:
        """Wait until all have ended, or the deadline comes. Not on one of them."""
        for thread in self._threads:
            thread.join(deadline.remaining())

    def stop(self) -> None:
        """Any thread: end them after their present turn."""
        for io in self.every:
            io.loop.stop()


def check_io_threads(count: int) -> None:
    """ConfigurationError for more I/O threads than can run at once in this interpreter."""
    if count == 1 or not gil_enabled():
        return
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ConfigurationError(
            f"io_threads={count}: this Python is free-threaded, but its GIL is on, by PYTHON_GIL=1 "
            "or for an extension module that is not known to be safe without; python -X gil=0 "
            "leaves it off"
        )
    raise ConfigurationError(
        f"io_threads={count} needs a free-threaded Python: this one has a GIL, which would let "
        "only one of them run at a time, and slow all down; use more processes: "
        f"securews serve --workers {count}"
    )
