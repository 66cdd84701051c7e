"""Rows 39 to 50, in frames: a peer breaks every rule, and the server's answer is one Close."""

from __future__ import annotations

import select
import statistics
import struct
import threading
import time
from contextlib import ExitStack

import pytest
from server_process import LAB, ServerProcess, Stopwatch, p99
from support import eventually
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WireClient, close_frame, frame

MIB = 1 << 20
KEY = b"\1\2\3\4"
EMPTY_CONTINUATION = b"\x00\x80" + KEY
EMPTY_PING = b"\x89\x80" + KEY
EMPTY_PONG = b"\x8a\x80" + KEY


def opened(server, context, path="/"):
    client = WireClient(server.address, context)
    client.upgrade(path)
    return client


def refused(server, context, data):
    """What the server says to `data`: its Close, after which there is nothing but the end."""
    with opened(server, context) as client:
        client.send(data)
        close = client.read_close()
        client.send(close_frame(close[0]))
        assert client.read_to_end() == b"", "nothing comes after the Close"
        return close[0]


def assert_well(server, context):
    """Another client is served."""
    with opened(server, context) as client:
        client.send_frame(TEXT, b"hello")
        assert client.read_frame().payload == b"hello"


# -- row 39 ----------------------------------------------------------------------------------


def announced(length):
    """14 bytes: the head of a binary frame of so many bytes, and nothing of it."""
    return b"\x82\xff" + struct.pack("!Q", length) + KEY


@pytest.mark.promise(39)
@pytest.mark.parametrize(
    ("head", "code"),
    [
        (announced(MIB + 1), 1009),
        (announced(1 << 31), 1009),
        (announced((1 << 63) - 1), 1009),
        (announced(1 << 63), 1002),
        (announced((1 << 64) - 1), 1002),
        (b"\x82\xfe\x00\x7d" + KEY, 1002),
        (announced(65535), 1002),
    ],
)
def test_a_length_is_judged_from_its_header(echo, context, head, code):
    assert refused(echo, context, head) == code


@pytest.mark.promise(39)
def test_announced_lengths_cost_no_memory(echo, context, measured):
    with ExitStack() as stack:
        clients = [stack.enter_context(opened(echo, context)) for _ in range(200)]
        before = echo.rss
        for number, client in enumerate(clients):
            client.send(announced(MIB if number % 2 else 1 << 31))
        for client in clients[::2]:
            assert client.read_close()[0] == 1009
        assert_well(echo, context)
        growth = echo.rss - before
    assert growth < 1
    measured(f"200 connections: {growth:.2f} MiB more")


# -- row 40 ----------------------------------------------------------------------------------


def pour(client, data):
    """Send until the server has had enough; the seconds until its Close or its end."""
    watch = Stopwatch()
    client.socket.settimeout(5)
    try:
        client.send(data)
    except OSError:
        pass
    else:
        select.select([client.socket], [], [], 5)
    return watch.seconds


@pytest.mark.promise(40)
def test_a_million_empty_fragments_end_at_once(echo, context, measured):
    assert_well(echo, context)
    flood = frame(BINARY, b"", fin=False) + EMPTY_CONTINUATION * 1_000_000
    with opened(echo, context) as client:
        before = echo.rss
        seconds = pour(client, flood)
        growth = echo.rss - before
    assert seconds < 1
    assert growth < 5
    measured(f"a million empty fragments: closed in {seconds * 1000:.0f} ms, {growth:.1f} MiB")


@pytest.mark.promise(40)
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"", fin=False) + EMPTY_CONTINUATION * 17, 1008),
        (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"a", fin=False) * 1024, 1008),
        (frame(BINARY, bytes(MIB // 2), fin=False) + b"\x80\xff" + struct.pack("!Q", MIB), 1009),
    ],
    ids=["17 empty ones", "1025 frames", "a sum over max_size"],
)
def test_fragments_are_counted_and_added_up(echo, context, data, code):
    assert refused(echo, context, data) == code


# -- row 41 ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(41)
def test_a_message_that_drips_is_ended_after_message_timeout(echo, context, measured):
    with opened(echo, context) as client, opened(echo, context) as fragments:
        client.send(announced(100_000))
        fragments.send(frame(TEXT, b"a", fin=False))
        watch, ends = Stopwatch(), {}
        peers = {client: b"a", fragments: frame(CONTINUATION, b"a", fin=False)}
        while len(ends) < 2 and watch.seconds < 40:
            for peer in peers.keys() - ends.keys():
                if select.select([peer.socket], [], [], 0.5)[0]:
                    answer = peer.read_frame()
                    if answer.opcode == CLOSE:
                        ends[peer] = (answer.close[0], watch.seconds)
                        continue
                peer.send(peers[peer])
    assert [code for code, _ in ends.values()] == [1008, 1008]
    seconds = max(seconds for _, seconds in ends.values())
    assert 29.5 < seconds < 32
    measured(f"1008 after {seconds:.1f} s at a byte a second")


# -- rows 42 to 44: compression ----------------------------------------------------------------


@pytest.mark.promise(42, 43, 44)
@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=8; server_max_window_bits=99",
        "permessage-deflate; " + "client_max_window_bits;" * 300,
        '"' * 8000,
    ],
    ids=["plain", "wrong bits", "repeated", "noise"],
)
def test_compression_that_was_not_switched_on_is_declined(echo, context, offer):
    with WireClient(echo.address, context) as client:
        answer = client.upgrade(headers={"Sec-WebSocket-Extensions": offer})
        assert "sec-websocket-extensions" not in answer.headers
        client.send(frame(TEXT, b"\xaa\x00", rsv=4))
        assert client.read_close()[0] == 1002


@pytest.mark.promise(43)
def test_a_message_with_a_secret_is_left_out_of_the_compression(certificates, context, measured):
    with (
        ServerProcess(certificates.server, "--compression", serve=LAB) as server,
        WireClient(server.address, context) as client,
    ):
        client.upgrade("/secret", headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        public, secret = client.read_frame(), client.read_frame()
    assert public.first == 0xC1  # FIN, RSV1, text (RFC 7692, section 6)
    assert secret.first == 0x81
    assert len(public.payload) < 100
    assert secret.payload == b"secret " * 100
    measured(
        f"700 bytes leave as {len(public.payload)}, with `compress=False` as {len(secret.payload)}"
    )


# -- rows 45 to 47 -----------------------------------------------------------------------------


@pytest.mark.promise(45)
@pytest.mark.parametrize(
    "data",
    [
        *(frame(TEXT, b"a", rsv=bits) for bits in (1, 2, 4)),
        *(frame(opcode, b"a") for opcode in (3, 7, 11, 15)),
        frame(TEXT, b"a", masked=False),
        frame(PING, bytes(126)),
        frame(CLOSE, bytes(126)),
        frame(PING, b"a", fin=False),
        frame(CLOSE, b"\x03\xe8", fin=False),
        frame(CONTINUATION, b"a"),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(TEXT, b"a", length=b"\x7e\x00\x01"),
        frame(TEXT, b"a", length=b"\x7f" + bytes(7) + b"\x01"),
    ],
)
def test_a_breach_of_the_framing_is_1002(echo, context, data):
    assert refused(echo, context, data) == 1002


@pytest.mark.promise(46)
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xc0\x80"),
        frame(TEXT, "\ud800".encode(errors="surrogatepass")),
        frame(TEXT, b"\xf4\x90\x80\x80"),
        frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION, b"a"),
        frame(TEXT, b"\xce"),
        close_frame(1000, b"\xff"),
    ],
)
def test_what_is_no_utf8_is_1007(echo, context, data):
    assert refused(echo, context, data) == 1007


@pytest.mark.promise(46)
def test_the_first_wrong_byte_is_enough(echo, context):
    head = b"\x81\xfe\x10\x00" + bytes(4)
    assert refused(echo, context, head + b"good\xff") == 1007  # 4091 bytes have not come


CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4999]
NO_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.promise(47)
def test_a_close_is_answered_with_its_code_and_a_wrong_one_with_1002(echo, context):
    assert {code: refused(echo, context, close_frame(code)) for code in CODES} == {
        code: code for code in CODES
    }
    assert {refused(echo, context, close_frame(code)) for code in NO_CODES} == {1002}
    assert refused(echo, context, close_frame(None)) == 1005
    assert refused(echo, context, frame(CLOSE, b"\x03")) == 1002


@pytest.mark.promise(47)
def test_nothing_is_done_after_a_close(echo, context):
    with opened(echo, context) as client:
        client.send(close_frame(1000) + frame(TEXT, b"late") + frame(PING) + close_frame(1001))
        assert client.read_close()[0] == 1000
        assert client.read_to_end() == b""


# -- row 49 ------------------------------------------------------------------------------------


class RoundTrips(threading.Thread):
    """Another client, whose round trips are timed while something happens."""

    def __init__(self, server, context):
        super().__init__()
        self._client = opened(server, context)
        self._over = threading.Event()
        self.seconds: list[float] = []

    def run(self):
        while not self._over.wait(0.002):
            watch = Stopwatch()
            self._client.send_frame(TEXT, b"tick")
            assert self._client.read_frame().payload == b"tick"
            self.seconds.append(watch.seconds)

    def go_on(self):
        """Wait for twenty more."""
        enough = len(self.seconds) + 20
        eventually(lambda: len(self.seconds) >= enough, "round trips")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self.join()
        self._client.socket.close()


@pytest.mark.promise(49)
@pytest.mark.parametrize("flood", [EMPTY_PING, EMPTY_PONG], ids=["pings", "pongs"])
def test_a_flood_of_control_frames_ends(echo, context, measured, flood):
    assert_well(echo, context)
    before, floods = echo.rss, []
    while len(floods) < 5:
        with opened(echo, context) as client, RoundTrips(echo, context) as other:
            other.go_on()
            seconds = pour(client, flood * 1_000_000)
            other.go_on()
        floods.append((max(other.seconds), seconds))
        if floods[-1][0] < 0.05:  # else the machine may be busy with something else
            break
    growth = echo.rss - before
    assert growth < 2
    worst, seconds = floods[-1]
    assert worst < 0.05, floods
    name = "pings" if flood is EMPTY_PING else "pongs"
    measured(
        f"a million {name}: over in {seconds * 1000:.0f} ms, {growth:.1f} MiB; the slowest round "
        f"trip of another client {worst * 1000:.1f} ms (round {len(floods)} of at most 5)"
    )


@pytest.mark.promise(49)
def test_a_burst_of_200_pings_is_answered_and_one_more_is_1008(echo, context):
    with opened(echo, context) as client:
        client.send(EMPTY_PING * 200)
        for _ in range(200):
            assert client.read_frame().opcode == PONG
        client.send(EMPTY_PING * 100)
        while (answer := client.read_frame()).opcode == PONG:
            pass
        assert answer.close[0] == 1008


# -- row 50 ------------------------------------------------------------------------------------


def send_until_stuck(client, data, patience):
    """Send until nothing is taken for `patience` seconds; the bytes that were taken."""
    sent = 0
    client.socket.settimeout(0)
    view = memoryview(data)
    while select.select([], [client.socket], [], patience)[1]:
        try:
            sent += client.socket.send(view[sent % len(data) :])
        except OSError as error:
            if "write" not in str(error):  # SSLWantWriteError
                raise
    client.socket.settimeout(10)
    return sent


@pytest.mark.promise(50)
def test_a_handler_that_does_not_receive_stops_the_sender(lab, context, measured):
    message = frame(BINARY, b"x" * 60_000)
    with opened(lab, context, "/deaf") as client:
        before = lab.rss
        sent = send_until_stuck(client, message, 1.0)
        growth = lab.rss - before
    assert growth < 20
    measured(f"{sent / MIB:.1f} MiB sent before the sender had to wait, {growth:.1f} MiB more")


@pytest.mark.promise(50)
def test_while_reading_is_stopped_silence_proves_nothing(certificates, context):
    flags = ("--ping-interval", "0.2", "--ping-timeout", "0.2")
    with (
        ServerProcess(certificates.server, *flags, serve=LAB) as server,
        opened(server, context, "/deaf") as client,
    ):
        send_until_stuck(client, frame(BINARY, b"x" * 60_000), 0.5)
        pause = Stopwatch()
        while pause.seconds < 1.5:  # many intervals without a pong of ours
            assert server.sockets("established") == 1
            time.sleep(0.1)


@pytest.mark.promise(50)
def test_message_rate_ends_a_flood_of_messages(certificates, context):
    with (
        ServerProcess(certificates.server, "--message-rate", "20") as server,
        opened(server, context) as client,
    ):
        for _ in range(20):
            client.send_frame(TEXT, b"a")
            assert client.read_frame().payload == b"a"
        client.send(frame(TEXT, b"a") * 100)
        while (answer := client.read_frame()).opcode == TEXT:
            pass
        code, reason = answer.close
        assert code == 1008
        assert "messages a second" in reason


# -- row 61 ------------------------------------------------------------------------------------


@pytest.mark.promise(61)
def test_a_round_trip_is_not_held_up(echo, context, measured):
    message = b"x" * 200
    with opened(echo, context) as client:
        rounds = []
        while len(rounds) < 5 and not (rounds and statistics.median(rounds[-1]) < 0.001):
            rounds.append([])
            for _ in range(500):
                data = frame(BINARY, message)
                watch = Stopwatch()
                client.send(data)
                assert client.read_frame().payload == message
                rounds[-1].append(watch.seconds)
    p50 = statistics.median(rounds[-1])
    assert p50 < 0.001
    measured(
        f"p50 {p50 * 1e6:.0f} us, p99 {p99(rounds[-1]) * 1e6:.0f} us (round {len(rounds)} of at most 5)"
    )
