"""Row 69: who is taken for slow, and who is not; and a message that a slow peer has broken off."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from server_process import ServerProgram, Stopwatch
from support import eventually
from wire import CLOSE, TEXT, WireClient, frame, request_head

MIB = 1 << 20


class Reader(threading.Thread):
    """A client that reads all that comes, at once, and counts it."""

    def __init__(self, server, path):
        super().__init__(daemon=True)
        self.client = WireClient(server.address)
        self.client.upgrade(path)
        self.client.socket.settimeout(30)
        self.payload = 0
        self.close = None

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            while self.close is None:
                frame = self.client.read_frame()
                if frame.opcode == CLOSE:
                    self.close = frame.close
                else:
                    self.payload += len(frame.payload)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError):
            self.client.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.client.socket.close()


@pytest.mark.promise(69)
def test_six_broadcasts_in_a_row_reach_everybody_who_reads(measured):
    """At default options; each fills the outbox, and our own loop had no turn in between."""
    with ServerProgram("Paths") as server, ExitStack() as stack:
        readers = [stack.enter_context(Reader(server, "/sink")) for _ in range(3)]
        skipped = server.ask("broadcast", count=6, size=MIB)
        assert not [reader.close for reader in readers if reader.close]
        assert skipped == 0
        eventually(lambda: all(reader.payload == 6 * MIB for reader in readers), "six messages")
    measured("six broadcasts of 1 MiB in a row: three of three readers have them all")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.promise(69)
def test_two_bursts_over_the_bound_reach_who_takes_them_at_once(measured):
    """By broadcast, and by an event handler: each fills the outbox, and is taken at once."""
    bound, pause = 2048, 9
    with (
        ServerProgram("Paths", outbox_bytes=bound) as server,
        Reader(server, "/sink") as one,
        Reader(server, "/burst") as other,
    ):
        for number in (1, 2):
            server.ask("broadcast", count=3, size=bound, to="/sink")
            other.client.send(frame(TEXT, b"3 %d" % bound))
            for reader in (one, other):
                wanted = number * 3 * bound
                eventually(lambda r=reader, n=wanted: r.close or r.payload >= n, "the burst")
                assert (reader.close, reader.payload) == (None, wanted), f"burst {number}"
            time.sleep(pause if number == 1 else 0)
    measured(f"two bursts of three times `outbox_bytes`, {pause} s apart: all of both came")


# -- steady readers ----------------------------------------------------------------------------------


def slow_client(server, path):
    """A client whose window opens in small steps: loopback's segments are of 64 KiB else."""
    client = WireClient.__new__(WireClient)  # the options are those of a socket not yet connected
    client.socket = socket.socket()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.settimeout(10)
    client.socket.connect(server.address)
    client._unread = b""
    client.send(request_head(path))
    return client


def read_steadily(sock, bytes_per_second, seconds):
    """Take so many bytes a second, as long as there are so many."""
    watch, taken = Stopwatch(), 0
    sock.settimeout(0)
    while (spent := watch.seconds) < seconds:
        due = int(bytes_per_second * spent) - taken
        with contextlib.suppress(OSError):
            if due > 0:
                taken += len(sock.recv(due))
        time.sleep(min(0.1, seconds / 2))


def seconds_until_dropped(path, rate, write_timeout, patience):
    """When the server drops a reader of `rate` bytes a second; None if it does not."""
    options = {"write_timeout": write_timeout, "outbox_bytes": 4 * MIB}
    with ServerProgram("Paths", **options) as server, slow_client(server, path).socket as sock:
        if path == "/burst":
            sock.sendall(frame(TEXT, b"3 1000000"))
        eventually(lambda: server.ask("stats")["open"] == 1, "the opening")
        watch = Stopwatch()
        while watch.seconds < patience:
            read_steadily(sock, rate, 1)
            if not server.ask("stats")["open"]:
                return watch.seconds
    return None


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.promise(69)
@pytest.mark.parametrize("path", ["/stream", "/burst"], ids=["blocking", "event"])
@pytest.mark.parametrize(("rate", "write_timeout"), [(5_000, 4), (40_000, 2)])
def test_a_steady_reader_is_not_slow(measured, path, rate, write_timeout):
    """Far more than 1 KiB in each write_timeout; the window opens in steps of up to 9 KiB."""
    seconds = 4 * write_timeout + 1
    dropped = seconds_until_dropped(path, rate, write_timeout, seconds)
    figures = f"{path[1:]}: a reader of {rate // 1000} kB/s at write_timeout={write_timeout} s"
    assert dropped is None, f"{figures}: dropped after {dropped:.1f} s"
    measured(f"{figures} is served after {seconds} s")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.promise(69)
@pytest.mark.parametrize("path", ["/stream", "/burst"], ids=["blocking", "event"])
def test_a_byte_a_second_is_no_progress(measured, path):
    write_timeout = 2
    dropped = seconds_until_dropped(path, 1, write_timeout, 15)
    assert dropped is not None
    assert dropped < 4 * write_timeout + 1
    measured(f"{path[1:]}: a byte a second at write_timeout={write_timeout} s: "
             f"dropped after {dropped:.1f} s")  # fmt: skip


# -- a message that was broken off -----------------------------------------------------------------


@pytest.mark.promise(69)
def test_no_byte_of_a_message_that_was_broken_off_comes_twice(measured):
    """A stream whose write failed is over: a second write raises, and the peer is told 1011."""
    with (
        ServerProgram("Paths") as server,
        WireClient(server.address, receive_buffer=4096) as client,
    ):
        client.upgrade("/piecewise")
        client.send(frame(TEXT, b"begin"))
        eventually(lambda: len(server.ask("pieces")) == 2, "two writes")
        client.socket.settimeout(3)
        payload, end = read_message_to_its_end(client)
        pieces = server.ask("pieces")
    words = len(payload) // 4
    expected = b"".join(number.to_bytes(4) for number in range(words + 1))
    whole = payload == expected[: len(payload)]
    figures = f"{', '.join(pieces)}; {len(payload) / MIB:.1f} MiB, then {end}"
    assert whole, f"a byte came twice: {figures}"
    assert "written" not in pieces, figures
    assert end in (1011, "the end"), figures
    measured(f"a message broken off after {len(payload) / MIB:.1f} MiB: 1011, no byte of it twice")


def read_message_to_its_end(client):
    """The payload of all frames, and the code of the Close; at half of it, ask for more once."""
    payload = bytearray()
    try:
        while True:
            received = client.read_frame()
            if received.opcode == CLOSE:
                return bytes(payload), received.close[0]
            payload += received.payload
            if len(payload) == 8 * 65535:
                with contextlib.suppress(OSError):
                    client.send(frame(TEXT, b"once more"))
    except TimeoutError:
        return bytes(payload), "nothing"
    except (OSError, EOFError):
        return bytes(payload), "the end"
