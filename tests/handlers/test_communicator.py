"""The facts of a Communicator, and what may not be set on it."""

import contextlib
import threading
import types

import pytest
from support import TIMEOUT, RawClient, eventually, held

import securews
from securews.handlers import communicator
from securews.protocol.frames import Opcode


def test_facts_of_an_open_connection():
    def accept(request, response_headers):
        request.identity = "ada"
        return True

    def tell(ws):
        ws.state.greeting = "hello"

    server = securews.serve(
        0, lambda ws: ws.recv(), tls=False, accept=accept, subprotocols=["chat.v2", "chat.v1"]
    )
    with (
        server,
        RawClient(
            server.address, path="/a?b=c", headers="Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n"
        ) as client,
    ):
        eventually(lambda: server.connections)
        (ws,) = server.connections
        tell(ws)
        assert (ws.request.path, ws.request.query) == ("/a", "b=c")
        assert ws.identity == "ada"
        assert ws.subprotocol == "chat.v2"
        assert "Sec-WebSocket-Protocol: chat.v2" in client.head
        assert ws.server is server
        assert ws.state.greeting == "hello"
        assert ws.remote_address == client.local_address
        assert ws.local_address == server.address
        assert ws.socket_stream.info is None
        assert ws.socket_stream.last_error is None
        assert ws.socket_stream.bytes_available == 0
        assert (ws.open, ws.close_code, ws.close_reason) == (True, None, None)
        assert "open" in repr(ws)


def test_ids_are_numbers_of_their_own():
    with held() as (first, _), held() as (second, _):
        assert first.id != second.id


def test_what_waits_for_the_handler_is_bytes_available():
    with held() as (ws, client):
        client.send(Opcode.TEXT, b"waits")
        ws.receive_messages(timeout=TIMEOUT)
        assert ws.socket_stream.bytes_available > 0
        ws.recv()
        assert ws.socket_stream.bytes_available == 0


def test_an_attribute_of_ones_own_belongs_into_state():
    with held() as (ws, _):
        with pytest.raises(AttributeError, match=r"use ws\.state\.name"):
            ws.name = "Ada"
        ws.state.name = "Ada"
        assert ws.state.name == "Ada"


@pytest.mark.parametrize("fact", ["id", "request", "open", "close_code", "send", "state", "server"])
def test_facts_are_read_only(fact):
    with held() as (ws, _), pytest.raises(AttributeError, match=rf"ws\.{fact} is read-only"):
        setattr(ws, fact, 1)


def test_a_class_of_the_users_may_have_attributes_of_its_own():
    class Chatter(securews.Communicator):
        def __init__(self, connection, request):
            super().__init__(connection, request)
            self.name = request.path[1:]

    class Handler(securews.WebSocketHandler):
        def create_communicator(self, connection, request):
            return Chatter(connection, request)

        def handle_communication(self, ws):
            ws.send(ws.name)

    with (
        securews.serve(0, Handler(), tls=False) as server,
        securews.connect(server.url + "ada") as ws,
    ):
        assert ws.recv(timeout=TIMEOUT) == "ada"


def test_a_clients_end_has_no_server():
    with (
        held() as (server_ws, _),
        securews.connect(server_ws.server.url) as ws,
        pytest.raises(RuntimeError, match="no server"),
    ):
        ws.server  # noqa: B018 - reading it is the test


def test_the_end_lets_go_of_the_notice_of_messages_without_an_on_close_too():
    with held() as (ws, client):
        ws.on_receive_message = lambda _: ws
        client.close()
        eventually(lambda: ws.on_receive_message is None)


def test_threads_that_ask_for_the_state_first_share_it(monkeypatch):
    states = []
    both = threading.Barrier(2)

    def made():
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # only if both make one
        return types.SimpleNamespace()

    monkeypatch.setattr(communicator, "SimpleNamespace", made)
    with held() as (ws, _):
        threads = [threading.Thread(target=lambda: states.append(ws.state)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert states[0] is states[1]
