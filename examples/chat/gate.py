"""The gate: who is it, may they come in, and for how long must they wait."""

from __future__ import annotations

from pathlib import Path

import securews
from examples.chat.attempts import AddressLimit, BusyError, OneAtATime
from examples.chat.sessions import COOKIE, Session, Sessions
from examples.chat.throttle import Throttle
from examples.chat.users import Users

__all__ = ["Gate", "TryLaterError", "WrongPasswordError", "address_of"]


class WrongPasswordError(Exception):
    """No such user, or not that password; which of them is not said."""


class TryLaterError(Exception):
    """No password is looked at now: the text says why; `seconds` are left to wait."""

    def __init__(self, why: str, seconds: int) -> None:
        super().__init__(f"{why} Please try again in {_span(seconds)}.")
        self.seconds = seconds


class Gate:
    """Checks passwords, cookies and tokens. Any thread, but no I/O thread: hashing takes long.

    Args:
        data: the directory of the users' file and of the key.
    """

    def __init__(self, data: Path) -> None:
        self.users = Users(data / "users.json")
        self.sessions = Sessions(data / "session-key", self.users)
        self.throttle = Throttle()
        self.address_limit = AddressLimit()
        # Threads that wait for a hash are taken from the pages (`request_threads`).
        self.hashing = OneAtATime(waiting=2)

    def log_in(self, name: str, password: str, address: str) -> Session:
        """A new session for who knows the password.

        Raises:
            WrongPasswordError: one of the first few failures.
            TryLaterError: too many failures for this name, too many attempts from this address,
                or too many people who log in at this moment.
        """
        _refuse_for("Too many wrong passwords.", self.throttle.wait(name, address))
        _refuse_for("Too many attempts from your address.", self.address_limit.begin(address))
        # Before the hash: whose password changes meanwhile begins no session by the old one.
        generation = self.users.generation(name)
        try:
            with self.hashing.held():
                user = self.users.check_password(name, password)
        except BusyError:
            self.address_limit.withdrawn(address)
            raise TryLaterError("Many people are logging in just now.", 1) from None
        if user is None:
            _refuse_for("Too many wrong passwords.", self.throttle.failed(name, address))
            raise WrongPasswordError
        _refuse_for("Too many wrong passwords.", self.throttle.succeeded(name, address))
        # Not before: what an address may still try must not tell that a guess was right.
        self.address_limit.succeeded(address)
        return self.sessions.begin(user, generation)

    def log_out(self, name: str) -> None:
        """End every session of `name`: cookies and tokens."""
        self.users.end_sessions(name)

    def session_of(self, request: securews.Request) -> Session | None:
        """The session of a browser, by its cookie."""
        cookie = request.cookies.get(COOKIE)
        return None if cookie is None else self.sessions.check(cookie, "cookie")

    def admit(self, request: securews.Request, response_headers: securews.Headers) -> Session:
        """The session of a WebSocket: by cookie (renewed), Bearer token, or name and password.

        Raises:
            securews.Reject: 401 with how to authenticate, or 429 with when to come again.
        """
        session = self.session_of(request)
        if session is not None:
            self.sessions.set_cookie(response_headers, session)
            return session
        try:
            session = self._by_authorization(request)
        except WrongPasswordError:
            session = None
        except TryLaterError as error:
            raise securews.Reject(429, {"Retry-After": str(error.seconds)}, f"{error}\n") from error
        if session is None:
            challenges = [("WWW-Authenticate", 'Bearer realm="chat"')]
            if request.origin is None:  # a browser would answer this one with a dialog of its own
                challenges.append(("WWW-Authenticate", 'Basic realm="chat", charset="UTF-8"'))
            raise securews.Reject(401, challenges)
        return session

    def _by_authorization(self, request: securews.Request) -> Session | None:
        authorization = request.authorization
        if authorization is None:
            return None
        if authorization.token is not None:
            return self.sessions.check(authorization.token, "token")
        if authorization.username is not None and authorization.password is not None:
            return self.log_in(authorization.username, authorization.password, address_of(request))
        return None


def address_of(request: securews.Request) -> str:
    """Where a request comes from, without the port."""
    address = request.remote_address
    return str(address[0]) if isinstance(address, tuple) else str(address)


def _refuse_for(why: str, seconds: int) -> None:
    """Refuse, unless there is nothing to wait for."""
    if seconds:
        raise TryLaterError(why, seconds)


def _span(seconds: int) -> str:
    if seconds == 1:
        return "a second"
    return f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
