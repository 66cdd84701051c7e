"""Pings: our own, which find dead peers, and those that the user asked for."""

from __future__ import annotations

import os
import threading

from securews.common.errors import ConnectionClosed
from securews.connection.link import Link
from securews.connection.sender import Sender
from securews.protocol.events import Pong
from securews.protocol.frames import Opcode

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
    """The pings of one connection, ours and the user's. Any thread, except where said.

    It has a lock of its own: there is one only where somebody has asked.
    """

    __slots__ = ("_link", "_lock", "_over", "_own", "_own_at", "_sender", "_waiters", "latency")

    def __init__(self, link: Link, sender: Sender) -> None:
        self._link = link
        self._sender = sender
        self._lock = threading.Lock()
        self._waiters: list[PingWaiter] = []
        self._own: bytes | None = None
        self._own_at = 0.0
        self._over = False
        self.latency: float | None = None
        """Seconds that the newest answered ping took; None before the first."""

    def ping(self, payload: bytes, now: float) -> PingWaiter:
        """Send a ping of the user's.

        Raises:
            RuntimeError: too many are unanswered.
            ConnectionClosed: the connection is closing or closed.
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
        try:
            self._link.send_control(self._sender.frame(Opcode.PING, payload))
        except ConnectionClosed:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            raise
        return waiter

    def ask_for_life(self, now: float) -> None:
        """Loop thread: send a ping of our own."""
        self._own = os.urandom(8)  # so that no ping of the user's equals it
        self._own_at = now
        try:
            self._link.send_control(self._sender.frame(Opcode.PING, self._own))
        except ConnectionClosed:
            pass  # another thread has just begun to close

    def pong(self, pong: Pong, now: float) -> bool:
        """Loop thread: whether this Pong answers a ping.

        It answers every ping sent before the one that it echoes, too (RFC 6455, section 5.5.3). One
        that the user has asked for is kept for `wait_for_message`.
        """
        with self._lock:
            if pong.payload == self._own:
                sent_at, self._own = self._own_at, None
                answered = [waiter for waiter in self._waiters if waiter._sent_at <= sent_at]
            else:
                count = next(
                    (n for n, w in enumerate(self._waiters, 1) if w._payload == pong.payload), 0
                )
                answered = self._waiters[:count]
                if not answered:
                    return False
                sent_at = answered[-1]._sent_at
            self._waiters = [waiter for waiter in self._waiters if waiter not in answered]
        self.latency = max(0.0, now - sent_at)
        for waiter in answered:
            waiter._end(max(0.0, now - waiter._sent_at))
        if answered:
            self._link.deliver_pong(pong)
        return True

    def end(self) -> None:
        """Loop thread: the connection has ended: tell all who wait."""
        with self._lock:
            self._over = True
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter._end(None)
