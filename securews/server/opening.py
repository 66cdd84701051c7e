"""One connection from accept to its answer: TLS handshake, request, decision.

Theory of operation
-------------------
An opening is parked in the loop until its peer sends something. Each step of the handshake runs
on a worker, and meanwhile the descriptor is not watched, so that the stream has one owner at any
time. Then the request is read by the loop, checked, and given to the thread that runs `accept()`
or the page. One absolute deadline covers all of it (`open_timeout`); in SERIAL a complete request
that waits for its place is not under it, for its peer has done its part.

Whatever goes wrong ends in `answer` (there is somebody to answer in HTTP) or in `_end`. Either way
`_done` lets go of everything: what the request brought, and the place that it waits for. Code of
the user that runs by then has its place until it ends.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from securews.common.errors import Reject, Response
from securews.common.headers import Headers
from securews.connection.channel import Channel, Phase
from securews.connection.interfaces import Consumer
from securews.handlers.handler import handler_name
from securews.handlers.request import Request
from securews.loop.timers import Timer
from securews.protocol.http_head import RequestHead, RequestParser
from securews.protocol.opening import CONTINUE, wants_websocket
from securews.server import pages
from securews.server.answers import RETRY, Answer, encode_answer, internal_error
from securews.server.core import Core, peer_name, printable_address
from securews.server.hosts import check_host
from securews.server.io_threads import IOThread
from securews.server.leases import Lease, Task
from securews.server.page_body import PageBody
from securews.server.request_gate import Place
from securews.server.router import Page
from securews.server.session import Session
from securews.server.threads import AcceptingThreads
from securews.server.upgrade import Upgrade, serve
from securews.transport.socket_handler import PlainHTTPError, Want

__all__ = ["Opening"]

log = logging.getLogger("securews.server")

FINISH_SECONDS = 10.0
"""In which a peer has to take an HTTP answer, and the end of TLS."""

PlacedJob: TypeAlias = Callable[[Place, Task], None]
"""What a thread does under a place, as a task of the connection's lease."""


class Stage(enum.Enum):
    """How far an opening has come."""

    PARKED = "waits for bytes of a handshake"
    HANDSHAKE = "a worker has the stream"
    HEAD = "reads the request"
    BODY = "reads the body of a form"
    WAITING = "waits for accept() or a page"
    DONE = "was answered, or has ended"


class Opening(Consumer):
    """The consumer of a channel until it is a session. Its loop's thread, except where said."""

    __slots__ = (
        "_answered",
        "_body",
        "_core",
        "_expired",
        "_head_only",
        "_io",
        "_lease",
        "_lock",
        "_outgoing",
        "_parser",
        "_place",
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
        self._head_only = False
        self._body: PageBody | None = None
        self._place: Place | None = None
        self._lock = threading.Lock()
        self._answered = False
        """Under the lock: there is one answer, and whoever is first gives it."""
        self._outgoing: bytes | memoryview = b""
        self._expired = False
        self._request_begun = False

    def start(self) -> None:
        """Begin with the deadline, and wait for the first byte."""
        loop = self._io.loop
        if self._core.options.open_timeout is not None:
            self._timer = loop.call_later(self._core.options.open_timeout, self._timed_out)
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
        elif self._withdraw():
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
        self._end(f"the handshake failed: {error}")

    # -- the request: consumer of the channel ----------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the request."""
        assert self._parser is not None
        self._request_begun = True
        try:
            if self._stage is Stage.HEAD:
                head = self._parser.feed(data)
                if head is not None:
                    self._head_complete(head)
            elif self._body is not None:
                self._body.received(data)
        except Reject as refused:
            self.answer(refused)

    def continue_work(self) -> None:
        """Take one step of the body."""
        if self._body is not None:  # else it was answered meanwhile
            try:
                self._body.step()
            except Reject as refused:
                self.answer(refused)

    def end_received(self) -> None:
        """The peer ended before its request was complete."""
        self._end("the peer left before its request was complete")

    def peer_finished(self) -> None:
        """The peer has ended its side: it is gone, or it only has nothing more to ask.

        Nobody can tell. What would have to wait for a place is given up; the rest is answered.
        """
        if self._place is not None and self._place.withdraw_wait():
            self._end("the peer left before its request was answered")

    def next_piece(self, limit: int) -> bytes | memoryview | None:
        """Give the channel what is to be answered."""
        outgoing = self._outgoing
        if not outgoing:
            return None
        self._outgoing = memoryview(outgoing)[limit:]  # a page may be large: no copy of its rest
        return outgoing[:limit]

    def lost(self, error: Exception | None) -> None:
        """The transport broke."""
        self._note(f"the connection broke: {error}")
        self._done()
        self.channel.forget_consumer()

    def finished(self) -> None:
        """Let go of the channel: the two refer to each other."""
        self.channel.forget_consumer()

    def _head_complete(self, head: RequestHead) -> None:
        self._head_only = head.method == "HEAD"
        request = self._request(head)
        check_host(self._core, request, self.channel.stream.local_address)
        page = self._core.router.page(head.path)
        if wants_websocket(head) or page is None:
            self._upgrade(Upgrade(self._core, head, request))
            return
        pages.check_page_request(
            page, request, head.raw_host, secure=self._core.socket_handler.secure
        )
        assert self._parser is not None
        self._stage = Stage.BODY
        if head.expects_continue:
            self._outgoing = CONTINUE
        self._body = PageBody(self.channel, self._parser, partial(self._body_complete, head, page))
        self._body.received(b"")

    def _request(self, head: RequestHead, body: bytes = b"") -> Request:
        stream = self.channel.stream
        return Request(head, remote_address=stream.remote_address, tls=stream.info, body=body)

    def _body_complete(self, head: RequestHead, page: Page, body: bytes) -> None:
        self._parser = None  # it holds the body, too
        request = self._request(head, body)
        job = partial(self._run_page, page, request)
        self._wait_for(self._core.pool, job, request, f"the page {head.path}")

    # -- the decision ----------------------------------------------------------------------

    def _upgrade(self, upgrade: Upgrade) -> None:
        if upgrade.route.event_driven and not upgrade.route.asks:
            # No code of the user's has to run, so no thread is needed.
            self._accept(upgrade, Headers())
        else:
            code = f"accept() of {handler_name(upgrade.route.handler)}"
            job = partial(self._run_accept, upgrade)
            self._wait_for(self._core.accepting, job, upgrade.request, code)

    def _wait_for(
        self, threads: AcceptingThreads, job: PlacedJob, request: Request, code: str
    ) -> None:
        """Have `job` run, which calls the user's `code`; until then nothing is read."""
        self._task = self._lease.task(code, peer_name(request))
        self._stage = Stage.WAITING
        self._body = None
        self.channel.set_reading(False)
        serial = self._core.serial
        if threads is serial and self._timer is not None:
            self._timer.cancel()
        gate = serial.gate if threads is serial else self._core.gate
        self._place = gate.enter(self._io.loop, partial(self._submit, threads, job))

    def _submit(self, threads: AcceptingThreads, job: PlacedJob) -> None:
        """A place was granted."""
        place, task = self._place, self._task
        assert place is not None
        assert task is not None
        if not threads.submit(partial(task.run, partial(job, place, task))):
            self.answer(Reject(503, RETRY, "all threads are busy; try again soon\n"))

    def _withdraw(self) -> bool:
        """Give up the place. False: the code that it is for has begun."""
        return self._place is not None and self._place.withdraw()

    def _run_page(self, page: Page, request: Request, place: Place, task: Task) -> None:
        """On a thread of the pool."""
        del task
        with place as granted:
            if granted:
                self._send_soon(pages.answer(page, request))

    def _run_accept(self, upgrade: Upgrade, place: Place, task: Task) -> None:
        """On the accepting thread: `accept()`, then the handler if it is a blocking one."""
        core = self._core
        with place as granted:
            session = self._decide(upgrade) if granted else None
            if core.accepting is not core.serial:
                place.give_back()  # the handler needs none; in SERIAL the next one waits for it
            if session is not None and not session.event_driven:
                serve(core, session, task)

    def _decide(self, upgrade: Upgrade) -> Session | None:
        """On the accepting thread: the session, if `accept()` says yes in time."""
        try:
            return self._accept(upgrade, upgrade.decide())
        except Reject as refused:
            self._send_soon(encode_answer(refused, head_only=self._head_only))
            # The user may raise the same object again: its traceback would keep every request.
            refused.__traceback__ = None
            return None
        except BaseException:  # KeyboardInterrupt in the main thread, or a bug of ours
            self._send_soon(encode_answer(internal_error()))
            raise

    def _accept(self, upgrade: Upgrade, headers: Headers) -> Session | None:
        """Put the 101 before everything that the handler sends; None if it is too late for it."""
        if self._core.stop_asked:
            raise Reject(503, RETRY, "the server stops\n")
        session = upgrade.make_session(
            self.channel, self._io.budget, headers, self._core.remove_session
        )
        if not self._is_first_answer():
            return None
        self._core.add_session(session)  # so that its handler's first broadcast reaches it
        loop = self._io.loop
        if loop.on_loop_thread():
            self._opened(session)
        elif not loop.call_soon(partial(self._opened, session)):
            self._core.remove_session(session)
            return None  # the server has stopped meanwhile
        return session

    # -- the answer ------------------------------------------------------------------------

    def answer(self, response: Response | Reject, *, counted: bool = False) -> None:
        """Send an HTTP answer, and close. `counted`: it is in the statistics already."""
        if self._stage is not Stage.DONE:
            self._send(encode_answer(response, head_only=self._head_only), counted=counted)

    def _send_soon(self, answer: Answer) -> None:
        """Any thread: `_send` on the loop's."""
        self._io.loop.call_soon(partial(self._send, answer))

    def _send(self, answer: Answer, *, counted: bool = False) -> None:
        if self._stage is Stage.DONE or not self._is_first_answer():
            return  # it has ended, or `accept` has just said yes
        self._outgoing = bytes(self._outgoing) + answer.data
        self._note(f"answered with {answer.status}")
        if not counted:
            self._core.count("refused" if answer.status >= 400 else "pages")
        self._done()
        self.channel.finish(FINISH_SECONDS)

    def _is_first_answer(self) -> bool:
        """Whether there is no answer yet; from now on there is. Loop or accepting thread."""
        with self._lock:
            first, self._answered = not self._answered, True
        return first

    def _opened(self, session: Session) -> None:
        """The 101 is queued: from here on it is a session's channel."""
        if self._stage is Stage.DONE or self.channel.phase is not Phase.OPEN:
            session.connection.never_start(session, "the opening had ended already")
            return
        assert self._parser is not None
        leftover = self._parser.leftover
        self._done()
        self._core.count("accepted")
        session.connection.start(session, leftover)
        if self._core.stopping:
            session.connection.start_close(1001, "the server stops")

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
            self.channel.finish(FINISH_SECONDS)

    def _done(self) -> None:
        """It is over: hold nothing any more."""
        self._stage = Stage.DONE
        self._withdraw()
        if self._task is not None:
            self._task.cancel()
        self._parser = self._body = self._place = self._task = None
        self._lease.has_spoken()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, what: str) -> None:
        """At most one DEBUG line for an opening that came to nothing."""
        if log.isEnabledFor(logging.DEBUG) and self._stage is not Stage.DONE:
            log.debug("%s: %s", printable_address(self.channel.stream.remote_address), what)
