"""The request target: which host, path and query a request line asks for."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from securews.protocol.head_lines import refusal

__all__ = ["RequestTarget", "split_target"]

# RFC 9112, section 3.2.2; RFC 6455, section 4.1 has http and https, clients write ws and wss too.
_ABSOLUTE = re.compile(
    r"(?P<scheme>https?|wss?)://(?P<authority>[^/?]*)(?P<rest>.*)", re.IGNORECASE
)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Looked up now: at its first use Python opens files, and descriptors may have run out by then.
_read_escapes = codecs.getdecoder("unicode_escape")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RequestTarget(NamedTuple):
    """The parts of a request target; scheme and authority are "" in origin form."""

    scheme: str
    authority: str
    path: str
    query: str


def split_target(target: str) -> RequestTarget:
    """Split a target in origin form or absolute form (RFC 9112, section 3.2).

    The path is decoded once, as UTF-8, and not merged: "//" stays, and so does whatever "%25"
    hides. What would make two readers see different paths is refused: "." and ".." as
    segments (encoded ones too), control characters, escapes that are none. The query stays as
    it was sent.

    Raises:
        Reject: 400.
    """
    if "#" in target:
        raise refusal(400, "the request target has a fragment; leave out '#' and what follows")
    scheme = authority = ""
    rest = target
    if absolute := _ABSOLUTE.fullmatch(target):
        scheme = absolute["scheme"].lower()
        authority = absolute["authority"]
        rest = absolute["rest"]
        if not rest.startswith("/"):
            rest = f"/{rest}"
    raw_path, _, query = rest.partition("?")
    return RequestTarget(scheme, authority, _decoded(raw_path), query)


def _decoded(raw_path: str) -> str:
    if not raw_path.startswith("/"):
        raise refusal(400, "the request target is no path; begin it with '/'")
    if _BAD_ESCAPE.search(raw_path):
        raise refusal(400, "the path has '%' without two hexadecimal digits; write '%25'")
    try:
        path = _unescaped(raw_path).decode()
    except UnicodeDecodeError:
        raise refusal(400, "the path is not UTF-8; encode it so before '%' escapes") from None
    if _CONTROL.search(path):
        raise refusal(400, "the path has a control character; leave it out")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise refusal(400, "the path has '.' or '..' as a segment; resolve it first")
    return path


def _unescaped(path: str) -> bytes:
    """As `urllib.parse.unquote_to_bytes`, which needs a millisecond for 2,700 escapes.

    Args:
        path: ASCII in which two hexadecimal digits stand behind every "%".
    """
    literal = path.replace("\\", r"\\").replace("%", r"\x")  # Python's escapes are read in C
    return _read_escapes(literal.encode("ascii"))[0].encode("latin-1")
