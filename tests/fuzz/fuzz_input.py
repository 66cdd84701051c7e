"""What all fuzz targets share: how an input is cut up, and how long one may take.

The first four bytes of an input are choices: flags of the target's own, then the sizes of the
pieces in which the rest arrives, over and over. A target takes the rest in one piece, too, and
both have to come to the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_LENGTH = 8192
"""Bytes of an input at most; with the small limits of the targets that is far beyond them."""

TIME_LIMIT = 0.1
"""Seconds of processor time that one input may take, in one piece and in many."""

_MOST_PIECES = 512
"""Instrumented code is slow; single bytes for all of a long input would measure just that."""


class FuzzInput(NamedTuple):
    """An input, taken apart."""

    flags: int
    sizes: tuple[int, int, int]
    payload: bytes

    @classmethod
    def of(cls, data: bytes) -> FuzzInput:
        """Take it apart; an input that is too short has no payload."""
        flags, *sizes = data[:4].ljust(4, b"\0")
        first, second, third = (size + 1 for size in sizes)
        return cls(flags, (first, second, third), data[4:])

    def choose(self, shift: int, choices: tuple[int | None, ...]) -> int | None:
        """One of `choices` (two or four), by the flags from bit `shift` on."""
        return choices[self.flags >> shift & len(choices) - 1]

    def pieces(self) -> Iterator[bytes]:
        """The payload in pieces."""
        position, turn = 0, 0
        least = len(self.payload) // _MOST_PIECES + 1
        while position < len(self.payload):
            size = max(self.sizes[turn % 3], least)
            yield self.payload[position : position + size]
            position += size
            turn += 1


def check_in_time(check: Callable[[bytes], None], data: bytes) -> None:
    """Run one check, and see that it does not hang.

    Processor time of this thread, and the best of three: a busy machine makes nothing slow.
    """
    took = []
    for _ in range(3):
        began = time.thread_time()
        check(data)
        took.append(time.thread_time() - began)
        if took[-1] <= TIME_LIMIT:
            return
    raise AssertionError(f"an input of {len(data)} bytes takes {min(took):.3f} s")
