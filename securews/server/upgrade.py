"""From a complete request to a session: what is checked, who decides, what is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, cast

from securews.common.errors import Reject, printable
from securews.common.headers import Headers
from securews.common.interpreter import ends_the_program
from securews.connection.budget import Budget
from securews.connection.channel import Channel
from securews.connection.connection import Connection
from securews.handlers.handler import ThreadedWebSocketHandler, handler_name
from securews.handlers.origins import origin_allowed
from securews.handlers.request import Request
from securews.protocol.deflate_negotiation import accept_offer
from securews.protocol.http_head import RequestHead
from securews.protocol.opening import check_upgrade, choose_subprotocol, encode_101
from securews.protocol.parser import Role
from securews.server.answers import http_date, internal_error
from securews.server.core import Core, printable_address
from securews.server.leases import Task
from securews.server.router import Route
from securews.server.session import Session
from securews.server.threads import AcceptingThreads

__all__ = ["Upgrade", "find_route", "serve"]

Ended: TypeAlias = Callable[[Session], None]

log = logging.getLogger("securews.server")


def find_route(core: Core, head: RequestHead) -> Route:
    """The route of a request.

    Raises:
        Reject: 404.
    """
    route = core.router.route(head.host, head.path)
    if route is None:
        raise Reject(404, None, f"nothing is served at {printable(head.path)}\n")
    return route


class Upgrade:
    """One request that asks for a WebSocket, until it is a session or was refused."""

    def __init__(self, core: Core, head: RequestHead, request: Request) -> None:
        """Check everything that needs no user code. Loop thread.

        Raises:
            Reject: whatever is wrong with the request.
        """
        self.route = find_route(core, head)
        self.request = request
        self._core = core
        self._key = check_upgrade(head)
        self._extensions = head.headers.get_all("Sec-WebSocket-Extensions")
        self._subprotocol = choose_subprotocol(request.subprotocols, self.route.subprotocols)
        if not origin_allowed(
            request.origin, head.raw_host, core.socket_handler.secure, self.route.origins
        ):
            core.warn_of_origin(request.origin or "")
            raise Reject(
                403,
                None,
                "pages of this origin may not connect; the server's origins= option allows them\n",
            )

    def decide(self) -> Headers:
        """Ask the user's `accept`. On the accepting thread.

        Returns:
            The headers that the 101 carries.

        Raises:
            Reject: it was refused, by the user or, with 500, for whatever `accept` raised.
            KeyboardInterrupt: `accept` has raised it, and this is the main thread.
        """
        headers = Headers()
        name = handler_name(self.route.handler)
        try:
            accepted: object = cast("object", self.route.accept(self.request, headers))
        except Reject:
            raise
        except BaseException as error:
            if ends_the_program(error):
                raise
            log.exception("accept() of %s raised; answered with 500", name)
            raise internal_error() from None
        if accepted is True:
            return headers
        if accepted is False:
            raise Reject(403)
        log.error(
            "accept() of %s returned %r; it must return True or False (is a 'return True' "
            "missing?); answered with 500",
            name,
            accepted,
        )
        raise internal_error()

    def make_session(
        self, channel: Channel, budget: Budget, headers: Headers, ended: Ended
    ) -> Session:
        """The session; the 101 goes before everything that it sends. On the accepting thread.

        Raises:
            Reject: 500; the user's headers do not fit, or `create_communicator` raised.
            KeyboardInterrupt: `create_communicator` has, and this is the main thread.
        """
        handler, request = self.route.handler, self.request
        name = f"{printable_address(request.remote_address)} {printable(request.path)}"
        compression = self.route.options.wanted_compression
        agreed = compression and accept_offer(
            self._extensions, compression, confidential=_confidential(request, headers)
        )
        extension, deflate = agreed or (None, None)
        try:
            answer = encode_101(
                self._key, self._subprotocol, headers, extension=extension, date=http_date()
            )
            connection = Connection(
                channel,
                Role.SERVER,
                self.route.options,
                limits=self._core.options.limits,
                budget=budget,
                name=name,
                answer=answer,
                deflate=deflate,
            )
            ws = handler.create_communicator(connection, request)
            ws._attach(self._core.server, self._subprotocol)
        except BaseException as error:
            if ends_the_program(error):
                raise
            log.exception("%s: the connection could not be set up; answered with 500", name)
            raise internal_error() from None
        return Session(handler, connection, ws, ended)


def serve(core: Core, session: Session, task: Task) -> None:
    """On the accepting thread: run a blocking handler here, or where it wants to run."""
    handler = session.handler
    name = handler_name(handler)
    if isinstance(handler, ThreadedWebSocketHandler):
        threads: AcceptingThreads = core.pool if handler.pooling else core.new_threads
        if threads is not core.accepting:
            other = task.lease.task(name, session.connection.name)
            if not threads.submit(partial(other.run, partial(core.run_handler, session))):
                other.cancel()
                session.connection.start_close(1013, "all threads are busy; try again soon")
            return
    task.name = name  # the same thread goes on with the handler
    core.run_handler(session)


def _confidential(request: Request, response_headers: Headers) -> bool:
    """Whether the opening says who the client is: its messages are worth an onlooker's while."""
    return (
        (request.tls is not None and request.tls.client_certificate is not None)
        or "Cookie" in request.headers
        or "Authorization" in request.headers
        or "Set-Cookie" in response_headers
    )
