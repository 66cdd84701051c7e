"""What was received on one connection and waits for its handler.

Guarded by the channel's lock; waiting for it is the connection's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from sys import getsizeof

from securews.protocol.events import Pong

__all__ = ["Inbox", "Message"]

Message = str | bytes


class Inbox:
    """Received messages in order, and the newest Pong that the user asked for."""

    __slots__ = ("messages", "pong", "size")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.pong: Pong | None = None
        self.size = 0
        """Memory of the queued messages, in bytes."""

    def extend(self, messages: Iterable[Message]) -> None:
        """Queue the messages of one read."""
        for message in messages:
            self.size += getsizeof(message)
            self.messages.append(message)

    def pop(self) -> Message:
        """Remove and return the oldest message; there is one."""
        message = self.messages.popleft()
        self.size -= getsizeof(message)
        return message

    def pop_first(self, kinds: frozenset[type]) -> Message | Pong | None:
        """Remove and return the first item of one of these types; the others stay in place."""
        for index, message in enumerate(self.messages):
            if type(message) in kinds:
                del self.messages[index]
                self.size -= getsizeof(message)
                return message
        if Pong in kinds and self.pong is not None:
            pong, self.pong = self.pong, None
            return pong
        return None

    def pop_all(self) -> list[Message | Pong]:
        """Remove and return everything."""
        items: list[Message | Pong] = list(self.messages)
        if self.pong is not None:
            items.append(self.pong)
            self.pong = None
        self.clear()
        return items

    def clear(self) -> None:
        """Forget all messages."""
        self.messages.clear()
        self.size = 0
