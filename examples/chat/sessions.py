"""Cookies and tokens that say who is logged in, without a table of sessions in memory.

Both are Fernet tokens (encrypted, authenticated, with the time of their making). Each names the
user's generation, and logging out begins a new one: that ends them all, also across a restart
of the server.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptography.fernet import Fernet, InvalidToken

import securews
from examples.chat.private_files import create_private, make_private_directory, read_private
from examples.chat.users import Users

__all__ = ["COOKIE", "COOKIE_AGE", "LOGIN_AGE", "TOKEN_AGE", "Session", "Sessions"]

COOKIE = "__Host-chat"
"""The prefix binds the cookie to this host: no other name, path or plain HTTP can set it."""
COOKIE_AGE = 12 * 3600
"""Seconds that a cookie lasts; each use gives a fresh one."""
LOGIN_AGE = 30 * 86400
"""Seconds after which the password is asked for again, however often the cookie was renewed."""
TOKEN_AGE = 90 * 86400
"""Seconds that the token of a script lasts; it is not renewed."""

Purpose = Literal["cookie", "token"]


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A login: whose it is, since when (Unix time), and the generation that it belongs to."""

    name: str
    since: int
    generation: str


class Sessions:
    """Makes and checks cookies and tokens. Any thread.

    Args:
        key_file: the Fernet key; made, with mode 0600, where there is none.
        users: whose logins these are.
        clock: Unix time, in seconds.
    """

    def __init__(
        self, key_file: Path, users: Users, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._users = users
        self._clock = clock
        self._fernet = Fernet(_key(key_file))

    def begin(self, name: str, generation: str | None = None) -> Session:
        """Log `name` in; the password is the caller's business.

        Args:
            name: of the user.
            generation: of the user when the password was checked; None is the current one.

        Raises:
            ValueError: there is no such user.
        """
        if generation is None:
            generation = self._users.generation(name)
        if generation is None:
            raise ValueError(f"there is no user {name!r}")
        return Session(name, int(self._clock()), generation)

    def seal(self, session: Session, purpose: Purpose) -> str:
        """The cookie's value, or the token, that stands for `session` from now on.

        It belongs to the generation of `session`: one that was logged out meanwhile stays so.
        """
        facts = [purpose, session.name, session.since, session.generation]
        return self._fernet.encrypt_at_time(json.dumps(facts).encode(), int(self._clock())).decode()

    def check(self, sealed: str, purpose: Purpose) -> Session | None:
        """The login that `sealed` stands for; None if it is forged, too old, or logged out."""
        now = int(self._clock())
        age = COOKIE_AGE if purpose == "cookie" else TOKEN_AGE
        try:
            facts = json.loads(self._fernet.decrypt_at_time(sealed.encode(), age, now))
        except (InvalidToken, UnicodeEncodeError):
            return None
        made_for, session = facts[0], Session(*facts[1:])
        if made_for != purpose or (purpose == "cookie" and now - session.since > LOGIN_AGE):
            return None
        return session if self.stands(session) else None

    def stands(self, session: Session) -> bool:
        """Whether `session` was not logged out since, and its user is still there."""
        current = self._users.generation(session.name)
        return current is not None and hmac.compare_digest(
            session.generation.encode(), current.encode()
        )

    def set_cookie(self, headers: securews.Headers, session: Session) -> None:
        """Give the browser a fresh cookie for `session`."""
        headers.set_cookie(COOKIE, self.seal(session, "cookie"), max_age=COOKIE_AGE)


def _key(path: Path) -> bytes:
    key = read_private(path)
    if key is None:
        make_private_directory(path.parent)
        create_private(path, Fernet.generate_key())
        key = read_private(path) or b""
    try:
        Fernet(key)
    except ValueError as error:
        raise securews.ConfigurationError(
            f"{path} does not hold a key; remove it, and a new one is made (all log in again)"
        ) from error
    return key
