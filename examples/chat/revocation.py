"""Connections end with their sessions: at a log-out, a new password, or when a user is removed."""

from __future__ import annotations

import logging
import threading

import securews
from examples.chat.sessions import Session, Sessions
from examples.chat.users import Users

__all__ = ["Revocation"]

log = logging.getLogger(__name__)


class Revocation:
    """Closes the connections whose session has ended. Any thread.

    The users' file may be changed by another process (`add-user`), of which nobody tells the
    server: a thread looks at the file's date each `interval` seconds, from the first connection
    until the server stops.

    Args:
        server: whose connections; each has a `Session` as its identity.
        users: the file that is looked at.
        sessions: says whether a session stands.
        interval: seconds.
    """

    def __init__(
        self,
        server: securews.WebSocketServer,
        users: Users,
        sessions: Sessions,
        *,
        interval: float = 1.0,
    ) -> None:
        self._server = server
        self._users = users
        self._sessions = sessions
        self._interval = interval
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def close_ended(self) -> None:
        """Begin to close them, with 1008; does not wait."""
        self._server.close_where(self._ended, 1008, "logged out")

    def watch(self) -> None:
        """Begin to look at the file, unless that has begun."""
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(
                    target=self._look, name="chat-revocation", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Look no more. Does not wait."""
        self._stopped.set()

    def _ended(self, ws: securews.Communicator) -> bool:
        session = ws.identity
        return not (isinstance(session, Session) and self._sessions.stands(session))

    def _look(self) -> None:
        # At first no version: whatever changed before this thread began is found, too.
        closed_at: object = object()
        failed_at: object = object()
        while not self._stopped.wait(self._interval):
            version: object = None
            try:
                version = self._users.version()
                if version != closed_at:
                    self.close_ended()
                    closed_at = version
            except Exception as error:  # a thread that ended would let everybody stay for ever
                if version != failed_at:
                    log.error("whose session has ended is not known, all stay connected: %s", error)
                failed_at = version
