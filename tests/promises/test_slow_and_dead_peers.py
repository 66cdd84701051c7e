"""Rows 48 to 57: peers that are slow, mute, gone or reset, and how a server ends in spite of them."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from server_process import LAB, LAB_EVENTS, ServerProcess, Stopwatch, p99
from support import eventually
from wire import CLOSE, PING, TEXT, WireClient, close_frame, frame, request_head

MIB = 1 << 20


def opened(server, context, path="/", **options):
    client = WireClient(server.address, context, **options)
    client.upgrade(path)
    return client


def report(server, context):
    with opened(server, context, "/report") as client:
        return json.loads(client.read_frame().payload)


def ends(server, context, path):
    return [end for end in report(server, context)["ends"] if end["path"] == path]


def wait_for_end(client, seconds):
    """Whatever the server still sends is read; the seconds until the connection is over."""
    watch = Stopwatch()
    client.socket.settimeout(seconds)
    with contextlib.suppress(OSError):
        while client.socket.recv(1 << 16):
            pass
    return watch.seconds


def reset(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


# -- row 48 ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(48)
def test_a_close_that_is_not_answered_ends_after_close_timeout(lab, context, measured):
    with opened(lab, context, "/goodbye") as client:
        assert client.read_close()[0] == 1000
        seconds = wait_for_end(client, 20)
    assert 9.5 < seconds < 11
    eventually(lambda: ends(lab, context, "goodbye"), "the end")
    (end,) = ends(lab, context, "goodbye")
    assert end["code"] == 1006
    measured(f"over after {seconds:.1f} s, code 1006")


@pytest.mark.promise(48)
def test_close_timeout_is_kept(certificates, context):
    with (
        ServerProcess(certificates.server, "--close-timeout", "0.5", serve=LAB) as server,
        opened(server, context, "/goodbye") as client,
    ):
        assert client.read_close()[0] == 1000
        assert 0.4 < wait_for_end(client, 10) < 2


# -- row 51 ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(51)
def test_a_peer_that_never_reads_frees_its_senders_after_write_timeout(lab, context, measured):
    with opened(lab, context, "/flood"):
        eventually(lambda: lab.sockets("established") == 1, "the flood")
        watch = Stopwatch()
        while not ends(lab, context, "flood"):
            assert watch.seconds < 20
            time.sleep(0.1)
    (end,) = ends(lab, context, "flood")
    assert len(end["stuck"]) == 2
    assert end["seconds"] > 9.5
    assert 8 < max(end["stuck"]) < 11
    measured(f"two senders freed after {max(end['stuck']):.1f} s")


@pytest.mark.promise(51)
def test_write_timeout_is_kept(certificates, context):
    with (
        ServerProcess(certificates.server, "--write-timeout", "0.5", serve=LAB) as server,
        opened(server, context, "/flood"),
    ):
        eventually(lambda: ends(server, context, "flood"), "the end of the senders")
        (end,) = ends(server, context, "flood")
        assert end["seconds"] > 0.4
        assert all(seconds < 2 for seconds in end["stuck"])


# -- row 52 ------------------------------------------------------------------------------------


def broadcast_times(sender, listeners, count, size):
    """Seconds that each of `count` broadcasts needs until every listener has all of it."""
    times = []
    frame_size = size + 4
    poll = select.epoll()
    by_fd = {client.socket.fileno(): client for client in listeners}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    for client in listeners:
        client.socket.settimeout(0)
    for _ in range(count):
        left = dict.fromkeys(by_fd, frame_size)
        watch = Stopwatch()
        sender.socket.settimeout(10)
        sender.send(frame(TEXT, b"x" * size))
        sender.socket.settimeout(0)
        while left:
            assert watch.seconds < 20
            for fd, _ in poll.poll(5):
                with contextlib.suppress(ssl.SSLWantReadError):
                    while fd in left:
                        got = len(by_fd[fd].socket.recv(1 << 16))
                        assert got, "the server ended the connection"
                        left[fd] -= got
                        if left[fd] <= 0:
                            del left[fd]
        times.append(watch.seconds)
    poll.close()
    return times


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(52)
def test_five_dead_clients_do_not_slow_a_broadcast(certificates, context, measured):
    size = 16_000
    with ServerProcess(certificates.server, "--broadcast") as server, ExitStack() as stack:

        def live(count):
            return [stack.enter_context(opened(server, context)) for _ in range(count)]

        listeners = live(495)
        extra = live(5)
        everybody = broadcast_times(listeners[0], [*listeners, *extra], 100, size)
        for client in extra:
            client.socket.close()
        eventually(lambda: server.sockets("established") == 495, "500 - 5")
        for _ in range(5):  # never reads
            stack.enter_context(opened(server, context, receive_buffer=4096))
        before = server.rss
        with_dead = broadcast_times(listeners[0], listeners, 200, size)
        growth = server.rss - before
        eventually(lambda: server.sockets("established") == 495, "the end of the dead")
    assert p99(with_dead) < 2 * p99(everybody)
    assert growth < 30
    measured(
        f"500 live: p99 {p99(everybody) * 1000:.0f} ms; with 5 dead: "
        f"{p99(with_dead) * 1000:.0f} ms, {growth:.1f} MiB"
    )


# -- row 53 ------------------------------------------------------------------------------------

SLEEPER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from wire import WireClient, client_context
client = WireClient(("127.0.0.1", int(sys.argv[2])), client_context(sys.argv[3]))
client.upgrade(sys.argv[4])
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.promise(53)
def test_a_stopped_process_is_found_by_pings(certificates, context, measured):
    flags = ("--ping-interval", "1", "--ping-timeout", "1")
    with ServerProcess(certificates.server, *flags, serve=LAB) as server:
        tests = str(Path(__file__).parent.parent)
        peer = subprocess.Popen(
            [sys.executable, "-c", SLEEPER, tests, str(server.address[1]),
             certificates.ca_file, "/watch"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert peer.stdout.readline() == "open\n"
            peer.send_signal(signal.SIGSTOP)
            watch = Stopwatch()
            eventually(lambda: ends(server, context, "watch"), "the end")
            seconds = watch.seconds
        finally:
            peer.kill()
            peer.communicate()
        (end,) = ends(server, context, "watch")
    assert end["code"] == 1006
    assert seconds < 2.5
    measured(f"1 s / 1 s: a stopped process is given up after {seconds:.1f} s")


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.promise(53)
def test_a_peer_that_answers_no_ping_is_gone_within_40_seconds(echo, context, measured):
    with opened(echo, context) as client:
        watch = Stopwatch()
        client.socket.settimeout(45)
        assert client.read_frame().opcode == PING
        asked = watch.seconds
        wait_for_end(client, 45)
        seconds = watch.seconds
    assert asked < 20.5
    assert seconds < 40.5
    assert seconds - asked > 19.5  # a slow peer has all of its time
    measured(f"asked after {asked:.1f} s, given up after {seconds:.1f} s")


# -- row 54 ------------------------------------------------------------------------------------


def end_after(server, context, count, end):
    """TLS and an upgrade, of which the server gets `count` bytes of ciphertext, then RST or FIN."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    raw = socket.create_connection(server.address, 10)
    steps = iter([tls.do_handshake, lambda: tls.write(request_head()), lambda: tls.read(1)])
    step = next(steps)
    try:
        while count > 0:
            try:
                step()
                step = next(steps, None)
            except ssl.SSLWantReadError:
                pass
            data = outgoing.read(count)
            raw.sendall(data)
            count -= len(data)
            if step is None:
                break
            if not data:
                received = raw.recv(1 << 16)
                if not received:
                    break
                incoming.write(received)
        if end == "RST":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(1 << 16):  # closing with something unread would be a reset
                pass
    finally:
        raw.close()


def assert_nothing_is_left_of_ends(server, context, counts, end):
    with opened(server, context) as witness:

        def state():
            witness.send_frame(TEXT, b"report")
            return json.loads(witness.read_frame().payload)

        before, threads, descriptors = state(), server.threads, server.descriptors
        seconds = 0.0
        for count in counts:
            watch = Stopwatch()
            end_after(server, context, count, end)
            seconds = max(seconds, watch.seconds)
        watch = Stopwatch()
        eventually(lambda: state()["stats"]["sockets"] == 1, "the end of all others")
        seconds = max(seconds, watch.seconds)
        after = state()
        opened_since = after["opened"] - before["opened"]
        assert after["closed"] - before["closed"] == opened_since
        assert after["twice"] == 0
        assert server.sockets("close-wait") == 0
        assert server.descriptors <= descriptors
        assert server.threads <= threads + 2  # the workers of the handshakes
        return opened_since, seconds


@pytest.mark.promise(54)
@pytest.mark.parametrize("end", ["RST", "FIN"])
def test_ends_at_some_bytes_of_an_opening_leave_nothing(lab_events, context, end):
    counts = [0, 1, 5, 6, 100, 300, 516, 517, 518, 550, 590, 597, 600, 700, 780, 800, 820, 2000]
    opened_since, seconds = assert_nothing_is_left_of_ends(lab_events, context, counts, end)
    assert opened_since >= 1
    assert seconds < 1
    assert "Traceback" not in lab_events.log


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(54)
@pytest.mark.parametrize("end", ["RST", "FIN"])
def test_ends_at_every_byte_of_an_opening_leave_nothing(lab_events, context, measured, end):
    opened_since, seconds = assert_nothing_is_left_of_ends(lab_events, context, range(900), end)
    assert seconds < 1
    assert "Traceback" not in lab_events.log
    measured(
        f"900 times {end}, after 0 to 899 bytes: {opened_since} opened, each closed once, the "
        f"slowest gone within {seconds * 1000:.0f} ms"
    )


@pytest.mark.promise(54)
@pytest.mark.parametrize("end", ["RST", "FIN"])
def test_a_peer_that_goes_while_it_is_sent_to(lab, context, end):
    before = len(ends(lab, context, "flood"))
    client = opened(lab, context, "/flood")
    client.read(1 << 16)
    watch = Stopwatch()
    if end == "RST":
        reset(client)
    else:
        client.socket.close()
    eventually(lambda: len(ends(lab, context, "flood")) == before + 1, "the end")
    assert watch.seconds < 1
    assert ends(lab, context, "flood")[-1]["code"] == 1006


# -- row 55 ------------------------------------------------------------------------------------


@pytest.mark.promise(55)
def test_a_handler_that_raises_is_1011_and_one_traceback(certificates, context):
    with ServerProcess(certificates.server, serve=LAB) as server:
        with opened(server, context, "/raise") as client:
            code, reason = client.read_close()
            assert code == 1011
            assert "as the test wants it" not in reason
            client.send(close_frame(1011))
        with opened(server, context, "/echo") as client:
            client.send_frame(TEXT, b"on")
            assert client.read_frame().payload == b"on"
        assert server.log.count("Traceback") == 1
        assert "as the test wants it" in server.log


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(55)
def test_a_handler_that_never_returns_is_abandoned_and_named(certificates, context, measured):
    with ServerProcess(certificates.server, serve=LAB) as server:
        with opened(server, context, "/sleep"):
            watch = Stopwatch()
            server.stop()
        assert watch.seconds < 11.5
        assert "Lab has not returned" in server.log
    measured(f"stopped after {watch.seconds:.1f} s, the handler is named in a warning")


# -- row 56 ------------------------------------------------------------------------------------


@pytest.mark.promise(56)
def test_without_threads_there_is_503_and_the_loop_goes_on(certificates, context, measured):
    """A thread needs 8 MiB of address space for its stack: so many are left, and no more."""
    with ServerProcess(certificates.server, serve=LAB) as server, ExitStack() as stack:
        with opened(server, context, "/echo"):
            pass
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
        room = server.virtual + (100 << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (room, hard))
        answers = []
        for _ in range(40):
            client = stack.enter_context(WireClient(server.address, context))
            answers.append(client.ask(request_head("/echo")).status)
        assert set(answers) == {101, 503}
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (hard, hard))
        with opened(server, context, "/echo") as client:
            client.send_frame(TEXT, b"on")
            assert client.read_frame().payload == b"on"
        assert "Traceback" not in server.log
    measured(f"{answers.count(101)} served, {answers.count(503)} answered with 503")


# -- row 57 ------------------------------------------------------------------------------------


@pytest.mark.promise(57)
def test_sigterm_closes_the_listener_first_and_says_1001(certificates, context):
    with ServerProcess(certificates.server, serve=LAB_EVENTS) as server:
        with opened(server, context) as client:
            server.signal(signal.SIGTERM)
            assert client.read_close()[0] == 1001
            with pytest.raises(OSError):
                socket.create_connection(server.address, 5)
            client.send(close_frame(1001))
        assert server.process.wait(5) == 0
        assert server.log == ""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(57)
def test_two_hundred_clients_of_which_twenty_are_mute(certificates, context, measured):
    with ServerProcess(certificates.server, serve=LAB_EVENTS) as server, ExitStack() as stack:
        clients = [stack.enter_context(opened(server, context)) for _ in range(200)]
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        for client in clients[20:]:
            answer = client.read_frame()
            assert answer.opcode == CLOSE
            assert answer.close[0] == 1001
            client.send(close_frame(1001))
        assert server.process.wait(15) == 0
        seconds = watch.seconds
    assert 9.5 < seconds < 11
    measured(f"200 clients, 20 of them mute: over after {seconds:.1f} s")


# -- row 58 ------------------------------------------------------------------------------------


@pytest.mark.promise(58)
def test_a_new_process_takes_over_the_port(certificates, context, measured):
    with ServerProcess(certificates.server) as server:
        port = server.address[1]
        with opened(server, context) as client:
            server.signal(signal.SIGTERM)
            assert client.read_close()[0] == 1001
            client.send(close_frame(1001))
            server.process.wait(5)
    watch = Stopwatch()
    with ServerProcess(certificates.server, "--port", str(port)) as server:
        assert server.address[1] == port
        with opened(server, context):
            measured(f"a new process serves the port {watch.seconds:.1f} s after the old one")
