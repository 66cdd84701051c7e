import gc
import re
import select
import shutil
import socket
import struct
import subprocess
import time
import weakref

import pytest
from transport_helpers import Files

from securews.common.errors import HandshakeError
from securews.testing.socket_handler_contract import (
    finish,
    receive,
    receive_end,
    shake_hands,
    tcp_sockets,
    wait,
)
from securews.transport.mutual_tls import MutualTLSSocketHandler
from securews.transport.socket_handler import PlainHTTPError, TLSError, Want
from securews.transport.stream import PENDING_LIMIT, PlainTransform, TransformStream
from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_transform import TLSTransform


@pytest.fixture(scope="module")
def handler(shared_files):
    return TLSSocketHandler(*shared_files.server())


@pytest.fixture
def sockets():
    server, client = tcp_sockets()
    client.settimeout(10)
    with server, client:
        yield server, client


def accept(handler, server):
    return handler.accept(server, server.getpeername())


@pytest.mark.d(9)
def test_many_bytes_cost_one_read(sockets, monkeypatch):
    server, client = sockets
    stream = TransformStream(server, client.getsockname(), PlainTransform())
    data = bytes(20000)
    client.sendall(data)
    reads = []
    while sum(map(len, reads)) < len(data):
        wait({stream: Want.READ})
        reads.append(stream.recv())
    assert len(reads) <= 3


def test_writes_are_not_delayed(sockets):
    server, client = sockets
    TransformStream(server, client.getsockname(), PlainTransform())
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not server.getblocking()


@pytest.mark.promise(24)
def test_plain_http_gets_a_readable_answer(handler, sockets):
    server, client = sockets
    stream = accept(handler, server)
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait({stream: Want.READ})
    with pytest.raises(PlainHTTPError):
        stream.handshake()
    assert isinstance(stream.last_error, PlainHTTPError)
    assert stream.info is None
    assert stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n") is Want.NOTHING
    finish(stream, stream.shutdown)
    assert client.recv(100) == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert client.recv(100) == b""
    client.close()
    assert receive_end(stream) == b""


def test_a_failed_handshake_sends_its_alert_before_the_end(handler, sockets):
    server, client = sockets
    stream = accept(handler, server)
    client.sendall(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
    wait({stream: Want.READ})
    with pytest.raises(HandshakeError):
        stream.handshake()
    finish(stream, stream.shutdown)
    record = client.recv(100)
    assert record[0] == 21
    assert record[5:] == b"\x02\x0a"  # fatal, unexpected_message
    assert client.recv(100) == b""


@pytest.mark.promise(25)
def test_garbage_ends_in_one_line(handler, sockets):
    server, client = sockets
    stream = accept(handler, server)
    client.sendall(b"\x00\x01\x02\x03" * 50)
    with pytest.raises(HandshakeError) as raised:
        shake_hands(stream)
    assert "\n" not in str(raised.value)


def test_a_peer_that_closes_at_once_is_no_os_error(handler, sockets):
    server, client = sockets
    stream = accept(handler, server)
    client.close()
    with pytest.raises(HandshakeError, match="closed the connection during the handshake"):
        shake_hands(stream)


def test_a_reset_during_the_handshake_is_no_os_error(handler, sockets):
    server, client = sockets
    stream = accept(handler, server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait({stream: Want.READ})
    with pytest.raises(HandshakeError, match="broke during the handshake") as raised:
        stream.handshake()
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert stream.last_error is raised.value


class LongFlight(PlainTransform):
    """A handshake that is done, with more to say than the socket takes."""

    def __init__(self):
        super().__init__()
        self.ready = False
        self.outgoing = bytes(4 << 20)

    def take_outgoing(self):
        taken, self.outgoing = self.outgoing, b""
        return taken


def test_a_handshake_is_done_once_its_last_flight_is_sent(sockets):
    server, client = sockets
    stream = TransformStream(server, client.getsockname(), LongFlight())
    assert [stream.handshake(), stream.handshake()] == [Want.WRITE, Want.WRITE]
    received = 0
    while stream.handshake() is Want.WRITE:
        received += len(client.recv(1 << 20))
    while received < 4 << 20:
        received += len(client.recv(1 << 20))
    assert stream.handshake() is Want.NOTHING


def test_a_session_that_breaks_while_sending_is_kept_as_the_last_error(sockets):
    class Broken(PlainTransform):
        def send(self, _):
            raise TLSError("broken")

    server, client = sockets
    stream = TransformStream(server, client.getsockname(), Broken())
    with pytest.raises(TLSError) as raised:
        stream.send(b"x")
    assert stream.last_error is raised.value


def test_a_record_that_is_broken_after_the_handshake_is_answered(handler, sockets, shared_files):
    server, client = sockets
    stream = accept(handler, server)
    peer = TransformStream(
        client,
        server.getsockname(),
        TLSTransform.client(shared_files.client_context(), "localhost"),
    )
    shake_hands(peer, stream)
    client.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    wait({stream: Want.READ})
    with pytest.raises(TLSError) as raised:
        stream.recv()
    assert stream.last_error is raised.value
    with pytest.raises(TLSError, match="bad record mac"):
        receive(peer, 1)


class Talkative(PlainTransform):
    """TLS in the hands of a peer that makes it answer everything."""

    def __init__(self):
        super().__init__()
        self.outgoing = b""

    def receive(self, _):
        self.outgoing = bytes(PENDING_LIMIT)

    def take_outgoing(self):
        taken, self.outgoing = self.outgoing, b""
        return taken


def test_answers_that_a_peer_does_not_read_stop_the_reading(sockets):
    server, client = sockets
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = TransformStream(server, client.getsockname(), Talkative())
    seen = []
    for _ in range(50):
        client.sendall(b"x")
        wait({stream: Want.READ})
        seen.append(stream.recv())
    assert Want.WRITE in seen
    assert stream.bytes_pending <= 2 * PENDING_LIMIT
    assert server.recv(100, socket.MSG_PEEK), "what is not read stays in the kernel"


def test_what_was_received_is_told_although_the_answer_cannot_be_sent(sockets):
    class Answering(Talkative):
        def receive(self, data):
            self.outgoing = b"answer"
            return data

    server, client = sockets
    stream = TransformStream(server, client.getsockname(), Answering())
    client.sendall(b"data")
    wait({stream: Want.READ})
    server.shutdown(socket.SHUT_WR)  # from here on sending fails
    assert stream.recv() == b"data"
    assert isinstance(stream.last_error, OSError)


def test_reading_before_the_handshake_is_refused(handler, sockets):
    stream = accept(handler, sockets[0])
    with pytest.raises(RuntimeError, match="before the handshake"):
        stream.recv()


def test_closing_lets_go_of_what_tls_holds(handler, sockets):
    stream = accept(handler, sockets[0])
    assert "TLSTransform" in repr(stream)
    stream.close()
    assert "TLSTransform" not in repr(stream)


@pytest.mark.promise(1)
def test_key_updates_that_a_peer_asks_for_while_we_write(handler, shared_files):
    """`openssl s_client`: the line "K" sends a KeyUpdate that wants one back."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = subprocess.Popen(
            [
                openssl,
                "s_client",
                "-connect",
                f"127.0.0.1:{port}",
                "-CAfile",
                shared_files.ca,
                "-servername",
                "localhost",
                "-tls1_3",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            sock, address = listener.accept()
            stream = handler.accept(sock, address)
            shake_hands(stream)
            _check_key_updates(stream, client)
        finally:
            stream.close()
            client.kill()
            client.communicate()


def _check_key_updates(stream, client):
    line = b"data " * 200 + b"\n"
    asked, sent, seen = 0, 0, b""
    deadline = time.monotonic() + 20
    lines = 3000
    while seen.count(line) < lines:
        assert time.monotonic() < deadline
        if stream.flush() is Want.NOTHING and sent < lines:
            stream.send(line)
            sent += 1
        if sent % 100 == 0 and asked < 30 and sent > asked * 100:
            client.stdin.write(b"K\n")
            client.stdin.flush()
            asked += 1
        assert isinstance(stream.recv(), Want), "no data comes from there"
        while select.select([client.stdout], [], [], 0)[0]:
            seen += client.stdout.read1(1 << 16)
    assert len(re.findall(rb"KEYUPDATE", seen)) >= 10


class TrackedStream(TransformStream):
    """One that a weak reference can be made to."""

    __slots__ = ("__weakref__",)


class TrackedTLS(TLSTransform):
    __slots__ = ("__weakref__",)


def shake_and_fail(server, client):
    """Until one end has failed; the other one is told."""
    failed = []
    for _ in range(10):
        for stream in (client, server):
            if stream not in failed:
                try:
                    stream.handshake()
                    stream.recv()
                except RuntimeError:
                    pass  # the handshake is not done
                except (HandshakeError, OSError):
                    failed.append(stream)
    assert failed


def unknown_ca(server, client, _):
    shake_and_fail(server, client)


def refused_by_authorize(server, client, _):
    shake_and_fail(server, client)


def truncated(server, client, sockets):
    shake_hands(server, client)
    sockets[1].shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="cut the connection"):
        receive_end(server)
    client.shutdown()


def cut_off_in_the_handshake(server, client, sockets):
    client.handshake()
    sockets[1].shutdown(socket.SHUT_WR)
    with pytest.raises(HandshakeError):
        shake_hands(server)


def reset(server, client, sockets):
    shake_hands(server, client)
    sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(OSError):
        receive_end(server)
    with pytest.raises(OSError):
        while True:
            server.send(b"x")


def reset_in_the_handshake(server, client, sockets):
    sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(HandshakeError):
        shake_hands(server)


def a_bad_record(server, client, sockets):
    shake_hands(server, client)
    sockets[1].sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TLSError):
        receive_end(server)
    with pytest.raises(TLSError):
        receive_end(client)


def plain_http(server, _, sockets):
    sockets[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(PlainHTTPError):
        shake_hands(server)
    server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def an_orderly_end(server, client, _):
    shake_hands(server, client)
    for one, other in ((server, client), (client, server)):
        finish(one, one.shutdown)
        receive_end(other)


ENDS = [
    unknown_ca,
    refused_by_authorize,
    truncated,
    cut_off_in_the_handshake,
    reset,
    reset_in_the_handshake,
    a_bad_record,
    plain_http,
    an_orderly_end,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_closed_stream_is_freed_without_the_collector(end, shared_files, tmp_path):
    context = shared_files.client_context(cert=shared_files.client())
    if end is unknown_ca:
        context = Files(tmp_path / "other").client_context(cert=shared_files.client())
    mutual = MutualTLSSocketHandler(
        *shared_files.server(),
        client_ca=shared_files.ca,
        authorize=lambda _: end is not refused_by_authorize,
    )
    errors, refs = [], []

    def connection():
        sockets = tcp_sockets()
        transforms = (
            TrackedTLS.server(mutual._contexts.latest),
            TrackedTLS.client(context, "localhost"),
        )
        streams = [
            TrackedStream(sock, sock.getpeername(), transform)
            for sock, transform in zip(sockets, transforms, strict=True)
        ]
        end(*streams, sockets)
        tls = [each._tls for each in transforms if each._tls is not None]
        for stream in streams:
            stream.close()
            assert stream.last_error is None or end is not an_orderly_end
        errors.extend(stream.last_error for stream in streams)
        refs.extend(weakref.ref(each) for each in (*streams, *transforms, *tls))

    gc.collect()
    gc.disable()
    try:
        connection()
        assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()
    assert any(errors) or end is an_orderly_end
