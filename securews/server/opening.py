"""One connection from accept to its answer: TLS handshake, request, decision.

Theory of operation
-------------------
An opening is parked in the loop until its peer sends something. Each step of the handshake runs
on a worker, and meanwhile the descriptor is not watched, so that the stream has one owner at any
time. Then the request is read by the loop, checked, and given to the thread that runs `accept()`
or the page. One absolute deadline covers all of it (`open_timeout`); in SERIAL a complete request
that waits for its turn is not under it, for its peer has done its part.

Whatever goes wrong ends in `answer` (there is somebody to answer in HTTP) or in `_end`.
"""

from __future__ import annotations

import enum
import logging
import threading
from functools import partial

from securews.common.errors import HandshakeError, Reject, Response
from securews.common.headers import Headers
from securews.connection.channel import Channel, Phase
from securews.handlers.handler import ThreadedWebSocketHandler, handler_name
from securews.handlers.request import FORM_LIMIT, Request
from securews.loop.timers import Timer
from securews.protocol.http_head import RequestHead, RequestParser
from securews.protocol.opening import CONTINUE, encode_response, wants_websocket
from securews.server import pages
from securews.server.core import Core, peer_name, printable_address
from securews.server.io_threads import IOThread
from securews.server.leases import Lease, Task
from securews.server.router import Page
from securews.server.session import Session
from securews.server.threads import AcceptingThreads, Job
from securews.server.upgrade import Upgrade, check_host
from securews.transport.socket_handler import PlainHTTPError, Want

__all__ = ["RETRY", "Opening"]

log = logging.getLogger("securews.server")

RETRY = {"Retry-After": "1"}


class Stage(enum.Enum):
    """How far an opening has come."""

    PARKED = "waits for bytes of a handshake"
    HANDSHAKE = "a worker has the stream"
    HEAD = "reads the request"
    BODY = "reads the body of a form"
    WAITING = "waits for accept() or a page"
    DONE = "was answered, or has ended"


class Opening:
    """The consumer of a channel until it is a session. Its loop's thread, except where said."""

    __slots__ = (
        "_answered",
        "_began_deciding",
        "_core",
        "_expired",
        "_head",
        "_io",
        "_lease",
        "_page",
        "_parser",
        "_request",
        "_request_begun",
        "_stage",
        "_task",
        "_timer",
        "channel",
        "fd",
    )

    def __init__(self, core: Core, io: IOThread, channel: Channel, lease: Lease) -> None:
        self._core = core
        self._io = io
        self._lease = lease
        self._task: Task | None = None
        self.channel = channel
        self.fd = channel.fd
        channel.consumer = self
        self._stage = Stage.PARKED
        self._timer: Timer | None = None
        self._parser: RequestParser | None = None
        self._head: RequestHead | None = None
        self._request: Request | None = None
        self._page: Page | None = None
        self._answered = False
        self._expired = False
        self._request_begun = False
        self._began_deciding = threading.Event()

    def start(self) -> None:
        """Begin with the deadline, and wait for the first byte."""
        loop = self._io.loop
        if self._core.options.open_timeout is not None:
            due = loop.now + self._core.options.open_timeout
            self._timer = loop.timers.call_at(due, self._timed_out)
        loop.watch(self, read=True, write=False)
        self._lease.is_silent(self.make_room, loop.now)

    def make_room(self) -> None:
        """Silent for longest while others come, and its place is given away: go. Any thread."""
        if self._io.loop.on_loop_thread():
            self._end("it was silent and had to make room")
        else:
            self._io.loop.call_soon(self.make_room)

    def abort(self, error: Exception | None = None) -> None:
        """End at once: it has raised, or the loop ends."""
        self.channel.abort(error)

    def server_stops(self, *, at_once: bool) -> None:
        """End what has not begun; what has begun may end by itself, unless `at_once`."""
        if self._stage is Stage.HANDSHAKE:
            self._expired = True  # a worker has the stream: end it when the step is reported
        elif self._stage is Stage.DONE or (self._stage is Stage.WAITING and at_once):
            if at_once:
                self.channel.abort()
        elif self._stage is not Stage.WAITING:
            self._end("the server stops")
        elif not self._began_deciding.is_set():
            self.answer(Reject(503, RETRY, "the server stops\n"))

    # -- the handshake ---------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Parked, and bytes are there: let a worker take the next step."""
        del mask  # whichever: the step finds out
        if not self._lease.has_spoken():
            self.make_room()  # its place was given away a moment ago
            return
        self._stage = Stage.HANDSHAKE
        self.channel.hand_over()
        self._core.handshakes.submit(self.channel.stream, self._io.loop, self._stepped)

    def _stepped(self, result: Want | Exception) -> None:
        if self._stage is not Stage.HANDSHAKE:
            return
        if self._expired:
            self._stage = Stage.PARKED  # the worker has given the stream back
            self._end("the handshake took too long")
        elif result is Want.NOTHING:
            self._stage = Stage.HEAD
            self._parser = RequestParser(self._core.options.limits)
            self.channel.set_reading(True)
        elif isinstance(result, Want):
            self._stage = Stage.PARKED
            self._io.loop.watch(self, read=result is Want.READ, write=result is Want.WRITE)
        elif isinstance(result, PlainHTTPError):
            self.answer(Reject(400, None, "TLS is spoken here; use https:// or wss://\n"))
        else:
            self._handshake_failed(result)

    def _handshake_failed(self, error: Exception) -> None:
        self._core.count("handshake_failures")
        if not isinstance(error, (HandshakeError, OSError)):
            log.error("internal error in a handshake", exc_info=error)
        self._end(f"the handshake failed: {error}")

    # -- the request: consumer of the channel ----------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the request."""
        assert self._parser is not None
        self._request_begun = True
        try:
            if self._stage is Stage.HEAD:
                self._head = self._parser.feed(data)
                if self._head is not None:
                    self._head_complete(self._head)
            elif self._stage is Stage.BODY:
                self._body_received(data)
        except Reject as refused:
            self.answer(refused)

    def end_received(self) -> None:
        """The peer ended before its request was complete."""
        self._end("the peer left before its request was complete")

    def peer_finished(self) -> None:
        """The peer left while its request waits for its turn."""
        if self._stage is Stage.WAITING and not self._began_deciding.is_set():
            self._end("the peer left before its turn")

    def turn(self) -> None:
        """Nothing is asked of an opening by a mark."""

    def turned(self) -> None:
        """An opening holds little: one head, or one form."""

    def drained(self) -> None:
        """Nothing waits for this."""

    def finished(self) -> None:
        """The answer is out."""

    def lost(self, error: Exception | None) -> None:
        """The transport broke."""
        self._note(f"the connection broke: {error}")
        self._done()

    def _head_complete(self, head: RequestHead) -> None:
        stream = self.channel.stream
        request = Request(head, remote_address=stream.remote_address, tls=stream.info)
        self._request = request
        check_host(self._core, head, request)
        page = self._core.router.page(head.path)
        if wants_websocket(head) or page is None:
            self._upgrade(Upgrade(self._core, head, request))
            return
        pages.check_page_request(
            page, request, head.raw_host, secure=self._core.socket_handler.secure
        )
        self._page = page
        self._stage = Stage.BODY
        if head.expects_continue:
            with self.channel.lock:
                self.channel.outbox.append(CONTINUE)
        self._body_received(b"")

    def _body_received(self, data: bytes) -> None:
        assert self._parser is not None
        assert self._head is not None
        body = self._parser.feed_body(data, FORM_LIMIT)
        if body is not None:
            stream = self.channel.stream
            self._request = Request(
                self._head, remote_address=stream.remote_address, tls=stream.info, body=body
            )
            self._wait_for(self._core.pool, self._run_page, f"the page {self._head.path}")

    # -- the decision ----------------------------------------------------------------------

    def _upgrade(self, upgrade: Upgrade) -> None:
        if upgrade.route.event_driven and not upgrade.route.asks:
            # No code of the user's has to run, so no thread is needed.
            self._accept(upgrade, Headers())
        else:
            code = f"accept() of {handler_name(upgrade.route.handler)}"
            self._wait_for(self._core.accepting, partial(self._run_accept, upgrade), code)

    def _wait_for(self, threads: AcceptingThreads, job: Job, code: str) -> None:
        """Have `job` run, which calls the user's `code`; until then nothing is read."""
        assert self._request is not None
        self._task = self._lease.task(code, peer_name(self._request))
        job = partial(self._task.run, job)
        self._stage = Stage.WAITING
        self.channel.set_reading(False)
        if threads is self._core.serial:
            if self._timer is not None:
                self._timer.cancel()
            self._submit(threads, job)
        else:
            self._core.gate.enter(self._io.loop, partial(self._submit_gated, threads, job))

    def _submit(self, threads: AcceptingThreads, job: Job) -> None:
        if not threads.submit(job):
            self.answer(Reject(503, RETRY, "all threads are busy; try again soon\n"))

    def _submit_gated(self, threads: AcceptingThreads, job: Job) -> None:
        if self._stage is not Stage.WAITING:
            self._core.gate.leave()
        elif not threads.submit(job):
            self._core.gate.leave()
            self.answer(Reject(503, RETRY, "all threads are busy; try again soon\n"))

    def _run_page(self) -> None:
        """On a thread of the pool."""
        assert self._page is not None
        assert self._request is not None
        self._began_deciding.set()
        if self._stage is not Stage.WAITING:
            self._core.gate.leave()
            return
        response = pages.answer(self._page, self._request)
        self._core.gate.leave()
        self._io.loop.call_soon(partial(self.answer, response))

    def _run_accept(self, upgrade: Upgrade) -> None:
        """On the accepting thread: `accept()`, then the handler if it is a blocking one."""
        core = self._core
        self._began_deciding.set()
        session: Session | None = None
        try:
            if self._stage is Stage.WAITING:
                session = self._accept(upgrade, upgrade.decide())
        except Reject as refused:
            self._io.loop.call_soon(partial(self.answer, refused))
        finally:
            if core.accepting is not core.serial:
                core.gate.leave()
        if session is not None and not session.event_driven:
            self._serve(session)

    def _accept(self, upgrade: Upgrade, headers: Headers) -> Session | None:
        """Put the 101 before everything that the handler sends; None if it is too late for it."""
        if self._core.stop_asked:
            raise Reject(503, RETRY, "the server stops\n")
        session, data = upgrade.make_session(
            self.channel, self._io.budget, headers, self._session_ended
        )
        if not self._begin_answer(data):
            return None
        self._core.add_session(session)  # so that its handler's first broadcast reaches it
        loop = self._io.loop
        if loop.on_loop_thread():
            self._opened(session)
        elif not loop.call_soon(partial(self._opened, session)):
            self._core.remove_session(session)
            return None  # the server has stopped meanwhile
        return session

    def _serve(self, session: Session) -> None:
        """On the accepting thread: run a blocking handler here, or where it wants to run."""
        core, handler = self._core, session.handler
        assert self._task is not None
        if isinstance(handler, ThreadedWebSocketHandler):
            threads: AcceptingThreads = core.pool if handler.pooling else core.new_threads
            if threads is not core.accepting:
                task = self._lease.task(handler_name(handler), session.connection.name)
                if not threads.submit(partial(task.run, partial(core.run_handler, session))):
                    task.cancel()
                    session.connection.start_close(1013, "all threads are busy; try again soon")
                return
        self._task.name = handler_name(handler)  # the same thread goes on with the handler
        core.run_handler(session)

    # -- the answer ------------------------------------------------------------------------

    def answer(self, response: Response | Reject) -> None:
        """Send an HTTP answer, and close."""
        if self._stage is Stage.DONE:
            return
        head_only = self._request is not None and self._request.method == "HEAD"
        try:
            data = encode_response(response, head_only=head_only)
        except ValueError as error:
            log.error("%s; answered with 500", error)
            data = encode_response(Response(500, None, "internal error\n"), head_only=head_only)
        if not self._begin_answer(data):
            return  # `accept` has just said yes
        self._note(f"answered with {response.status}")
        self._core.count("refused" if response.status >= 400 else "pages")
        self._done()
        self.channel.finish()

    def _begin_answer(self, data: bytes) -> bool:
        """Queue the one answer; False if there is one already. Loop or accepting thread."""
        with self.channel.lock:
            if self._answered:
                return False
            self._answered = True
            self.channel.outbox.append_answer(data)
        return True

    def _opened(self, session: Session) -> None:
        """The 101 is in the outbox: from here on it is a session's channel."""
        if self._stage is Stage.DONE or self.channel.phase is not Phase.OPEN:
            session.connection.observer = session
            session.connection.lost(ConnectionResetError("the opening had ended already"))
            return
        assert self._parser is not None
        self._done()
        self._core.count("accepted")
        session.opened(self._parser.leftover)
        if self._core.stopping:
            session.connection.start_close(1001, "the server stops")
        self.channel.mark()

    def _session_ended(self, session: Session) -> None:
        self._core.remove_session(session)

    def _timed_out(self) -> None:
        self._timer = None
        if self._stage is Stage.HANDSHAKE:
            self._expired = True  # a worker has the stream: end it when the step is reported
        elif self._stage is Stage.WAITING:
            log.warning(
                "%s: not answered within open_timeout; accept() or the page is too slow, or "
                "request_threads too few; answered with 503",
                printable_address(self.channel.stream.remote_address),
            )
            self.answer(Reject(503, RETRY, "the server is too busy; try again soon\n"))
        elif self._request_begun:
            self.answer(Reject(408, None, "the request took too long\n"))
        else:
            self._end("it took too long")

    def _end(self, why: str) -> None:
        """Nobody can be answered: close in order, so that a TLS alert arrives."""
        if self._stage is Stage.DONE:
            return
        silent = self._stage is Stage.PARKED
        self._note(why)
        self._done()
        if silent:
            self.channel.abort()
        else:
            self.channel.finish()

    def _done(self) -> None:
        self._stage = Stage.DONE
        self._lease.has_spoken()
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, what: str) -> None:
        """At most one DEBUG line for an opening that came to nothing."""
        if log.isEnabledFor(logging.DEBUG) and self._stage is not Stage.DONE:
            log.debug("%s: %s", printable_address(self.channel.stream.remote_address), what)
