"""The parent of `--workers N`: it holds the port, and keeps N processes serving on it.

Theory of operation
-------------------
The parent binds and listens, and then serves nothing itself: nothing that a peer or a handler
does can reach it, and it needs neither the handler's module nor the certificate. A worker is the
command that the parent was, run once more (a fork would copy locks that nobody releases), with
the listening descriptors and one end of a socket pair, its lifeline (see worker.py).

The first worker shows whether all of them can start; only then come the others. Should it fail,
its error is the command's, said once. Later a worker that has ended is replaced at once, and one
that does not live long after longer and longer pauses; where even that does not help the parent
gives up, for that worker's share of the clients would wait for ever.

What is wanted of a worker is a state and not a queue of words: a reload is wanted or not, and an
end overrules it. A storm of SIGHUPs is one reload, and another one when that is over; each word
to a worker is one that has room in the lifeline, whatever the worker does meanwhile. Signals are
kept in the same way (`_Signals`).

Words go over the lifeline and not by signals: systemd and `docker stop` may send SIGTERM to every
process of a service, and for a worker that gets the parent's, too, the second would mean force.
For the same reason a worker has a process group of its own, or Ctrl-C would reach it directly.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

from securews.cli.worker import FORCE, RELOAD, RELOADED, STOP, VARIABLE
from securews.server.stopping import GRACE

__all__ = ["Workers"]

log = logging.getLogger("securews.workers")

YOUNG = 5.0
"""Seconds after its start within which the end of a worker is no accident."""
FIRST_PAUSE = 0.1
"""Seconds before the second new start of a worker that ended young; twice that before the next."""
MAX_YOUNG = 5
"""So many ends in a row, each of them young, end the parent."""
HARD_END = GRACE + 5.0
"""Seconds that workers have to drain; who takes longer hangs, and is killed."""
FORCED_END = 3.0
"""The same after a second signal."""
RETRY = 1.0
"""Seconds until the next try where the system has no room for a process."""
FAILURE = 1


class Worker:
    """One place among the workers: its listening sockets, and the process that has it now."""

    def __init__(self, number: int, listeners: list[socket.socket]) -> None:
        self.number = number
        self.listeners = listeners
        self.process: subprocess.Popen[bytes] | None = None
        self.lifeline: socket.socket | None = None
        self.serving = False
        self._reload_wanted = False
        self._reloading = False
        """A RELOAD is on its way, or at work."""
        self.started_at = 0.0
        self.young_ends = 0
        self.start_at: float | None = None
        """When the next process is due; None while there is one."""

    def __str__(self) -> str:
        pid = "" if self.process is None else f" (process {self.process.pid})"
        return f"worker {self.number}{pid}"

    def start(self) -> None:
        """Start a process. OSError: the system has no room for it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptors = [*(sock.fileno() for sock in self.listeners), theirs.fileno()]
        self.started_at, self.start_at, self.serving = time.monotonic(), None, False
        self._reload_wanted = self._reloading = False  # a new one has new files anyway
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - this very command line
                    [sys.executable, *sys.orig_argv[1:]],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    process_group=0,
                    env=os.environ | {VARIABLE: ",".join(map(str, descriptors))},
                )
            except OSError:
                ours.close()
                raise
        self.lifeline = ours

    def listens(self) -> None:
        """It has said so: it serves, or has read the certificate files."""
        self.serving, self._reloading = True, False
        self._offer_reload()

    def reload(self) -> None:
        """Have it read the certificate files, once it serves and has read them the last time."""
        self._reload_wanted = True
        self._offer_reload()

    def end(self, *, at_once: bool) -> None:
        """Have it end, in order or at once."""
        if self.serving:
            self._tell(FORCE if at_once else STOP)
        elif self.process is not None:
            self.process.terminate()  # it still imports, and has nothing to end in order

    def _offer_reload(self) -> None:
        if self._reload_wanted and self.serving and not self._reloading:
            self._reload_wanted, self._reloading = False, True
            self._tell(RELOAD)

    def _tell(self, word: bytes) -> None:
        """Say a word of worker.py, of which there are never more than a few on their way."""
        if self.lifeline is not None:
            try:
                self.lifeline.send(word)
            except OSError:
                pass  # it has just ended


class Workers:
    """Runs workers until a signal ends it, or a worker that cannot live.

    Args:
        listeners: the listening sockets of each worker.
        announce: called once with the URL, when all workers serve.
    """

    def __init__(
        self, listeners: list[list[socket.socket]], announce: Callable[[str], None]
    ) -> None:
        self._workers = [Worker(n, sockets) for n, sockets in enumerate(listeners, 1)]
        self._announce: Callable[[str], None] | None = announce
        self._selector = selectors.DefaultSelector()
        self._ends = 0
        """How many signals to end were obeyed."""
        self._stopping = False
        self._kill_at: float | None = None
        """When workers that are to end and have not are killed."""
        self._exit_code = 0

    def run(self) -> int:
        """Serve until it is over, in the main thread; the exit code."""
        try:
            with _Signals() as signals:
                self._selector.register(signals.bell, selectors.EVENT_READ)
                self._start(self._workers[0])
                while not self._stopping or any(w.process for w in self._workers):
                    for key, _ in self._selector.select(self._time_to_sleep()):
                        if key.fileobj is signals.bell:
                            signals.bell.recv(4096)
                        else:
                            self._read(key.fileobj)
                    self._obey(signals)
                    self._look_after()
            return self._exit_code
        finally:
            self._close()

    # -- what happens ----------------------------------------------------------------------

    def _read(self, lifeline: object) -> None:
        worker = next(worker for worker in self._workers if worker.lifeline is lifeline)
        assert worker.lifeline is not None
        try:
            word = worker.lifeline.recv(4096)  # it says one thing, and the next when told to
        except OSError:
            word = b""
        if not word:
            self._selector.unregister(worker.lifeline)  # SIGCHLD tells of its end
            return
        worker.listens()
        if word != RELOADED:
            self._serves(word.decode())

    def _obey(self, signals: _Signals) -> None:
        if signals.reload:
            signals.reload = False
            for worker in self._workers:
                worker.reload()
        # Once in order, and once at once: more of them do not put off the kill.
        while self._ends < min(signals.ends, 2):
            self._ends += 1
            log.info("stopping on a signal" if self._ends == 1 else "stopping at once")
            self._stop(at_once=self._ends > 1)

    def _serves(self, url: str) -> None:
        """A worker serves: have the others follow, and say so when all do."""
        if self._stopping:
            return
        for worker in self._workers:
            if worker.process is None and worker.start_at is None:
                self._start(worker)
        if self._announce is not None and all(worker.serving for worker in self._workers):
            self._announce(url)
            self._announce = None

    def _look_after(self) -> None:
        """What has ended, and what is due."""
        for worker in self._workers:
            if worker.process is not None and (code := worker.process.poll()) is not None:
                process = str(worker)
                self._forget(worker)
                if not self._stopping:
                    self._replace(worker, process, code)
        now = time.monotonic()
        for worker in self._workers:
            if worker.start_at is not None and now >= worker.start_at and not self._stopping:
                self._start(worker)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for worker in self._workers:
                if worker.process is not None:
                    log.error("%s has not ended in time and is killed", worker)
                    self._exit_code = FAILURE
                    worker.process.kill()

    def _replace(self, worker: Worker, process: str, code: int) -> None:
        """A worker has ended that was not told to: start another, unless that is hopeless."""
        how = f"has ended with exit code {code}" if code >= 0 else f"was ended by {_name_of(-code)}"
        if self._announce is not None:
            if code <= 0:  # else it has said itself what was wrong
                log.error("%s %s before all were there", process, how)
            self._give_up(code)
            return
        young = time.monotonic() - worker.started_at < YOUNG
        worker.young_ends = worker.young_ends + 1 if young else 0
        if worker.young_ends >= MAX_YOUNG:
            log.error(
                "%s %s within %g s of its start, for the %dth time in a row; all workers stop",
                process,
                how,
                YOUNG,
                MAX_YOUNG,
            )
            self._give_up(code)
            return
        log.warning("%s %s and is replaced", process, how)
        pause = 0.0 if worker.young_ends < 2 else FIRST_PAUSE * 2.0 ** (worker.young_ends - 2)
        worker.start_at = time.monotonic() + pause

    # -- what is done ----------------------------------------------------------------------

    def _start(self, worker: Worker) -> None:
        try:
            worker.start()
        except OSError as error:
            if self._announce is not None:
                raise
            log.error("%s could not be started: %s", worker, error.strerror)
            worker.start_at = time.monotonic() + RETRY
            return
        assert worker.lifeline is not None
        self._selector.register(worker.lifeline, selectors.EVENT_READ)

    def _give_up(self, code: int) -> None:
        self._exit_code = code if code > 0 else FAILURE
        self._stop(at_once=False)

    def _stop(self, *, at_once: bool) -> None:
        """Nobody comes in any more, and all workers drain together."""
        self._stopping = True
        kill_at = time.monotonic() + (FORCED_END if at_once else HARD_END)
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        for worker in self._workers:
            for sock in worker.listeners:
                sock.close()
            worker.end(at_once=at_once)

    def _forget(self, worker: Worker) -> None:
        """Its process has ended."""
        worker.process, worker.serving = None, False
        if worker.lifeline is not None:
            if worker.lifeline in self._selector.get_map():
                self._selector.unregister(worker.lifeline)
            worker.lifeline.close()
            worker.lifeline = None

    def _close(self) -> None:
        """Nobody stays behind, after an exception neither."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
                self._forget(worker)
            for sock in worker.listeners:
                sock.close()
        self._selector.close()

    def _time_to_sleep(self) -> float | None:
        due = [w.start_at for w in self._workers if w.start_at is not None and not self._stopping]
        if self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min(due) - time.monotonic()) if due else None


class _Signals:
    """What signals have asked for, while inside; in the main thread.

    On a terminal SIGHUP keeps its meaning: it ends the parent, and the workers drain.

    Attributes:
        bell: readable when a signal has come. It may be full, and says nothing but that.
        reload: whether SIGHUP has come since somebody has set this to False.
        ends: how often SIGINT or SIGTERM has come.
    """

    def __init__(self) -> None:
        self.bell, self._ring = socket.socketpair()
        self.reload = False
        self.ends = 0

    def __enter__(self) -> Self:
        self.bell.setblocking(False)
        self._ring.setblocking(False)
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
        if not (sys.stdin is not None and sys.stdin.isatty()):
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        # The interpreter writes there before it comes to run _note, and runs it before anything
        # else is called: who is woken finds what has been noted.
        self._wakeup = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.bell.close()
        self._ring.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        elif number != signal.SIGCHLD:  # that one only ends the wait
            self.ends += 1


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
