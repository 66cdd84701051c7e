"""From a connection to its answer: whatever user code raises, and whoever leaves, all is given back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading
import tracemalloc

import pytest
from support import TIMEOUT, Happened, RawClient, eventually, tracebacks_in

import securews
from securews import AcceptingMethod
from securews.handlers.request import Request
from securews.server.opening import Opening
from securews.server.page_body import PageBody

SERIAL, THREADED, POOL = AcceptingMethod
ANYTHING = [
    ZeroDivisionError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
]
FORM = "POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}"


def served(handler=None, **options):
    options = {"request_threads": 1, "free_handlers": False} | options
    return securews.serve(0, handler or Echo(), tls=False, **options)


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def get(server, path="/page"):
    return ask(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")


def ask(server, raw):
    with RawClient(server.address, upgrade=False) as client:
        client.send_raw(raw.encode())
        return client.read_to_end()


def exchange(server):
    with securews.connect(server.url) as ws:
        ws.send("hello")
        assert ws.recv(timeout=TIMEOUT) == "hello"


# -- whatever user code raises -------------------------------------------------------------------


@pytest.mark.parametrize("error", ANYTHING)
def test_a_page_may_raise_anything(error, caplog):
    server = served()

    @server.page("/raises")
    def raises(request):
        raise error("secret detail")

    server.page("/page")(lambda request: "fine")
    with server:
        for count in (1, 2):
            answer = get(server, "/raises")
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"secret" not in answer
            assert len(tracebacks_in(caplog)) == count
            assert get(server).startswith(b"HTTP/1.1 200 ")


class Raising(Echo):
    """Raises in one of its methods, if the path says so."""

    def __init__(self, method, error):
        self.method, self.error = method, error

    def raise_in(self, method, request):
        if method == self.method and request.path == "/raises":
            raise self.error("secret detail")

    def accept(self, request, response_headers):
        self.raise_in("accept", request)
        return True

    def create_communicator(self, connection, request):
        self.raise_in("create_communicator", request)
        return super().create_communicator(connection, request)


@pytest.mark.parametrize("accepting", AcceptingMethod)
@pytest.mark.parametrize("method", ["accept", "create_communicator"])
@pytest.mark.parametrize("error", ANYTHING)
def test_accept_and_create_communicator_may_raise_anything(error, method, accepting, caplog):
    with served(Raising(method, error), accepting_method=accepting) as server:
        for count in (1, 2):
            with RawClient(server.address, path="/raises") as client:
                assert client.status == 500
                assert b"secret" not in client.read_to_end()
            assert len(tracebacks_in(caplog)) == count
            assert opened(server)


def opened(server):
    with RawClient(server.address) as client:
        return client.status == 101


def test_create_communicator_may_raise_anything_on_the_io_thread_too(caplog):
    class Events(Echo):
        def create_communicator(self, connection, request):
            if request.path == "/raises":
                raise asyncio.CancelledError
            return super().create_communicator(connection, request)

    with served(Events()) as server:
        with RawClient(server.address, path="/raises") as client:
            assert client.status == 500
        exchange(server)
    assert len(tracebacks_in(caplog)) == 1


@pytest.mark.parametrize("accepting", AcceptingMethod)
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_a_blocking_handler_may_raise_anything(error, accepting, caplog):
    def handler(ws):
        if ws.request.path == "/raises":
            raise error("secret detail")
        for message in ws:
            ws.send(message)

    with served(handler, accepting_method=accepting) as server:
        for count in (1, 2):
            with RawClient(server.address, path="/raises") as client:
                frame = client.read_close()
                assert frame.close_code == 1011
                assert b"secret" not in frame.payload
            assert opened(server)
            assert len(tracebacks_in(caplog)) == count
        eventually(lambda: not server._core.running)


@pytest.mark.parametrize("where", ["accept", "handler", "create_communicator"])
def test_the_main_threads_own_keyboard_interrupt_goes_on_up(where, caplog):
    class Interrupted(securews.WebSocketHandler):
        def accept(self, request, response_headers):
            if where == "accept":
                raise KeyboardInterrupt
            return True

        def create_communicator(self, connection, request):
            if where == "create_communicator":
                raise KeyboardInterrupt
            return super().create_communicator(connection, request)

        def handle_communication(self, ws):
            raise KeyboardInterrupt

    server = served(Interrupted(), accepting_method=SERIAL)
    answers = Happened()

    def visit():
        with RawClient(server.address) as client:
            answers(client.status if where != "handler" else client.read_close().close_code)

    visitor = threading.Thread(target=visit)
    visitor.start()
    with pytest.raises(KeyboardInterrupt):
        server.start()
    try:
        assert answers.wait() == [1011 if where == "handler" else 500]
        visitor.join(TIMEOUT)
        assert not server._core.running
        assert not server._core.own_thread()
        # Nobody accepts any more: who comes is told so, and does not wait for ever.
        with RawClient(server.address) as late:
            assert late.status == 503
    finally:
        server.stop()
    assert not tracebacks_in(caplog)


def test_a_reject_that_is_raised_again_and_again_keeps_no_request():
    full = securews.Reject(403)

    def accept(request, response_headers):
        raise full

    server = served(lambda ws: None, accept=accept)

    @server.page("/page")
    def page(request):
        raise full

    with server:
        for _ in range(2):
            assert get(server).startswith(b"HTTP/1.1 403 ")
            with RawClient(server.address) as client:
                assert client.status == 403
        eventually(lambda: server.stats()["sockets"] == 0)
        eventually(lambda: full.__traceback__ is None)


# -- what waits for a place ----------------------------------------------------------------------


class Hanging:
    """A page that hangs until it is released."""

    def __init__(self, server):
        self.entered = Happened()
        self.release = threading.Event()
        server.page("/page", methods=("GET", "POST"))(self)

    def __call__(self, request):
        self.entered()
        assert self.release.wait(TIMEOUT)
        return "late"


def requests_alive():
    return [one for one in gc.get_objects() if isinstance(one, Request)]


def test_requests_that_were_answered_with_503_are_let_go_while_others_hang():
    server = served(open_timeout=0.3)
    hanging = Hanging(server)
    gc.collect()
    gc.disable()
    try:
        with server:
            try:
                before = len(requests_alive())
                for _ in range(4):
                    assert ask(server, FORM.format(20_000, "x" * 20_000)).startswith(
                        b"HTTP/1.1 503 "
                    )
                assert len(hanging.entered.items) == 1
                assert server._core.gate.waiting == 0
                eventually(lambda: len(requests_alive()) == before + 1, "only the one that hangs")
            finally:
                hanging.release.set()
            eventually(lambda: get(server).startswith(b"HTTP/1.1 200 "), "the place")
    finally:
        gc.enable()


@pytest.mark.parametrize("accepting", AcceptingMethod)
def test_a_request_whose_peer_leaves_waits_no_more(accepting):
    entered, release = Happened(), threading.Event()

    def accept(request, response_headers):
        entered()
        return release.wait(TIMEOUT)

    server = served(lambda ws: None, accept=accept, accepting_method=accepting)
    core = server._core
    gate = core.serial.gate if accepting is SERIAL else core.gate
    gc.collect()
    with server, RawClient(server.address, upgrade=False) as first:
        before = len(requests_alive())
        first.send_upgrade()
        entered.wait()
        clients = [RawClient(server.address, upgrade=False) for _ in range(5)]
        for client in clients:
            client.send_upgrade()
        eventually(lambda: gate.waiting == 5)
        for client in clients:
            client.close()
        eventually(lambda: gate.waiting == 0, "withdrawing them")
        eventually(lambda: server.stats()["sockets"] == 1)
        assert len(requests_alive()) == before + 1
        assert not core.serial._jobs
        release.set()
        assert first.read_head().startswith("HTTP/1.1 101")
    assert len(entered.items) == 1


def test_a_stop_answers_those_that_wait_and_lets_the_one_that_runs_end():
    server = served()
    hanging = Hanging(server)
    with server, RawClient(server.address, upgrade=False) as first:
        first.send_raw(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        hanging.entered.wait()
        with RawClient(server.address, upgrade=False) as second:
            second.send_raw(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: server._core.gate.waiting == 1)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert second.read_to_end().startswith(b"HTTP/1.1 503 ")
        hanging.release.set()
        assert first.read_to_end().startswith(b"HTTP/1.1 200 ")
        stopping.join(TIMEOUT)
    assert len(hanging.entered.items) == 1


# -- bodies --------------------------------------------------------------------------------------

CHUNKED = "POST /page HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{}\r\n"


@pytest.fixture
def echoing():
    server = served(open_timeout=1.0)

    @server.page("/page", methods=("POST",))
    def page(request):
        return request._body

    with server:
        yield server


def test_a_body_in_single_bytes_comes_whole(echoing):
    body = "x" * 10_000
    raw = CHUNKED.format("") + "1\r\nx\r\n" * len(body) + "0\r\n\r\n"
    assert ask(echoing, raw).endswith(body.encode())


def test_a_body_that_is_mostly_framing_is_413(echoing):
    assert ask(echoing, CHUNKED.format("") + "1\r\nx\r\n" * 30_000).startswith(b"HTTP/1.1 413 ")


def test_a_body_in_pieces_and_after_100_continue_comes_whole(echoing):
    with RawClient(echoing.address, upgrade=False) as client:
        client.send_raw(CHUNKED.format("Expect: 100-continue\r\n").encode())
        assert client.read_head().startswith("HTTP/1.1 100")
        for byte in "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n":
            client.send_raw(byte.encode())
        assert client.read_to_end().endswith(b"abcde")


def test_a_body_that_does_not_come_is_408(echoing):
    assert ask(echoing, CHUNKED.format("") + "1\r\nx\r\n" * 100).startswith(b"HTTP/1.1 408 ")


class CountingPoller:
    """Is asked once in each turn."""

    def __init__(self, poller, asked):
        self._poller, self._asked = poller, asked

    def poll(self, timeout):
        self._asked()
        return self._poller.poll(timeout)

    def __getattr__(self, name):
        return getattr(self._poller, name)


def test_a_step_of_a_body_takes_its_share_of_a_turn_and_others_come_in_between(
    echoing, monkeypatch
):
    """While one body is parsed the loop takes more than one turn, and reads nothing more of it."""
    steps, turns = [], []
    loop, step = echoing._core.loop, PageBody.step
    loop._poller = CountingPoller(loop._poller, lambda: turns.append(len(steps)))

    def noted(body):
        steps.append(body._channel.reading)
        step(body)

    monkeypatch.setattr(PageBody, "step", noted)
    raw = CHUNKED.format("") + "1\r\nx\r\n" * 10_000 + "0\r\n\r\n"
    assert ask(echoing, raw).startswith(b"HTTP/1.1 200 ")
    assert len(steps) > 500
    assert not any(steps)
    assert len(set(turns)) > 5


# -- the date ------------------------------------------------------------------------------------


def test_every_answer_has_a_date():
    server = served(open_timeout=0.3)
    server.page("/page")(lambda request: "fine")
    with server:
        for answer in (
            get(server),
            get(server, "/"),
            ask(server, "no request\r\n"),
            ask(server, "GET / HTTP/1.1\r\n"),
        ):
            assert answer.count(b"\r\nDate: ") == 1, answer
        with RawClient(server.address) as client:
            assert client.status == 101
            assert client.head.count("\r\nDate: ") == 1


# -- stop() inside user code ---------------------------------------------------------------------


class NotedEvent(threading.Event):
    """Notes who waits for it; only the main thread really does."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def wait(self, timeout=None):
        self.waiting.append(threading.current_thread())
        if threading.current_thread() is threading.main_thread():
            return super().wait(timeout)
        return self.is_set()


class Stopping(securews.WebSocketHandler):
    """Stops its server in one of its methods."""

    def __init__(self, method):
        self.method = method
        self.server = None
        self.stopped = Happened()

    def stop_in(self, method):
        if method == self.method:
            self.server.stop()
            self.stopped(threading.current_thread())

    def accept(self, request, response_headers):
        self.stop_in("accept")
        return True

    def create_communicator(self, connection, request):
        self.stop_in("create_communicator")
        return super().create_communicator(connection, request)

    def prepare_communication(self, ws):
        self.stop_in("prepare_communication")

    def handle_communication(self, ws):
        self.stop_in("handle_communication")

    def finalize_communication(self, ws):
        self.stop_in("finalize_communication")

    def page(self, request):
        self.stop_in("page")
        return "page"


METHODS = [
    "accept",
    "create_communicator",
    "prepare_communication",
    "handle_communication",
    "finalize_communication",
    "page",
]


@pytest.mark.parametrize("accepting", AcceptingMethod)
@pytest.mark.parametrize("method", METHODS)
def test_stop_in_user_code_begins_to_stop_and_returns(method, accepting):
    handler = Stopping(method)
    handler.server = server = served(handler, accepting_method=accepting)
    server.page("/page")(handler.page)
    server._stopped = NotedEvent()
    with server:
        with RawClient(server.address, upgrade=False) as client:
            if method == "page":
                client.send_raw(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
            else:
                client.send_upgrade()
            (thread,) = handler.stopped.wait()
        assert thread not in server._stopped.waiting
        assert not server._core.own_thread()
    assert server._stopped.is_set()


def test_stop_in_authorize_begins_to_stop_and_returns(certificates):
    stopped = Happened()

    def authorize(certificate):
        server.stop()
        stopped(threading.current_thread())
        return True

    tls = securews.MutualTLSSocketHandler(
        *certificates.server, client_ca=certificates.ca_file, authorize=authorize
    )
    server = securews.WebSocketServer("localhost", 0, tls)
    server.register_handler("*", "/", Echo())
    server._stopped = NotedEvent()
    with server:
        context = certificates.context(certificates.client)
        with RawClient(server.address, context=context, upgrade=False) as client:
            (thread,) = stopped.wait()
            with contextlib.suppress(OSError):
                client.read_to_end()
        assert thread not in server._stopped.waiting


def test_stop_in_on_connect_query_begins_to_stop_and_returns():
    stopped = Happened()

    class Handler(securews.PlainSocketHandler):
        def on_connect_query(self, address):
            server.stop()
            stopped(threading.current_thread())
            return True

    server = securews.WebSocketServer("localhost", 0, Handler())
    server.register_handler("*", "/", Echo())
    server._stopped = NotedEvent()
    with server:
        with RawClient(server.address, upgrade=False) as client:
            (thread,) = stopped.wait()
            client.read_to_end()
        assert thread not in server._stopped.waiting


def test_nothing_is_logged_as_an_error_by_an_ordinary_visit(caplog):
    with caplog.at_level(logging.WARNING, "securews"), served() as server:
        exchange(server)
    assert not caplog.records


def test_a_large_answer_leaves_in_pieces_without_copies_of_its_rest():
    opening = Opening.__new__(Opening)
    opening._outgoing = body = bytes(range(256)) * 40_000
    taken = 0
    tracemalloc.start()
    try:
        while (piece := opening.next_piece(32 << 10)) is not None:
            assert piece == body[taken : taken + len(piece)]
            taken += len(piece)
            assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    assert taken == len(body)


@pytest.mark.parametrize("body", ["", "a=b&" * 2000], ids=["get", "form"])
def test_a_peer_that_has_ended_its_side_behind_a_request_is_answered(body):
    server = served(request_threads=2)
    server.page("/page", methods=("GET", "POST"))(lambda request: "answered")
    head = f"POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    with server:
        for _ in range(10):
            client = RawClient(server.address, upgrade=False)
            try:
                client.sock.sendall((head + body).encode())
                client.sock.shutdown(socket.SHUT_WR)
                assert client.read_head().startswith("HTTP/1.1 200")
            finally:
                client.close()
