"""The README of LazWebsocketsServer, step by step, with securews and over wss.

Who knows the seed finds here each of its steps in its order, under the names of PARITY.
"""

import threading

import pytest
from support import Happened
from wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WireClient,
    close_frame,
    frame,
    request_head,
)

import securews
from securews import AcceptingMethod, MessageType, Pong


def make_server(certificates, handler, *, free_handlers=True, **options):
    """Steps 1 and 2 of the README: a server on a port, and a handler for everything."""
    server = securews.WebSocketServer(
        "localhost",
        0,
        securews.TLSSocketHandler(*certificates.server),
        free_handlers=free_handlers,
        **options,
    )
    server.register_handler("*", "*", handler, True, True)
    return server


def dial(server, certificates):
    client = WireClient(server.address, certificates.context())
    client.upgrade()
    return client


# -- the server --------------------------------------------------------------------------------


class EchoHandler(securews.WebSocketHandler):
    def __init__(self):
        self.told = Happened()

    def accept(self, request, response_headers):
        self.told(("accept", request.path, request.host, request.headers["X-Device"]))
        response_headers["X-Answer"] = "seen"
        return True

    def handle_communication(self, ws):
        for message in ws:
            ws.send(message)

    def close(self):
        self.told("closed")


def test_a_server_serves_a_registered_handler(certificates):
    handler = EchoHandler()
    with (
        make_server(certificates, handler) as server,
        WireClient(server.address, certificates.context()) as client,
    ):
        answer = client.upgrade("/any/path?room=1", headers={"X-Device": "pump"})
        assert answer.headers["x-answer"] == "seen"
        client.send_frame(TEXT, b"hello")
        assert client.read_frame() == (0x81, b"hello")
        client.send_frame(BINARY, b"\x00\x01")
        assert client.read_frame() == (0x82, b"\x00\x01")
        client.send(close_frame())
        assert client.read_close() == (1000, "")
    assert handler.told.items == [("accept", "/any/path", "localhost", "pump"), "closed"]


def test_exact_hosts_and_paths_go_before_the_defaults(certificates):
    def says(what):
        return lambda ws: ws.send(what)

    server = make_server(certificates, says("default"))
    server.register_handler("localhost", "/chat", says("chat"))
    server.register_handler("localhost", "*", says("localhost"), False, True)
    with server:
        for path, host, what in (
            ("/chat", "localhost", b"chat"),
            ("/other", "localhost", b"localhost"),
            ("/chat", "elsewhere.example", b"default"),
        ):
            with WireClient(server.address, certificates.context()) as client:
                client.upgrade(path, host=host)
                assert client.read_frame().payload == what


def test_a_handler_that_does_not_accept_is_a_403(certificates):
    class Refuses(EchoHandler):
        def accept(self, request, response_headers):
            return False

    with make_server(certificates, Refuses()) as server:
        with pytest.raises(securews.HandshakeError) as caught:
            securews.connect(server.url, tls=certificates.ca_file)
        assert caught.value.status == 403


@pytest.mark.parametrize(("free", "told"), [(True, ["closed"]), (False, [])])
def test_free_handlers_says_who_closes_the_handlers(certificates, free, told):
    handler = EchoHandler()
    with make_server(certificates, handler, free_handlers=free):
        pass
    assert handler.told.items == told


# -- the accepting methods ---------------------------------------------------------------------


class Threads(securews.WebSocketHandler):
    """Greets each client, and tells the thread that serves it."""

    def __init__(self):
        self.threads = Happened()

    def handle_communication(self, ws):
        self.threads(threading.get_ident())
        ws.send("welcome")
        ws.wait_closed()


def start_in_a_thread(server):
    """`start()` blocks, so it has a thread of the test's own."""
    thread = threading.Thread(target=server.start, name="the thread inside start()")
    thread.start()
    return thread


def test_serial_holds_the_second_client_until_the_first_has_gone(certificates):
    handler = Threads()
    server = make_server(certificates, handler, accepting_method=AcceptingMethod.SERIAL)
    starter = start_in_a_thread(server)
    try:
        with dial(server, certificates) as first:
            assert first.read_frame() == (0x81, b"welcome")
            with WireClient(server.address, certificates.context()) as second:
                second.send(request_head())
                second.socket.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    second.answer()
                second.socket.settimeout(10)
                first.send(close_frame())
                assert first.read_close()[0] == 1000
                assert second.answer().status == 101
                assert second.read_frame() == (0x81, b"welcome")
                assert handler.threads.items == [starter.ident] * 2
    finally:
        server.stop()
        starter.join(10)


@pytest.mark.parametrize("method", [AcceptingMethod.THREADED, AcceptingMethod.THREAD_POOL])
def test_the_other_methods_hold_nobody(certificates, method):
    handler = Threads()
    server = make_server(certificates, handler, accepting_method=method)
    starter = start_in_a_thread(server)
    try:
        with dial(server, certificates) as first, dial(server, certificates) as second:
            assert first.read_frame() == second.read_frame() == (0x81, b"welcome")
            one, other = handler.threads.wait(2)
            assert len({one, other, starter.ident}) == 3
    finally:
        server.stop()
        starter.join(10)


def test_a_threaded_handler_does_not_hold_the_second_client_in_serial_either(certificates):
    class Threaded(securews.ThreadedWebSocketHandler):
        def do_handle_communication(self, ws):
            ws.send("welcome")
            ws.wait_closed()

    with (
        make_server(
            certificates, Threaded(pooling=True), accepting_method=AcceptingMethod.SERIAL
        ) as server,
        dial(server, certificates) as first,
        dial(server, certificates) as second,
    ):
        assert first.read_frame() == second.read_frame() == (0x81, b"welcome")


# -- the communicator --------------------------------------------------------------------------


def test_receive_messages_and_get_unprocessed_messages(certificates):
    taken = Happened()

    class Collects(securews.WebSocketHandler):
        def handle_communication(self, ws):
            while ws.open:
                ws.receive_messages()
                for message in ws.get_unprocessed_messages():
                    taken(message)

    with make_server(certificates, Collects()) as server, dial(server, certificates) as client:
        client.send_frame(TEXT, b"one")
        assert taken.wait() == ["one"]
        client.send_frame(BINARY, b"two")
        client.send_frame(TEXT, b"thr", fin=False)
        client.send_frame(CONTINUATION, b"ee")
        assert taken.wait(3) == ["one", b"two", "three"]
        client.send(close_frame())
        assert client.read_close() == (1000, "")


def test_the_pong_of_a_ping_comes_through_the_queue(certificates):
    got = Happened()

    class Asks(securews.WebSocketHandler):
        def handle_communication(self, ws):
            with ws.write_message(MessageType.PING) as stream:
                stream.write(b"are you there?")
            got(ws.wait_for_message({Pong}, 10))
            got(ws.wait_for_message({str}, 10))
            ws.ping("and now?")
            ws.receive_messages(10)
            got(ws.get_unprocessed_messages())

    with make_server(certificates, Asks()) as server, dial(server, certificates) as client:
        assert client.read_frame() == (0x80 | PING, b"are you there?")
        client.send_frame(TEXT, b"before the pong")
        client.send_frame(PONG, b"nobody asked for this one")
        client.send_frame(PONG, b"are you there?")
        assert client.read_frame() == (0x80 | PING, b"and now?")
        client.send_frame(PONG, b"and now?")
        assert got.wait(3) == [Pong(b"are you there?"), "before the pong", [Pong(b"and now?")]]


def test_wait_for_message_takes_the_first_of_its_kind(certificates):
    got = Happened()

    class Waits(securews.WebSocketHandler):
        def handle_communication(self, ws):
            got(ws.wait_for_message({bytes}, 10))
            got(ws.has_messages)
            got(ws.wait_for_message({str}, 10))
            got(ws.has_messages)

    with make_server(certificates, Waits()) as server, dial(server, certificates) as client:
        client.send_frame(TEXT, b"text")
        client.send_frame(BINARY, b"binary")
        assert got.wait(4) == [b"binary", True, "text", False]


def test_write_message_sends_fragments_of_the_length_asked_for(certificates):
    class Writes(securews.WebSocketHandler):
        def handle_communication(self, ws):
            with ws.write_message(MessageType.TEXT, max_frame_length=5) as stream:
                stream.write("Hello ")
                stream.write("world")

    with make_server(certificates, Writes()) as server, dial(server, certificates) as client:
        assert client.read_frame() == (0x01, b"Hello")
        assert client.read_frame() == (0x00, b" worl")
        assert client.read_frame() == (0x80, b"d")
        assert client.read_frame().opcode == CLOSE


def test_on_receive_message_gives_notice_once_per_read(certificates):
    notices, taken = Happened(), Happened()

    class Both(securews.WebSocketHandler):
        def prepare_communication(self, ws):
            ws.on_receive_message = lambda ws: notices(ws.has_messages)
            ws.send("ready")

        def handle_communication(self, ws):
            taken(ws.recv(10))
            taken(ws.recv(10))

    with make_server(certificates, Both()) as server, dial(server, certificates) as client:
        client.read_frame()
        # One TLS record, so one read: one notice for both, and recv still gets them.
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
        assert taken.wait(2) == ["one", "two"]
        assert len(notices.items) == 1
        client.read_close()


def test_on_close_comes_once_and_the_address_is_still_there(certificates):
    told = Happened()

    class Notes(securews.WebSocketHandler):
        def prepare_communication(self, ws):
            ws.on_close = lambda ws: told((ws.remote_address, ws.close_code, ws.open))

        def handle_communication(self, ws):
            ws.wait_closed()
            ws.close()
            told("handler ends")

    with make_server(certificates, Notes()) as server:
        with dial(server, certificates) as client:
            address = client.socket.getsockname()
            client.send(close_frame(3000, b"enough"))
            assert client.read_close() == (3000, "")
            assert client.read_to_end() == b""
        told.wait(2)
    assert sorted(told.items, key=str) == [(address, 3000, False), "handler ends"]


# -- the client --------------------------------------------------------------------------------


def test_the_client_asks_with_its_headers_and_talks(certificates):
    handler = EchoHandler()
    with make_server(certificates, handler) as server:
        closed = Happened()
        with securews.connect(
            server.url + "chat", tls=certificates.ca_file, headers={"X-Device": "client"}
        ) as ws:
            ws.on_close = lambda ws: closed(ws.remote_address[1])
            ws.send("hello")
            assert ws.wait_for_message({str}, 10) == "hello"
            with ws.write_message(MessageType.BINARY, 2) as stream:
                stream.write(b"12345")
            assert ws.recv(10) == b"12345"
        assert closed.wait() == [server.address[1]]
    assert handler.told.items[0] == ("accept", "/chat", "localhost", "client")
