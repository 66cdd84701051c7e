"""What runs in the background ends before the interpreter does.

A daemon thread that still runs while the interpreter is finalized is frozen or ended wherever it
is, and what it has left open is broken off: peers see a connection that is reset. So whoever runs
an I/O loop registers here when it starts, and is ended when the program has come to its end: after
`threading` has waited for all threads that are no daemons, and before the interpreter takes
anything down (functions of `atexit` run in between, while daemon threads go on). It is registered
with `atexit` at the first start, and the last registered is called first: so it runs after what
the program has registered since, and before what it had registered earlier, such as the closing of
a log or a database that handlers use.

A process that was forked has inherited what is registered and none of the threads: it ends only
what it has started itself.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import Protocol

from securews.common.deadlines import Deadline

__all__ = ["GRACE", "EndsAtExit", "end_at_exit"]

log = logging.getLogger("securews.server")

GRACE = 1.0
"""Seconds that all of them together have for closing handshakes and handlers, before they abort."""


class EndsAtExit(Protocol):
    """Runs an I/O loop. Both methods are called in the main thread, once, and write nothing."""

    def begin_exit(self) -> None:
        """Begin to close every connection with 1001; do not wait."""

    def finish_exit(self, deadline: Deadline) -> None:
        """Wait for that until the deadline; then abort what is left, and join the I/O threads.

        It may take a moment longer than the deadline, but not much.
        """


_registered = False
_running: weakref.WeakKeyDictionary[EndsAtExit, int] = weakref.WeakKeyDictionary()
"""Whom to end, and in which process."""


def end_at_exit(owner: EndsAtExit) -> None:
    """Any thread: have `owner` ended when the interpreter exits, if it still exists then."""
    global _registered  # noqa: PLW0603 - of the process, as atexit is
    if not _registered:  # without a lock, which a fork could copy taken: twice does no harm
        _registered = True
        atexit.register(_end_all)
    _running[owner] = os.getpid()


def _end_all() -> None:
    process = os.getpid()
    owners = [owner for owner, started_in in list(_running.items()) if started_in == process]
    deadline = Deadline(GRACE)
    try:
        for owner in owners:
            owner.begin_exit()
        for owner in owners:
            owner.finish_exit(deadline)
    except BaseException:  # a second Ctrl-C does not want to wait
        log.debug("the end at the interpreter's exit was broken off", exc_info=True)
