"""The I/O loop that all clients of a process share.

Its thread starts with the first connection and ends with the last one. A thread that could not be
started, or that has ended by an error, leaves nothing behind: the next connection starts another.
"""

from __future__ import annotations

import logging
import os
import threading

from securews.common.deadlines import Deadline
from securews.connection.connection import Connection
from securews.loop.at_exit import end_at_exit
from securews.loop.loop import Loop

__all__ = ["ClientLoop", "client_loop"]

log = logging.getLogger("securews.client")

A_MOMENT = 0.25
"""Seconds that the thread has to end when the interpreter exits, after the grace."""


class ClientLoop:
    """A loop on a thread of its own, for as long as somebody holds it. Any thread."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew in a forked child: it has none of the threads, and perhaps a held lock."""
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._holders = 0
        self._open: set[Connection] = set()

    def acquire(self) -> Loop:
        """The loop, running; `release` follows exactly once.

        Raises:
            OSError: its thread, or its descriptors, could not be made.
        """
        loop = self._hold(None)
        if loop is not None:
            return loop
        started = self._start()  # without the lock: it makes descriptors and a thread
        loop = self._hold(started)
        assert loop is not None
        if loop is not started:
            started.stop()  # another thread was quicker
        return loop

    def opened(self, connection: Connection) -> None:
        """Remember a connection, which is closed when the interpreter exits."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        with self._lock:
            self._open.discard(connection)

    def begin_exit(self) -> None:
        """Close every connection with 1001 (see `loop/at_exit.py`)."""
        if not self._lock.acquire(timeout=A_MOMENT):
            return  # whoever holds it was ended with it
        connections = list(self._open)
        self._lock.release()
        for connection in connections:
            connection.start_close(1001, "the program ends")

    def finish_exit(self, deadline: Deadline) -> None:
        """Wait until they are closed, at most until the deadline; then end the thread."""
        loop, thread = self._loop, self._thread
        if thread is None:
            return
        thread.join(deadline.remaining())
        if loop is not None:
            loop.stop()  # it aborts what is left
        thread.join(A_MOMENT)

    def release(self, loop: Loop) -> None:
        """One holder less; the last one ends the loop."""
        with self._lock:
            if self._loop is not loop:
                return  # it has ended by an error, or it is that of our parent process
            self._holders -= 1
            if self._holders > 0:
                return
            self._loop = None
        loop.stop()

    def _hold(self, started: Loop | None) -> Loop | None:
        """One holder more of the loop; of `started`, where there is none yet."""
        with self._lock:
            if self._loop is None:
                if started is None:
                    return None
                self._loop, self._holders = started, 0
            self._holders += 1
            return self._loop

    def _start(self) -> Loop:
        loop = Loop()
        thread = threading.Thread(
            target=self._run, args=(loop,), name="securews-client-io", daemon=True
        )
        try:
            thread.start()
            end_at_exit(self)
            self._thread = thread
        except RuntimeError as error:
            raise OSError(
                f"the client's I/O thread cannot be started: {error}; close connections or end "
                "threads, and connect again"
            ) from error
        except BaseException:
            loop.stop()  # interrupted while it waited for the thread, which may run
            raise
        return loop

    def _run(self, loop: Loop) -> None:
        """The thread."""
        try:
            loop.run()
        except BaseException:
            log.exception(
                "the I/O thread of the clients has ended, and their connections are lost; the "
                "next connect() starts another"
            )
        finally:
            with self._lock:
                if self._loop is loop:
                    self._loop = None


client_loop = ClientLoop()
if hasattr(os, "register_at_fork"):  # where there is no fork, importing us is no error
    os.register_at_fork(after_in_child=client_loop.forget)
