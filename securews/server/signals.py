"""SIGINT and SIGTERM end a server that runs in the main thread; a second one forces it.

SIGHUP has the certificate files read again.

What counts is done by the interpreter's own handler, in C, which at once writes the signal's number
to the loop's wake-up descriptor (`signal.set_wakeup_fd`). A handler in Python would run when the
main thread comes to it, and that may wait: a signal just before a wait for a lock does not end it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from securews.loop.loop import Loop

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
    stops = 0

    def tell(signals: bytes) -> None:
        nonlocal stops
        for number in signals:
            if number in SIGNALS:
                stops += 1
                stop(stops)
            elif number == signal.SIGHUP and number in handled:
                reload()  # any other has a handler of the program's own

    handled = SIGNALS if _on_terminal() else (*SIGNALS, signal.SIGHUP)
    loop.on_signals = tell
    previous = {number: signal.signal(number, _nothing) for number in handled}
    descriptor = signal.set_wakeup_fd(loop.signal_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in previous.items():
            # None: it was not set from Python, and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        loop.on_signals = None


def _nothing(number: int, frame: FrameType | None) -> None:
    """Only because a signal without a handler in Python is not written anywhere."""


def _on_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
