"""Every option does something: two values each, and what a peer sees differs."""

import dataclasses
import select
import shutil
import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager

import pytest
from support import TIMEOUT, Certificates, Happened, RawClient, eventually, masked

import securews
from securews import AcceptingMethod, Limits
from securews.common.options import ConnectionOptions, ServerOptions
from securews.protocol.frames import Opcode
from securews.transport.stream import PlainTransform, TransformStream

TEXT, PING, PONG = Opcode.TEXT, Opcode.PING, Opcode.PONG
A_WHILE = 0.4
"""Seconds in which something would have happened that does not."""
LONG = 30
SMALL = 4096

SCENARIOS = {}


def scenario(name, first, second):
    """`observe(**{option: value})` gives `first[1]` for the value `first[0]`, and so `second`."""

    def register(observe):
        SCENARIOS[name] = (observe, first, second)
        return observe

    return register


FIELDS = {
    field.name: kind
    for kind in (ConnectionOptions, ServerOptions, Limits)
    for field in dataclasses.fields(kind)
}


@pytest.mark.parametrize("name", FIELDS)
def test_two_values_of_the_option_are_two_things_for_a_peer(name, request):
    assert name in SCENARIOS, f"option {name!r} has no scenario here: what does a peer see of it?"
    observe, first, second = SCENARIOS[name]
    assert first[1] != second[1]
    for value, seen in (first, second):
        given = {"limits": Limits(**{name: value})} if FIELDS[name] is Limits else {name: value}
        needed = {
            fixture: request.getfixturevalue(fixture)
            for fixture in ("monkeypatch", "tmp_path")
            if fixture in observe.__code__.co_varnames
        }
        assert observe(**needed, **given) == seen, f"{name}={value!r}"


def test_no_scenario_is_for_an_option_that_is_gone():
    assert set(SCENARIOS) == set(FIELDS)


# -- what the scenarios share ---------------------------------------------------------------------


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def plain(handler=None, **options):
    return securews.serve(0, Echo() if handler is None else handler, tls=False, **options)


def readable(client, seconds):
    return bool(select.select([client.sock], [], [], seconds)[0])


@contextmanager
def one_client(handler=None, *, receive_buffer=None, headers="", path="/", **options):
    with (
        plain(handler, **options) as server,
        RawClient(
            server.address, receive_buffer=receive_buffer, headers=headers, path=path
        ) as client,
    ):
        yield client


@contextmanager
def holding(**options):
    """A client whose handler receives nothing until `over`; the handler's end as well."""
    over, got = threading.Event(), Happened()

    def handler(ws):
        got(ws)
        over.wait(TIMEOUT)

    with one_client(handler, **options) as client:
        try:
            yield client, got.wait()[0]
        finally:
            over.set()


def answer_to(client, *frames):
    """The payload or the close code that comes back."""
    client.send_raw(b"".join(frames))
    frame = client.read_frame()
    return frame.close_code if frame.opcode is Opcode.CLOSE else frame.payload


def ends(client, seconds):
    """Whether the server ends the connection within so many seconds."""
    client.sock.settimeout(seconds)
    try:
        client.read_to_end()
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def is_read_from(client):
    """Whether the server still reads: then it answers a Ping."""
    client.send(PING, b"there?")
    return readable(client, A_WHILE) and client.read_frame().opcode is PONG


# -- connection options ------------------------------------------------------------------------------


@scenario("ping_interval", (0.05, True), (None, False))
def _is_pinged(**options):
    with one_client(**options) as client:
        return readable(client, A_WHILE)


@scenario("ping_timeout", (0.1, True), (LONG, False))
def _mute_client_is_given_up(**options):
    with one_client(ping_interval=0.05, **options) as client:
        return ends(client, 1.0)


@scenario("close_timeout", (0.1, True), (LONG, False))
def _mute_client_is_closed(**options):
    class Closes(securews.EventWebSocketHandler):
        def on_open(self, ws):
            ws.close()

    with one_client(Closes(), **options) as client:
        return ends(client, 1.0)


@scenario("write_timeout", (0.1, True), (LONG, False))
def _client_that_takes_nothing_is_given_up(**options):
    closed = threading.Event()

    class Gives(securews.EventWebSocketHandler):
        def on_open(self, ws):
            ws.send(b"\x00" * 20_000_000)

        def on_close(self, ws, code, reason):
            closed.set()

    with one_client(Gives(), receive_buffer=SMALL, **options):
        return closed.wait(1.0)


@scenario("outbox_bytes", (1000, False), (64 << 20, True))
def _two_hundred_messages_are_taken_at_once(**options):
    taken = Happened()

    def handler(ws):
        ws.recv()  # the client has its 101
        try:
            for _ in range(200):
                ws.send(b"\x00" * 60_000, timeout=0.1)
        except TimeoutError:
            taken(False)
        else:
            taken(True)
        ws.abort()

    with one_client(handler, receive_buffer=SMALL, **options) as client:
        client.send(TEXT, b"go")
        return taken.wait()[0]


@scenario("slow_client", ("close", 1013), ("drop", 1000))
def _slow_client_is_closed(**options):
    flooded = Happened()

    class Flood(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            try:
                for _ in range(200):
                    ws.send(b"\x00" * 60_000)
                ws.close()
            finally:
                flooded()

    with one_client(Flood(), receive_buffer=SMALL, outbox_bytes=100_000, **options) as client:
        client.send(TEXT, b"go")
        flooded.wait()  # meanwhile it takes nothing
        return client.read_close().close_code


@scenario("message_timeout", (0.1, True), (LONG, False))
def _unfinished_message_is_given_up(**options):
    with one_client(**options) as client:
        client.send(TEXT, b"begun", fin=False)
        return readable(client, 1.5)


@scenario("message_rate", (2, 1008), (1000, b"0"))
def _ten_messages_at_once(**options):
    with one_client(lambda ws: (ws.send(ws.recv()), ws.wait_closed(A_WHILE)), **options) as client:
        answers = [answer_to(client, *(masked(TEXT, b"%d" % n) for n in range(10)))]
        if answers[0] == b"0":
            answers.append(client.read_close().close_code)
        return 1008 if 1008 in answers else answers[0]


@scenario("max_size", (10, 1009), (11, b"x" * 11))
def _eleven_bytes(**options):
    with one_client(**options) as client:
        return answer_to(client, masked(TEXT, b"x" * 11))


@scenario("compression", (False, False), (True, True))
def _offer_of_compression_is_taken(**options):
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    with one_client(headers=offer, **options) as client:
        return "sec-websocket-extensions: permessage-deflate" in client.head.lower()


@scenario("max_queue", (1, False), (16, True))
def _is_read_from_behind_a_message(**options):
    with holding(**options) as (client, ws):
        client.send(TEXT, b"unread")
        ws.receive_messages(timeout=TIMEOUT)
        return is_read_from(client)


@scenario("max_queue_bytes", (100, False), (100_000, True))
def _is_read_from_behind_a_large_message(**options):
    with holding(**options) as (client, ws):
        client.send(TEXT, b"unread" * 100)
        ws.receive_messages(timeout=TIMEOUT)
        return is_read_from(client)


# -- server options ---------------------------------------------------------------------------------


@scenario("accepting_method", (AcceptingMethod.SERIAL, False), (AcceptingMethod.THREADED, True))
def _second_client_is_served_beside_the_first(**options):
    with (
        plain(lambda ws: ws.recv(), **options) as server,
        RawClient(server.address),
        RawClient(server.address, upgrade=False) as second,
    ):
        second.send_upgrade()
        return readable(second, A_WHILE)


@scenario("open_timeout", (0.1, True), (LONG, False))
def _silent_client_is_closed(**options):
    with plain(**options) as server, RawClient(server.address, upgrade=False) as client:
        return ends(client, A_WHILE)


@scenario("max_connections", (1, 503), (2, 101))
def _status_of_a_second_client(**options):
    with (
        plain(**options) as server,
        RawClient(server.address),
        RawClient(server.address, upgrade=False) as second,
    ):
        if not readable(second, A_WHILE):  # the refusal does not wait for a request
            second.send_upgrade()
        return int(second.read_head().split()[1])


@scenario("max_per_ip", (1, 503), (2, 101))
def _status_of_a_second_client_of_an_address(monkeypatch, **options):
    monkeypatch.setattr("securews.server.leases._key", lambda address: address[0])
    return _status_of_a_second_client(**options)


@scenario("max_buffered", (10_000, 1013), (1 << 20, "open"))
def _end_of_a_client_that_holds_a_large_message_open(**options):
    with one_client(**options) as client:
        client.send(TEXT, b"x" * 50_000, fin=False)
        for _ in range(2):  # the first one may come in the same read
            client.send(PING, b"?")
            frame = client.read_frame()
            if frame.opcode is Opcode.CLOSE:
                return frame.close_code
        return "open"


@scenario("pool_size", (1, 503), (2, 101))
def _status_of_a_second_client_while_a_handler_runs(**options):
    with (
        plain(lambda ws: ws.recv(), **options) as server,
        RawClient(server.address),
        RawClient(server.address) as second,
    ):
        return second.status


@scenario("request_threads", (1, 1), (2, 2))
def _decisions_at_once(**options):
    entered, release = Happened(), threading.Event()

    def accept(request, response_headers):
        entered()
        return release.wait(TIMEOUT)

    with plain(accept=accept, **options) as server, ExitStack() as opened:
        opened.callback(release.set)
        clients = [opened.enter_context(RawClient(server.address, upgrade=False)) for _ in range(3)]
        for client in clients:
            client.send_upgrade()
        entered.wait(options["request_threads"])
        select.select([client.sock for client in clients], [], [], A_WHILE)
        at_once = len(entered.items)
        release.set()
        return at_once


class SlowHandshake(PlainTransform):
    """A handshake of one byte that waits."""

    __slots__ = ("_handler",)

    def __init__(self, handler):
        super().__init__()
        self._handler = handler
        self.ready = False

    def handshake(self, data):
        self._handler.entered()
        self._handler.release.wait(TIMEOUT)
        self.ready = True
        return True


class SlowHandshakes(securews.PlainSocketHandler):
    def __init__(self):
        super().__init__()
        self.entered = Happened()
        self.release = threading.Event()

    def accept(self, sock, address):
        return TransformStream(sock, address, SlowHandshake(self))


@scenario("handshake_workers", (1, 1), (2, 2))
def _handshakes_at_work(**options):
    handler = SlowHandshakes()
    expected = min(options["handshake_workers"], options.get("limits", Limits()).max_handshakes)
    with securews.serve(0, Echo(), tls=handler, **options) as server, ExitStack() as opened:
        opened.callback(handler.release.set)
        clients = [opened.enter_context(RawClient(server.address, upgrade=False)) for _ in range(3)]
        for client in clients:
            client.send_raw(b"!")
        handler.entered.wait(expected)
        select.select([client.sock for client in clients], [], [], A_WHILE)
        return len(handler.entered.items)


@scenario("io_threads", (1, b"alone"), (2, b"together"))
def _two_clients_are_served_at_one_time(monkeypatch, **options):
    monkeypatch.setattr("securews.server.io_threads.gil_enabled", lambda: False)
    both = threading.Barrier(2)

    class Meets(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            try:
                both.wait(A_WHILE)
            except threading.BrokenBarrierError:
                ws.send(b"alone")
            else:
                ws.send(b"together")

    with (
        plain(Meets(), **options) as server,
        RawClient(server.address) as one,
        RawClient(server.address) as other,
    ):
        for client in (one, other):
            client.send(TEXT, b"anybody?")
        (answer,) = {client.read_frame().payload for client in (one, other)}
    return answer


@scenario("reload_interval", (0.05, True), (None, False))
def _changed_certificate_is_shown(tmp_path, **options):
    made = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir(exist_ok=True)
        made.append(Certificates(tmp_path / name))
    old, new = made
    with securews.serve(0, Echo(), tls=old.server, **options) as server:

        def shows_new():
            try:
                RawClient(server.address, context=new.context()).close()
            except (ssl.SSLError, ConnectionError):
                return False
            return True

        assert not shows_new()
        for source, target in zip(reversed(new.server), reversed(old.server), strict=True):
            shutil.copyfile(source, target)
        if options["reload_interval"] is not None:
            eventually(shows_new)
        return shows_new()


@scenario("revalidate_interval", (0.05, 1008), (None, "open"))
def _end_of_a_client_that_would_not_be_let_in_now(tmp_path, **options):
    made, allowed = Certificates(tmp_path), [True]
    tls = securews.MutualTLSSocketHandler(
        *made.server, client_ca=made.ca_file, authorize=lambda certificate: allowed[0]
    )
    context = made.context(made.client)
    with (
        securews.serve(0, Echo(), tls=tls, **options) as server,
        RawClient(server.address, context=context) as client,
    ):
        allowed.clear()
        allowed.append(False)
        return client.read_close().close_code if readable(client, A_WHILE) else "open"


@scenario("allowed_hosts", ((), 421), (("chat.example.org",), 200))
def _answer_to_another_host(**options):
    server = plain(**options)
    server.page("/page")(lambda request: "ok")
    with server, RawClient(server.address, upgrade=False) as client:
        client.send_raw(b"GET /page HTTP/1.1\r\nHost: chat.example.org\r\n\r\n")
        return int(client.read_head().split()[1])


@scenario("free_handlers", (True, ["closed"]), (False, []))
def _what_a_handler_is_told_at_the_stop(**options):
    told = []

    class Closable(Echo):
        def close(self):
            told.append("closed")

    with plain(Closable(), **options):
        pass
    return told


@scenario("limits", (Limits(max_fragments=2), 1008), (Limits(max_fragments=3), b"abc"))
def _three_fragments(**options):
    with one_client(**options) as client:
        return answer_to(
            client,
            masked(TEXT, b"a", fin=False),
            masked(Opcode.CONTINUATION, b"b", fin=False),
            masked(Opcode.CONTINUATION, b"c"),
        )


# -- Limits ------------------------------------------------------------------------------------------

SCENARIOS["max_fragments"] = (_three_fragments, (2, 1008), (3, b"abc"))


def _status(**request):
    def observe(**options):
        with one_client(**request, **options) as client:
            return client.status

    return observe


SCENARIOS["max_line"] = (_status(path="/" + "x" * 100), (60, 414), (8192, 101))
SCENARIOS["max_headers"] = (_status(headers="X-More: 1\r\n"), (5, 431), (6, 101))
SCENARIOS["max_header_bytes"] = (
    _status(headers=f"X-More: {'x' * 300}\r\n"),
    (300, 431),
    (800, 101),
)


@scenario("control_rate", (0.01, 1008), (1_000_000, b"100"))
def _last_answer_to_pings(**options):
    return _pings(100, limits=dataclasses.replace(options["limits"], control_burst=1))


@scenario("control_burst", (2, 1008), (4, b"4"))
def _last_answer_to_four_pings(**options):
    return _pings(4, limits=dataclasses.replace(options["limits"], control_rate=0.01))


def _pings(count, **options):
    with one_client(**options) as client:
        for number in range(1, count + 1):
            answer = answer_to(client, masked(PING, b"%d" % number))
            if answer == 1008:
                break
        return answer


@scenario("max_handshakes", (1, 1), (2, 2))
def _handshakes_begun(**options):
    return _handshakes_at_work(handshake_workers=3, **options)


@scenario("backlog", (1, False), (50, True))
def _kernel_holds_ten_connections(**options):
    server = plain(**options)  # not started: nobody accepts
    with ExitStack() as opened:
        opened.callback(server.stop)
        clients = []
        for _ in range(10):
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.address)
            clients.append(client)
        connected = set()
        while new := select.select([], set(clients) - connected, [], A_WHILE)[1]:
            connected.update(new)
        return len(connected) == 10
