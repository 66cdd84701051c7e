"""One open connection and its handler: who is called, on which thread, and what if it raises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic

from securews.common.errors import ConnectionClosed
from securews.common.interpreter import ends_the_program
from securews.connection.connection import Connection
from securews.connection.interfaces import Message
from securews.handlers.communicator import Communicator
from securews.handlers.handler import (
    EventWebSocketHandler,
    WebSocketHandler,
    handler_name,
)

__all__ = ["Session"]

log = logging.getLogger("securews.server")
access_log = logging.getLogger("securews.access")

HOLDS_THE_LOOP = 0.1
"""Seconds that callbacks may take before a warning names them."""


class Session:
    """The observer of a connection.

    Args:
        handler: serves it.
        connection: under `ws`.
        ws: what the handler is given.
        ended: called once, on the loop's thread, after the handler was told.
    """

    __slots__ = (
        "_calling",
        "_ended",
        "_events",
        "_opened_at",
        "_warned",
        "connection",
        "event_driven",
        "handler",
        "ws",
    )

    def __init__(
        self,
        handler: WebSocketHandler,
        connection: Connection,
        ws: Communicator,
        ended: Callable[[Session], None],
    ) -> None:
        self.handler = handler
        self.connection = connection
        self.ws = ws
        self.event_driven = isinstance(handler, EventWebSocketHandler)
        self._events = handler if isinstance(handler, EventWebSocketHandler) else None
        self._ended = ended
        self._opened_at: float | None = None
        self._warned = False
        self._calling = "on_message"

    # -- the loop's thread: the observer ---------------------------------------------------

    def connection_opened(self) -> None:
        """The 101 is queued."""
        self._opened_at = monotonic()
        if access_log.isEnabledFor(logging.INFO):
            access_log.info("%s: open", self.connection.name)
        if self._events is not None:
            self._call("on_open", self._events.on_open, self.ws)

    def message_received(self, message: Message) -> None:
        """One message of an event-driven connection."""
        assert self._events is not None
        try:
            self._events.on_message(self.ws, message)
        except BaseException as error:
            self._failed(error)

    def messages_queued(self) -> None:
        """Messages are there for `recv`."""
        if self.ws.on_receive_message is not None:
            self._call("on_receive_message", self.ws.on_receive_message, self.ws)

    def dispatched(self, began: float) -> None:
        """All calls of one read are done: did they hold the loop?"""
        if self._events is not None:
            self._warn_if_slow(began, "on_message")

    def connection_closed(self) -> None:
        """It is over."""
        connection = self.connection
        if self._opened_at is not None and access_log.isEnabledFor(logging.INFO):
            access_log.info(
                "%s: closed with %s by %s after %.1f s",
                connection.name,
                connection.link.closing.code,
                connection.link.closing.initiator,
                monotonic() - self._opened_at,
            )
        if self._events is not None and self._opened_at is not None:
            closing = connection.link.closing
            self._call("on_close", self._events.on_close, self.ws, closing.code, closing.reason)
        self.ws._tell_closed()
        self._ended(self)

    # -- the accepting thread --------------------------------------------------------------

    def communicate(self) -> None:
        """Run a blocking handler over the connection, to its end.

        Whatever it raises ends its connection alone; but Ctrl-C in the main thread is for the
        program, and goes on up.
        """
        try:
            self._guarded(self._prepare_and_handle)
            self._guarded(partial(self.handler.finalize_communication, self.ws))
        finally:
            self.connection.start_close(1000)
            self.connection.handler_done()

    # -- internal --------------------------------------------------------------------------

    def _prepare_and_handle(self) -> None:
        self.handler.prepare_communication(self.ws)
        self.handler.handle_communication(self.ws)

    def _guarded(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            if ends_the_program(error):
                self.connection.start_close(1011, "internal error")
                raise
            self._failed(error)

    def _call(self, name: str, callback: Callable[..., object], *args: object) -> None:
        """Run a callback of the user on the loop's thread."""
        began = monotonic()
        loop = self.connection.loop
        caller, loop.caller, self._calling = loop.caller, self, name
        try:
            callback(*args)
        except BaseException as error:
            self._failed(error)
        loop.caller, self._calling = caller, "on_message"
        self._warn_if_slow(began, name)

    def callback_name(self) -> str:
        """What the log calls the callback that runs."""
        return f"{handler_name(self.handler)}.{self._calling}"

    def _warn_if_slow(self, began: float, name: str) -> None:
        seconds = monotonic() - began
        if seconds > HOLDS_THE_LOOP and not self._warned:
            self._warned = True
            log.warning(
                "%s: %s.%s held the I/O thread for %d ms, and every connection waited; do long "
                "work in a WebSocketHandler, which has a thread of its own",
                self.connection.name,
                handler_name(self.handler),
                name,
                seconds * 1000,
            )

    def _failed(self, error: BaseException) -> None:
        """The handler raised: tell the peer 1011, and the log once."""
        name = self.connection.name
        if isinstance(error, ConnectionClosed):
            log.debug("%s: the handler ended with its connection: %s", name, error)
            self.connection.start_close(1000)
            return
        handler = handler_name(self.handler)
        log.error("%s: %s raised; closed with 1011", name, handler, exc_info=error)
        self.connection.start_close(1011, "internal error")
