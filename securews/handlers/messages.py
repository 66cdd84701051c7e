"""What can be sent: str as text, bytes-like as binary."""

from __future__ import annotations

from typing import TypeAlias

from securews.protocol.frames import Opcode

# Names of the module are found faster than members of an enum.
TEXT, BINARY = Opcode.TEXT, Opcode.BINARY

__all__ = ["JSON", "BytesLike", "encode_message"]

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
BytesLike: TypeAlias = bytes | bytearray | memoryview


def encode_message(message: str | BytesLike) -> tuple[Opcode, BytesLike]:
    """Opcode and payload of a message.

    Raises:
        TypeError: neither str nor bytes-like.
        ValueError: text with a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(message, str):
        return TEXT, message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return BINARY, message
    raise TypeError(
        f"a message is str or bytes, not {type(message).__name__}; use send_json(), or "
        "json.dumps() for a broadcast"
    )
