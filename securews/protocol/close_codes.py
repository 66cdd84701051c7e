"""Close codes and the payload of Close frames (RFC 6455, sections 5.5.1 and 7.4)."""

from __future__ import annotations

import enum

from securews.common.errors import ProtocolError

__all__ = [
    "MAX_REASON_BYTES",
    "CloseCode",
    "cut_reason",
    "encode_close_payload",
    "is_allowed_on_wire",
    "parse_close_payload",
]

MAX_REASON_BYTES = 123
"""UTF-8 bytes of a reason at most: a control frame's 125 less the code."""


class CloseCode(enum.IntEnum):
    """The registered codes (RFC 6455, sections 7.4.1 and 11.7, and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    """Never on the wire: the Close frame carried no code."""
    ABNORMAL_CLOSURE = 1006
    """Never on the wire: no Close frame came."""
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    """Never on the wire: TLS could not be established."""


def is_allowed_on_wire(code: int) -> bool:
    """Whether a Close frame may carry `code`, ours or the peer's.

    1000-2999 belong to the protocol, which has given out 1000-1014 (1004 is reserved, 1005 and
    1006 stand for frames that did not come); 3000-4999 are free to use (section 7.4.2).
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_close_payload(code: int | None, reason: str = "") -> bytes:
    """The payload of a Close frame of ours; empty where `code` is None.

    Raises:
        ValueError: a code that may not be sent, a reason without a code, over 123 bytes of UTF-8,
            or with a lone surrogate.
    """
    if code is None:
        if reason:
            raise ValueError("a reason needs a close code before it")
        return b""
    if not isinstance(code, int) or not is_allowed_on_wire(code):
        raise ValueError(
            f"close code {code!r} may not be sent: use 1000-1003, 1007-1014 or 3000-4999"
        )
    encoded = reason.encode()
    if len(encoded) > MAX_REASON_BYTES:
        raise ValueError(
            f"a close reason has at most {MAX_REASON_BYTES} bytes of UTF-8, not {len(encoded)}"
        )
    return code.to_bytes(2) + encoded


def parse_close_payload(payload: bytes) -> tuple[int, str]:
    """Code and reason of the peer's Close frame; (1005, "") where it is empty (section 7.1.5).

    Raises:
        ProtocolError: 1002 for a payload of one byte or a code that may not be sent, 1007 for a
            reason that is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_STATUS_RECEIVED.value, ""
    if len(payload) == 1:
        raise ProtocolError("a Close frame has a payload of one byte")
    code = int.from_bytes(payload[:2])
    if not is_allowed_on_wire(code):
        raise ProtocolError(f"close code {code} may not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError("the reason of a Close frame is not valid UTF-8", 1007) from None


def cut_reason(reason: str) -> str:
    """`reason`, cut after the last whole character that fits a Close frame."""
    encoded = reason.encode(errors="replace")
    return encoded[:MAX_REASON_BYTES].decode(errors="ignore")
