"""What LazWebsocketsServer gets wrong on open connections: ends, deadlines, many threads."""

import socket
import statistics
import struct
import threading
import time

import pytest
from support import Happened
from wire import BINARY, CLOSE, PING, TEXT, WireClient, accept_key, client_context, close_frame

import securews
from securews import testing


def echo(ws):
    for message in ws:
        ws.send(message)


def dial(server, **options):
    return WireClient(server.address, client_context(server.ca_file), **options)


class Tells(securews.WebSocketHandler):
    """Notes how each connection ended: for the thread that receives, and by `on_close`."""

    def __init__(self):
        self.met = Happened()
        self.closed = Happened()

    def prepare_communication(self, ws):
        ws.on_close = lambda ws: self.closed((ws.close_code, ws.open))

    def handle_communication(self, ws):
        try:
            while True:
                self.met(ws.recv(10))
        except securews.ConnectionClosed as closed:
            self.met((closed.code, closed.initiator))
            raise


@pytest.mark.d(25)
def test_an_end_without_a_close_frame_is_1006_at_once(caplog):
    handler = Tells()
    with testing.server(handler) as server, dial(server) as client:
        client.upgrade()
        client.send_frame(TEXT, b"last words")
        client.socket.unwrap()  # close_notify, an orderly end for TLS and none for WebSocket
        assert handler.met.wait(2) == ["last words", (1006, "network")]
        assert handler.closed.wait() == [(1006, False)]
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.d(25)
def test_a_cut_connection_is_1006_at_once(caplog):
    handler = Tells()
    with testing.server(handler) as server, dial(server) as client:
        client.upgrade()
        client.socket.shutdown(socket.SHUT_WR)  # FIN without close_notify
        assert handler.met.wait() == [(1006, "network")]
        assert handler.closed.wait() == [(1006, False)]
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.d(26)
def test_a_reset_is_1006_at_once(caplog):
    handler = Tells()
    with testing.server(handler) as server, dial(server) as client:
        client.upgrade()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        assert handler.met.wait() == [(1006, "network")]
        assert handler.closed.wait() == [(1006, False)]
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.d(27)
def test_a_peer_that_takes_nothing_breaks_its_connection_not_its_stream():
    met = Happened()

    def handler(ws):
        try:
            while True:
                ws.send(bytes(1 << 18))
        except (TimeoutError, securews.ConnectionClosed) as error:
            met(type(error))
        ws.wait_closed()
        met((ws.open, ws.close_code))

    with (
        testing.server(handler, write_timeout=0.3) as server,
        dial(server, receive_buffer=4096) as client,
    ):
        client.upgrade()
        first, (is_open, code) = met.wait(2)
        assert issubclass(first, (TimeoutError, securews.ConnectionClosedError))
        assert (is_open, code) == (False, 1006)


@pytest.mark.d(27)
def test_a_slow_peer_gets_every_byte():
    messages = [bytes([i]) * 100_000 for i in range(20)]

    def handler(ws):
        for message in messages:
            ws.send(message)

    with testing.server(handler) as server, dial(server, receive_buffer=4096) as client:
        client.upgrade()
        assert [client.read_frame().payload for _ in messages] == messages
        assert client.read_close() == (1000, "")
        client.send(close_frame())


@pytest.mark.d(28)
def test_reading_and_writing_at_once_repeats_no_byte():
    count = 3000

    def handler(ws):
        def count_up():
            for i in range(count):
                ws.send(f"up {i}")

        writer = threading.Thread(target=count_up)
        writer.start()
        for _ in range(count):
            ws.send(ws.recv(10))
        writer.join(10)

    with testing.server(handler) as server, server.connect(max_queue=4 * count) as ws:
        sender = threading.Thread(target=lambda: [ws.send(f"back {i}") for i in range(count)])
        sender.start()
        got = list(ws)
        sender.join(10)
    assert [m for m in got if m.startswith("up")] == [f"up {i}" for i in range(count)]
    assert [m for m in got if m.startswith("back")] == [f"back {i}" for i in range(count)]


@pytest.mark.d(39)
def test_the_answer_to_a_close_is_waited_for():
    ended = Happened()

    def handler(ws):
        ws.close(1000, "done")
        ended((ws.close_code, ws.close_reason))

    with testing.server(handler) as server, dial(server) as client:
        client.upgrade()
        assert client.read_close() == (1000, "done")
        # The seed gave up after 20 ms. What is sent before our Close is no disturbance either.
        client.send_frame(BINARY, bytes(100_000))
        client.send_frame(PING)
        assert not ended.items
        client.send(close_frame())
        assert client.read_to_end() == b""
        assert ended.wait() == [(1000, "done")]


@pytest.mark.d(39)
def test_an_answer_that_does_not_come_is_1006_after_close_timeout():
    ended = Happened()

    def handler(ws):
        began = time.monotonic()
        ws.close()
        ended((ws.close_code, time.monotonic() - began))

    with testing.server(handler, close_timeout=0.3) as server, dial(server) as client:
        client.upgrade()
        [(code, seconds)] = ended.wait()
    # The wait itself ends with the deadline; the code is there once the loop has judged.
    assert code in (None, 1006)
    assert 0.2 < seconds < 5


@pytest.mark.d(42)
def test_a_small_echo_takes_no_40_milliseconds():
    with testing.server(echo) as server, dial(server) as client:
        client.upgrade()
        seconds = []
        for _ in range(50):
            began = time.perf_counter()
            client.send_frame(BINARY, bytes(200))
            client.read_frame()
            seconds.append(time.perf_counter() - began)
    # Delayed acknowledgements cost 40 ms each; the median leaves a busy machine out.
    assert statistics.median(seconds) < 0.02


@pytest.mark.d(44)
@pytest.mark.parametrize("index", [0, 1], ids=["IPv4", "IPv6"])
def test_the_address_of_a_peer_is_the_one_it_has(index):
    got = Happened()

    def handler(ws):
        got((ws.remote_address, ws.local_address))

    with testing.server(handler) as server:
        address = server.addresses[index]
        with WireClient(address, client_context(server.ca_file)) as client:
            client.upgrade()
            [(remote, local)] = got.wait()
            assert remote[:2] == client.socket.getsockname()[:2]
            assert local[:2] == address[:2]
            client.send(close_frame(client.read_close()[0]))


@pytest.mark.d(48)
def test_a_peer_that_answers_no_ping_is_gone():
    handler = Tells()
    with (
        testing.server(handler, ping_interval=0.2, ping_timeout=0.2) as server,
        dial(server) as client,
    ):
        client.upgrade()
        assert client.read_frame().opcode == PING
        assert handler.met.wait() == [(1006, "network")]
        assert handler.closed.wait() == [(1006, False)]


@pytest.mark.d(48)
def test_a_peer_that_answers_its_pings_stays():
    with (
        testing.server(echo, ping_interval=0.1, ping_timeout=0.2) as server,
        server.connect() as ws,
    ):
        with pytest.raises(TimeoutError):
            ws.recv(1.0)
        ws.send("still here")
        assert ws.recv(10) == "still here"


@pytest.mark.d(50)
def test_a_client_masks_each_frame_with_a_key_of_its_own():
    """The server's side of the wire: a plain socket that reads what `connect` sends."""
    keys = set()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            sock = listener.accept()[0]
            with sock, sock.makefile("rb") as stream:
                key = ""
                while (line := stream.readline()) != b"\r\n":
                    if line.lower().startswith(b"sec-websocket-key:"):
                        key = line.split(b":")[1].strip().decode()
                sock.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                    + accept_key(key).encode()
                    + b"\r\n\r\n"
                )
                while True:
                    first, second = stream.read(2)
                    assert second & 0x80
                    keys.add(stream.read(4))
                    stream.read(second & 0x7F)
                    if first & 0x0F == CLOSE:
                        sock.sendall(b"\x88\x00")
                        return

        peer = threading.Thread(target=answer)
        peer.start()
        port = listener.getsockname()[1]
        with securews.connect(f"ws://127.0.0.1:{port}/") as ws:
            for _ in range(50):
                ws.send("hello")
        peer.join(10)
    assert len(keys) == 51
