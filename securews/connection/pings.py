"""The pings that the user asked for, and their answers."""

from __future__ import annotations

import threading

from securews.connection.link import Link

__all__ = ["MAX_UNANSWERED", "PingWaiter", "Pings"]

MAX_UNANSWERED = 64
"""Pings that may be under way: what a mute peer can make us remember."""


class PingWaiter:
    """A ping that is under way."""

    __slots__ = ("_answered", "_link", "_payload", "_seconds", "_sent_at")

    def __init__(self, link: Link, payload: bytes, sent_at: float) -> None:
        self._link = link
        self._payload = payload
        self._sent_at = sent_at
        self._seconds: float | None = None
        self._answered = threading.Event()

    def wait(self, timeout: float | None = None) -> float:
        """Wait for the Pong; the seconds that it took. Any thread but an I/O thread.

        Raises:
            TimeoutError: no Pong within `timeout` seconds.
            ConnectionClosed: the connection ended first.
            RuntimeError: called on an I/O thread, where it would never end.
        """
        self._link.refuse_on_loop("PingWaiter.wait()")
        if not self._answered.wait(timeout):
            raise TimeoutError(f"no pong within {timeout:g} s")
        if self._seconds is None:
            raise self._link.closed_error()
        return self._seconds

    def _end(self, seconds: float | None) -> None:
        """Let go who waits; None: the connection ended first."""
        self._seconds = seconds
        self._answered.set()


class Pings:
    """Those of one connection, with a lock of their own: few connections have any. Any thread."""

    __slots__ = ("_link", "_lock", "_over", "_waiters")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._waiters: list[PingWaiter] = []
        self._over = False

    def add(self, payload: bytes, now: float) -> PingWaiter:
        """Remember a ping that is about to be sent.

        Raises:
            RuntimeError: too many are unanswered.
            ConnectionClosed: the connection has ended.
        """
        waiter = PingWaiter(self._link, payload, now)
        with self._lock:
            if self._over:
                raise self._link.closed_error()
            if len(self._waiters) >= MAX_UNANSWERED:
                raise RuntimeError(
                    f"{MAX_UNANSWERED} pings are unanswered; wait for one before sending more"
                )
            self._waiters.append(waiter)
        return waiter

    def remove(self, waiter: PingWaiter) -> None:
        """Forget a ping that could not be sent."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def pong(self, payload: bytes, now: float) -> float | None:
        """The seconds of the ping that this Pong echoes; None if it echoes none.

        It answers every ping sent before that one, too (RFC 6455, section 5.5.3).
        """
        with self._lock:
            for index, waiter in enumerate(self._waiters):
                if waiter._payload == payload:
                    answered = self._waiters[: index + 1]
                    del self._waiters[: index + 1]
                    break
            else:
                return None
        return _answer(answered, now)

    def pong_of_later_ping(self, sent_at: float, now: float) -> bool:
        """A Pong came for a ping of ours: it answers those that were sent before; whether any."""
        with self._lock:
            waiters = self._waiters  # not quite in order: two threads may overtake each other
            answered = [waiter for waiter in waiters if waiter._sent_at <= sent_at]
            self._waiters = [waiter for waiter in waiters if waiter._sent_at > sent_at]
        _answer(answered, now)
        return bool(answered)

    def end(self) -> None:
        """The connection has ended: tell all who wait."""
        with self._lock:
            self._over = True
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter._end(None)


def _answer(waiters: list[PingWaiter], now: float) -> float:
    seconds = 0.0
    for waiter in waiters:
        seconds = max(0.0, now - waiter._sent_at)
        waiter._end(seconds)
    return seconds
