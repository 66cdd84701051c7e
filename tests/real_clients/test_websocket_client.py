"""The `websocket-client` library against each kind of handler."""

import ssl
import struct
import threading

import pytest
import websocket

MIB = 1 << 20


@pytest.fixture
def dial(certificates):
    """Connects, and closes what the test has left open."""
    made = []

    def dial(server, **options):
        trust = {"ca_certs": certificates.ca_file, "cert_reqs": ssl.CERT_REQUIRED}
        ws = websocket.create_connection(server.url, timeout=10, sslopt=trust, **options)
        made.append(ws)
        return ws

    yield dial
    for ws in made:
        ws.shutdown()


@pytest.mark.parametrize("message", ["hello", "", "€ and 𝄞", "x" * 126, "x" * 65536])
def test_text_comes_back_as_it_was(echo, dial, message):
    ws = dial(echo)
    ws.send(message)
    assert ws.recv_data() == (websocket.ABNF.OPCODE_TEXT, message.encode())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MIB])
def test_binary_comes_back_as_it_was(echo, dial, size):
    message = bytes(i & 0xFF for i in range(size))
    ws = dial(echo)
    ws.send_binary(message)
    assert ws.recv_data() == (websocket.ABNF.OPCODE_BINARY, message)


def test_fragments_come_back_as_one_message(echo, dial):
    ws = dial(echo)
    for fin, opcode, data in ((0, 1, "hel"), (0, 0, "lo wor"), (1, 0, "ld")):
        ws.send_frame(websocket.ABNF.create_frame(data, opcode, fin))
    assert ws.recv() == "hello world"


def test_a_ping_is_answered_with_its_payload(echo, dial):
    ws = dial(echo)
    ws.ping("are you there?")
    opcode, frame = ws.recv_data_frame(control_frame=True)
    assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"are you there?")


def test_a_close_is_answered_with_its_code(echo, dial):
    ws = dial(echo)
    ws.send_close(3001, b"done")
    opcode, frame = ws.recv_data_frame(control_frame=True)
    assert (opcode, frame.data) == (websocket.ABNF.OPCODE_CLOSE, struct.pack("!H", 3001))


def test_its_event_driven_app_is_served_too(echo, certificates):
    told = []
    opened = threading.Event()

    def on_open(ws):
        opened.set()
        ws.send("hello")

    def on_message(ws, message):
        told.append(message)
        ws.close(status=1000)

    app = websocket.WebSocketApp(
        echo.url,
        on_open=on_open,
        on_message=on_message,
        on_error=lambda ws, error: told.append(error),
        on_close=lambda ws, code, reason: told.append(code),
    )
    app.run_forever(sslopt={"ca_certs": certificates.ca_file})
    assert opened.is_set()
    assert told == ["hello", 1000]


def test_a_server_that_it_does_not_trust_is_not_talked_to(echo):
    with pytest.raises(ssl.SSLCertVerificationError):
        websocket.create_connection(echo.url, timeout=10)


def test_the_servers_close_arrives_with_code_and_reason(run, dial):
    with run("serve", "handlers:closes") as server:
        ws = dial(server)
        ws.send("4321 enough")
        opcode, frame = ws.recv_data_frame(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert frame.data == struct.pack("!H", 4321) + b"enough"
        ws.shutdown()


def test_the_servers_ping_is_answered(run, dial):
    with run("serve", "handlers:pings") as server:
        ws = dial(server)
        assert ws.recv() == "answered"
        ws.shutdown()
