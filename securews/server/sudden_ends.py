"""The ends of a server that nobody asked for: an I/O thread failed, or the interpreter exits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from securews.common.deadlines import Deadline
from securews.server.core import Core
from securews.server.stopping import Stopping

__all__ = ["SuddenEnds"]

log = logging.getLogger("securews.server")

A_MOMENT = 0.25
"""Seconds that threads have to end when the interpreter exits, after the grace."""


class SuddenEnds:
    """Ends one server when it must end at once.

    Args:
        core: of the server.
        stopping: its orderly end.
        close_listeners: first I/O thread only.
        stopped: is set when the server is over.
    """

    def __init__(
        self,
        core: Core,
        stopping: Stopping,
        close_listeners: Callable[[], None],
        stopped: threading.Event,
    ) -> None:
        self._core = core
        self._stopping = stopping
        self._close_listeners = close_listeners
        self._stopped = stopped
        self._failure: tuple[str, BaseException] | None = None
        self._lock = threading.Lock()

    # -- an I/O thread has failed ----------------------------------------------------------

    def failed(self, thread: str, error: BaseException) -> None:
        """On the I/O thread that has to end, before it aborts its connections.

        What its loop knew is unknown, so no orderly stop is possible: the listeners are closed,
        the other I/O threads end, and whoever waits for the server is told.
        """
        with self._lock:
            if self._failure is not None:
                return  # the others end already
            self._failure = thread, error
        core = self._core
        core.stop_asked = True
        try:
            log.critical(
                "the I/O thread %s has failed, and the server stops: every connection is aborted; "
                "start a new process",
                thread,
                exc_info=error,
            )
            if core.loop.on_loop_thread():
                self._close_listeners()
            else:
                core.loop.call_soon(self._close_listeners)
            core.io.stop()
            core.pool.close()
            core.handshakes.close()
        finally:
            core.serial.close()
            self._stopped.set()

    def raise_failure(self) -> None:
        """Raise RuntimeError if the server has ended because an I/O thread failed. Any thread."""
        if self._failure is None:
            return
        thread, error = self._failure
        raise RuntimeError(
            f"the I/O thread {thread} of the server has failed ({type(error).__name__}: {error}), "
            "and the server has stopped: its listeners are closed and its connections aborted; "
            "start a new process (the log has the traceback)"
        ) from error

    # -- the interpreter exits: see loop/at_exit.py ----------------------------------------

    def begin_exit(self) -> None:
        """Close the listeners, and every connection with 1001."""
        self._core.stop_asked = True
        self._core.loop.call_soon(self._stopping.begin_at_exit)

    def finish_exit(self, deadline: Deadline) -> None:
        """Wait for that until the deadline; then abort what is left. Ends the threads."""
        core = self._core
        if not self._stopped.wait(deadline.remaining()):
            core.loop.call_soon(partial(self._stopping.begin, 0.0, 0.0, 1001))
            self._stopped.wait(A_MOMENT)
            core.io.stop()
        moment = Deadline(A_MOMENT)
        core.io.join(moment)
        for thread in [*core.pool.threads, *core.new_threads.threads, *core.handshakes.threads]:
            thread.join(moment.remaining())
