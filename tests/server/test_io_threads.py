"""Several I/O threads: each connection stays with one, and nobody waits for anybody."""

import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from support import TIMEOUT, Happened, RawClient, errors_in, eventually, thread_kind

import securews
from securews import ConfigurationError
from securews.common import interpreter
from securews.protocol.frames import Opcode
from securews.server import io_threads

TEXT = Opcode.TEXT
SMALL = 4096


@pytest.fixture(autouse=True)
def without_a_gil(monkeypatch):
    """What is right with threads that take turns is slow, and otherwise the same."""
    monkeypatch.setattr(io_threads, "gil_enabled", lambda: False)


def plain(handler, **options):
    return securews.serve(0, handler, **{"tls": False, "io_threads": 2, **options})


class Names(securews.EventWebSocketHandler):
    """Answers with the name of the thread that serves."""

    def on_message(self, ws, message):
        ws.send(threading.current_thread().name)


@contextmanager
def clients(server, count):
    with ExitStack() as opened:
        yield [opened.enter_context(RawClient(server.address)) for _ in range(count)]


def ask(client, message=b"?"):
    client.send(TEXT, message)
    return client.read_data_frame().payload.decode()


# -- which connection is whose ---------------------------------------------------------------------


def test_connections_are_dealt_out_evenly_and_stay():
    with plain(Names(), io_threads=3) as server, clients(server, 9) as nine:
        names = [ask(client) for client in nine]
        assert sorted(names) == sorted(["securews-io", "securews-io-2", "securews-io-3"] * 3)
        assert [ask(client) for client in nine] == names


def test_the_thread_that_lost_connections_gets_the_next():
    with plain(Names()) as server, ExitStack() as opened:
        all_clients = [opened.enter_context(RawClient(server.address)) for _ in range(6)]
        for client in all_clients:
            if ask(client) == "securews-io-2":
                client.close()
        eventually(lambda: server.stats()["sockets"] == 3)
        with clients(server, 3) as more:
            assert {ask(client) for client in more} == {"securews-io-2"}


class EventEcho(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def echo(ws):
    for message in ws:
        ws.send(message)


@pytest.mark.parametrize("handler", [EventEcho(), echo], ids=["event", "blocking"])
def test_handlers_and_pages_are_served_over_tls_too(certificates, handler):
    server = plain(handler, tls=certificates.server, accept=lambda request, headers: True)
    server.page("/page")(lambda request: "page")
    context = certificates.context()
    with server, ExitStack() as opened:
        for number in range(4):
            client = opened.enter_context(RawClient(server.address, context=context))
            assert ask(client, b"%d" % number) == str(number)
            with RawClient(server.address, context=context, upgrade=False) as page:
                page.send_raw(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert page.read_to_end().endswith(b"page")
        assert server.stats()["accepted"] == 4
        assert server.stats()["pages"] == 4
        assert len(server.connections) == 4


# -- across threads --------------------------------------------------------------------------------


class Everybody(securews.EventWebSocketHandler):
    """Calls something of every connection, from the I/O thread of one."""

    def __init__(self, call):
        self.call = call
        self.outcomes = Happened()

    def on_message(self, ws, message):
        for other in ws.server.connections:
            if other is not ws:
                try:
                    self.outcomes(self.call(other))
                except Exception as error:
                    self.outcomes(error)


def test_a_broadcast_in_a_callback_reaches_the_other_threads_connections():
    class Room(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            assert ws.server.broadcast(message) == []

    with plain(Room()) as server, clients(server, 4) as four:
        for number, client in enumerate(four):
            client.send(TEXT, b"%d" % number)
            assert [c.read_data_frame().payload for c in four] == [b"%d" % number] * 4


@pytest.mark.parametrize(
    "call",
    [
        lambda ws: ws.recv(),
        lambda ws: next(iter(ws)),
        lambda ws: ws.receive_messages(),
        lambda ws: ws.wait_for_message({str}),
        lambda ws: ws.wait_closed(),
        lambda ws: ws.ping().wait(),
    ],
    ids=["recv", "iteration", "receive_messages", "wait_for_message", "wait_closed", "ping"],
)
def test_no_io_thread_waits_for_a_connection_of_another(call):
    handler = Everybody(call)
    with plain(handler) as server, clients(server, 2) as (one, _):
        one.send(TEXT, b"go")
        (outcome,) = handler.outcomes.wait()
        assert isinstance(outcome, RuntimeError)
        assert "would block the I/O thread" in str(outcome)


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize(("slow_client", "code"), [("close", 1013), ("drop", None)])
def test_sending_to_a_full_connection_of_another_thread_does_not_wait(
    slow_client, code, compression
):
    def flood(ws):
        began = time.monotonic()
        try:
            for _ in range(400):
                ws.send(b"\x00" * 60_000, compress=False)
            for _ in range(10):
                ws.send(b"\x00" * 60_000)
        except securews.ConnectionClosed as closed:
            return time.monotonic() - began, closed.code
        return time.monotonic() - began, None

    handler = Everybody(flood)
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if compression else ""
    options = {"outbox_bytes": 100_000, "slow_client": slow_client, "compression": compression}
    with (
        plain(handler, **options) as server,
        RawClient(server.address) as one,
        RawClient(server.address, receive_buffer=SMALL, headers=offer),
    ):
        eventually(lambda: len(server.connections) == 2)
        one.send(TEXT, b"go")
        ((seconds, ended),) = handler.outcomes.wait()
        assert seconds < 5  # of a write_timeout of 10
        assert ended == code


def test_a_message_stream_to_another_threads_connection_does_not_wait():
    def stream(ws):
        with ws.write_message(securews.MessageType.BINARY, 1000) as first:
            first.write(b"\x00" * 5000)
            try:
                ws.write_message()
            except RuntimeError as error:
                return str(error)
        return "waited"

    handler = Everybody(stream)
    with plain(handler) as server, clients(server, 2) as (one, other):
        one.send(TEXT, b"go")
        (outcome,) = handler.outcomes.wait()
        assert "an I/O thread must not" in outcome
        received = b""
        while not (frame := other.read_data_frame()).fin:
            received += frame.payload
        assert received + frame.payload == bytes(5000)


def test_closing_a_connection_of_another_thread_does_not_wait():
    handler = Everybody(lambda ws: ws.close(1000, "told"))
    with plain(handler) as server, clients(server, 2) as (one, other):
        one.send(TEXT, b"go")
        assert handler.outcomes.wait() == [None]  # though nobody has answered
        assert other.read_close().close_code == 1000


def test_a_client_in_an_event_handler_is_not_waited_for_either():
    # Its loop is another one, of another part of this process, but it is the server's that waits.
    outcomes = Happened()

    class Calls(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            try:
                ws.state.upstream.recv()
            except RuntimeError as error:
                outcomes(str(error))

        def on_open(self, ws):
            ws.state.upstream = upstream

    with (
        plain(Names()) as other,
        securews.connect(other.url) as upstream,
        plain(Calls(), io_threads=1) as server,
        RawClient(server.address) as client,
    ):
        client.send(TEXT, b"go")
        assert "would block the I/O thread" in outcomes.wait()[0]


def test_what_one_thread_is_busy_with_holds_up_no_other():
    release = threading.Event()

    class Busy(Names):
        def on_message(self, ws, message):
            if message == "block":
                release.wait(TIMEOUT)
            super().on_message(ws, message)

    with plain(Busy()) as server, clients(server, 4) as four:
        names = {ask(client): client for client in four}
        names["securews-io-2"].send(TEXT, b"block")
        for _ in range(10):
            assert ask(names["securews-io"]) == "securews-io"
        release.set()
        assert names["securews-io-2"].read_data_frame().payload == b"securews-io-2"


# -- shared limits ---------------------------------------------------------------------------------


def test_max_connections_is_of_the_server():
    with (
        plain(Names(), max_connections=3) as server,
        clients(server, 3),
        RawClient(server.address, upgrade=False) as fourth,
    ):
        assert b"503" in fourth.read_to_end()


def test_silent_peers_of_every_thread_make_room():
    with plain(Names(), max_connections=4) as server, ExitStack() as opened:
        silent = [opened.enter_context(RawClient(server.address, upgrade=False)) for _ in range(4)]
        eventually(lambda: server.stats()["sockets"] == 4)
        with clients(server, 4) as four:
            assert {ask(client) for client in four} == {"securews-io", "securews-io-2"}
            for client in silent:
                with pytest.raises((EOFError, ConnectionError)):
                    client.read_head()
        eventually(lambda: server.stats()["sockets"] == 0)


def test_each_thread_has_its_share_of_max_buffered():
    # 50 kB held open are within the 80 kB of the server, and over the share of one thread.
    with plain(Names(), max_buffered=80_000) as server, clients(server, 2) as two:
        for client in two:
            client.send(TEXT, b"x" * 50_000, fin=False)
            for _ in range(2):  # the first one may come in the same read
                client.send(Opcode.PING, b"?")
                frame = client.read_frame()
                if frame.opcode is Opcode.CLOSE:
                    break
            assert frame.close_code == 1013


@pytest.mark.parametrize("request_threads", [1, 2])
def test_request_threads_are_of_the_server(request_threads):
    entered, release = Happened(), threading.Event()

    def accept(request, response_headers):
        entered()
        return release.wait(TIMEOUT)

    with (
        plain(Names(), accept=accept, request_threads=request_threads) as server,
        ExitStack() as opened,
    ):
        opened.callback(release.set)
        waiting = [opened.enter_context(RawClient(server.address, upgrade=False)) for _ in range(6)]
        for client in waiting:
            client.send_upgrade()
        entered.wait(request_threads)
        eventually(lambda: server.stats()["sockets"] == 6)
        assert len(entered.items) == request_threads
        release.set()
        for client in waiting:
            client.head = client.read_head()
            assert client.status == 101


# -- the stop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_a_stop_closes_the_connections_of_all_threads(jitter):
    with plain(Names()) as server, ExitStack() as opened:
        four = [opened.enter_context(securews.connect(server.url)) for _ in range(4)]
        with RawClient(server.address, upgrade=False) as silent:
            eventually(lambda: server.stats()["sockets"] == 5)
            server.stop(jitter=jitter)
            for ws in four:
                with pytest.raises(securews.ConnectionClosedOK) as closed:
                    ws.recv(TIMEOUT)
                assert closed.value.code == 1001
            with pytest.raises((EOFError, ConnectionError)):
                silent.read_head()
        assert server.stats()["sockets"] == 0
    left = [
        thread.name for thread in threading.enumerate() if thread.name.startswith("securews-io")
    ]
    assert left == []


def test_a_stop_without_grace_aborts_mute_peers_of_all_threads():
    with plain(Names()) as server, clients(server, 4) as four:
        began = time.monotonic()
        server.stop(grace=0.2)
        assert time.monotonic() - began < 5
        for client in four:
            client.read_close()
            with pytest.raises((EOFError, ConnectionError)):
                client.read_frame()


@pytest.mark.parametrize("name", ["securews-io", "securews-io-2"])
def test_a_stop_on_any_of_the_threads_begins_it_and_returns(name):
    returned = Happened()

    class Stops(Names):
        def on_message(self, ws, message):
            if threading.current_thread().name == name:
                ws.server.stop()
                returned(threading.current_thread().name)

    server = plain(Stops())
    inside = threading.Thread(target=server.start)
    inside.start()
    with ExitStack() as opened:
        for ws in [opened.enter_context(securews.connect(server.url)) for _ in range(2)]:
            try:
                ws.send("stop")
            except securews.ConnectionClosed:
                pass  # by what the other one has begun
        inside.join(TIMEOUT)
    assert not inside.is_alive()
    assert returned.items == [name]


def test_callbacks_of_a_handler_end_with_close_after_the_last_of_all_threads():
    told = Happened()

    class Tells(securews.EventWebSocketHandler):
        def on_close(self, ws, code, reason):
            told("on_close")

        def close(self):
            told(f"close on {thread_kind()}")

    with plain(Tells()) as server, ExitStack() as opened:
        for _ in range(4):
            opened.enter_context(securews.connect(server.url))
        server.stop()
    assert told.items == ["on_close"] * 4 + ["close on securews-io"]


def test_a_server_that_is_never_started_leaves_no_thread():
    server = plain(Names())
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)


# -- where it cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize("free_threaded", [False, True])
def test_with_a_gil_more_than_one_is_refused_and_says_what_to_do(monkeypatch, free_threaded):
    monkeypatch.setattr(io_threads, "gil_enabled", lambda: True)
    monkeypatch.setattr(io_threads.sysconfig, "get_config_var", lambda name: int(free_threaded))
    with pytest.raises(ConfigurationError) as refused:
        plain(Names())
    assert "io_threads=2" in str(refused.value)
    assert ("-X gil=0" if free_threaded else "--workers 2") in str(refused.value)
    plain(Names(), io_threads=1).stop()


def test_this_interpreter_is_asked_for_its_gil(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(interpreter.sys, "_is_gil_enabled", lambda: False, raising=False)
    assert not interpreter.gil_enabled()
    monkeypatch.setattr(interpreter.sys, "_is_gil_enabled", lambda: True)
    assert interpreter.gil_enabled()
    monkeypatch.delattr(interpreter.sys, "_is_gil_enabled")
    assert interpreter.gil_enabled()  # before Python 3.13 there always is one


def test_nothing_is_logged_when_all_goes_well(caplog):
    with plain(Names()) as server, clients(server, 4) as four:
        for client in four:
            ask(client)
    assert errors_in(caplog) == []
