"""SIGINT and SIGTERM end a server that runs in the main thread; a second one forces it.

A signal handler sets a flag and writes to the loop's wake-up descriptor: it runs between any two
instructions of the main thread, where a lock or a log record could be half done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from securews.server.loop import Loop

__all__ = ["stop_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(loop: Loop, stop: Callable[[int], None]) -> Iterator[None]:
    """While inside, in the main thread: `stop(n)` on the loop's thread for the nth signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = 0
    told = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        del number, frame
        received += 1
        loop.wake()

    def tell() -> None:
        nonlocal told
        while told < received:
            told += 1
            stop(told)

    loop.on_wake_up = tell
    previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: it was not set from Python, and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        loop.on_wake_up = None
