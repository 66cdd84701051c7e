"""Which thread runs what: a cell of the design's table for each test."""

import asyncio
import select
import threading
import weakref

import pytest
from support import (
    TIMEOUT,
    Happened,
    RawClient,
    errors_in,
    eventually,
    thread_kind,
    tracebacks_in,
)

import securews
from securews import AcceptingMethod
from securews.protocol.frames import Opcode
from securews.server.threads import NewThreads, Pool, SerialThread

SERIAL, THREADED, POOL = AcceptingMethod
ACCEPTING_THREAD = {
    SERIAL: "securews-serial",
    THREADED: "securews-thread",
    POOL: "securews-pool",
}
IO = "securews-io"


class Notes:
    """Who was called on which thread."""

    def __init__(self):
        self.threads = {}
        self.closed = Happened()

    def note(self, name):
        self.threads[name] = threading.current_thread()

    def kind(self, name):
        return self.threads[name].name.rstrip("0123456789").rstrip("-")


class Blocking(securews.WebSocketHandler, Notes):
    def accept(self, request, response_headers):
        self.note("accept")
        return True

    def prepare_communication(self, ws):
        self.note("prepare")
        ws.on_close = self.on_close
        ws.on_receive_message = lambda ws: self.note("on_receive_message")

    def handle_communication(self, ws):
        self.note("handle")
        for message in ws:
            ws.send(message)

    def finalize_communication(self, ws):
        self.note("finalize")
        self.closed("finalized")

    def on_close(self, ws):
        self.note("on_close")
        self.closed("closed")


class Own(securews.ThreadedWebSocketHandler, Blocking):
    def __init__(self, pooling):
        super().__init__(pooling=pooling)
        Notes.__init__(self)

    def do_handle_communication(self, ws):
        Blocking.handle_communication(self, ws)

    def handle_communication(self, ws):
        securews.ThreadedWebSocketHandler.handle_communication(self, ws)


class Events(securews.EventWebSocketHandler, Notes):
    def on_open(self, ws):
        self.note("on_open")

    def on_message(self, ws, message):
        self.note("on_message")
        ws.send(message)

    def on_close(self, ws, code, reason):
        self.note("on_close")
        self.closed()


class AskedEvents(Events):
    def accept(self, request, response_headers):
        self.note("accept")
        return True


def exchange(server):
    with securews.connect(server.url) as ws:
        for _ in range(2):
            ws.send("hello")
            assert ws.recv(timeout=TIMEOUT) == "hello"


def plain(handler=None, **options):
    return securews.serve(0, handler, tls=False, **options)


# -- accept() and what follows it -------------------------------------------------------------


@pytest.mark.parametrize("method", AcceptingMethod)
def test_a_blocking_handler_stays_on_the_thread_that_accepted(method):
    handler = Blocking()
    with plain(handler, accepting_method=method) as server:
        exchange(server)
        handler.closed.wait(2)
    assert handler.kind("accept") == ACCEPTING_THREAD[method]
    for call in ("prepare", "handle", "finalize"):
        assert handler.threads[call] is handler.threads["accept"]
    assert handler.kind("on_receive_message") == IO
    assert handler.kind("on_close") == IO


@pytest.mark.parametrize("method", AcceptingMethod)
def test_a_function_and_its_accept_run_on_the_accepting_thread(method):
    kinds = Happened()

    def accept(request, response_headers):
        kinds(thread_kind())
        return True

    def handler(ws):
        kinds(thread_kind())
        for message in ws:
            ws.send(message)

    with plain(handler, accept=accept, accepting_method=method) as server:
        exchange(server)
    assert kinds.items == [ACCEPTING_THREAD[method]] * 2


@pytest.mark.parametrize(
    ("method", "pooling", "own_thread"),
    [
        (SERIAL, True, "securews-pool"),
        (SERIAL, False, "securews-thread"),
        (THREADED, True, "securews-pool"),
        (THREADED, False, "securews-thread"),
        (POOL, True, "securews-pool"),
        (POOL, False, "securews-thread"),
    ],
)
def test_do_handle_communication_has_a_thread_of_its_own(method, pooling, own_thread):
    handler = Own(pooling)
    with plain(handler, accepting_method=method) as server:
        exchange(server)
        handler.closed.wait(2)
    assert handler.kind("accept") == ACCEPTING_THREAD[method]
    assert handler.kind("handle") == own_thread
    assert handler.threads["prepare"] is handler.threads["finalize"] is handler.threads["handle"]


@pytest.mark.parametrize("method", AcceptingMethod)
def test_events_come_on_the_io_thread_and_accept_on_the_accepting_one(method):
    handler = AskedEvents()
    with plain(handler, accepting_method=method) as server:
        exchange(server)
        handler.closed.wait()
    assert handler.kind("accept") == ACCEPTING_THREAD[method]
    assert handler.kind("on_open") == IO
    assert (
        handler.threads["on_open"] is handler.threads["on_message"] is handler.threads["on_close"]
    )


@pytest.mark.parametrize("method", AcceptingMethod)
def test_events_without_an_accept_of_the_users_take_no_thread_at_all(method):
    started = []
    with plain(Events(), accepting_method=method) as server:
        before = set(threading.enumerate())
        exchange(server)
        started = [t.name for t in set(threading.enumerate()) - before]
    assert not [name for name in started if name.startswith(("securews-pool", "securews-thread"))]


@pytest.mark.parametrize("method", AcceptingMethod)
def test_pages_run_on_the_pool(method):
    kinds = Happened()
    server = plain(Events(), accepting_method=method)

    @server.page("/health")
    def health(request):
        kinds(thread_kind())
        return "fine"

    with server:
        assert get(server, "/health").startswith(b"HTTP/1.1 200")
    assert kinds.items == ["securews-pool"]


def test_serial_runs_on_the_thread_inside_start():
    handler = Blocking()
    server = plain(handler, accepting_method=SERIAL)
    inside = threading.Thread(target=server.start, name="mine")
    inside.start()
    try:
        exchange(server)
        handler.closed.wait(2)
    finally:
        server.stop()
        inside.join(TIMEOUT)
    assert handler.threads["accept"] is handler.threads["handle"] is inside
    assert not inside.is_alive()


def test_threaded_starts_a_thread_for_each_connection():
    names = Happened()

    def handler(ws):
        names(threading.current_thread().name)
        for message in ws:
            ws.send(message)

    with plain(handler, accepting_method=THREADED) as server:
        for _ in range(3):
            exchange(server)
    assert len(set(names.items)) == 3


# -- SERIAL ----------------------------------------------------------------------------------


class OneByOne:
    """A handler that says when it begins, and ends when told."""

    def __init__(self):
        self.began = Happened()
        self.ended = Happened()
        self.release = threading.Semaphore(0)

    def __call__(self, ws):
        self.began(ws.request.path)
        assert self.release.acquire(timeout=TIMEOUT)
        self.ended(ws.request.path)


def serial_server(handler, **options):
    server = plain(handler, accepting_method=SERIAL, **options)
    server.page("/page")(lambda request: "page")
    return server


def test_serial_makes_the_second_client_wait():
    handler = OneByOne()
    with (
        serial_server(handler) as server,
        RawClient(server.address, path="/first") as first,
        RawClient(server.address, upgrade=False) as second,
    ):
        handler.began.wait()
        second.send_upgrade("/second")
        assert get(server, "/page").startswith(b"HTTP/1.1 200")  # the server is not stuck
        assert not readable(second)
        assert handler.began.items == ["/first"]
        handler.release.release()
        assert first.read_close().close_code == 1000
        assert second.read_head().startswith("HTTP/1.1 101")
        handler.release.release()
        assert second.read_close().close_code == 1000
    assert handler.ended.items == ["/first", "/second"]


def test_serial_does_not_count_the_wait_for_its_turn():
    handler = OneByOne()
    with (
        serial_server(handler, open_timeout=0.4) as server,
        RawClient(server.address, path="/first"),
        RawClient(server.address, upgrade=False) as second,
    ):
        handler.began.wait()
        second.send_upgrade("/second")
        with RawClient(server.address, upgrade=False) as silent:
            assert silent.read_to_end() == b""  # a deadline later than the second's
        assert not readable(second)
        handler.release.release(2)
        assert second.read_head().startswith("HTTP/1.1 101")
    assert handler.ended.items == ["/first", "/second"]


def test_serial_drops_a_request_whose_peer_has_gone():
    handler = OneByOne()
    with serial_server(handler) as server, RawClient(server.address, path="/first") as first:
        handler.began.wait()
        with RawClient(server.address, upgrade=False) as second:
            second.send_upgrade("/second")
            eventually(lambda: server.stats()["sockets"] == 2)
            # The page's answer comes after the second's request was read: one loop reads both.
            assert get(server, "/page").startswith(b"HTTP/1.1 200")
        eventually(lambda: server.stats()["sockets"] == 1, "dropping the second")
        handler.release.release()
        assert first.read_close().close_code == 1000
    assert handler.began.items == ["/first"]


def test_serial_goes_on_when_a_handler_has_a_thread_of_its_own():
    handler = Own(pooling=True)
    with (
        plain(handler, accepting_method=SERIAL) as server,
        securews.connect(server.url) as first,
        securews.connect(server.url) as second,
    ):
        for ws in (second, first):
            ws.send("hello")
            assert ws.recv(timeout=TIMEOUT) == "hello"


# -- the pool ----------------------------------------------------------------------------------


@pytest.mark.d(22)
def test_the_pool_never_passes_its_size():
    handler = OneByOne()
    with plain(handler, pool_size=2) as server:
        with RawClient(server.address), RawClient(server.address):
            handler.began.wait(2)
            for _ in range(3):
                with RawClient(server.address) as refused:
                    assert refused.status == 503
                    assert "Retry-After: 1" in refused.head
            pool = [t for t in threading.enumerate() if t.name.startswith("securews-pool")]
            assert len(pool) == 2
            handler.release.release(2)
            handler.ended.wait(2)
        eventually(lambda: accepted(server, handler), "room in the pool")
    assert len(handler.ended.items) == 3


def accepted(server, handler):
    with RawClient(server.address) as client:
        if client.status == 503:
            return False
        handler.release.release()
        return client.read_close().close_code == 1000


def test_a_threaded_handler_that_finds_the_pool_full_is_closed_with_1013():
    handler = Own(pooling=True)
    with (
        plain(handler, accepting_method=SERIAL, pool_size=1) as server,
        securews.connect(server.url) as first,
        RawClient(server.address) as second,
    ):
        assert second.read_close().close_code == 1013
        first.send("hello")
        assert first.recv(timeout=TIMEOUT) == "hello"


def test_idle_threads_of_the_pool_end(monkeypatch):
    monkeypatch.setattr("securews.server.threads.IDLE_SECONDS", 0.05)
    handler = Blocking()
    with plain(handler) as server:
        exchange(server)
        first = handler.threads["handle"]
        first.join(TIMEOUT)
        assert not first.is_alive()
        exchange(server)
        assert handler.threads["handle"] is not first


def test_a_thread_of_the_pool_is_used_again():
    threads = Happened()

    def handler(ws):
        threads(threading.current_thread())
        ws.recv()

    with plain(handler, pool_size=1) as server:
        for count in range(1, 4):
            eventually(lambda: served(server), "a free thread")
            threads.wait(count)
    assert len(set(threads.items)) == 1


def served(server):
    with RawClient(server.address) as client:
        if client.status == 101:
            client.send(Opcode.TEXT, b"done")
        return client.status == 101


# -- request_threads -----------------------------------------------------------------------------


class SlowAccept(securews.EventWebSocketHandler):
    def __init__(self):
        self.entered = Happened()
        self.release = threading.Event()
        self.opened = Happened()

    def accept(self, request, response_headers):
        self.entered()
        return self.release.wait(TIMEOUT)

    def on_open(self, ws):
        self.opened()


@pytest.mark.parametrize("method", [POOL, THREADED])
def test_no_more_than_request_threads_decide_at_once(method):
    handler = SlowAccept()
    server = plain(accepting_method=method, request_threads=2)
    server.register_handler("*", "/slow", handler)
    server.register_handler("*", "/free", Events(), default_host=True, default_path=True)
    with server:
        clients = [RawClient(server.address, upgrade=False) for _ in range(5)]
        try:
            for client in clients:
                client.send_upgrade("/slow")
            handler.entered.wait(2)
            exchange(server)  # no thread is needed for this one, and the loop has read the others
            assert len(handler.entered.items) == 2
            handler.release.set()
            for client in clients:
                assert client.read_head().startswith("HTTP/1.1 101")
        finally:
            for client in clients:
                client.close()
        handler.opened.wait(5)


def test_pages_and_accept_share_request_threads():
    handler = SlowAccept()
    server = plain(handler, request_threads=1)
    served = Happened()
    server.page("/page")(lambda request: served() or "page")
    with server, RawClient(server.address, upgrade=False) as slow:
        slow.send_upgrade()
        handler.entered.wait()
        with RawClient(server.address, upgrade=False) as page:
            page.send_raw(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: server.stats()["sockets"] == 2)
            assert served.items == []
            handler.release.set()
            assert page.read_to_end().startswith(b"HTTP/1.1 200")
        assert slow.read_head().startswith("HTTP/1.1 101")


def test_who_waits_too_long_for_a_decision_is_answered_with_503(caplog):
    handler = SlowAccept()
    with (
        plain(handler, request_threads=1, open_timeout=0.4) as server,
        RawClient(server.address, upgrade=False) as decided,
        RawClient(server.address, upgrade=False) as waiting,
    ):
        decided.send_upgrade()
        handler.entered.wait()
        waiting.send_upgrade()
        for client in (decided, waiting):
            answer = client.read_to_end()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1" in answer
            client.close()
        handler.release.set()
        eventually(lambda: server.stats()["sockets"] == 0)
        assert handler.opened.items == []  # yes came too late
    assert len(handler.entered.items) == 1
    assert "request_threads too few" in errors_in(caplog)[0]


def get(server, path):
    with RawClient(server.address, upgrade=False) as client:
        client.send_raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client.read_to_end()


def readable(client):
    return bool(select.select([client.sock], [], [], 0)[0])


# -- the threads themselves ----------------------------------------------------------------------

ANYTHING = [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]


def raising(error):
    raise error("on purpose")


@pytest.mark.parametrize("error", ANYTHING)
def test_a_thread_of_the_pool_survives_whatever_a_job_raises(error, caplog):
    pool, done = Pool(1, "securews-pool"), Happened()
    try:
        eventually(lambda: pool.submit(lambda: raising(error)))
        (thread,) = pool.threads
        eventually(lambda: pool.submit(lambda: done(threading.current_thread())))
        assert done.wait() == [thread]
    finally:
        pool.close()
    assert len(tracebacks_in(caplog)) == 1


@pytest.mark.parametrize("error", ANYTHING)
def test_the_serial_thread_survives_whatever_a_job_raises(error, caplog):
    serial, done = SerialThread(), Happened()
    thread = threading.Thread(target=serial.run)
    thread.start()
    try:
        assert serial.submit(lambda: raising(error))
        assert serial.submit(done)
        done.wait()
    finally:
        serial.close()
        thread.join(TIMEOUT)
    assert len(tracebacks_in(caplog)) == 1


def test_the_main_threads_keyboard_interrupt_ends_the_serial_run_and_takes_no_more_jobs(caplog):
    serial = SerialThread()
    assert serial.submit(lambda: raising(KeyboardInterrupt))
    assert serial.submit(lambda: raising(AssertionError))
    with pytest.raises(KeyboardInterrupt):
        serial.run()
    assert not serial.submit(lambda: None)
    assert not serial.has_caller()
    assert not tracebacks_in(caplog)


def test_the_serial_thread_is_known_while_it_runs_a_job():
    serial, notes = SerialThread(), []

    def job():
        notes.append(serial.has_caller())
        serial.close()

    serial.submit(job)
    assert not serial.has_caller()
    serial.run()
    assert notes == [True]
    assert not serial.has_caller()


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize("kind", [lambda: Pool(1, "none"), lambda: NewThreads("none")])
def test_a_thread_that_cannot_be_started_holds_no_place(kind, error, monkeypatch, caplog):
    threads = kind()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: raising(error))
    for _ in range(3):
        assert not threads.submit(lambda: None)
    assert not threads.threads
    assert "no thread could be started" in errors_in(caplog)[0]


def test_a_thread_that_was_idle_for_too_long_makes_room_at_once(monkeypatch):
    """Between the end of its wait and the end of the thread no job may be refused for it."""
    monkeypatch.setattr("securews.server.threads.IDLE_SECONDS", 0.0)
    pool = Pool(1, "none")
    pool._work = lambda first: (
        first.pop()(),
        pool._next(),
    )  # a thread that never gets to its last line
    ran = Happened()
    for count in (1, 2):
        eventually(lambda: pool.submit(ran), "room in the pool")
        ran.wait(count)


def test_a_pool_thread_keeps_nothing_of_its_first_job():
    class Request:
        """What a job refers to."""

        def handle(self):
            pass

    request = Request()
    kept = weakref.ref(request)
    pool = Pool(1, "keeping")
    assert pool.submit(request.handle)
    del request
    eventually(lambda: kept() is None, "the end of what the job referred to")
    assert pool.threads
    pool.close()
