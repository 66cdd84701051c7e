"""What waits to be sent on one connection: frames, not ciphertext.

Frames are encrypted when the socket takes them, so a broadcast is stored once for all its
receivers, a message can still be dropped, and control frames go out between two data frames.
Knows no socket and no thread: the link calls every method with its lock held.
"""

from __future__ import annotations

from collections import deque

__all__ = ["SendQueue"]

Piece = bytes | memoryview


class SendQueue:
    """Frames in the order in which they leave.

    `size` counts every byte that waits, `ready` those that do not wait for the end of a message
    stream. `taken` counts every byte that ever left.

    Args:
        bound: bytes; a message is taken while fewer wait, so one of any size fits an empty queue.
        answer: the answer to the opening request: no frame gets before it, a Ping neither.
    """

    __slots__ = (
        "_behind",
        "_frames",
        "_pong",
        "_rest",
        "_urgent",
        "bound",
        "ready",
        "size",
        "streaming",
        "taken",
    )

    def __init__(self, bound: int, answer: bytes = b"") -> None:
        self.bound = bound
        self._frames: list[bytes] = []
        self._urgent: deque[bytes] | None = None
        self._pong: bytes | None = None
        self._rest: memoryview | None = memoryview(answer) if answer else None
        self._behind: deque[bytes] | None = None
        self.size = self.ready = len(answer)
        self.taken = 0
        self.streaming = False

    @property
    def full(self) -> bool:
        """Whether no message is taken at present."""
        return self.size >= self.bound

    @property
    def full_before_stream(self) -> bool:
        """Whether the open stream has to wait.

        What waits behind it does not hold it up, or both would wait for ever.
        """
        return self.ready >= self.bound

    def memory(self) -> int:
        """Bytes of memory that are held: a frame that has begun to leave is held whole."""
        if self._rest is None:
            return self.size
        whole: bytes = self._rest.obj  # type: ignore[assignment]  # what memoryview was made of
        return self.size + len(whole) - len(self._rest)

    def append(self, frame: bytes) -> None:
        """A whole message; while a message stream is open it queues behind that stream."""
        self.size += len(frame)
        if self.streaming:
            if self._behind is None:
                self._behind = deque()
            self._behind.append(frame)
        else:
            self.ready += len(frame)
            self._frames.append(frame)

    def append_urgent(self, frame: bytes) -> None:
        """A control frame: it goes before every data frame that has not begun."""
        self._grow(len(frame))
        if self._urgent is None:
            self._urgent = deque()
        self._urgent.append(frame)

    def set_pong(self, frame: bytes) -> None:
        """The answer to a Ping whose peer takes nothing at present. Only the newest is kept.

        So a flood of pings cannot grow memory. RFC 6455, section 5.5.3, allows to answer only
        the most recent Ping.
        """
        self._grow(len(frame) - len(self._pong or b""))
        self._pong = frame

    def append_last(self, frame: bytes) -> None:
        """The Close frame: behind what was taken, and what queued behind a stream is given up."""
        self._behind = None
        self.streaming = False
        self.size = self.ready
        self._grow(len(frame))
        self._frames.append(frame)

    def append_fragment(self, frame: bytes) -> None:
        """A frame of the message stream that is open."""
        self._grow(len(frame))
        self._frames.append(frame)

    def end_stream(self) -> None:
        """The message stream is complete: what queued behind it follows."""
        self.streaming = False
        if self._behind is not None:
            self._frames.extend(self._behind)
            self._behind = None
            self.ready = self.size

    def drop_unsent(self) -> None:
        """Forget every frame that has not begun to leave; the rest of one that has is kept."""
        self._frames.clear()
        self._urgent = self._pong = self._behind = None
        self.streaming = False
        self.size = self.ready = 0 if self._rest is None else len(self._rest)

    def clear(self) -> None:
        """Forget everything: nothing leaves any more."""
        self._rest = None
        self.drop_unsent()

    def take(self, limit: int) -> Piece | None:
        """Remove and return the next bytes to send; None where none are ready.

        Args:
            limit: at most so many; a whole control frame must fit in.
        """
        if not self.ready:
            return None
        if self._rest is not None:  # inside a large frame: nothing may get between
            piece: Piece = self._rest[:limit]
            self._rest = self._rest[limit:] if len(self._rest) > limit else None
        else:
            piece = self._gather(limit)
        self._grow(-len(piece))
        self.taken += len(piece)
        return piece

    def _grow(self, length: int) -> None:
        self.size += length
        self.ready += length

    def _gather(self, limit: int) -> Piece:
        frames = self._frames
        if self.ready <= limit and not self._urgent and self._pong is None:
            piece = frames[0] if len(frames) == 1 else b"".join(frames)
            frames.clear()
            return piece
        parts: list[Piece] = []
        room = limit - self._gather_control(parts, limit)
        if self._urgent or self._pong is not None:
            room = 0  # the rest of them goes before any data, too
        count = 0
        for frame in frames:
            if room <= 0:
                break
            count += 1
            if len(frame) > room:
                view = memoryview(frame)
                parts.append(view[:room])
                self._rest = view[room:]
                break
            parts.append(frame)
            room -= len(frame)
        del frames[:count]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _gather_control(self, parts: list[Piece], limit: int) -> int:
        """Control frames go first; they are short, so they go whole or wait for the next piece."""
        gathered = 0
        while self._urgent and gathered + len(self._urgent[0]) <= limit:
            frame = self._urgent.popleft()
            parts.append(frame)
            gathered += len(frame)
        if self._pong is not None and not self._urgent and gathered + len(self._pong) <= limit:
            parts.append(self._pong)
            gathered += len(self._pong)
            self._pong = None
        return gathered
