"""SIGINT and SIGTERM end a server that runs in the main thread; a second one forces it.

SIGHUP has the certificate files read again.

A signal handler sets a flag and writes to the loop's wake-up descriptor: it runs between any two
instructions of the main thread, where a lock or a log record could be half done.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from securews.server.loop import Loop

__all__ = ["signals_handled"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_handled(
    loop: Loop, stop: Callable[[int], None], reload: Callable[[], None]
) -> Iterator[None]:
    """While inside, in the main thread: `stop(n)` for the nth signal to end, `reload()` on SIGHUP.

    Both on the loop's thread. On a terminal SIGHUP keeps its meaning: the terminal is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: deque[int] = deque()  # appending is one step, so no signal gets lost
    stops = 0

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        pending.append(number)
        loop.wake()

    def tell() -> None:
        nonlocal stops
        while pending:
            if pending.popleft() == signal.SIGHUP:
                reload()
            else:
                stops += 1
                stop(stops)

    numbers = (*SIGNALS, signal.SIGHUP) if not _on_terminal() else SIGNALS
    loop.on_wake_up = tell
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: it was not set from Python, and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        loop.on_wake_up = None


def _on_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
