"""The threads that run user code: the pool, and the three accepting methods."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from securews.common.interpreter import ends_the_program
from securews.server.request_gate import RequestGate

__all__ = ["AcceptingThreads", "Job", "NewThreads", "Pool", "SerialThread"]

log = logging.getLogger("securews.server")

Job: TypeAlias = Callable[[], None]

IDLE_SECONDS = 5.0
"""An idle thread of the pool ends after this long."""


class AcceptingThreads(Protocol):
    """Runs `accept()` and `handle_communication()`."""

    def submit(self, job: Job) -> bool:
        """Any thread: run `job` soon. False if there is no thread for it."""


class Pool:
    """Threads that are used again. A job never waits: it gets a thread, or is refused.

    Args:
        size: threads at most.
        name: of the threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False
        self._started = 0
        self.threads: set[threading.Thread] = set()

    def submit(self, job: Job) -> bool:
        """Any thread: run `job` in a thread of the pool. False if all are busy."""
        with self._changed:
            if self._closed:
                return False
            if self._idle > len(self._jobs):
                self._jobs.append(job)
                self._changed.notify()
                return True
            if len(self.threads) >= self._size:
                return False
            self._started += 1
            thread = threading.Thread(
                target=self._work, args=([job],), name=f"{self._name}-{self._started}", daemon=True
            )
            self.threads.add(thread)
        return _start(thread, self._forget)

    def close(self) -> None:
        """End the threads that are idle; the others end after their job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _forget(self, thread: threading.Thread) -> None:
        with self._changed:
            self.threads.discard(thread)

    def _work(self, first: list[Job]) -> None:
        # In a list that is emptied: the Thread keeps its arguments for as long as it lives.
        job: Job | None = first.pop()
        try:
            while job is not None:
                _run(job)
                job = None  # what it refers to must not live as long as an idle thread
                job = self._next()
        finally:
            self._forget(threading.current_thread())

    def _next(self) -> Job | None:
        with self._changed:
            if self._jobs:
                return self._jobs.popleft()
            self._idle += 1
            try:
                while not self._jobs and not self._closed:
                    if not self._changed.wait(IDLE_SECONDS) and not self._jobs:
                        break
                if self._jobs:
                    return self._jobs.popleft()
                self.threads.discard(threading.current_thread())  # so that another may start
                return None
            finally:
                self._idle -= 1


class NewThreads:
    """A new thread for each job (AcceptingMethod.THREADED)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._started = 0
        self.threads: set[threading.Thread] = set()

    def submit(self, job: Job) -> bool:
        """Any thread: run `job` in a new thread. False if none can be started."""
        with self._lock:
            self._started += 1
            thread = threading.Thread(
                target=self._work, args=(job,), name=f"{self._name}-{self._started}", daemon=True
            )
            self.threads.add(thread)
        return _start(thread, self._forget)

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self.threads.discard(thread)

    def _work(self, job: Job) -> None:
        try:
            _run(job)
        finally:
            self._forget(threading.current_thread())


class SerialThread:
    """The thread inside `start()`, one job after another (AcceptingMethod.SERIAL).

    `gate` has one place: who submits a job holds it until the job has ended. So the requests that
    wait do it there, where they can be withdrawn, and no jobs queue here.
    """

    def __init__(self) -> None:
        self.gate = RequestGate(1)
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._runs_in: threading.Thread | None = None
        """The thread that runs a job at present."""

    def submit(self, job: Job) -> bool:
        """Any thread: run `job` next. False after the end of `run`."""
        with self._changed:
            if self._closed:
                return False
            self._jobs.append(job)
            self._changed.notify()
        return True

    def run(self) -> None:
        """The thread inside `start()`: work until `close()`.

        Raises:
            KeyboardInterrupt: a job has raised it, and this is the main thread; this is the end.
        """
        try:
            while (job := self._next()) is not None:
                self._runs_in = threading.current_thread()
                try:
                    _run(job)
                finally:
                    self._runs_in = None
                    del job  # what it refers to must not live until the next one
        finally:
            self.close()

    def has_caller(self) -> bool:
        """Any thread: whether the calling one runs a job here at this moment."""
        return self._runs_in is threading.current_thread()

    def close(self) -> None:
        """End `run()` after the present job; a job that waits is dropped."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _next(self) -> Job | None:
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            return None if self._closed else self._jobs.popleft()


def _start(thread: threading.Thread, forget: Callable[[threading.Thread], None]) -> bool:
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:  # no threads left: RLIMIT_NPROC, memory
        forget(thread)
        log.warning("no thread could be started (%s); the request is answered with 503", error)
        return False
    return True


def _run(job: Job) -> None:
    """Run a job; its thread survives whatever it raises, but for what ends the program."""
    try:
        job()
    except BaseException as error:
        if ends_the_program(error):
            raise
        log.exception("internal error in a thread of the server")
