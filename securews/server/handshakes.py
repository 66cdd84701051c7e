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

from securews.ground.errors import HandshakeError
from securews.server.loop import Loop
from securews.transport.socket_handler import SocketStream, Want

__all__ = ["HandshakeWorkers"]

Report = Callable[[Want | Exception], None]
Step = tuple[SocketStream, Report]


class HandshakeWorkers:
    """`submit` and reports on the loop's thread; the steps on workers.

    Args:
        loop: where the reports go.
        workers: threads, started when first needed.
        limit: steps that are queued or running at once; the rest waits its turn.
    """

    def __init__(self, loop: Loop, workers: int, limit: int) -> None:
        self._loop = loop
        self._workers = workers
        self._limit = limit
        self._queue: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._waiting: deque[Step] = deque()
        self._active = 0
        self._room_wanted: list[Callable[[], None]] = []
        self.threads: list[threading.Thread] = []

    @property
    def busy(self) -> bool:
        """Whether so many wait that no further connection should be accepted."""
        return len(self._waiting) >= self._limit

    def submit(self, stream: SocketStream, report: Report) -> None:
        """Run one step of `stream`; nobody else may touch it before the report."""
        if self._active >= self._limit:
            self._waiting.append((stream, report))
        else:
            self._begin((stream, report))

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once `busy` is over."""
        self._room_wanted.append(callback)

    def close(self) -> None:
        """End the workers after what is queued."""
        for _ in self.threads:
            self._queue.put(None)

    def _begin(self, step: Step) -> None:
        self._active += 1
        if len(self.threads) < self._workers and self._active > len(self.threads):
            try:
                self._start_worker()
            except RuntimeError as error:  # the process has no threads left
                if not self.threads:
                    self._loop.call_soon(_Done(self, step[1], HandshakeError(str(error))))
                    return
        self._queue.put(step)

    def _start_worker(self) -> None:
        name = f"securews-handshake-{len(self.threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _work(self) -> None:
        while (step := self._queue.get()) is not None:
            stream, report = step
            result: Want | Exception
            try:
                result = stream.handshake()
            except Exception as error:
                result = error
            self._loop.call_soon(_Done(self, report, result))
            del step, stream, report, result  # or an idle worker keeps a connection alive

    def _finished(self) -> None:
        self._active -= 1
        if self._waiting:
            self._begin(self._waiting.popleft())
        if self._room_wanted and not self.busy:
            wanted, self._room_wanted = self._room_wanted, []
            for callback in wanted:
                callback()


class _Done:
    """The report of one step, on the loop's thread."""

    __slots__ = ("_report", "_result", "_workers")

    def __init__(self, workers: HandshakeWorkers, report: Report, result: Want | Exception) -> None:
        self._workers, self._report, self._result = workers, report, result

    def __call__(self) -> None:
        self._workers._finished()
        self._report(self._result)
