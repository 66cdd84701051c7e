"""What comes out of a `WebSocketParser`: messages, control frames, and its end.

A message is what the user gets: `str` for a text message, `bytes` for a binary one.
"""

from __future__ import annotations

from dataclasses import dataclass

from securews.common.errors import ProtocolError

__all__ = ["Close", "Event", "Failure", "Ping", "Pong"]


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, to be answered by a pong with the same payload (RFC 6455, section 5.5.2)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong: the answer to a ping, or one unasked for (RFC 6455, section 5.5.3)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's Close frame; nothing comes after it (RFC 6455, section 5.5.1).

    `code` is 1005 where the frame carried none (section 7.1.5).
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The peer broke the protocol or a limit; nothing more is parsed (RFC 6455, section 7.1.7).

    `error.close_code` is what to close the connection with.
    """

    error: ProtocolError


Event = str | bytes | Ping | Pong | Close | Failure
