"""The header Sec-WebSocket-Extensions (RFC 6455, section 9.1), read and written.

The reader goes from left to right and looks at no character twice, so what a hostile header costs
grows with its length and not faster; and it gives up at more parts than any peer has a use for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Extension", "format_extension", "parse_extensions"]

MAX_PARTS = 64
"""Names, parameters and commas together. A browser sends four."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110, section 5.6.2."""
_QUOTED = re.compile(r'"((?:\\?[!#$%&\'*+\-.^_`|~0-9A-Za-z])+)"')
_SPACE = re.compile(r"[ \t]*")


class Extension(NamedTuple):
    """One extension as offered or chosen; a parameter without a value has None."""

    name: str
    parameters: tuple[tuple[str, str | None], ...]


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """The extensions in all fields of one head, in their order.

    Raises:
        ValueError: the grammar is broken, or there are more than `MAX_PARTS` parts.
    """
    reader = _Reader(",".join(values))
    found = []
    while not reader.at_end():
        if reader.take(","):
            continue  # an empty member of a list is allowed (RFC 9110, section 5.6.1.2)
        name, parameters = reader.token(), []
        while reader.take(";"):
            parameter = reader.token()
            parameters.append((parameter, reader.value() if reader.take("=") else None))
        found.append(Extension(name, tuple(parameters)))
        if not reader.at_end() and not reader.take(","):
            raise ValueError("no comma stands between two extensions")
    return found


def format_extension(name: str, parameters: Iterable[tuple[str, str | None]]) -> str:
    """One extension as it stands in the header; values are tokens."""
    return "; ".join(
        [name, *(key if value is None else f"{key}={value}" for key, value in parameters)]
    )


class _Reader:
    """A header value and how far it has been read."""

    def __init__(self, text: str) -> None:
        self._text = f"{text}\0"  # in no header, so every loop below ends at it
        self._at = 0
        self._parts = 0

    def at_end(self) -> bool:
        self._skip_space()
        return self._at == len(self._text) - 1

    def take(self, separator: str) -> bool:
        """Step over `separator` if it comes next."""
        self._skip_space()
        if self._text[self._at] != separator:
            return False
        self._at += 1
        if separator == ",":
            self._count()
        return True

    def token(self) -> str:
        self._skip_space()
        self._count()
        return self._match(_TOKEN, "a name or value is missing, or is no token")[0]

    def value(self) -> str:
        """A token, bare or in quotes (RFC 6455, section 9.1: unquoted it has to be one too)."""
        self._skip_space()
        if self._text[self._at] != '"':
            return self.token()
        match = self._match(_QUOTED, "a value in quotes is empty, has no end, or is no token")
        return match[1].replace("\\", "")

    def _match(self, pattern: re.Pattern[str], fault: str) -> re.Match[str]:
        """Step over what matches `pattern`."""
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(fault)
        self._at = match.end()
        return match

    def _skip_space(self) -> None:
        self._match(_SPACE, "")

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ValueError(f"there are more than {MAX_PARTS} extensions and parameters")
