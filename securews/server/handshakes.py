"""Handshake workers: threads that run TLS handshake steps and nothing else.

A full handshake costs a third of a millisecond and more of signing; on the loop it would hold up
every open connection. A silent peer costs no worker: its socket is parked in the loop, and a step
runs only when bytes are there. Where more than `max_handshakes` steps wait for a worker, nobody
new is accepted, so that a flood of handshakes queues in the kernel, where it harms nobody.

A step runs code of the user (`authorize=`, streams of their own), which may raise anything: that
ends its own handshake and no worker. Somebody may still end a worker from outside
(`PyThreadState_SetAsyncExc`). So nothing is counted that only a living worker gives back: a step is
in the queue until the moment in which a worker takes it, and who ends is replaced.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from securews.common.errors import HandshakeError, without_frames
from securews.loop.loop import Loop
from securews.transport.socket_handler import SocketStream, Want

__all__ = ["HandshakeWorkers"]

log = logging.getLogger("securews.server")

Report = Callable[[Want | Exception], None]
Step = tuple[SocketStream, Loop, Report]


class HandshakeWorkers:
    """The steps of all connections run on workers; each is reported on its connection's loop.

    Args:
        workers: threads, started when first needed; not more than `limit`.
        limit: steps that wait for a worker before `busy` is said.

    Attributes:
        threads: the workers that there are.
    """

    def __init__(self, workers: int, limit: int) -> None:
        self._workers = min(workers, limit)
        self._limit = limit
        self._lock = threading.Lock()
        """Guards all of the following but `_wake_ups`; held for no wait and no call to others."""
        self._steps: deque[Step] = deque()
        self._running = 0
        self._room_wanted: list[tuple[Loop, Callable[[], None]]] = []
        self._closed = False
        self._started = 0
        self.threads: list[threading.Thread] = []
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One for each step, and one for each worker that is to end; one too many is harmless."""

    @property
    def busy(self) -> bool:
        """Any thread: whether so many wait that no further connection should be accepted."""
        return len(self._steps) >= self._limit

    def has_caller(self) -> bool:
        """Any thread: whether the calling one is one of the workers, and so must not wait."""
        me = threading.get_ident()
        return any(thread.ident == me for thread in list(self.threads))

    def submit(self, stream: SocketStream, loop: Loop, report: Report) -> None:
        """Any thread: run one step of `stream`, and call `report` on the loop's thread.

        The report is what `handshake()` returned or a HandshakeError or OSError, without frames.
        Nobody else may touch the stream before it.
        """
        with self._lock:
            self._steps.append((stream, loop, report))
            worker = self._worker_wanted()
        self._wake_ups.put(None)
        self._start(worker)

    def when_room(self, loop: Loop, callback: Callable[[], None]) -> None:
        """Any thread: call back on the loop's thread once `busy` is over."""
        with self._lock:
            if self.busy:
                self._room_wanted.append((loop, callback))
                return
        loop.call_soon(callback)

    def close(self) -> None:
        """Any thread: end the workers after what is queued."""
        with self._lock:
            self._closed = True
            count = len(self.threads)
        for _ in range(count):
            self._wake_ups.put(None)

    # -- internal: workers -----------------------------------------------------------------

    def _worker_wanted(self) -> threading.Thread | None:
        """With the lock held: one more, not started yet, if there is work for it."""
        wanted = min(self._workers, len(self._steps) + self._running)
        if self._closed or len(self.threads) >= wanted:
            return None
        self._started += 1
        name = f"securews-handshake-{self._started}"
        worker = threading.Thread(target=self._work, name=name, daemon=True)
        self.threads.append(worker)
        return worker

    def _start(self, worker: threading.Thread | None) -> None:
        if worker is None:
            return
        try:
            worker.start()
        except RuntimeError as error:  # the process has no threads left
            with self._lock:
                self.threads.remove(worker)
                failed = [] if self.threads else list(self._steps)
                if failed:
                    self._steps.clear()
            for _, loop, report in failed:
                loop.call_soon(partial(report, HandshakeError(str(error))))

    def _work(self) -> None:
        step: Step | None = None
        try:
            while (step := self._next()) is not None:
                result = self._run(step[0])
                loop, report, step = step[1], step[2], None
                loop.call_soon(partial(report, result))
                del loop, report, result  # or an idle worker keeps a connection alive
        except BaseException:
            log.exception("a handshake worker was ended from outside; another one goes on")
            if step is not None:
                step[1].call_soon(partial(step[2], HandshakeError("its worker was ended")))
        finally:
            self._ended()

    def _next(self) -> Step | None:
        """Wait for a step; None if there will be no more."""
        while True:
            self._wake_ups.get()
            wanted: list[tuple[Loop, Callable[[], None]]] = []
            with self._lock:
                if self._steps:
                    self._running += 1
                    step = self._steps.popleft()
                    if not self.busy:
                        wanted, self._room_wanted = self._room_wanted, wanted
                elif self._closed:
                    return None
                else:
                    continue
            for loop, callback in wanted:
                loop.call_soon(callback)
            return step

    def _run(self, stream: SocketStream) -> Want | Exception:
        try:
            return stream.handshake()
        except (HandshakeError, OSError) as error:
            return without_frames(error)  # they hold the stream, which holds the error
        except BaseException as error:
            log.exception("a handshake raised; it is ended")
            return HandshakeError(f"internal error: {type(error).__name__}")
        finally:
            with self._lock:
                self._running -= 1

    def _ended(self) -> None:
        """In a worker that ends: another one does what it would have done."""
        with self._lock:
            self.threads = [each for each in self.threads if each.ident != threading.get_ident()]
            worker = self._worker_wanted()
        self._wake_ups.put(None)  # it may have taken one with it
        self._start(worker)
