"""From bind to stop: how a server begins, and how it ends whatever its clients and handlers do."""

import gc
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import (
    TIMEOUT,
    Happened,
    RawClient,
    errors_in,
    eventually,
    tracebacks_in,
)

import securews
from securews import AcceptingMethod


def echo(ws):
    for message in ws:
        ws.send(message)


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def plain(handler=echo, **options):
    return securews.serve(0, handler, tls=False, **options)


def exchange(server):
    with securews.connect(server.url) as ws:
        ws.send("hello")
        assert ws.recv(timeout=TIMEOUT) == "hello"


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


# -- beginning -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", AcceptingMethod)
@pytest.mark.parametrize("name", ["start", "serve_forever"])
def test_start_blocks_until_stop(name, method):
    server = plain(accepting_method=method)
    inside = in_thread(getattr(server, name))
    exchange(server)
    assert inside.is_alive()
    server.stop()
    inside.join(TIMEOUT)
    assert not inside.is_alive()


def test_start_background_returns_the_server():
    server = plain()
    assert server.start_background() is server
    exchange(server)
    server.stop()


def test_with_starts_and_stops_whatever_happens_inside():
    with pytest.raises(ZeroDivisionError), plain() as server:
        exchange(server)
        raise ZeroDivisionError
    with pytest.raises(OSError, match="refused"):
        securews.connect(server.url)


def test_connections_that_came_before_start_are_served():
    server = plain()
    with RawClient(server.address, upgrade=False) as early:
        early.send_upgrade()
        with server:
            assert early.read_head().startswith("HTTP/1.1 101")
            early.close()


@pytest.mark.d(21)
def test_port_0_is_the_same_free_port_on_ipv4_and_ipv6():
    with plain() as server:
        assert [address[0] for address in server.addresses] == ["127.0.0.1", "::1"]
        assert len({address[1] for address in server.addresses}) == 1
        assert server.url == f"ws://localhost:{server.address[1]}/"
        for address in server.addresses:
            with RawClient(address) as client:
                assert client.status == 101


@pytest.mark.d(59)
def test_the_address_stays_when_clients_come():
    with plain(Echo()) as server:
        address, addresses, url = server.address, server.addresses, server.url
        exchange(server)
        assert (server.address, server.addresses, server.url) == (address, addresses, url)


@pytest.mark.parametrize("method", ["start", "start_background", "__enter__"])
def test_a_second_start_is_a_runtime_error(method):
    with plain() as server, pytest.raises(RuntimeError, match="the server is running"):
        getattr(server, method)()


@pytest.mark.parametrize("method", ["start", "start_background", "__enter__"])
def test_a_start_after_stop_is_a_runtime_error(method):
    with plain() as server:
        pass
    with pytest.raises(RuntimeError, match="the server is stopped; make a new one"):
        getattr(server, method)()


def test_a_server_that_never_ran_can_be_stopped_and_frees_its_port():
    server = plain()
    port = server.address[1]
    server.stop()
    server.stop()
    with securews.serve(port, echo, tls=False):
        pass
    with pytest.raises(RuntimeError, match="stopped"):
        server.start()


def test_a_server_that_was_never_started_says_so(caplog):
    server = plain()
    url = server.url
    del server
    gc.collect()
    (warning,) = errors_in(caplog)
    assert warning.startswith(f"the server on {url} was never started")
    assert "serve_forever()" in warning


# -- stopping --------------------------------------------------------------------------------


@pytest.mark.promise(57)
@pytest.mark.d(45, 46)
def test_stop_closes_every_connection_with_1001_and_waits_for_the_handlers():
    ended = Happened()

    def handler(ws):
        try:
            ws.recv()
        except securews.ConnectionClosed as closed:
            ended(closed.code)

    with plain(handler) as server:
        clients = [securews.connect(server.url) for _ in range(3)]
        server.stop()
        assert ended.items == [1001] * 3
        for ws in clients:
            with pytest.raises(securews.ConnectionClosedOK) as closed:
                ws.recv(timeout=TIMEOUT)
            assert closed.value.code == 1001
            assert closed.value.initiator == "peer"


def test_the_listener_goes_first():
    refused = Happened()

    class Late(securews.EventWebSocketHandler):
        def on_close(self, ws, code, reason):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(address, timeout=TIMEOUT)
            refused()

    with plain(Late()) as server:
        address = server.address
        with securews.connect(server.url):
            server.stop()
        refused.wait()


def test_the_code_of_the_stop_can_be_chosen():
    with plain() as server, RawClient(server.address) as client:
        stopping = in_thread(lambda: server.stop(code=1012))
        assert client.read_close().close_code == 1012
        client.send_close(1012)
        client.close()
        stopping.join(TIMEOUT)
        assert not stopping.is_alive()


@pytest.mark.parametrize("code", [1005, 999, 5000])
def test_a_code_that_may_not_be_sent_is_an_error_and_the_server_goes_on(code):
    with plain() as server:
        with pytest.raises(ValueError, match=str(code)):
            server.stop(code=code)
        exchange(server)


@pytest.mark.parametrize("times", [{"grace": -1}, {"jitter": -0.5}])
def test_times_are_not_negative(times):
    with plain() as server:
        with pytest.raises(ValueError, match="not negative"):
            server.stop(**times)
        exchange(server)


def test_jitter_spreads_the_close_frames_over_its_seconds():
    """With the random numbers pinned: the close of each comes when it is due, and not before."""
    with pytest.MonkeyPatch.context() as patch, plain(Echo()) as server:
        delays = iter([0.0, 0.3])
        patch.setattr("securews.server.stopping.random.uniform", lambda low, high: next(delays))
        with RawClient(server.address) as first, RawClient(server.address) as second:
            eventually(lambda: len(server.connections) == 2)
            began = time.monotonic()
            stopping = in_thread(lambda: server.stop(jitter=0.5))
            for client in (first, second):
                assert client.read_close().close_code == 1001
                client.send_close(1001)
            assert time.monotonic() - began >= 0.3
            for client in (first, second):
                client.close()
            stopping.join(TIMEOUT)
            assert not stopping.is_alive()


@pytest.mark.promise(57)
def test_stop_aborts_a_mute_client_when_the_grace_has_passed():
    with plain(Echo()) as server, RawClient(server.address) as mute:
        eventually(lambda: server.connections)
        began = time.monotonic()
        server.stop(grace=0.3)
        assert 0.3 <= time.monotonic() - began < 3
        assert mute.read_close().close_code == 1001
        with pytest.raises((EOFError, ConnectionResetError)):
            mute.read_frame()


def test_stop_with_grace_0_aborts_at_once():
    ended = Happened()

    def handler(ws):
        try:
            ws.recv()
        except securews.ConnectionClosed as closed:
            ended(closed.code)

    with plain(handler) as server, RawClient(server.address) as client:
        eventually(lambda: server.connections)
        began = time.monotonic()
        server.stop(grace=0)
        assert time.monotonic() - began < 3
        assert ended.items == [1006]
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_frame()


def test_stop_takes_a_grace_of_any_length():
    with securews.serve(0, echo, tls=False) as server:
        server.stop(grace=1e300)
    assert not server.ready


def test_a_second_stop_with_grace_0_hurries_the_first():
    with plain(Echo()) as server, RawClient(server.address) as mute:
        eventually(lambda: server.connections)
        slow = in_thread(lambda: server.stop(grace=60))
        assert mute.read_close().close_code == 1001
        server.stop(grace=0)
        slow.join(TIMEOUT)
        assert not slow.is_alive()


def test_stop_is_idempotent_from_any_number_of_threads():
    with plain() as server, securews.connect(server.url):
        threads = [in_thread(server.stop) for _ in range(5)]
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        server.stop()


@pytest.mark.parametrize("method", AcceptingMethod)
def test_stop_in_a_handler_begins_the_stop_and_returns(method):
    returned = Happened()

    def handler(ws):
        ws.server.stop()
        returned(ws.open)

    server = plain(handler, accepting_method=method)
    inside = in_thread(server.start)
    with securews.connect(server.url) as ws, pytest.raises(securews.ConnectionClosedOK):
        ws.recv(timeout=TIMEOUT)
    inside.join(TIMEOUT)
    assert not inside.is_alive()
    returned.wait()


@pytest.mark.parametrize("call", ["on_open", "on_message", "on_close"])
def test_stop_on_the_io_thread_begins_the_stop_and_returns(call):
    returned = Happened()

    def stop(self, ws, *args):
        ws.server.stop()
        returned()

    kind = type("Stopper", (securews.EventWebSocketHandler,), {call: stop})
    server = plain(kind())
    inside = in_thread(server.start)
    with securews.connect(server.url) as ws:
        if call == "on_message":
            ws.send("stop")
        if call != "on_close":
            ws.wait_closed(TIMEOUT)
    inside.join(TIMEOUT)
    assert not inside.is_alive()
    assert len(returned.items) == 1


def test_stop_in_accept_begins_the_stop_and_returns():
    returned = Happened()

    def accept(request, response_headers):
        server.stop()
        returned()
        return True

    server = plain(echo, accept=accept)
    inside = in_thread(server.start)
    with RawClient(server.address, upgrade=False) as client:
        client.send_upgrade()
        returned.wait()
        inside.join(TIMEOUT)
    assert not inside.is_alive()


@pytest.mark.promise(55)
@pytest.mark.parametrize("method", AcceptingMethod)
def test_a_handler_that_never_returns_is_abandoned_and_named(method, caplog):
    release = threading.Event()

    class Stubborn(securews.WebSocketHandler):
        def handle_communication(self, ws):
            release.wait(TIMEOUT)

    with plain(Stubborn(), accepting_method=method) as server:
        with securews.connect(server.url):
            eventually(lambda: server.connections)
            began = time.monotonic()
            server.stop(grace=0.2)
            assert time.monotonic() - began < 4
        (warning,) = errors_in(caplog)
        assert "Stubborn has not returned" in warning
        assert "abandoned" in warning
        release.set()


def test_accept_that_outlives_the_stop_is_abandoned_and_named(caplog):
    release, entered = threading.Event(), Happened()

    class Slow(securews.WebSocketHandler):
        def accept(self, request, response_headers):
            entered()
            return release.wait(TIMEOUT)

        def handle_communication(self, ws):
            raise AssertionError("the answer came too late")

    with plain(Slow()) as server, RawClient(server.address, upgrade=False) as client:
        client.send_upgrade("/slow")
        entered.wait()
        server.stop(grace=0.1)
        (warning,) = errors_in(caplog)
        assert "'/slow': accept() of Slow has not returned" in warning
        release.set()


def test_accept_that_outlives_the_stop_does_not_begin_a_handler():
    entered, release, handled = Happened(), threading.Event(), Happened()

    def accept(request, response_headers):
        entered()
        return release.wait(TIMEOUT)

    with (
        plain(handled, accept=accept) as server,
        RawClient(server.address, upgrade=False) as client,
    ):
        client.send_upgrade()
        entered.wait()
        (thread,) = [t for t in threading.enumerate() if t.name.startswith("securews-pool")]
        server.stop(grace=0.1)
        release.set()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert handled.items == []


def test_silent_and_half_open_peers_do_not_delay_the_stop(certificates):
    with (
        securews.serve(0, echo, tls=certificates.server) as server,
        RawClient(server.address, upgrade=False) as silent,
        RawClient(server.address, upgrade=False) as half,
    ):
        half.send_raw(b"\x16\x03\x01")
        eventually(lambda: server.stats()["sockets"] == 2)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2
        for client in (silent, half):
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_frame()


@pytest.mark.d(20)
@pytest.mark.promise(58)
def test_a_restart_on_the_same_port_twenty_times():
    with plain() as first:
        port = first.address[1]
        exchange(first)
    for _ in range(20):
        with securews.serve(port, echo, tls=False) as server:
            with RawClient(server.address):
                pass
            exchange(server)


# -- handlers' close() ---------------------------------------------------------------------------


class Closable(Echo):
    def __init__(self):
        self.closed = Happened()
        self.open_then = None
        self.server = None

    def close(self):
        self.open_then = len(self.server.connections)
        self.closed()


@pytest.mark.d(47)
@pytest.mark.parametrize(("free_handlers", "times"), [(True, 1), (False, 0)])
def test_each_handler_is_closed_once_after_its_last_connection(free_handlers, times):
    handler = Closable()
    server = plain(None, free_handlers=free_handlers)
    handler.server = server
    server.register_handler("*", "/one", handler)
    server.register_handler("*", "/two", handler)
    with server, securews.connect(server.url + "one"):
        server.stop()
        server.stop()
    assert len(handler.closed.items) == times
    if times:
        assert handler.open_then == 0


def test_a_handler_whose_close_raises_does_not_stop_the_stop(caplog):
    class Broken(Echo):
        def close(self):
            raise ZeroDivisionError

    after = Closable()
    server = plain(None)
    after.server = server
    server.register_handler("*", "/broken", Broken())
    server.register_handler("*", "/after", after)
    with server:
        pass
    assert tracebacks_in(caplog) == ["Broken.close() raised"]
    assert len(after.closed.items) == 1


# -- while it runs -----------------------------------------------------------------------------


@pytest.fixture
def three():
    """A server with one client at /a and two at /b; what they receive."""
    with plain(Echo()) as server:
        clients = [securews.connect(server.url + path) for path in ("a", "b", "b")]
        eventually(lambda: len(server.connections) == 3)
        yield server, clients
        for ws in clients:
            ws.close()


def received(clients):
    """What each got until now; an echo behind it shows that nothing more is on its way."""
    found = []
    for ws in clients:
        ws.send("end")
        found.append([])
        while (message := ws.recv(timeout=TIMEOUT)) != "end":
            found[-1].append(message)
    return found


def test_broadcast_to_all(three):
    server, clients = three
    assert server.broadcast("text") == []
    assert server.broadcast(b"binary") == []
    assert received(clients) == [["text", b"binary"]] * 3


def test_broadcast_to_a_path(three):
    server, clients = three
    assert server.broadcast("news", to="/b") == []
    assert received(clients) == [[], ["news"], ["news"]]


def test_broadcast_to_some_communicators(three):
    server, clients = three
    some = [ws for ws in server.connections if ws.request.path == "/a"]
    assert server.broadcast("news", to=iter(some)) == []
    assert received(clients) == [["news"], [], []]


def test_broadcast_to_those_that_match(three):
    server, clients = three
    server.connections[0].state.loud = True
    loud = server.connections[0]
    assert server.broadcast("news", to=lambda ws: hasattr(ws.state, "loud")) == []
    assert received(clients).count(["news"]) == 1
    assert loud in server.connections


def test_broadcast_names_those_that_it_skipped(three):
    server, clients = three
    everybody = server.connections
    (gone,) = [ws for ws in everybody if ws.request.path == "/a"]
    clients[0].close()
    eventually(lambda: len(server.connections) == 2)
    assert server.broadcast("news", to=everybody) == [gone]
    assert received(clients[1:]) == [["news"], ["news"]]


def test_broadcast_of_what_is_no_message_is_a_type_error(three):
    server, clients = three
    with pytest.raises(TypeError, match="str or bytes"):
        server.broadcast(5)
    assert received(clients) == [[], [], []]


@pytest.mark.promise(20)
def test_close_where_closes_those_that_match(three):
    server, clients = three
    assert server.close_where(lambda ws: ws.request.path == "/b", 1008, "logged out") == 2
    for ws in clients[1:]:
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv(timeout=TIMEOUT)
        assert (closed.value.code, closed.value.reason) == (1008, "logged out")
    eventually(lambda: len(server.connections) == 1)
    assert received(clients[:1]) == [[]]


def test_connections_is_a_snapshot_of_what_is_open(three):
    server, clients = three
    snapshot = server.connections
    assert sorted(ws.request.path for ws in snapshot) == ["/a", "/b", "/b"]
    clients[0].close()
    eventually(lambda: len(server.connections) == 2)
    assert len(snapshot) == 3


def test_stats_count_what_came_and_what_is_open(three):
    server, clients = three
    with RawClient(server.address, upgrade=False) as refused:
        refused.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert refused.read_to_end().startswith(b"HTTP/1.1 426")
    clients[0].close()
    eventually(lambda: server.stats()["sockets"] == 2)
    stats = server.stats()
    assert stats["accepted"] == 3
    assert stats["refused"] == 1
    assert stats["open"] == 2


# -- a unix socket --------------------------------------------------------------------------------


class UnixClient(RawClient):
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(path)
        self._buffer = b""
        self.send_upgrade()
        self.head = self.read_head()


@pytest.fixture
def socket_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the kernel's limit of 108 bytes
    return "ws.sock"


def test_a_unix_socket_serves_its_group_and_goes_with_the_server(socket_path):
    addresses = Happened()

    class Handler(Echo):
        def on_open(self, ws):
            addresses(ws.remote_address)

    with securews.serve(None, Handler(), path=socket_path, tls=False) as server:
        assert server.address == socket_path
        assert server.url == f"ws+unix://{socket_path}"
        assert stat.S_IMODE(Path(socket_path).stat().st_mode) == 0o660
        with UnixClient(socket_path) as client:
            assert client.status == 101
            assert addresses.wait() == [""]
    assert not Path(socket_path).exists()


def test_a_stale_unix_socket_is_replaced_and_a_living_one_is_not(socket_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(socket_path)
    with securews.serve(None, echo, path=socket_path, tls=False):
        with pytest.raises(securews.ConfigurationError, match="another server listens"):
            securews.serve(None, echo, path=socket_path, tls=False)
        with UnixClient(socket_path) as client:
            assert client.status == 101


def test_a_file_in_the_way_of_a_unix_socket_is_left_alone(socket_path, tmp_path):
    (tmp_path / socket_path).write_text("precious")
    with pytest.raises(securews.ConfigurationError, match="is no socket"):
        securews.serve(None, echo, path=socket_path, tls=False)
    assert (tmp_path / socket_path).read_text() == "precious"


# -- processes -----------------------------------------------------------------------------------

SERVE = """
import sys, threading, securews
from securews import AcceptingMethod
def echo(ws):
    for message in ws:
        ws.send(message)
class Closable(securews.EventWebSocketHandler):
    def close(self):
        print("closed", flush=True)
handler = Closable() if sys.argv[1] == "event" else echo
server = securews.serve(0, handler, tls=False, accepting_method=AcceptingMethod(sys.argv[2]))
print(server.address[1], flush=True)
server.serve_forever()
print("over", flush=True)
"""


class Program:
    """A Python program in a process of its own."""

    def __init__(self, source, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def line(self):
        return self.process.stdout.readline().strip()

    def end(self):
        """Exit code, stdout and stderr."""
        code = self.process.wait(TIMEOUT)
        # Not communicate(): it passes over what readline() has in its buffer.
        return code, self.process.stdout.read(), self.process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("method", AcceptingMethod)
def test_a_signal_stops_serve_forever_in_order(number, method):
    with Program(SERVE, "blocking", method.value) as program:
        port = int(program.line())
        with securews.connect(f"ws://localhost:{port}/") as ws:
            ws.send("hello")
            assert ws.recv(timeout=TIMEOUT) == "hello"
            program.process.send_signal(number)
            with pytest.raises(securews.ConnectionClosedOK) as closed:
                ws.recv(timeout=TIMEOUT)
        assert closed.value.code == 1001
        assert program.end() == (0, "over\n", "")


def test_a_second_signal_forces_the_end():
    with Program(SERVE, "event", "pool") as program:
        port = int(program.line())
        with RawClient(("127.0.0.1", port)) as mute:
            program.process.send_signal(signal.SIGTERM)
            assert mute.read_close().close_code == 1001
            program.process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert program.end() == (0, "closed\nover\n", "")
            assert time.monotonic() - began < 5  # of a grace of 10


def test_a_signal_counts_while_the_main_thread_cannot_run_handlers():
    # It waits for a lock; another thread takes the signal, so that nothing ends that wait. A signal
    # that comes just before a wait is the same, and cannot be had at will.
    source = """
import signal, threading, securews
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
handler = lambda ws: ws.wait_closed()
server = securews.serve(
    0, handler, tls=False, accepting_method=securews.AcceptingMethod.SERIAL
)
print(server.address[1], flush=True)
server.serve_forever()
print("over", flush=True)
"""
    with Program(source) as program:
        port = int(program.line())
        with securews.connect(f"ws://localhost:{port}/") as ws:
            program.process.send_signal(signal.SIGTERM)
            with pytest.raises(securews.ConnectionClosedOK) as closed:
                ws.recv(timeout=TIMEOUT)
        assert closed.value.code == 1001
        assert program.end() == (0, "over\n", "")


def test_signals_are_as_before_after_the_stop():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    server = plain()
    stopper = in_thread(lambda: (exchange(server), server.stop()))
    server.start()
    stopper.join(TIMEOUT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    left = signal.set_wakeup_fd(descriptor)
    assert left == descriptor


def test_a_background_server_ends_with_its_program():
    source = SERVE.replace("server.serve_forever()", "server.start_background()")
    with Program(source, "event", "pool") as program:
        program.line()
        assert program.end() == (0, "over\nclosed\n", "")  # the handler's close() is called


def test_a_program_that_never_starts_its_server_is_told_so():
    source = SERVE.replace("server.serve_forever()", "")
    with Program(source, "event", "pool") as program:
        program.line()
        code, out, err = program.end()
    assert (code, out) == (0, "over\n")
    assert err.count("was never started") == 1
    assert "Traceback" not in err


def test_a_server_that_was_made_before_a_fork_does_not_start_in_the_child():
    source = """
import os, securews
server = securews.serve(0, lambda ws: None, tls=False)
child = os.fork()
if child == 0:
    try:
        server.start_background()
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(3)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
with server, securews.connect(server.url):
    print("served", flush=True)
"""
    with Program(source) as program:
        code, out, err = program.end()
    assert (code, err) == (0, "")
    words, exit_code, served = out.splitlines()
    assert "forked" in words
    assert (exit_code, served) == ("3", "served")
