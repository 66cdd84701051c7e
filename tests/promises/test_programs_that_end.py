"""Row 74: a program that ends without `stop()`. Its clients, its exit code, and its last words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
from peers import TESTS
from wire import CLOSE, WireClient, close_frame

COMMON = """
import atexit, os, pathlib, sys, tempfile, threading, time

def others():
    # Registered first, so called last. What gets the numbers of closed descriptors stays empty.
    folder = tempfile.TemporaryDirectory()
    files = [open(pathlib.Path(folder.name, str(n)), "wb", buffering=0) for n in range(40)]
    time.sleep(0.1)
    if any(os.fstat(file.fileno()).st_size for file in files):
        os.write(2, b"something was written into a file of the program\\n")

atexit.register(others)
import securews

class Events(securews.EventWebSocketHandler):
    pass

def begin(handler):
    server = securews.serve(0, handler, tls=(sys.argv[1], sys.argv[2]))
    server.start_background()
    print(server.address[1], flush=True)
    return server

"""
PROGRAMS = {
    "the main thread returns": (
        """
server = begin(Events())
sys.stdin.readline()
""",
        0,
    ),
    "sys.exit while threads send": (
        """
server = begin(Events())

def send():
    while True:
        server.broadcast(b"x" * 1000)
        time.sleep(0.001)

for _ in range(3):
    threading.Thread(target=send, daemon=True).start()
sys.stdin.readline()
sys.exit(3)
""",
        3,
    ),
    "handlers are busy": (
        """
def busy(ws):
    while True:
        ws.send("still here")
        time.sleep(0.01)

server = begin(busy)
ws = securews.connect(server.url, tls=sys.argv[3])
sys.stdin.readline()
sys.exit(4)
""",
        4,
    ),
}


def run_to_its_end(certificates, name, clients=3):
    """Run a program with some clients; its exit code, what it wrote, and the clients' codes."""
    text, _ = PROGRAMS[name]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMON + text, *certificates.server, certificates.ca_file],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    try:
        address = ("127.0.0.1", int(process.stdout.readline()))
        with ExitStack() as stack:
            peers = []
            for _ in range(clients):
                client = WireClient(address, certificates.context())
                peers.append(stack.enter_context(client))
                client.upgrade()
            ends = [None] * clients
            readers = [
                threading.Thread(target=read_close, args=(peer, ends, number), daemon=True)
                for number, peer in enumerate(peers)
            ]
            for reader in readers:
                reader.start()
            _, errors = process.communicate("\n", timeout=20)
            for reader in readers:
                reader.join(5)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, errors, ends


def read_close(client, ends, number):
    """Read to the Close and answer it, as every client does."""
    try:
        while (frame := client.read_frame()).opcode != CLOSE:
            pass
        ends[number] = frame.close[0]
        client.send(close_frame(frame.close[0]))
    except (OSError, EOFError) as error:
        ends[number] = ends[number] or type(error).__name__


@pytest.mark.promise(74)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_ends_without_a_stop_ends_cleanly(certificates, name):
    _, code = PROGRAMS[name]
    assert run_to_its_end(certificates, name) == (code, "", [1001] * 3)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(74)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_cleanly_every_time(certificates, measured, name):
    _, code = PROGRAMS[name]
    ends = [run_to_its_end(certificates, name) for _ in range(15)]
    bad = [end for end in ends if end != (code, "", [1001] * 3)]
    print(name, f"{len(bad)} of {len(ends)} bad:", *bad[:3], sep="\n")
    assert not bad, f"{len(bad)} of {len(ends)}: {bad[0]}"
    measured(f"{name}: {len(ends)} of {len(ends)} exits with code {code}, 1001, nothing on stderr")
