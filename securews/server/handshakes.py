"""Handshake workers: threads that run TLS handshake steps and nothing else.

A full handshake costs a third of a millisecond and more of signing; on the loop it would hold up
every open connection. A silent peer costs no worker: its socket is parked in the loop, and a step
runs only when bytes are there. Not more than `max_handshakes` peers are at work at once, so that
a flood of handshakes queues where it harms nobody.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

from securews.common.errors import HandshakeError
from securews.loop.loop import Loop
from securews.transport.socket_handler import SocketStream, Want

__all__ = ["HandshakeWorkers"]

Report = Callable[[Want | Exception], None]
Step = tuple[SocketStream, Loop, Report]


class HandshakeWorkers:
    """The steps of all connections run on workers; each is reported on its connection's loop.

    Args:
        workers: threads, started when first needed.
        limit: steps that are queued or running at once; the rest waits its turn.
    """

    def __init__(self, workers: int, limit: int) -> None:
        self._workers = workers
        self._limit = limit
        self._queue: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._waiting: deque[Step] = deque()
        self._active = 0
        self._room_wanted: list[tuple[Loop, Callable[[], None]]] = []
        self._lock = threading.Lock()
        """Guards what waits and what is active."""
        self.threads: list[threading.Thread] = []

    @property
    def busy(self) -> bool:
        """Any thread: whether so many wait that no further connection should be accepted."""
        return len(self._waiting) >= self._limit

    def submit(self, stream: SocketStream, loop: Loop, report: Report) -> None:
        """Any thread: run one step of `stream`, and call `report` on the loop's thread.

        Nobody else may touch the stream before the report.
        """
        with self._lock:
            if self._active >= self._limit:
                self._waiting.append((stream, loop, report))
            else:
                self._begin((stream, loop, report))

    def when_room(self, loop: Loop, callback: Callable[[], None]) -> None:
        """Any thread: call back on the loop's thread once `busy` is over."""
        with self._lock:
            if self.busy:
                self._room_wanted.append((loop, callback))
                return
        loop.call_soon(callback)

    def close(self) -> None:
        """End the workers after what is queued."""
        with self._lock:
            for _ in self.threads:
                self._queue.put(None)

    def _begin(self, step: Step) -> None:
        """With the lock held."""
        self._active += 1
        if len(self.threads) < self._workers and self._active > len(self.threads):
            try:
                self._start_worker()
            except RuntimeError as error:  # the process has no threads left
                if not self.threads:
                    step[1].call_soon(_Done(self, step[2], HandshakeError(str(error))))
                    return
        self._queue.put(step)

    def _start_worker(self) -> None:
        name = f"securews-handshake-{len(self.threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _work(self) -> None:
        while (step := self._queue.get()) is not None:
            stream, loop, report = step
            result: Want | Exception
            try:
                result = stream.handshake()
            except Exception as error:
                result = error
            loop.call_soon(_Done(self, report, result))
            del step, stream, loop, report, result  # or an idle worker keeps a connection alive

    def _finished(self) -> None:
        with self._lock:
            self._active -= 1
            if self._waiting:
                self._begin(self._waiting.popleft())
            wanted: list[tuple[Loop, Callable[[], None]]] = []
            if not self.busy:
                wanted, self._room_wanted = self._room_wanted, wanted
        for loop, callback in wanted:
            loop.call_soon(callback)


class _Done:
    """The report of one step, on the thread of the connection's loop."""

    __slots__ = ("_report", "_result", "_workers")

    def __init__(self, workers: HandshakeWorkers, report: Report, result: Want | Exception) -> None:
        self._workers, self._report, self._result = workers, report, result

    def __call__(self) -> None:
        self._workers._finished()
        self._report(self._result)
