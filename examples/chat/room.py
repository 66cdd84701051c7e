"""The room: what one says, all hear. JSON messages, no thread per connection.

From a browser: `{"type": "say", "key": K, "text": T}`. K is the browser's own name for the
message: it finds it again in the echo, and may send it once more after a lost connection without
its being heard twice.

To a browser: `welcome` (you, online, history), `said` (id, key, name, at, text), `joined` and
`left` (name), and `wait` (key, seconds) to one that talks too fast.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from typing import TypedDict

import securews
from examples.chat.gate import Gate
from examples.chat.pace import Pace
from examples.chat.revocation import Revocation
from examples.chat.sessions import Session

__all__ = ["LONGEST_TEXT", "Room", "Said"]

LONGEST_TEXT = 2000
"""Characters of one message."""
_HISTORY = 100
_KEY = re.compile(r"[0-9A-Za-z-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


class Said(TypedDict):
    """One message as all hear it; `at` is Unix time in milliseconds, as JavaScript has it."""

    type: str
    id: str
    key: str
    name: str
    at: int
    text: str


class _BadMessageError(Exception):
    """The peer does not speak this chat's language; the text goes into the Close frame."""


class Room(securews.EventWebSocketHandler):
    """All who are connected, and the last things said.

    `accept` runs on a pool thread, where hashing a password may take its time; `on_*` run on
    I/O threads and never wait.
    """

    # 2000 characters are at most 24,000 bytes of JSON (each a pair of \uXXXX), and a little more.
    max_size = 32 << 10

    def __init__(self, gate: Gate, revocation: Revocation) -> None:
        super().__init__()
        self._gate = gate
        self._revocation = revocation
        self._lock = threading.Lock()  # I/O threads may be several on a free-threaded build
        self._connections: Counter[str] = Counter()
        # In order of speaking; by (name, key), to know a message that is sent again.
        self._history: OrderedDict[tuple[str, str], Said] = OrderedDict()
        self._boot = secrets.token_urlsafe(6)  # sets ids apart from those before a restart
        self._count = 0

    def accept(self, request: securews.Request, response_headers: securews.Headers) -> bool:
        """Let in who has a session or knows a password; say who it is."""
        request.identity = self._gate.admit(request, response_headers)
        return True

    def on_open(self, ws: securews.Communicator) -> None:
        """Tell the newcomer what there is, and the others who came."""
        self._revocation.watch()
        session = _session(ws)
        name = session.name
        ws.state.pace = Pace()
        with self._lock:
            self._connections[name] += 1
            first = self._connections[name] == 1
            online = sorted(self._connections)
            history = list(self._history.values())
        # A log-out between `accept` and now has found no connection to close.
        if not self._gate.sessions.stands(session):
            ws.close(1008, "logged out")
            return
        ws.send(_json({"type": "welcome", "you": name, "online": online, "history": history}))
        if first:
            ws.server.broadcast(_json({"type": "joined", "name": name}))

    def on_message(self, ws: securews.Communicator, message: str | bytes) -> None:
        """Pass on what was said."""
        pace: Pace = ws.state.pace
        try:
            key, text = _understood(message)
        except _BadMessageError as error:
            ws.close(1008, str(error))
            return
        seconds = pace.wait()
        if pace.ignored:
            ws.close(1008, "too many messages")
        elif seconds:
            ws.send(_json({"type": "wait", "key": key, "seconds": round(seconds, 3)}))
        else:
            said, heard = self._said(_session(ws).name, key, text)
            if heard:
                ws.send(_json(said))
            else:
                ws.server.broadcast(_json(said))

    def on_close(self, ws: securews.Communicator, code: int, reason: str) -> None:
        """Tell the others who left, when it was that user's last connection."""
        name = _session(ws).name
        with self._lock:
            self._connections[name] -= 1
            last = self._connections[name] == 0
            if last:
                del self._connections[name]
        if last:
            ws.server.broadcast(_json({"type": "left", "name": name}))

    def close(self) -> None:
        """The server stops."""
        self._revocation.stop()

    def _said(self, name: str, key: str, text: str) -> tuple[Said, bool]:
        """The message to pass on, and whether it was passed on before."""
        with self._lock:
            before = self._history.get((name, key))
            if before is not None:
                return before, True
            self._count += 1
            said: Said = {
                "type": "said",
                "id": f"{self._boot}.{self._count}",
                "key": key,
                "name": name,
                "at": int(time.time() * 1000),
                "text": text,
            }
            self._history[name, key] = said
            if len(self._history) > _HISTORY:
                self._history.popitem(last=False)
            return said, False


def _session(ws: securews.Communicator) -> Session:
    """What `accept` has set."""
    session = ws.identity
    assert isinstance(session, Session)
    return session


def _understood(message: str | bytes) -> tuple[str, str]:
    """The key and the text of a message from a browser."""
    if isinstance(message, bytes):
        raise _BadMessageError("this chat speaks JSON in text messages")
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        raise _BadMessageError("that is not JSON") from None
    if not isinstance(said, dict) or said.get("type") != "say":
        raise _BadMessageError('the one message to send is {"type": "say"}')
    key, text = said.get("key"), said.get("text")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise _BadMessageError('"key" is 1 to 64 letters and digits')
    if not isinstance(text, str) or not 1 <= len(text) <= LONGEST_TEXT:
        raise _BadMessageError(f'"text" is 1 to {LONGEST_TEXT} characters')
    # JSON can name half a surrogate pair, which no text message can carry (RFC 6455, section 8.1).
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    clean = _CONTROL.sub("", clean).strip()
    if not clean:
        raise _BadMessageError('"text" is empty')
    return key, clean


def _json(message: object) -> str:
    # Plain characters, not escapes: a third of the size for most of the world.
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
