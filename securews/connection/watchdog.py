"""What time demands of one connection: keepalive, the deadline of a message, rates.

Functions of time and facts that return what to do; nothing here has a clock, a timer or a socket.
The connection calls `check` when `due` has come, acts, and asks again until there is nothing more.

Nothing here runs per message. Any byte from the peer counts as life (RFC 6455, section 5.5.2,
leaves this to us). While we do not read, silence proves nothing: TCP keepalive finds a dead peer.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from securews.common.deadlines import rounded_up
from securews.common.errors import ProtocolError
from securews.common.options import ConnectionOptions, Limits

__all__ = ["Action", "Facts", "TokenBucket", "Watchdog"]

MESSAGE_TICK = 1.0
"""Seconds to which the deadline of a message is rounded up, so that connections share wake-ups."""
MAX_PING_TICK = 5.0
"""Seconds to which that of the next ping is rounded, at most."""
MIN_RATE = 1024
"""Bytes per second: a message that comes faster may take as long as it needs."""


class Action(enum.Enum):
    """What to do."""

    PING = "ask the peer for a sign of life"
    GIVE_UP = "the peer is gone: end without waiting for it"
    FAIL = "the peer holds a message open for too long: close with 1008"
    WARN = "say that the handler does not take what was received"


class Facts(NamedTuple):
    """What is so at the moment of a check."""

    received_at: float
    """When the peer last said something."""
    reading: bool
    """Whether we listen."""
    queue_full: bool
    """Whether we do not because the handler has left its queue full."""
    message_bytes: int
    """Bytes of the unfinished message that have come."""


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


class Watchdog:
    """One thread at a time.

    Args:
        options: of the connection.
        limits: of the server.
        now: seconds of the clock that all other times are of.
    """

    __slots__ = (
        "_asked_at",
        "_control",
        "_interval",
        "_message_began",
        "_message_due",
        "_message_timeout",
        "_messages",
        "_ping_due",
        "_ping_timeout",
        "_warned",
        "counts_messages",
    )

    def __init__(self, options: ConnectionOptions, limits: Limits, now: float) -> None:
        self._interval = options.ping_interval
        self._ping_timeout = options.ping_timeout
        self._message_timeout = options.message_timeout
        self._control = TokenBucket(limits.control_rate, float(limits.control_burst), now)
        rate = options.message_rate
        self._messages = None if rate is None else TokenBucket(rate, max(1.0, rate), now)
        self.counts_messages = rate is not None
        """Whether there is a limit on messages."""
        self._asked_at: float | None = None
        self._ping_due: float | None = None
        self._message_began: float | None = None
        self._message_due: float | None = None
        self._warned = False
        self._expect_life(now)

    @property
    def due(self) -> float | None:
        """When `check` is to be called; None: not before something happens."""
        if self._ping_due is None or self._message_due is None:
            return self._ping_due if self._message_due is None else self._message_due
        return min(self._ping_due, self._message_due)

    def check(self, now: float, facts: Facts) -> Action | None:
        """What to do now; ask again until it is None."""
        action = None
        if self._message_due is not None and now >= self._message_due:
            action = self._judge_message(now, facts)
        if action is None and self._ping_due is not None and now >= self._ping_due:
            action = self._judge_silence(now, facts)
        return action

    # -- rates -----------------------------------------------------------------------------

    def count(self, now: float, *, control: int, messages: int) -> None:
        """Take tokens for the control frames and messages of one read.

        Raises:
            ProtocolError: more came than `control_rate` and `control_burst`, or `message_rate`,
                allow (1008).
        """
        if control and not self._control.take(control, now):
            raise _too_many(self._control, "control frames")
        if messages and self._messages is not None and not self._messages.take(messages, now):
            raise _too_many(self._messages, "messages")

    # -- the deadline of a message ---------------------------------------------------------

    def message_unfinished(self, now: float, *, another: bool) -> bool:
        """After a read a message is incomplete; whether `due` has changed.

        Args:
            now: when.
            another: it is not the one of the last read.
        """
        if self._message_began is None or another:
            self._message_began = now
        if self._message_due is not None or self._message_timeout is None:
            return False
        self._message_due = rounded_up(now + self._message_timeout, MESSAGE_TICK)
        return True

    def message_finished(self) -> None:
        """After a read no message is incomplete."""
        self._message_began = None

    def reading_resumed(self, now: float) -> None:
        """We did not read for a while: that was not the peer's fault."""
        if self._message_began is not None:
            self._message_began = now

    def _judge_message(self, now: float, facts: Facts) -> Action | None:
        timeout, self._message_due = self._message_timeout, None
        if self._message_began is None or timeout is None:
            return None
        due = self._message_began + timeout
        if now < due:
            pass  # it is not the message of which this was the deadline
        elif not facts.reading:
            due = now + timeout
        elif facts.message_bytes >= MIN_RATE * (now - self._message_began):
            due = now + MESSAGE_TICK
        else:
            return Action.FAIL
        self._message_due = rounded_up(due, MESSAGE_TICK)
        return None

    # -- keepalive -------------------------------------------------------------------------

    @property
    def _tick(self) -> float:
        return min(MAX_PING_TICK, (self._interval or 20.0) / 4)

    def _expect_life(self, received: float) -> None:
        """Look up to one tick early, so that interval + timeout is never exceeded.

        Only this is rounded. Those who are asked at one tick share their later deadlines anyway.
        """
        if self._interval is not None:
            self._ping_due = rounded_up(received + self._interval - self._tick, self._tick)

    def _judge_silence(self, now: float, facts: Facts) -> Action | None:
        assert self._interval is not None
        silent = now >= facts.received_at + self._interval - self._tick  # as `_expect_life` has it
        if not facts.reading:
            self._asked_at = None
            # Else the handler reads and the peer is faster: stopped now, and not for long.
            self._expect_life(now if silent else facts.received_at)
            if silent and facts.queue_full and not self._warned:
                self._warned = True
                return Action.WARN
            return None
        if self._asked_at is not None and facts.received_at < self._asked_at:
            assert self._ping_timeout is not None
            self._ping_due = self._asked_at + self._ping_timeout
            if now < self._ping_due:
                return None
            self._ping_due = None
            return Action.GIVE_UP
        self._asked_at = None
        if not silent:
            self._expect_life(facts.received_at)
            return None
        if self._ping_timeout is None:
            self._ping_due = now + self._interval
        else:
            self._asked_at = now
            self._ping_due = now + min(self._interval, self._ping_timeout)
        return Action.PING


def _too_many(bucket: TokenBucket, what: str) -> ProtocolError:
    return ProtocolError(f"more than {bucket.rate:g} {what} a second", close_code=1008)
