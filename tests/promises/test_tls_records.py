"""Rows 1 and 2: what a peer may do with TLS records that carry nothing for us."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from own_records import APPLICATION_DATA, OwnRecords
from server_process import Stopwatch
from support import eventually
from wire import PONG, TEXT, frame, request_head


@pytest.fixture
def connect(certificates, tmp_path):
    """Makes clients of our own records, upgraded."""
    number = iter(range(100))

    def made(server, path="/"):
        client = OwnRecords(server.address, certificates.ca_file, tmp_path / f"{next(number)}.keys")
        client.send(request_head(path))
        assert client.read_head().startswith(b"HTTP/1.1 101 ")
        return client

    return made


def stream_with_key_updates(client, updates, seconds):
    """Read a stream and ask for new keys all the while. The number of updates, and of blocks."""
    digest, sent, blocks = hashlib.sha256(), 0, 0
    watch = Stopwatch()
    while sent < updates or watch.seconds < seconds:
        client.socket.sendall(client.key_update(requested=True))
        client.socket.sendall(client.key_update(requested=False))
        sent += 2
        if sent % 200 == 0:  # an honest peer says something now and then; row 2 is of others
            client.send(frame(PONG))
        digest.update(client.read_message())
        blocks += 1
    client.send(frame(TEXT, b"stop"))
    while len(message := client.read_message()) != 64:
        digest.update(message)
        blocks += 1
    assert message.decode() == digest.hexdigest()
    return sent, blocks


@pytest.mark.promise(1)
def test_keys_change_while_the_server_streams_and_no_byte_is_wrong(lab, connect):
    with connect(lab, "/stream") as client:
        sent, blocks = stream_with_key_updates(client, updates=200, seconds=0)
    assert sent >= 200
    assert blocks >= 100
    assert lab.alive


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(1)
def test_three_clients_change_keys_for_ten_seconds(lab, connect, measured):
    clients = [connect(lab, "/stream") for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as threads:
            results = list(threads.map(lambda c: stream_with_key_updates(c, 0, 10), clients))
    finally:
        for client in clients:
            client.socket.close()
    updates, blocks = (sum(column) for column in zip(*results, strict=True))
    assert updates > 1000
    assert lab.alive
    assert "Traceback" not in lab.log
    measured(f"{updates} key updates while {blocks >> 6} MiB were streamed; all checksums equal")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(1)
def test_openssl_asks_for_key_updates_while_the_server_streams(lab, certificates, measured):
    clients = [SClientStream(lab.address, certificates.ca_file) for _ in range(3)]
    try:
        watch = Stopwatch()
        while watch.seconds < 10:
            for client in clients:
                client.ask()
            time.sleep(0.02)  # one line must be read before the next one is written
        for client in clients:
            client.finish()
    finally:
        for client in clients:
            client.close()
    assert lab.alive
    asked = sum(client.asked for client in clients)
    assert asked > 500
    measured(f"{asked} of `openssl s_client`, key K")


PING_OF_OURS = b"\x89\x08"
"""The header of the server's Ping after 20 s without a message."""


class SClientStream:
    """`openssl s_client` on /stream: the line "K" sends a KeyUpdate that wants one back."""

    def __init__(self, address, ca_file):
        openssl = shutil.which("openssl")
        assert openssl, "openssl is needed"
        self.asked = 0
        self._process = subprocess.Popen(
            [openssl, "s_client", "-connect", f"{address[0]}:{address[1]}", "-CAfile", ca_file,
             "-servername", "localhost", "-tls1_3", "-brief"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        )  # fmt: skip
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._process.stdin.write(request_head("/stream"))
        eventually(lambda: b"Upgrade\r\n" in self._seen[:8192], "the 101")

    def ask(self):
        self._process.stdin.write(b"K\n")
        self.asked += 1

    def finish(self):
        """Say stop, and compare what came with the digest at its end."""
        self._process.stdin.write(frame(TEXT, b"stop"))
        eventually(lambda: self._digest() is not None, "the digest")
        head_end = self._seen.index(b"\r\n\r\n", self._seen.index(b"HTTP/1.1 101 ")) + 4
        data, digest, position = bytes(self._seen), hashlib.sha256(), head_end
        while data[position + 1] != 64:
            if data[position : position + 2] == PING_OF_OURS:  # s_client sends no message
                position += 10
                continue
            assert data[position : position + 2] == b"\x82\x7e"
            length = int.from_bytes(data[position + 2 : position + 4])
            digest.update(data[position + 4 : position + 4 + length])
            position += 4 + length
        assert self._digest() == digest.hexdigest()

    def close(self):
        self._process.kill()
        self._reader.join()
        self._process.communicate()

    def _digest(self):
        """The text frame at the end, once it is there."""
        last = self._seen[-66:]
        return last[2:].decode() if last[:2] == b"\x81\x40" else None

    def _read(self):
        while part := self._process.stdout.read(1 << 16):
            self._seen += part


@pytest.mark.promise(61)
def test_a_small_message_is_one_record(echo, connect):
    with connect(echo) as client:
        for size in (1, 200, 10_000):
            client.send(frame(TEXT, b"x" * size))
            head = client.socket.recv(5, socket.MSG_WAITALL)
            assert head[0] == APPLICATION_DATA
            record = client.socket.recv(int.from_bytes(head[3:]), socket.MSG_WAITALL)
            # Header and payload of the frame, the type of the record, and its tag of 16 bytes.
            assert len(record) == (2 if size < 126 else 4) + size + 1 + 16


RECORDS = {
    "empty records": lambda client: client.record(b""),
    "key updates": lambda client: client.key_update(requested=False),
    "key updates that want one back": lambda client: client.key_update(requested=True),
}


@pytest.mark.promise(2)
@pytest.mark.parametrize("kind", RECORDS)
def test_a_flood_of_records_that_say_nothing_is_ended(echo, connect, measured, kind):
    with connect(echo) as client:
        cpu, watch, sent = echo.cpu, Stopwatch(), 0
        client.socket.settimeout(10)
        try:
            while sent < 200_000:
                client.socket.sendall(b"".join(RECORDS[kind](client) for _ in range(10)))
                sent += 10
            pytest.fail("the flood was not ended")
        except OSError:
            pass  # reset, or cut off with an alert
        used, seconds = echo.cpu - cpu, watch.seconds
    measured(f"{kind}: ended after {sent} in {seconds:.1f} s, {used:.2f} s of CPU")
    assert used < 0.2 * 10  # a fifth of a core over the ten seconds in which it has to end
    with connect(echo) as client:  # others notice nothing
        client.send(frame(TEXT, b"still there"))
        assert client.read_message() == b"still there"
