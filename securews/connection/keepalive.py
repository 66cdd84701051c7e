"""Pings: the server's own, which find dead peers, and those that the user asked for.

One timer per connection, rounded up to a tick that all connections share; nothing here runs per
message. Any byte from the peer counts as life (RFC 6455, section 5.5.2, leaves this to us).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from securews.common.deadlines import rounded_up
from securews.common.errors import ConnectionClosed
from securews.loop.timers import Timer

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["MAX_UNANSWERED", "Keepalive", "PingWaiter"]

log = logging.getLogger("securews.server")

MAX_UNANSWERED = 64
"""Pings that may be under way: what a mute peer can make us remember."""


class PingWaiter:
    """A ping that is under way."""

    __slots__ = ("_answered", "_connection", "_payload", "_seconds", "_sent_at")

    by_user = True
    """Whether the user asked."""

    def __init__(self, connection: Connection, payload: bytes) -> None:
        self._connection = connection
        self._payload = payload
        self._sent_at = time.monotonic()
        self._seconds: float | None = None
        self._answered = threading.Event()

    def wait(self, timeout: float | None = None) -> float:
        """Wait for the Pong; the seconds that it took. Any thread but an I/O thread.

        Raises:
            TimeoutError: no Pong within `timeout` seconds.
            ConnectionClosed: the connection ended first.
            RuntimeError: called on an I/O thread, where it would never end.
        """
        self._connection.refuse_on_loop("PingWaiter.wait()")
        if not self._answered.wait(timeout):
            raise TimeoutError(f"no pong within {timeout:g} s")
        if self._seconds is None:
            raise self._connection.closed_error()
        return self._seconds

    def _answer(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._answered.set()


class Keepalive:
    """The pings of one connection. Waiters are guarded by the channel's lock."""

    __slots__ = (
        "_asked_at",
        "_connection",
        "_interval",
        "_timeout",
        "_timer",
        "_waiters",
        "_warned",
        "latency",
    )

    def __init__(
        self, connection: Connection, interval: float | None, timeout: float | None
    ) -> None:
        self._connection = connection
        self._interval = interval
        self._timeout = timeout
        self._timer: Timer | None = None
        self._asked_at: float | None = None
        self._waiters: list[PingWaiter] | None = None
        self._warned = False
        self.latency: float | None = None
        """Seconds that the newest answered ping took; None before the first."""

    def start(self) -> None:
        """Loop thread: watch over the peer from now on."""
        if self._interval is not None:
            self._arm_idle(self._connection.loop.now)

    def stop(self) -> None:
        """Loop thread: the connection has ended. Waiters are told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._connection.channel.lock:
            waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            waiter._answer(None)

    def ping(self, payload: bytes) -> PingWaiter:
        """Any thread: send a Ping."""
        waiter = PingWaiter(self._connection, payload)
        with self._connection.channel.lock:
            if self._waiters is None:
                self._waiters = []
            if len(self._waiters) >= MAX_UNANSWERED:
                raise RuntimeError(
                    f"{MAX_UNANSWERED} pings are unanswered; wait for one before sending more"
                )
            self._waiters.append(waiter)
        try:
            self._connection.send_ping(payload)
        except Exception:
            with self._connection.channel.lock:
                if self._waiters is not None and waiter in self._waiters:
                    self._waiters.remove(waiter)
            raise
        return waiter

    def pong(self, payload: bytes) -> list[PingWaiter]:
        """Loop thread: a Pong came. The pings that it answers; none if nobody asked for it.

        It answers every ping sent before the one that it echoes, too (RFC 6455, section 5.5.3).
        """
        answered: list[PingWaiter] = []
        with self._connection.channel.lock:
            waiters = self._waiters or []
            for index, waiter in enumerate(waiters):
                if waiter._payload == payload:
                    answered = waiters[: index + 1]
                    self._waiters = waiters[index + 1 :]
                    break
        now = time.monotonic()
        for waiter in answered:
            self.latency = now - waiter._sent_at
            waiter._answer(self.latency)
        return answered

    @property
    def _tick(self) -> float:
        return min(5.0, (self._interval or 20.0) / 4)

    def _arm(self, due: float) -> None:
        self._timer = self._connection.loop.timers.call_at(due, self._check)

    def _arm_idle(self, received: float) -> None:
        """Ask up to one tick early, so that interval + timeout is never exceeded.

        Only this is rounded. Those who are asked at one tick share their later deadlines anyway.
        """
        assert self._interval is not None
        self._arm(rounded_up(received + self._interval - self._tick, self._tick))

    def _check(self) -> None:
        """The timer: ask a silent peer, give up on one that did not answer."""
        assert self._interval is not None
        connection = self._connection
        now = connection.loop.now
        if connection.closing:
            return  # nothing but the peer's Close is awaited, under a deadline of its own
        received = connection.channel.received_at
        if not connection.channel.reading:
            # We do not listen, so silence proves nothing; TCP keepalive finds a dead peer.
            self._asked_at = None
            if now - received >= self._interval - self._tick:
                self._warn_if_stuck(self._interval)
                received = now
            # Otherwise the handler reads and the peer is faster: stopped now, and not for long.
            self._arm_idle(received)
            return
        if self._asked_at is not None and received < self._asked_at:
            assert self._timeout is not None
            if now >= self._asked_at + self._timeout:
                connection.give_up(f"no pong in {self._timeout:g} s")
            else:
                self._arm(self._asked_at + self._timeout)
            return
        self._asked_at = None
        if now - received >= self._interval - self._tick:
            self._ask(now)
        else:
            self._arm_idle(received)

    def _warn_if_stuck(self, seconds: float) -> None:
        """Reading has been paused for a ping interval: say once who does not read."""
        receiving = self._connection.receiving
        if receiving.paused and not self._warned:
            self._warned = True
            log.warning(
                "%s: its handler has left %d messages unread for %g s, so nothing more is read; "
                "receive faster, or use max_queue=0 if messages do not matter",
                self._connection.name,
                len(receiving.inbox.messages),
                seconds,
            )

    def _ask(self, now: float) -> None:
        with self._connection.channel.lock:
            waiters = [w for w in self._waiters or () if not isinstance(w, _OwnPing)]
            ping = _OwnPing(self._connection, os.urandom(8))
            self._waiters = [*waiters, ping]
        try:
            self._connection.send_ping(ping._payload)
        except ConnectionClosed:
            return  # another thread has just begun to close
        if self._timeout is None:
            self._arm(now + (self._interval or 0.0))
        else:
            self._asked_at = now
            assert self._interval is not None
            self._arm(now + min(self._interval, self._timeout))


class _OwnPing(PingWaiter):
    """A ping of the server's own; its payload is random, so that no user's ping equals it."""

    __slots__ = ()

    by_user = False
