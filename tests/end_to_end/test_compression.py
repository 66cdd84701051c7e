"""permessage-deflate over wss with a foreign implementation, and against hostile use of it."""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from support import TIMEOUT, ForeignClient, Frame, Happened, RawClient, eventually, masked
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.sync.server import serve as foreign_serve

import securews
from securews import Compression, MessageType
from securews.protocol.frames import Opcode, encode_frame

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
PING, PONG = Opcode.PING, Opcode.PONG
MIB = 1 << 20
ALPHABET = "".join(map(chr, range(0x20, 0x7F))) + "äöü€😀"
PROSE = "A line of a log that looks much like the line before it, number {}.\n"


def echo(ws):
    for message in ws:
        ws.send(message)


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


@pytest.fixture
def serving(certificates):
    """Start servers: `serving(handler, tls=..., **options)`."""
    servers = []

    def start(handler=None, *, tls=certificates.server, **options):
        server = securews.serve(0, handler, tls=tls, **options)
        servers.append(server)
        return server.start_background()

    yield start
    for server in servers:
        server.stop(grace=1)


def messages(seed=1):
    """Small and large, text and binary, what compresses well and what does not at all."""
    noise = random.Random(seed)
    yield "x"
    yield ""
    yield b""
    yield json.dumps({"pump": 7, "values": list(range(200))})
    yield ALPHABET * 50
    for size in (63, 64, 125, 126, 65535, 65536, 300_000):
        yield noise.randbytes(size)
        yield "".join(noise.choices(ALPHABET, k=size // 3))
    for number in range(20):
        yield PROSE.format(number) * 3


def packed(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame with RSV1."""
    return encode_frame(opcode, payload, fin=fin, masking_key=os.urandom(4), compressed=True)


class Deflating(RawClient):
    """A raw client that inflates what comes, with one context, and remembers the RSV1 bits."""

    def __init__(self, address, *, offer="permessage-deflate", headers="", **options):
        headers = f"Sec-WebSocket-Extensions: {offer}\r\n{headers}"
        super().__init__(address, headers=headers, **options)
        assert self.status == 101
        found = re.search(r"(?im)^sec-websocket-extensions: (.*)\r?$", self.head)
        self.extension = found and found[1].strip()
        self._inflater = zlib.decompressobj(-15)
        self.compressed: list[bool] = []

    def inflate(self, payload: bytes) -> bytes:
        return self._inflater.decompress(payload + b"\x00\x00\xff\xff")

    def read_frame(self) -> Frame:
        """As a plain client; notes and clears RSV1 of frames that begin a message."""
        first = self._take(1)[0]
        if first & 0x0F in (TEXT, BINARY):
            self.compressed.append(bool(first & 0x40))
            first &= ~0x40
        self._buffer = bytes([first]) + self._buffer
        return super().read_frame()

    def recv(self) -> bytes:
        """The next message."""
        frame = self.read_frame()
        payload = frame.payload
        while not frame.fin:
            frame = self.read_frame()
            assert frame.opcode is CONTINUATION
            payload += frame.payload
        return self.inflate(payload) if self.compressed[-1] else payload


# -- both ways with a foreign implementation ---------------------------------------------------

TAKEOVER = [(None, None), (False, True), (True, False), (False, False)]


@pytest.mark.parametrize("handler", [echo, Echo()], ids=["blocking", "event"])
@pytest.mark.parametrize("keeps", TAKEOVER)
@pytest.mark.parametrize("bits", [9, 15])
def test_a_foreign_client_is_understood(serving, certificates, handler, keeps, bits):
    server_keeps, client_keeps = keeps
    ours = Compression(
        server_context_takeover=server_keeps,
        client_context_takeover=client_keeps,
        server_window_bits=bits,
        client_window_bits=bits,
    )
    server = serving(handler, compression=ours)
    offered = [ClientPerMessageDeflateFactory(client_max_window_bits=True)]
    with ForeignClient(server.url, certificates.context(), extensions=offered) as client:
        (agreed,) = client._ws.protocol.extensions
        assert agreed.remote_no_context_takeover is (server_keeps is False)
        assert agreed.local_no_context_takeover is (client_keeps is False)
        assert agreed.remote_max_window_bits == agreed.local_max_window_bits == bits
        for message in messages():
            client.send(message)
            assert client.recv() == message
        client.send(["in ", "three ", "pieces " * 100])
        assert client.recv() == "in three " + "pieces " * 100


@pytest.mark.parametrize("keeps", TAKEOVER)
@pytest.mark.parametrize("bits", [9, 15])
def test_a_foreign_server_is_understood(certificates, keeps, bits):
    server_keeps, client_keeps = keeps
    theirs = ServerPerMessageDeflateFactory(
        server_no_context_takeover=server_keeps is False,
        client_no_context_takeover=client_keeps is False,
        server_max_window_bits=bits,
        client_max_window_bits=bits,
    )
    agreed = []

    def handler(ws):
        agreed.extend(ws.protocol.extensions)
        for message in ws:
            ws.send(message)
            ws.send(iter([message[:1], message[1:2], message[2:]]))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    with foreign_serve(
        handler, "localhost", 0, ssl=context, extensions=[theirs], compression=None
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"wss://localhost:{server.socket.getsockname()[1]}"
            with securews.connect(url, tls=certificates.ca_file, compression=True) as ws:
                for message in messages():
                    ws.send(message)
                    assert ws.recv(TIMEOUT) == message
                    assert ws.recv(TIMEOUT) == message
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
    (theirs,) = agreed
    assert theirs.local_no_context_takeover is (server_keeps is False)
    assert theirs.remote_max_window_bits <= min(bits, 12)


def test_our_client_and_our_server_understand_each_other(serving, certificates):
    server = serving(echo, compression=True)
    with securews.connect(server.url, tls=certificates.ca_file, compression=True) as ws:
        for message in messages():
            ws.send(message)
            assert ws.recv(TIMEOUT) == message
        with ws.write_message(max_frame_length=50) as stream:
            for number in range(1000):
                stream.write(PROSE.format(number))
        assert ws.recv(TIMEOUT) == "".join(map(PROSE.format, range(1000)))


def test_a_ping_between_compressed_fragments_is_answered(serving):
    with Deflating(serving(echo, tls=False, compression=True).address) as client:
        stream = zlib.compressobj(wbits=-15)
        payload = stream.compress(b"Hello" * 20) + stream.flush(zlib.Z_SYNC_FLUSH)[:-4]
        client.send_raw(packed(TEXT, payload[:3], fin=False))
        client.send(PING, b"now")
        assert client.read_frame() == (True, PONG, b"now")
        client.send(CONTINUATION, payload[3:])
        assert client.recv() == b"Hello" * 20


# -- who compresses, and what ------------------------------------------------------------------


@pytest.mark.promise(42, 43)
def test_it_is_off_unless_asked_for(serving, certificates):
    with Deflating(serving(echo).address, context=certificates.context()) as client:
        assert client.extension is None
        client.send(TEXT, b"Hello" * 100)
        assert client.recv() == b"Hello" * 100
        client.send_raw(packed(TEXT, b"\x00"))
        assert client.read_close().close_code == 1002


def test_route_before_class_before_server(serving):
    class Off(Echo):
        compression = False

    class Small(Echo):
        compression = Compression(server_window_bits=9)

    server = serving(echo, tls=False, compression=Compression(server_window_bits=11))
    server.register_handler("*", "/server", Echo())
    server.register_handler("*", "/off", Off())
    server.register_handler("*", "/class", Small())
    server.register_handler("*", "/route", Small(), compression=True)
    found = {}
    for path in ("/server", "/off", "/class", "/route"):
        with Deflating(server.address, path=path) as client:
            found[path] = client.extension
    assert found == {
        "/server": "permessage-deflate; server_max_window_bits=11",
        "/off": None,
        "/class": "permessage-deflate; server_max_window_bits=9",
        "/route": "permessage-deflate; server_max_window_bits=12",
    }


@pytest.mark.promise(44)
def test_a_bad_offer_is_declined_and_the_connection_opens(serving):
    server = serving(echo, tls=False, compression=True)
    for offer in ("permessage-deflate; server_max_window_bits=8", "a;" * 4000, '"', "other"):
        with Deflating(server.address, offer=offer) as client:
            assert client.extension is None
            client.send(TEXT, b"Hello")
            assert client.recv() == b"Hello"


@pytest.mark.promise(43)
def test_a_message_is_compressed_unless_it_is_small_or_told_not_to_be(serving):
    def handler(ws):
        ws.recv()
        for compress in (True, False):
            ws.send("A" * 100, compress=compress)
            ws.send(memoryview(b"B" * 200)[::2], compress=compress)
            ws.send_json(["C" * 100], compress=compress)
            with ws.write_message(compress=compress) as stream:
                stream.write("D" * 100)
            ws.server.broadcast("E" * 100, compress=compress)
        ws.send("F" * 63)
        ws.send("")
        with ws.write_message(max_frame_length=10) as stream:
            stream.write("G" * 63)
        ws.send(os.urandom(100))

    for takeover in (False, True):
        options = Compression(server_context_takeover=takeover)
        with Deflating(serving(handler, tls=False, compression=options).address) as client:
            client.send(TEXT, b"go")
            received = [client.recv() for _ in range(13)]
            letters = [b"A" * 100, b"B" * 100, b'["' + b"C" * 100 + b'"]', b"D" * 100, b"E" * 100]
            assert received[:10] == letters * 2
            assert received[10:] == [b"F" * 63, b"", b"G" * 63]
            assert client.compressed == [True] * 5 + [False] * 8
            noise = client.recv()
            assert len(noise) == 100
            assert client.compressed[-1] is takeover  # by itself it is larger than the message


def test_a_stream_is_cut_into_frames_after_it_was_compressed(serving):
    noise = random.Random(1).randbytes(3000)

    def handler(ws):
        with ws.write_message(MessageType.BINARY, max_frame_length=1000) as stream:
            for start in range(0, 3000, 500):
                stream.write(noise[start : start + 500])
            stream.write(bytes(100_000))

    with Deflating(serving(handler, tls=False, compression=True).address) as client:
        frames = [client.read_frame()]
        while not frames[-1].fin:
            frames.append(client.read_frame())
    assert client.compressed == [True]
    assert [frame.opcode for frame in frames] == [BINARY] + [CONTINUATION] * (len(frames) - 1)
    assert all(0 < len(frame.payload) <= 1000 for frame in frames)
    assert len(frames) == 4
    assert client.inflate(b"".join(frame.payload for frame in frames)) == noise + bytes(100_000)


@pytest.mark.promise(43)
def test_no_context_where_something_is_confidential(serving, certificates):
    def accept(request, response_headers):
        if request.path == "/login":
            response_headers.set_cookie("session", "1")
        return True

    server = serving(echo, accept=accept, compression=True)

    def keeps(**options):
        context = certificates.context()
        with Deflating(server.address, context=context, **options) as client:
            return "no_context_takeover" not in client.extension

    assert keeps()
    assert not keeps(headers="Cookie: session=1\r\n")
    assert not keeps(headers="Authorization: Bearer 1\r\n")
    assert not keeps(path="/login")

    handler = securews.MutualTLSSocketHandler(*certificates.server, client_ca=certificates.ca_file)
    mutual = serving(echo, tls=handler, compression=True)
    with Deflating(mutual.address, context=certificates.context(certificates.client)) as client:
        assert client.extension == (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            "; server_max_window_bits=12"
        )


@pytest.mark.promise(43)
def test_our_client_asks_for_no_context_where_it_sends_something_confidential(serving):
    server = serving(echo, tls=False, compression=True)
    seen = []

    def accept(request, response_headers):
        seen.append(request.headers["Sec-WebSocket-Extensions"])
        return True

    server.register_handler("*", "/seen", echo, accept=accept)
    for headers in ({}, {"Cookie": "a=b"}, {"Authorization": "Bearer 1"}):
        securews.connect(f"{server.url}seen", headers=headers, compression=True).close()
    assert ["no_context" in value for value in seen] == [False, True, True]


# -- one context, many threads -----------------------------------------------------------------


@pytest.mark.parametrize("takeover", [True, False])
def test_threads_streams_and_broadcasts_share_one_context(serving, certificates, takeover):
    each = 150

    def sender(ws, name):
        choose = random.Random(name)
        for number in range(each):
            text = f"{name} {number} " + PROSE.format(number) * choose.randrange(1, 40)
            kind = choose.randrange(5)
            if kind == 0:
                with ws.write_message(max_frame_length=choose.choice([20, 65535])) as stream:
                    for piece in (text[:100], text[100:]):
                        stream.write(piece)
            elif kind == 1:
                ws.server.broadcast(text)
            else:
                ws.send(text, compress=kind != 2)

    def handler(ws):
        ws.recv()
        threads = [threading.Thread(target=sender, args=(ws, f"t{n}")) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    options = Compression(server_context_takeover=takeover, server_window_bits=15)
    server = serving(handler, compression=options, outbox_bytes=20_000)
    offered = [ClientPerMessageDeflateFactory()]
    with ForeignClient(server.url, certificates.context(), extensions=offered) as client:
        client.send("go")
        received = {f"t{n}": 0 for n in range(6)}
        for _ in range(6 * each):
            name, number, text = client.recv().split(" ", 2)
            # A peer that takes its bytes is never too slow, so that even broadcasts all come.
            assert int(number) == received[name]
            received[name] += 1
            line = PROSE.format(number)
            assert text == line * (len(text) // len(line))


def test_where_nothing_may_wait_a_busy_context_means_uncompressed(serving):
    opened = Happened()

    class Answer(securews.EventWebSocketHandler):
        def on_open(self, ws):
            opened(ws)

        def on_message(self, ws, message):
            ws.send("B" * 100)
            with ws.write_message() as stream:
                stream.write("C" * 100)

    server = serving(Answer(), tls=False, compression=True)
    with Deflating(server.address) as client:
        (ws,) = opened.wait()
        ws.send("A" * 100)
        with ws._connection.sender.compressing._lock:  # as if a thread compressed
            client.send(TEXT, b"now")
            received = [client.recv() for _ in range(3)]
            server.broadcast("D" * 100)
            received.append(client.recv())
        ws.send("A" * 100)
        received.append(client.recv())
    assert received == [letter * 100 for letter in (b"A", b"B", b"C", b"D", b"A")]
    assert client.compressed == [True, False, False, False, True]


def test_the_context_ends_with_a_message_that_is_dropped(serving):
    # Each message has half of the one before it, and refers to it if it may.
    noise = [random.Random(number).randbytes(10_000) for number in range(801)]
    lines = [number.to_bytes(2) + noise[number] + noise[number + 1] for number in range(800)]
    flooded = Happened()

    class Flood(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            for line in lines:
                ws.send(line)
            flooded(ws)

    server = serving(
        Flood(),
        tls=False,
        compression=Compression(server_window_bits=15, level=1),
        outbox_bytes=65536,
        slow_client="drop",
    )
    with Deflating(server.address, receive_buffer=4096) as client:
        client.send(TEXT, b"go")
        (ws,) = flooded.wait()
        numbers = []
        while not numbers or ws._connection.link.sending.size:
            message = client.recv()
            numbers.append(int.from_bytes(message[:2]))
            assert message == lines[numbers[-1]]
        ws.send(lines[-1])  # half of it is in what was dropped last
        while (message := client.recv()) != lines[-1]:
            numbers.append(int.from_bytes(message[:2]))
            assert message == lines[numbers[-1]]
    assert all(client.compressed)
    assert numbers == sorted(numbers)
    assert len(numbers) < 800, "some were to be dropped"


def test_a_broadcast_is_compressed_once_for_all_of_one_shape(serving, monkeypatch):
    from securews.protocol.deflate import Deflater

    compressed = []
    compress = Deflater.compress
    monkeypatch.setattr(
        Deflater, "compress", lambda self, data: compressed.append(data) or compress(self, data)
    )
    opened = Happened()

    class Push(securews.EventWebSocketHandler):
        def on_open(self, ws):
            opened(ws)

    server = serving(Push(), tls=False, compression=True)
    offers = ["permessage-deflate"] * 3 + ["permessage-deflate; server_max_window_bits=9"] * 2
    clients = [Deflating(server.address, offer=offer) for offer in [*offers, "none"]]
    try:
        opened.wait(len(clients))
        for number in range(3):
            text = PROSE.format(number) * 10
            assert server.broadcast(text) == []
            assert [client.recv() for client in clients] == [text.encode()] * 6
        assert len(compressed) == 3 * 2
    finally:
        for client in clients:
            client.close()


# -- bombs -------------------------------------------------------------------------------------


def bomb(mebibytes: int) -> bytes:
    """Zeros; each MiB refers to nothing before it, so it is made once."""
    stream = zlib.compressobj(9, wbits=-15)
    one = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    return (one * mebibytes)[:-4]


@pytest.mark.promise(42)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_fifty_bombs_of_1_gib_are_1009_and_the_server_stays_small(record_property):
    payload = bomb(1024)
    assert len(payload) < MIB * 9 // 8
    command = [sys.executable, "-m", "securews", "echo", "--plain", "--port", "0", "--compression"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            wire = packed(BINARY, payload)
            clients = [Deflating(("127.0.0.1", port)) for _ in range(50)]
            for client in clients:
                assert client.extension
                client.send_raw(wire[:65536])
            codes = {client.read_close().close_code for client in clients}
            for client in clients:
                client.close()
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10
        finally:
            process.terminate()
            process.wait(TIMEOUT)
    assert codes == {1009}
    assert peak < 100 * MIB
    record_property("measured", f"50 bombs of 1 GiB: 1009 for each, at most {peak / MIB:.0f} MiB")


@pytest.mark.promise(42)
def test_what_waits_for_a_handler_is_bounded_by_what_it_inflates_to(serving):
    go, count = threading.Event(), 200

    def handler(ws):
        go.wait(TIMEOUT)
        for _ in range(count):
            ws.recv()
        ws.send("all")

    server = serving(handler, tls=False, compression=True, max_queue=10_000)
    with Deflating(server.address) as client:
        client.send_raw(packed(BINARY, bomb(1)) * count)
        (ws,) = server.connections
        eventually(lambda: ws._connection.link.receiving.full)
        assert ws._connection.link.receiving.size < 5 * MIB + 1000
        go.set()
        assert client.recv() == b"all"


def test_an_event_handler_gets_all_of_a_read_that_inflates_to_more_than_its_room(serving):
    class Count(securews.EventWebSocketHandler):
        def on_open(self, ws):
            ws.state.count = 0

        def on_message(self, ws, message):
            ws.state.count += 1
            if ws.state.count == 40:
                ws.send("all")

    server = serving(Count(), tls=False, compression=True, max_queue_bytes=MIB)
    with Deflating(server.address) as client:
        client.send_raw(packed(BINARY, bomb(1)) * 40)
        assert client.recv() == b"all"


def test_who_drops_messages_still_answers_pings_behind_bombs(serving):
    server = serving(Echo(), tls=False, compression=True, max_queue=0, max_queue_bytes=MIB)
    with Deflating(server.address) as client:
        client.send_raw(packed(BINARY, bomb(1)) * 40 + masked(PING, b"?"))
        assert client.read_frame() == (True, PONG, b"?")


def test_messages_before_the_end_of_the_stream_are_not_lost(serving):
    received = Happened()

    def handler(ws):
        for message in ws:
            received(message)

    server = serving(handler, tls=False, compression=True)
    stream, wire = zlib.compressobj(wbits=-15), b""
    for number in range(100):
        payload = stream.compress(PROSE.format(number).encode())
        wire += packed(TEXT, payload + stream.flush(zlib.Z_SYNC_FLUSH)[:-4])
    with Deflating(server.address) as client:
        client.send_raw(wire)
        client.send_close()
        client.read_close()
    assert received.wait(100) == list(map(PROSE.format, range(100)))
