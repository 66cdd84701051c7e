"""What a peer may not do for long: hold a message open, or flood us with frames.

Nothing here runs per message: the message's deadline is one timer that looks when it is due, and
the frames of a read are counted together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securews.common.deadlines import rounded_up
from securews.common.errors import ProtocolError
from securews.loop.timers import Timer

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["PeerLimits", "TokenBucket"]

TICK = 1.0
"""Seconds to which the message deadline is rounded up, so that connections share wake-ups."""
MIN_RATE = 1024
"""Bytes per second: a message that comes faster may take as long as it needs."""


class TokenBucket:
    """Holds `burst` tokens at most, and gets `rate` new ones a second."""

    __slots__ = ("_at", "_burst", "_tokens", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self._burst = self._tokens = burst
        self._at = now

    def take(self, count: int, now: float) -> bool:
        """Take `count` tokens; False where there were fewer."""
        refill = (now - self._at) * self.rate
        self._tokens = min(self._burst, self._tokens + refill) - count
        self._at = now
        return self._tokens >= 0


class PeerLimits:
    """Loop thread only."""

    __slots__ = (
        "_began",
        "_connection",
        "_control",
        "_messages",
        "_timeout",
        "_timer",
        "counts_messages",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timeout = connection.options.message_timeout
        now, limits = connection.loop.now, connection.limits
        self._control = TokenBucket(limits.control_rate, float(limits.control_burst), now)
        rate = connection.options.message_rate
        self._messages = None if rate is None else TokenBucket(rate, max(1.0, rate), now)
        self.counts_messages = rate is not None
        self._began: float | None = None
        self._timer: Timer | None = None

    def count(self, *, control: int, messages: int) -> None:
        """Take tokens for the control frames and messages of one read.

        Raises:
            ProtocolError: more came than `control_rate` and `control_burst`, or `message_rate`,
                allow (1008).
        """
        now = self._connection.loop.now
        if control and not self._control.take(control, now):
            raise _too_many(self._control, "control frames")
        if messages and self._messages is not None and not self._messages.take(messages, now):
            raise _too_many(self._messages, "messages")

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
        elif self._connection.protocol.message_received >= MIN_RATE * seconds:
            self._arm(now + TICK)
        else:
            self._connection.fail(
                ProtocolError(
                    f"a message was not complete after {self._timeout:g} s", close_code=1008
                )
            )


def _too_many(bucket: TokenBucket, what: str) -> ProtocolError:
    return ProtocolError(f"more than {bucket.rate:g} {what} a second", close_code=1008)
