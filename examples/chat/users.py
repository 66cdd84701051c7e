"""Who may speak: a file of names, password hashes and the current login of each.

The file is JSON, mode 0600, and replaced in one step, so `add-user` may run beside the server:
the server sees the new file at its next look.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import securews
from examples.chat.passwords import (
    PasswordHash,
    can_check,
    cost_of,
    hash_password,
    password_fits,
)
from examples.chat.private_files import make_private_directory, read_private, write_private

__all__ = ["LONGEST_PASSWORD", "SHORTEST_PASSWORD", "Users"]

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 256
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


class _User(TypedDict):
    password: PasswordHash
    # Cookies, tokens and open connections are of the generation they were made in: a new one ends
    # them all. Whatever changes what a user knows or may do begins a new one.
    generation: str


class Users:
    """The users of one chat. Any thread, and several processes at once.

    Args:
        path: the file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._users: dict[str, _User] = {}

    def names(self) -> list[str]:
        """The names of all users, sorted."""
        return sorted(self._load())

    def set_password(self, name: str, password: str) -> str:
        """Add a user, or give one a new password, which ends the sessions of that user.

        Returns:
            the name as it is kept: lower case.

        Raises:
            ValueError: a name or a password that does not fit; the text says what does.
        """
        kept = _as_kept(name)
        if not _NAME.fullmatch(kept):
            raise ValueError(
                "a name is 1 to 32 of a-z 0-9 . _ - and begins with a letter or a digit"
            )
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise ValueError(
                f"a password is {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters long"
            )
        hashed = hash_password(password)
        with self._change() as users:
            users[kept] = {"password": hashed, "generation": secrets.token_urlsafe(12)}
        return kept

    def check_password(self, name: str, password: str) -> str | None:
        """The user's name if that is the password, else None. Hashes: slow, on purpose.

        Each function and cost in the file is gone through once, whoever the user is: how long it
        takes tells nobody who exists, or whose hash is an old one.
        """
        kept = _as_kept(name)
        users = self._load()
        user = users.get(kept)
        if len(password) > LONGEST_PASSWORD:
            password, user = "", None
        hashes = [one["password"] for one in users.values() if can_check(one["password"])]
        by_cost = {cost_of(hashed): hashed for hashed in hashes}
        if user is not None:
            by_cost[cost_of(user["password"])] = user["password"]
        fitting = [hashed for hashed in by_cost.values() if password_fits(password, hashed)]
        return kept if user is not None and user["password"] in fitting else None

    def generation(self, name: str) -> str | None:
        """What the cookies and tokens of `name` must carry; None where there is no such user."""
        user = self._load().get(_as_kept(name))
        return None if user is None else user["generation"]

    def end_sessions(self, name: str) -> None:
        """Make every cookie and token of `name` worthless from now on."""
        with self._change() as users:
            if name in users:
                users[name]["generation"] = secrets.token_urlsafe(12)

    def version(self) -> tuple[int, ...] | None:
        """Another one after each change of the file; None where there is no file."""
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def _load(self) -> dict[str, _User]:
        seen = self.version()
        if seen is None:
            return {}
        with self._lock:
            if seen != self._seen:
                self._users = _read(self._path)
                self._seen = seen
            return self._users

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, _User]]:
        """A copy of the users to change; written at the end. One writer at a time."""
        make_private_directory(self._path.parent)
        # The lock has a file of its own: the users' file is replaced by each change.
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            users = _read(self._path)
            yield users
            write_private(self._path, json.dumps(users, indent=1).encode())
        finally:
            os.close(descriptor)


def _as_kept(name: str) -> str:
    return name.strip().lower()


def _read(path: Path) -> dict[str, _User]:
    try:
        users: dict[str, _User] = json.loads(read_private(path) or b"{}")
    except ValueError as error:
        raise securews.ConfigurationError(
            f"{path} is not a file of users ({error}); mend it, or remove it and add them again"
        ) from error
    return users
