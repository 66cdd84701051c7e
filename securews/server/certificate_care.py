"""Care for the certificates of a running server: reload, renewal, and a warning in time.

And for those of its clients, which are judged again while their connections are open. Reading and
checking files takes milliseconds and may wait for a disk, and `authorize=` is the user's code: both
run in threads of their own; the loop only keeps the time.
"""

from __future__ import annotations

import datetime as dt
import logging

from securews.common.errors import ConfigurationError
from securews.server.core import Core
from securews.server.session import Session
from securews.transport.socket_handler import SocketHandler
from securews.transport.wrapping import WrappingSocketHandler

__all__ = ["CertificateCare", "check_revalidation"]

log = logging.getLogger("securews.tls")

WARN_AT = (10, 3)
"""The log says so when a tenth and when a third of a certificate's life is left; urgent first."""
LONGEST_LIFE = dt.timedelta(days=90)
"""What lives longer is warned of as if it lived so long, 30 and 9 days ahead: not years."""
INTERVAL = 1800.0
"""Seconds between two looks at the calendar, and at the age of what is renewed after hours."""


class CertificateCare:
    """Loop thread only, except `reload_soon`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._warned: set[tuple[dt.datetime, int]] = set()
        self._last_error: str | None = None

    def start(self) -> None:
        """Look at calendar and age now and then; at files and clients as the options say."""
        self._check_expiry()
        self._watch_age()
        self._watch_files()
        self._watch_clients()

    def reload_soon(self) -> None:
        """Read the files again, in a thread. What fails is logged, and the old ones stay."""
        self._core.new_threads.submit(self._reload)

    def _check_expiry(self) -> None:
        loop = self._core.loop
        loop.call_later(INTERVAL, self._check_expiry)
        self._warn_of_expiry()

    def _warn_of_expiry(self) -> None:
        now = dt.datetime.now(dt.UTC)
        warned: set[tuple[dt.datetime, int]] = set()
        for begin, end in self._core.socket_handler.validities:
            left, life = end - now, min(end - begin, LONGEST_LIFE)
            part = next((part for part in WARN_AT if left * part <= life), None)
            if part is None:
                continue
            if (end, part) not in self._warned | warned:
                _warn(end, left)
            warned.add((end, part))
        self._warned = warned

    def _watch_age(self) -> None:
        loop = self._core.loop
        loop.call_later(INTERVAL, self._look_at_age)

    def _look_at_age(self) -> None:
        if not self._core.new_threads.submit(self._renew):
            self._watch_age()

    def _renew(self) -> None:
        """In a thread of its own; the next look comes after this one, however long it takes."""
        try:
            self._core.socket_handler.renew_if_due()
        except BaseException:
            log.exception("renew_if_due raised; the old keys go on")
        finally:
            self._core.loop.call_soon(self._watch_age)

    def _watch_files(self) -> None:
        interval, loop = self._core.options.reload_interval, self._core.loop
        if interval is not None:
            loop.call_later(interval, self._look_at_files)

    def _look_at_files(self) -> None:
        if not self._core.new_threads.submit(self._reload_if_changed):
            self._watch_files()

    def _reload_if_changed(self) -> None:
        """In a thread of its own; the next look comes after this one, however long it takes."""
        try:
            if self._core.socket_handler.files_changed():
                self._reload()
        finally:
            self._core.loop.call_soon(self._watch_files)

    def _reload(self) -> None:
        """In a thread of its own."""
        try:
            self._core.socket_handler.reload()
        except ConfigurationError as error:
            if str(error) != self._last_error:  # a watched file stays wrong until it is mended
                log.error("%s", error)
            self._last_error = str(error)
        except BaseException:
            log.exception("reload raised; the old certificates stay")
        else:
            log.info("the certificate files were loaded")
            self._last_error = None
            self._core.loop.call_soon(self._warn_of_expiry)

    def _watch_clients(self) -> None:
        interval, loop = self._core.options.revalidate_interval, self._core.loop
        if interval is not None:
            loop.call_later(interval, self._look_at_clients)

    def _look_at_clients(self) -> None:
        if not self._core.new_threads.submit(self._close_who_is_refused_now):
            self._watch_clients()

    def _close_who_is_refused_now(self) -> None:
        """In a thread of its own; the next look comes after this one, however long it takes."""
        try:
            for session in self._core.sessions():
                if not self._still_admitted(session):
                    session.connection.start_close(1008, "the certificate is not accepted any more")
        finally:
            self._core.loop.call_soon(self._watch_clients)

    def _still_admitted(self, session: Session) -> bool:
        info = session.ws.request.tls
        try:
            return info is None or self._core.socket_handler.still_admitted(info)
        except BaseException:
            log.exception("still_admitted raised; %s is closed", session.connection.name)
            return False


def _warn(end: dt.datetime, left: dt.timedelta) -> None:
    hours = left.total_seconds() / 3600
    log.warning(
        "the certificate expires on %s UTC, in %s; renew it (reload_tls(), SIGHUP or "
        "reload_interval= load the new one)",
        f"{end:%Y-%m-%d %H:%M}",
        f"{left.days} days" if left.days >= 2 else f"{hours:.0f} h",
    )


def check_revalidation(interval: float | None, handler: SocketHandler) -> None:
    """ConfigurationError for a `revalidate_interval` that would find nothing to judge."""
    if interval is None:
        return
    judge = handler
    while (
        isinstance(judge, WrappingSocketHandler)
        and type(judge).still_admitted is WrappingSocketHandler.still_admitted
    ):
        judge = judge.inner
    if type(judge).still_admitted is SocketHandler.still_admitted:
        raise ConfigurationError(
            "revalidate_interval judges the certificates of clients again, and "
            f"{type(judge).__name__} has no rules for them: use MutualTLSSocketHandler"
        )
