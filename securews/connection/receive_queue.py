"""What was received on one connection and waits for its handler, and back-pressure.

Where it is full (judged before a read, so one read may run over) reading stops, and the kernel and
the peer hold the rest; it goes on when three quarters are free again, so that it does not stop and
go at every message. Knows no thread: the link calls every method with its lock held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from sys import getsizeof

from securews.connection.interfaces import Message
from securews.protocol.events import Pong

__all__ = ["ReceiveQueue"]


class ReceiveQueue:
    """Received messages in order, and the newest Pong that the user asked for.

    Args:
        max_messages: from so many on nothing more is read; 0 keeps none.
        max_bytes: of memory, likewise.
    """

    __slots__ = ("_max_bytes", "_max_messages", "discards", "full", "messages", "pong", "size")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.discards = max_messages == 0
        """Messages that come are thrown away."""
        self.full = False
        """Nothing more is to be read."""
        self.messages: deque[Message] = deque()
        self.pong: Pong | None = None
        self.size = 0
        """Memory of the queued messages, in bytes."""

    @property
    def room(self) -> int:
        """Bytes of messages that may still be queued, at least 1."""
        return max(1, self._max_bytes - self.size)

    @property
    def overfull(self) -> bool:
        """Whether twice the bound is queued."""
        return self.size >= 2 * self._max_bytes

    def extend(self, messages: Iterable[Message]) -> None:
        """Queue the messages of one read."""
        for message in messages:
            self.size += getsizeof(message)
            self.messages.append(message)
        self.full = len(self.messages) >= self._max_messages or self.size >= self._max_bytes

    def make_room(self) -> bool:
        """After messages were taken: whether reading, which had stopped, may go on."""
        if not (
            self.full
            and len(self.messages) * 4 <= self._max_messages
            and self.size * 4 <= self._max_bytes
        ):
            return False
        self.full = False
        return True

    def discard(self) -> None:
        """Throw away what comes from now on."""
        self.discards = True
        self.full = False

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
