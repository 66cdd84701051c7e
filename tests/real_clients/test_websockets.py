"""The `websockets` library, threaded and asyncio, against each kind of handler."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets.asyncio.client
from support import for_threads
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close
from websockets.sync.client import connect

MIB = 1 << 20


@pytest.fixture
def dial(certificates):
    def dial(server, **options):
        return connect(server.url, ssl=for_threads(certificates.context()), **options)

    return dial


@pytest.mark.parametrize(
    "message", ["hello", "", "€ and 𝄞", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536, b"", b"\0"]
)
def test_messages_come_back_as_they_were(echo, dial, message):
    with dial(echo) as ws:
        ws.send(message)
        assert ws.recv(10) == message


def test_a_message_of_1_mib_comes_back(echo, dial):
    message = bytes(range(256)) * (MIB // 256)
    with dial(echo, max_size=2 * MIB) as ws:
        ws.send(message)
        assert ws.recv(30) == message


def test_fragments_come_back_as_one_message(echo, dial):
    with dial(echo) as ws:
        ws.send(["hel", "lo", " wor", "ld"])
        assert ws.recv(10) == "hello world"
        ws.send([b"\0", b"", b"\1"])
        assert ws.recv(10) == b"\0\1"


def test_messages_stay_in_their_order(echo, dial):
    messages = [f"message {i}" for i in range(500)]
    with dial(echo) as ws, ThreadPoolExecutor(1) as sender:
        sent = sender.submit(lambda: [ws.send(message) for message in messages])
        assert [ws.recv(10) for _ in messages] == messages
        sent.result()


def test_a_ping_is_answered(echo, dial):
    with dial(echo) as ws:
        assert ws.ping("are you there?").wait(10)


def test_a_close_is_answered_with_its_code(echo, dial):
    with dial(echo) as ws:
        ws.close(3001, "done")
        assert ws.protocol.close_rcvd.code == 3001
        assert ws.protocol.close_rcvd_then_sent is False


def test_many_clients_at_once(echo, dial):
    def talk(name):
        with dial(echo) as ws:
            for i in range(20):
                ws.send(f"{name} {i}")
                assert ws.recv(10) == f"{name} {i}"
        return name

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(talk, range(20))) == list(range(20))


def test_asyncio_clients_at_once(echo, certificates):
    async def talk(name):
        context = certificates.context()
        async with websockets.asyncio.client.connect(echo.url, ssl=context) as ws:
            for i in range(20):
                await ws.send(f"{name} {i}")
                assert await asyncio.wait_for(ws.recv(), 10) == f"{name} {i}"

    async def everybody():
        await asyncio.gather(*(talk(name) for name in range(10)))

    asyncio.run(everybody())


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1008, "no more"), (4321, "€")])
def test_the_servers_close_arrives_with_code_and_reason(run, dial, code, reason):
    with run("serve", "handlers:closes") as server, dial(server) as ws:
        ws.send(f"{code} {reason}")
        expected = ConnectionClosedOK if code == 1000 else ConnectionClosedError
        with pytest.raises(expected) as caught:
            ws.recv(10)
        assert caught.value.rcvd == Close(code, reason)


def test_the_servers_ping_is_answered(run, dial):
    with run("serve", "handlers:pings") as server, dial(server) as ws:
        assert ws.recv(10) == "answered"


def test_a_message_over_the_limit_is_1009(run, dial):
    with run("echo", "--max-size", "1000") as server, dial(server) as ws:
        ws.send("x" * 1000)
        assert len(ws.recv(10)) == 1000
        ws.send("x" * 1001)
        with pytest.raises(ConnectionClosedError) as caught:
            ws.recv(10)
        assert caught.value.rcvd.code == 1009


def test_the_servers_own_pings_keep_a_live_client(run, dial):
    flags = ("--ping-interval", "0.1", "--ping-timeout", "0.3")
    with run("echo", *flags) as server, dial(server) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(1)
        ws.send("still here")
        assert ws.recv(10) == "still here"


def test_broadcast_reaches_everybody(run, dial):
    with run("echo", "--broadcast") as server, dial(server) as one, dial(server) as other:
        one.send("hello")
        assert one.recv(10) == other.recv(10) == "hello"


@pytest.mark.parametrize("handler", ["event", "blocking", "threaded"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_1001_to_all(run, dial, handler, number):
    with run("echo", "--handler", handler) as server, dial(server) as one, dial(server) as other:
        one.send("hello")
        assert one.recv(10) == "hello"
        server.process.send_signal(number)
        for ws in (one, other):
            with pytest.raises(ConnectionClosedOK) as caught:
                ws.recv(10)
            assert caught.value.rcvd.code == 1001
        assert server.process.wait(10) == 0
