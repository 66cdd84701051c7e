"""How a server ends: listener first, then a Close to everybody, then at most the grace.

All of it is driven by the first I/O thread's loop: nothing here waits. It is over when every
descriptor is closed and every handler has returned; what is left when the grace has passed is
aborted, and a handler that does not return even then is abandoned with a warning that names it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial

from securews.loop import at_exit
from securews.loop.timers import Timer
from securews.server.core import Core
from securews.server.io_threads import IOThread
from securews.server.opening import Opening
from securews.server.session import Session

__all__ = ["GRACE", "Stopping"]

log = logging.getLogger("securews.server")

GRACE = 10.0
"""Seconds that connections and handlers have to end, unless somebody says otherwise."""
LAST_MOMENT = 0.5
"""Seconds that handlers have to return after their connections were aborted."""
LAST_MOMENT_AT_EXIT = 0.1
"""The same when the interpreter exits, which does not wait for them."""


class Stopping:
    """One stop of one server. First I/O thread only, except where said.

    Args:
        core: of the server.
        close_listeners: called first.
        done: called once when everything has ended or was abandoned.
    """

    def __init__(
        self, core: Core, close_listeners: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self._core = core
        self._close_listeners = close_listeners
        self._done = done
        self._timer: Timer | None = None
        self._aborted = False
        self._over = False
        self._at_exit = False

    def begin_at_exit(self) -> None:
        """Start to stop because the interpreter exits: quickly, and without a word."""
        self._at_exit = True
        self.begin(at_exit.GRACE, 0.0, 1001)

    def begin(self, grace: float, jitter: float, code: int) -> None:
        """Start to stop; called again, it can only shorten the grace to 0."""
        core = self._core
        if not core.stopping:
            core.stop_asked = core.stopping = True
            core.check_stopped = self._check_soon
            self._close_listeners()
            core.serial.close()
            for session in core.sessions():
                if jitter > 0 and grace > 0:
                    delay = random.uniform(0, jitter)  # noqa: S311 - spreads load, hides nothing
                    closing = partial(_close, session, code)
                    core.loop.call_later(delay, closing)
                elif grace > 0:
                    _close(session, code)
            self._end_openings(at_once=False)
            self._timer = core.loop.call_later(grace + jitter, self._abort_all)
        if grace <= 0:
            self._abort_all()
        self._check()

    def _end_openings(self, *, at_once: bool) -> None:
        for io in self._core.io.every:
            if io is self._core.io.first:
                self._end_openings_of(io, at_once=at_once)
            else:
                io.loop.call_soon(partial(self._end_openings_of, io, at_once=at_once))

    @staticmethod
    def _end_openings_of(io: IOThread, *, at_once: bool) -> None:
        """On this I/O thread. An opening ends itself: a handshake worker may have its stream."""
        for channel in io.channels():
            if isinstance(channel.consumer, Opening):
                channel.consumer.server_stops(at_once=at_once)
            elif at_once:
                channel.abort()

    def _abort_all(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._end_openings(at_once=True)
        if self._timer is not None:
            self._timer.cancel()
        moment = LAST_MOMENT_AT_EXIT if self._at_exit else LAST_MOMENT
        self._timer = self._core.loop.call_later(moment, self._abandon)

    def _abandon(self) -> None:
        for peer, name, thread in self._core.leases.at_work():
            log.log(
                logging.DEBUG if self._at_exit else logging.WARNING,
                "%s: %s has not returned since its connection was closed; its thread %s is "
                "abandoned",
                peer,
                name,
                thread,
            )
        self._finish()

    def _check_soon(self) -> None:
        """Any thread: something has ended."""
        if self._core.loop.on_loop_thread():
            self._check()
        else:
            self._core.loop.call_soon(self._check)

    def _check(self) -> None:
        if not self._core.io.has_channels() and not self._core.leases.count:
            self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._core.pool.close()
        self._core.handshakes.close()
        if self._core.options.free_handlers:
            for handler in self._core.router.handlers:
                try:
                    handler.close()
                except BaseException:
                    log.exception("%s.close() raised", type(handler).__name__)
        self._done()


def _close(session: Session, code: int) -> None:
    session.connection.start_close(code, "the server stops")
