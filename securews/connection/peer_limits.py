"""What a peer may not do for long: hold a message open, or flood us with control frames.

Nothing here runs per message: the message's deadline is one timer that looks when it is due, and
the control frames of a read are counted together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securews.ground.deadlines import Timer, rounded_up
from securews.ground.errors import ProtocolError

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["PeerLimits"]

TICK = 1.0
"""Seconds to which the message deadline is rounded up, so that connections share wake-ups."""
MIN_RATE = 1024
"""Bytes per second: a message that comes faster may take as long as it needs."""


class PeerLimits:
    """Loop thread only."""

    __slots__ = ("_began", "_connection", "_timeout", "_timer", "_tokens", "_tokens_at")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timeout = connection.options.message_timeout
        self._tokens = float(connection.limits.control_burst)
        self._tokens_at = connection.loop.now
        self._began: float | None = None
        self._timer: Timer | None = None

    def count_control(self, frames: int) -> None:
        """Take tokens for control frames (a token bucket).

        Raises:
            ProtocolError: more came than `control_rate` and `control_burst` allow (1008).
        """
        now, limits = self._connection.loop.now, self._connection.limits
        refill = (now - self._tokens_at) * limits.control_rate
        self._tokens = min(float(limits.control_burst), self._tokens + refill) - frames
        self._tokens_at = now
        if self._tokens < 0:
            raise ProtocolError(
                f"more than {limits.control_rate:g} control frames a second", close_code=1008
            )

    def message_unfinished(self, *, another: bool) -> None:
        """After a read a message is incomplete; `another`: not the one of the last read."""
        now = self._connection.loop.now
        if self._began is None or another:
            self._began = now
        if self._timer is None and self._timeout is not None:
            self._arm(now + self._timeout)

    def message_finished(self) -> None:
        """After a read no message is incomplete."""
        self._began = None

    def reading_resumed(self) -> None:
        """We did not read for a while: that was not the peer's fault."""
        if self._began is not None:
            self._began = self._connection.loop.now

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        self._timer = self._connection.loop.timers.call_at(rounded_up(when, TICK), self._check)

    def _check(self) -> None:
        self._timer = None
        if self._began is None or self._timeout is None:
            return
        now = self._connection.loop.now
        seconds = now - self._began
        if seconds < self._timeout or not self._connection.channel.reading:
            self._arm(max(now, self._began) + self._timeout)
        elif self._connection.protocol.unfinished >= MIN_RATE * seconds:
            self._arm(now + TICK)
        else:
            self._connection.fail(
                ProtocolError(
                    f"a message was not complete after {self._timeout:g} s", close_code=1008
                )
            )
