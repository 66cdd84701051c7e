"""Peers in a process of their own, good and hostile: `python peers.py WHAT SETTINGS`.

What they send is made beforehand and leaves in large pieces by calls that give the processor up,
so that it is the server which is measured. `PeerProcess` starts one; times are of the monotonic
clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]  # where this is a program

from own_records import OwnRecords  # noqa: E402 - see above
from wire import (  # noqa: E402
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WireClient,
    client_context,
    frame,
    request_head,
)

MIB = 1 << 20
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


class PeerProcess:
    """A function of this file in a process of its own.

    Args:
        what: the function's name.
        settings: its keyword arguments.
    """

    def __init__(self, what: str, **settings: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, what, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> Any:
        """The next line that it says, from JSON."""
        line = self.process.stdout.readline()
        assert line, "the peers' process has ended"
        return json.loads(line)

    def go(self) -> None:
        """Let it do what it waits with."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def cheap_frame(opcode: int, size: int, *, missing: int = 0) -> bytes:
    """A large frame of zeros under a key of zeros, without its last `missing` bytes."""
    return b"".join(
        (bytes([0x80 | opcode, 0xFF]), struct.pack("!Q", size), bytes(4), bytes(size - missing))
    )


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def wait_for_go() -> None:
    sys.stdin.readline()


def connected(address, ca_file=None, path="/", receive_buffer=None, **changes) -> WireClient:
    context = None if ca_file is None else client_context(ca_file)
    client = WireClient(tuple(address), context, receive_buffer=receive_buffer)
    try:
        client.upgrade(path, **changes)
    except BaseException:
        client.socket.close()
        raise
    return client


# -- the good one --------------------------------------------------------------------------------


def probe(*, address, ca_file, path, seconds, count=5, size=256, pause=0.002):
    """Round trips on `count` connections, one at a time on each: [[when, seconds], ...].

    The processor is given up in between, for whoever is measured.
    """
    data = frame(BINARY, random.randbytes(size))
    clients = [connected(address, ca_file, path) for _ in range(count)]
    by_fd = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    say("ready")
    wait_for_go()
    now = time.monotonic()
    end = now + seconds
    due, sent, trips = dict.fromkeys(by_fd, now), {}, []
    while (now := time.monotonic()) < end or (sent and now < end + 10):
        for fd in [fd for fd, when in due.items() if when <= now < end]:
            del due[fd]
            sent[fd] = time.monotonic()
            by_fd[fd].send(data)
        wait = min([*due.values(), now + 1]) - now if now < end else 0.1
        for fd, _ in poll.poll(max(wait, 0)):
            by_fd[fd].read_frame()
            now = time.monotonic()
            trips.append([sent[fd], now - sent.pop(fd)])
            due[fd] = now + pause
    trips += [[when, 10] for when in sent.values()]  # never answered
    say(trips)


def probe_by_pings(*, address, ca_file, path, count=5, pause=0.03, **changes):
    """As `probe`, by pings, whatever else comes on these connections, until the next line."""
    clients = [connected(address, ca_file, path, **changes) for _ in range(count)]
    trips, over = [], threading.Event()
    say("ready")
    wait_for_go()

    def ping(client):
        while not over.wait(pause):
            sent = time.monotonic()
            client.send_frame(PING)
            while client.read_frame().opcode != PONG:
                pass
            trips.append([sent, time.monotonic() - sent])

    threads = [threading.Thread(target=ping, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    wait_for_go()
    over.set()
    for thread in threads:
        thread.join()
    say(trips)


# -- guessing ------------------------------------------------------------------------------------


def login(name, password):
    """The form of the example chat's login page."""
    body = urlencode({"name": name, "password": password}).encode()
    head = request_head(
        "/login",
        method="POST",
        without=("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
        headers={
            "Content-Length": str(len(body)),
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    return head + body


def guess(*, address, ca_file, names, guessers, addresses):
    """Try one password at `names` names, by `guessers` at a time, from so many addresses.

    It has the processor time that nobody else wants, for a real one computes elsewhere. Says
    [begin, end, {status: how many}, the shortest Retry-After of a 429 or 0].
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    numbers = itertools.count()
    answers = []
    context = client_context(ca_file)

    def guess_on():
        while (number := next(numbers)) < names:
            source = f"127.0.0.{2 + number % addresses}"
            with WireClient(tuple(address), context, source=source) as client:
                answer = client.ask(login(f"user-{number}", "Summer2026"))
            answers.append((answer.status, answer.headers.get("retry-after")))

    say("ready")
    wait_for_go()
    begin = time.monotonic()
    threads = [threading.Thread(target=guess_on, daemon=True) for _ in range(guessers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(status for status, _ in answers)
    shortest = min((int(wait or 0) for status, wait in answers if status == 429), default=0)
    say([begin, time.monotonic(), statuses, shortest])


# -- floods --------------------------------------------------------------------------------------


def flood(address, ca_file, kind, seconds, count=30):
    """`count` connections that do the same at the same time; says [begin, end, bytes, CPU]."""
    prepare = globals()[f"flood_of_{kind}"]
    floods = [prepare(address, ca_file) for _ in range(count)]
    say("ready")
    wait_for_go()
    begin, cpu = time.monotonic(), time.process_time()
    sent = [0] * count

    def pour(number):
        with contextlib.suppress(OSError, EOFError):  # the server has had enough
            for size in floods[number](begin + seconds):
                sent[number] += size

    threads = [threading.Thread(target=pour, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, begin + seconds + 1 - time.monotonic()))
    end = min(time.monotonic(), begin + seconds)
    say([begin, end, sum(sent), time.process_time() - cpu])


def repeated(data, address, ca_file, path="/echo", **changes):
    """Sends `data` again and again."""
    client = connected(address, ca_file, path, **changes)

    def pour(end):
        while time.monotonic() < end:
            client.send(data)
            yield len(data)

    return pour


BLOCK = 64 << 10

flood_of_fragments = functools.partial(
    repeated, (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")) * (BLOCK // 14)
)
flood_of_empty_compressed = functools.partial(
    repeated, frame(TEXT, b"\0", rsv=4) * (BLOCK // 7), headers=DEFLATE
)
flood_of_small_messages = functools.partial(repeated, frame(TEXT, b"a") * (BLOCK // 7))


def flood_of_chunks(address, ca_file):
    """A form in chunks of a byte, and again; each needs a connection of its own."""
    head = request_head(
        "/form",
        method="POST",
        without=("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
        headers={
            "Transfer-Encoding": "chunked",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    data = head + b"1\r\na\r\n" * 65_000 + b"0\r\n\r\n"
    context = client_context(ca_file)

    def pour(end):
        while time.monotonic() < end:
            with WireClient(tuple(address), context) as client:
                client.send(data)
                yield len(data)
                client.answer()

    return pour


def flood_of_records(address, ca_file, count=30_000):
    """TLS records of one byte, prepared: messages of a byte, and one that asks for an answer."""
    with tempfile.TemporaryDirectory() as folder:
        peer = OwnRecords(tuple(address), ca_file, Path(folder, "keys"))
    peer.send(request_head("/echo"))
    peer.read_head()
    messages = frame(TEXT, b"a") * (count // 7)
    data = b"".join(peer.record(messages[n : n + 1]) for n in range(len(messages)))
    data += peer.record(frame(TEXT, b"over"))

    def pour(end):
        peer.socket.sendall(data)
        peer.socket.settimeout(max(0.1, end - time.monotonic()))
        peer.read_message()
        yield len(data)

    return pour


def flood_of_pings(address, ca_file):
    """As many as are allowed: 200 at once, then 49 a second."""
    client = connected(address, ca_file, "/echo")

    def pour(end):
        client.send(frame(PING) * 200)
        yield 1200
        while time.monotonic() < end:
            time.sleep(0.1)
            client.send(frame(PING) * 4)
            yield 24

    return pour


# -- what is held ----------------------------------------------------------------------------------


def come_again(*, address, path, seconds, count=40, size=900_000, messages=3):
    """`count` peers that connect, send some large messages, close, and connect again."""
    data = cheap_frame(BINARY, size) * messages
    end = time.monotonic() + seconds
    served = [0] * count

    def come(number):
        while time.monotonic() < end:
            try:
                with connected(address, path=path) as client:
                    client.send(data)
                    served[number] += 1
            except (OSError, EOFError, AssertionError):
                time.sleep(0.02)  # no place for us: 503, or the end

    threads = [threading.Thread(target=come, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    say("ready")
    for thread in threads:
        thread.join(seconds + 10)
    say(sum(served))


def leave(*, address, path, count, size, missing=0, waves=1, patience=2, **changes):
    """`count` peers that send a message of `size` bytes, or all of it but `missing`, and stay.

    Each gives up sending when nothing was taken for `patience` seconds, and stays all the same.
    At a line of stdin they close, at the next one the next wave comes. Says how many were served,
    and when they are gone.
    """
    data = b"" if not size else cheap_frame(BINARY, size, missing=missing)
    for _ in range(waves):
        peers = []
        for _ in range(count):
            with contextlib.suppress(OSError, EOFError):  # the server has had enough
                peers.append(connected(address, path=path, **changes))
                peers[-1].socket.settimeout(patience)
                peers[-1].send(data)
        say(len(peers))
        wait_for_go()
        for peer in peers:
            peer.socket.close()
        say("gone")
        wait_for_go()


def leave_compressed(address, path, count, size=MIB, messages=60):
    """`count` peers that send messages of zeros, compressed, read no answer, and stay."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    small = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    data = frame(BINARY, small.removesuffix(b"\0\0\xff\xff"), rsv=4) * messages
    changes = {"receive_buffer": 4096, "headers": DEFLATE}
    peers = [connected(address, path=path, **changes) for _ in range(count)]
    say("ready")
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.socket.settimeout(0.1)
            peer.send(data)
    wait_for_go()


# -- servers ---------------------------------------------------------------------------------------

HEAD_OF_403 = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000000\r\n\r\n"
ANSWERS = {
    "silence": (b"", b"", 1.0),
    "interim_answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, 0.0),
    "early_hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10_000, 0.0),
    "dripping_head": (b"HTTP/1.1 101 Switching Protocols\r\nX: ", b"a", 0.1),
    "endless_head": (b"HTTP/1.1 101 Switching Protocols\r\n", b"X: a\r\n" * 10_000, 0.0),
    "dripping_body": (HEAD_OF_403, b"a", 0.1),
    "endless_body": (HEAD_OF_403, bytes(1 << 16), 0.0),
}
"""What comes first, what comes again and again, and the seconds in between."""


def serve_badly(kind, seconds=10):
    """Answer one client as ANSWERS says; first of all say the port."""
    begin, again, pause = ANSWERS[kind]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say(listener.getsockname()[1])
        client, _ = listener.accept()
    end = time.monotonic() + seconds
    with client, contextlib.suppress(OSError):
        client.recv(1 << 16)
        client.sendall(begin)
        while time.monotonic() < end:
            client.sendall(again)
            time.sleep(pause)


def main() -> None:
    what, settings = sys.argv[1:]
    act: Callable[..., None] = globals()[what]
    act(**json.loads(settings))


def p50(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


if __name__ == "__main__":
    main()
