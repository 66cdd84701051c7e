"""The pages: log in, chat, log out, and what these load. All from this server, nothing inline."""

from __future__ import annotations

import html
import json
import string
from pathlib import Path

import securews
from examples.chat.gate import Gate, TryLaterError, WrongPasswordError, address_of
from examples.chat.revocation import Revocation
from examples.chat.sessions import COOKIE

__all__ = ["add_pages"]

_STATIC = Path(__file__).parent / "static"
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_LOADED = {
    "/chat.css": "text/css; charset=utf-8",
    "/chat.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
_NOTES = {
    "out": "You are logged out.",
    "over": "Your session is over. Please log in again.",
}


def add_pages(server: securews.WebSocketServer, gate: Gate, revocation: Revocation) -> None:
    """Register every page of the chat."""
    login = string.Template((_STATIC / "login.html").read_text(encoding="utf-8"))
    chat = (_STATIC / "chat.html").read_bytes()

    def login_page(status: int, note: str, name: str = "", **headers: str) -> securews.Response:
        filled = login.substitute(
            note=html.escape(note),
            name=html.escape(name),
            name_focus="" if name else " autofocus",
            password_focus=" autofocus" if name else "",
        )
        return securews.Response(status, {**_HTML, **headers}, filled.encode())

    @server.page("/")
    def chat_page(request: securews.Request) -> securews.Response:
        session = gate.session_of(request)
        if session is None:
            return _see("/login")
        response = securews.Response(200, _HTML, chat)
        gate.sessions.set_cookie(response.headers, session)
        return response

    @server.page("/login", methods=("GET", "POST"))
    def log_in(request: securews.Request) -> securews.Response:
        if request.method != "POST":
            if gate.session_of(request) is not None:
                return _see("/")
            return login_page(200, _NOTES.get(request.query, ""))
        name, password = request.form.get("name", ""), request.form.get("password", "")
        try:
            session = gate.log_in(name, password, address_of(request))
        except WrongPasswordError:
            # Not 401: that must come with a challenge, to which a browser opens its own dialog.
            return login_page(403, "That is not the right name and password.", name[:64])
        except TryLaterError as error:
            return login_page(429, str(error), name[:64], **{"Retry-After": str(error.seconds)})
        response = _see("/")
        gate.sessions.set_cookie(response.headers, session)
        return response

    @server.page("/logout", methods=("POST",))
    def log_out(request: securews.Request) -> securews.Response:
        session = gate.session_of(request)
        if session is not None:
            # First the sessions, then the connections: none of them can come back in between.
            gate.log_out(session.name)
            revocation.close_ended()
        response = _see("/login?out")
        response.headers.delete_cookie(COOKIE)
        return response

    @server.page("/me")
    def me(request: securews.Request) -> securews.Response:
        # Always 200: a browser writes other statuses into its console as errors.
        session = gate.session_of(request)
        name = None if session is None else session.name
        headers = {"Content-Type": "application/json"}
        response = securews.Response(200, headers, json.dumps({"name": name}).encode())
        if session is not None:
            gate.sessions.set_cookie(response.headers, session)
        return response

    for path, kind in _LOADED.items():
        _add_file(server, path, path, kind)
    _add_file(server, "/favicon.ico", "/icon.svg", _LOADED["/icon.svg"])  # asked for unasked


def _add_file(server: securews.WebSocketServer, path: str, file: str, kind: str) -> None:
    content = (_STATIC / file.lstrip("/")).read_bytes()

    @server.page(path)
    def loaded(_request: securews.Request) -> securews.Response:
        return securews.Response(200, {"Content-Type": kind}, content)


def _see(path: str) -> securews.Response:
    """Go there with GET (RFC 9110, section 15.4.4)."""
    return securews.Response(303, {"Location": path})
