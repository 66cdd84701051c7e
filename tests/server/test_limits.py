"""What many peers, or bad ones, can do to a server: not much."""

import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from support import TIMEOUT, Happened, RawClient, errors_in, eventually, tracebacks_in

import securews
from securews.protocol.frames import Opcode
from securews.server.leases import Leases

SOON = 2.5
"""Seconds in which what is due after half a second has come, on a loaded machine too."""
SHORT = 0.3
"""An open_timeout; until then nobody reads whether the peer of a slow decision is still there."""
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def plain(**options):
    return securews.serve(0, Echo(), tls=False, **options)


def exchange(server, **options):
    with securews.connect(server.url, **options) as ws:
        ws.send("hello")
        assert ws.recv(timeout=TIMEOUT) == "hello"


def silent(server):
    return RawClient(server.address, upgrade=False)


def sockets(server, count):
    eventually(lambda: server.stats()["sockets"] == count, f"{count} sockets")


# -- connections at once -----------------------------------------------------------------------


@pytest.mark.promise(7)
def test_one_more_than_max_connections_is_503_and_room_is_room(caplog):
    with plain(max_connections=2) as server:
        with RawClient(server.address) as one, RawClient(server.address):
            for _ in range(3):
                with silent(server) as refused:
                    answer = refused.read_to_end()
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"Retry-After: 1\r\n" in answer
            one.close()
            sockets(server, 1)
            exchange(server)
        assert server.stats()["refused"] == 3
    (warning,) = errors_in(caplog)  # one for all
    assert "max_connections or max_per_ip is reached" in warning


@pytest.mark.promise(7)
def test_before_tls_one_too_many_is_just_closed(certificates):
    with (
        securews.serve(0, Echo(), tls=certificates.server, max_connections=1) as server,
        RawClient(server.address, context=certificates.context()),
        silent(server) as refused,
    ):
        assert refused.read_to_end() == b""


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_addresses_are_counted_by_ipv4_address_and_by_ipv6_network(one, other, same):
    leases = Leases(100, 1)
    lease = leases.take((one, 5), now=0.0)
    assert lease is not None
    assert (leases.take((other, 6), now=0.0) is None) is same
    lease.descriptor_closed(now=0.0)
    if same:
        assert leases.take((other, 6), now=0.0) is not None


@pytest.mark.promise(3, 7)
def test_from_nine_tenths_on_the_oldest_silent_peer_goes(monkeypatch):
    monkeypatch.setattr("securews.server.leases.PATIENCE", 0.0)
    with ExitStack() as opened, plain(max_connections=10) as server:
        peers = []
        for count in range(1, 10):
            peers.append(opened.enter_context(silent(server)))
            sockets(server, count)
        assert not any(readable(peer) for peer in peers)
        exchange(server)
        assert peers[0].read_to_end() == b""
        assert not any(readable(peer) for peer in peers[1:])


def test_in_a_full_server_the_oldest_silent_peer_goes_whatever_its_age():
    with ExitStack() as opened, plain(max_connections=3) as server:
        peers = []
        for count in range(1, 4):
            peers.append(opened.enter_context(silent(server)))
            sockets(server, count)
        exchange(server)
        assert peers[0].read_to_end() == b""
        assert not any(readable(peer) for peer in peers[1:])


def test_whoever_has_spoken_is_not_evicted():
    with (
        plain(max_connections=2) as server,
        RawClient(server.address) as first,
        RawClient(server.address) as second,
    ):
        with silent(server) as refused:
            assert refused.read_to_end().startswith(b"HTTP/1.1 503 ")
        assert not readable(first)
        assert not readable(second)


@pytest.mark.promise(3)
@pytest.mark.d(10, 11, 12)
def test_silent_peers_do_not_hold_up_a_good_one(certificates):
    with ExitStack() as opened, securews.serve(0, Echo(), tls=certificates.server) as server:
        for _ in range(50):
            opened.enter_context(silent(server))
        sockets(server, 50)
        began = time.monotonic()
        exchange(server, tls=certificates.ca_file)
        assert time.monotonic() - began < SOON


# -- handlers that go on without their peers -------------------------------------------------------


class Deaf(securews.WebSocketHandler):
    """Does not notice that its peer has left."""

    def __init__(self):
        self.release = threading.Event()
        self.began = Happened()

    def handle_communication(self, ws):
        self.began()
        assert self.release.wait(TIMEOUT * 2)


class DeafInAThreadOfItsOwn(securews.ThreadedWebSocketHandler):
    def __init__(self, *, pooling):
        super().__init__(pooling=pooling)
        self.release = threading.Event()
        self.began = Happened()

    def do_handle_communication(self, ws):
        self.began()
        assert self.release.wait(TIMEOUT * 2)


def thread_names():
    return [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("method", securews.AcceptingMethod)
@pytest.mark.parametrize("pooling", [None, True, False])
def test_who_leaves_and_comes_again_while_its_handlers_are_busy_gets_no_more_threads(
    method, pooling, caplog
):
    serial = method is securews.AcceptingMethod.SERIAL
    handler = Deaf() if pooling is None else DeafInAThreadOfItsOwn(pooling=pooling)
    with securews.serve(
        0, handler, tls=False, max_connections=3, accepting_method=method
    ) as server:
        try:
            for _ in range(12):
                with silent(server) as peer:
                    try:
                        peer.send_upgrade()
                        if not (serial and pooling is None and handler.began.items):
                            peer.read_head()
                    except (EOFError, OSError):
                        pass  # refused before it has asked
                    peer.reset()
                sockets(server, 0)
                assert server.stats()["leases"] <= 3
                for kind in ("securews-thread", "securews-pool"):
                    assert sum(name.startswith(kind) for name in thread_names()) <= 3
            stats = server.stats()
            busy = 1 if serial and pooling is None else 3
            assert (stats["leases"], stats["handlers"], stats["gone"]) == (busy, busy, busy)
            assert len(handler.began.items) == busy
        finally:
            handler.release.set()
        eventually(lambda: server.stats()["leases"] == 0, "every place to be given back")
        assert server.stats()["handlers"] == server.stats()["gone"] == 0
        with RawClient(server.address) as client:
            assert client.status == 101
    warnings = [text for text in errors_in(caplog) if "their peers are gone" in text]
    assert len(warnings) == (0 if busy == 1 else 1)
    assert all(type(handler).__name__ in warning for warning in warnings)


def test_accept_that_still_runs_holds_the_place_of_its_peer():
    release, entered = threading.Event(), Happened()

    def accept(request, response_headers):
        entered()
        return release.wait(TIMEOUT)

    with plain(accept=accept, max_connections=1, open_timeout=SHORT) as server:
        try:
            with silent(server) as peer:
                peer.send_upgrade()
                entered.wait()
                assert server.stats()["handlers"] == 1
                peer.reset()
            sockets(server, 0)
            assert server.stats()["gone"] == 1
            with silent(server) as refused:
                assert refused.read_to_end().startswith(b"HTTP/1.1 503 ")
        finally:
            release.set()
        eventually(lambda: server.stats()["leases"] == 0, "the place to be given back")
        exchange(server)


def test_a_page_that_still_runs_holds_the_place_of_its_peer():
    release, entered = threading.Event(), Happened()
    server = plain(max_connections=1, pool_size=5, open_timeout=SHORT)

    @server.page("/slow")
    def slow(request):
        entered()
        return str(release.wait(TIMEOUT))

    with server:
        try:
            with silent(server) as peer:
                peer.send_raw(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
                entered.wait()
                peer.reset()
            sockets(server, 0)
            assert server.stats()["leases"] == 1
        finally:
            release.set()
        eventually(lambda: server.stats()["leases"] == 0, "the place to be given back")


# -- open_timeout --------------------------------------------------------------------------------


def seconds_to_the_end(client):
    began = time.monotonic()
    answer = client.read_to_end()
    return time.monotonic() - began, answer


@pytest.mark.promise(3)
@pytest.mark.d(10)
@pytest.mark.parametrize("tls", [False, True])
def test_a_silent_peer_is_closed_without_a_word(tls, certificates):
    with securews.serve(
        0, Echo(), tls=certificates.server if tls else False, open_timeout=0.5
    ) as server:
        with silent(server) as peer:
            seconds, answer = seconds_to_the_end(peer)
        assert answer == b""
        assert 0.4 < seconds < SOON


@pytest.mark.promise(4)
@pytest.mark.d(12)
def test_half_a_client_hello_is_closed_in_time(certificates):
    with securews.serve(0, Echo(), tls=certificates.server, open_timeout=0.5) as server:
        with silent(server) as peer:
            peer.send_raw(b"\x16\x03\x01\x02\x00\x01")
            seconds, _ = seconds_to_the_end(peer)
        assert 0.4 < seconds < SOON
        exchange(server, tls=certificates.ca_file)


def test_silence_behind_the_tls_handshake_is_closed_in_order(certificates):
    with (
        securews.serve(0, Echo(), tls=certificates.server, open_timeout=0.5) as server,
        RawClient(server.address, context=certificates.context(), upgrade=False) as peer,
    ):
        seconds, answer = seconds_to_the_end(peer)  # a close_notify, or this raises
        assert answer == b""
        assert 0.3 < seconds < SOON


@pytest.mark.promise(5)
@pytest.mark.d(8, 10)
def test_a_partial_head_is_408_however_it_drips(certificates):
    with plain(open_timeout=0.5) as server, silent(server) as peer:
        began = time.monotonic()
        peer.send_raw(HEAD)
        while not readable(peer, 0.05):
            peer.send_raw(b"X-Drip: 1\r\n")
        assert peer.read_to_end().startswith(b"HTTP/1.1 408 ")
        assert 0.4 < time.monotonic() - began < SOON


# -- bad luck and bad peers --------------------------------------------------------------------------

DESCRIPTORS = """
import logging, resource, sys, threading
import securews
class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)
server = securews.serve(0, Echo(), tls=False, max_connections=500, open_timeout=None)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
with server:
    print(server.address[1], flush=True)
    sys.stdin.readline()
"""


@pytest.mark.promise(8)
@pytest.mark.d(19)
def test_a_server_without_descriptors_pauses_and_recovers():
    with (
        ExitStack() as opened,
        subprocess.Popen(
            [sys.executable, "-c", DESCRIPTORS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        port = int(process.stdout.readline())
        peers = []
        with ExitStack() as crowd:
            peers += [
                crowd.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
                for _ in range(60)
            ]
            # The reserve: one of those that cannot be served is at least let go.
            assert select.select(peers, [], [], TIMEOUT)[0]
        began = time.monotonic()
        ws = opened.enter_context(securews.connect(f"ws://localhost:{port}/"))
        ws.send("hello")
        assert ws.recv(timeout=TIMEOUT) == "hello"
        assert time.monotonic() - began < 3
        ws.close()
        _, errors = process.communicate("\n", timeout=TIMEOUT)
    assert process.returncode == 0
    assert errors.count("no connection can be accepted") == 1
    assert "Traceback" not in errors


@pytest.mark.promise(8)
@pytest.mark.d(19)
def test_whoever_has_come_in_is_served_while_no_descriptor_is_left():
    """As the first of all, so that nothing has been imported or looked up for others before."""
    with subprocess.Popen(
        [sys.executable, "-c", DESCRIPTORS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        address = ("127.0.0.1", int(process.stdout.readline()))
        with (
            ExitStack() as crowd,
            RawClient(address, upgrade=False) as page,
            RawClient(address, upgrade=False) as chat,
        ):
            for _ in range(60):
                crowd.enter_context(socket.create_connection(address, TIMEOUT))
            said = [process.stderr.readline() for _ in range(2)]
            assert "no connection can be accepted" in said[1]
            page.send_raw(b"GET /%c3%a4?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert page.read_to_end().startswith(b"HTTP/1.1 426 ")
            chat.send_upgrade()
            assert chat.read_head().startswith("HTTP/1.1 101 ")
            chat.send(Opcode.TEXT, b"hello")
            assert chat.read_data_frame().payload == b"hello"
        _, errors = process.communicate("\n", timeout=TIMEOUT)
    assert "Traceback" not in errors


@pytest.mark.promise(8, 25)
@pytest.mark.d(18)
@pytest.mark.parametrize("tls", [False, True])
def test_the_listener_survives_whatever_peers_do(tls, certificates, caplog):
    server = securews.serve(0, Echo(), tls=certificates.server if tls else False)
    with server:
        for said in (b"", b"\x00", b"\x16\x03\x01", HEAD, b"GET", b"\xff" * 1000) * 10:
            for leave in (RawClient.reset, RawClient.close):
                with silent(server) as peer:
                    peer.send_raw(said)
                    leave(peer)
        sockets(server, 0)
        exchange(server, tls=certificates.ca_file if tls else None)
    assert errors_in(caplog) == []


def test_handshakes_wait_their_turn_and_all_are_made(certificates):
    limits = securews.Limits(max_handshakes=1)
    statuses = Happened()

    def connect():
        with RawClient(server.address, context=certificates.context()) as client:
            statuses(client.status)

    with securews.serve(
        0, Echo(), tls=certificates.server, limits=limits, handshake_workers=1
    ) as server:
        threads = [threading.Thread(target=connect) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert statuses.items == [101] * 20


# -- on_connect_query -------------------------------------------------------------------------------


class Choosy(securews.PlainSocketHandler):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = Happened()

    def on_connect_query(self, address):
        self.asked(address[0])
        return self.answer()


def test_on_connect_query_refuses_before_a_byte_is_read():
    handler: Choosy = Choosy(lambda: len(handler.asked.items) > 1)
    with securews.serve(0, Echo(), tls=handler) as server:
        with silent(server) as refused:
            assert refused.read_to_end() == b""
        exchange(server)
        assert set(handler.asked.items) <= {"127.0.0.1", "::1"}


def test_on_connect_query_that_raises_refuses_that_peer_and_is_logged(caplog):
    handler: Choosy = Choosy(lambda: len(handler.asked.items) > 1 or 1 / 0)
    with securews.serve(0, Echo(), tls=handler) as server:
        with silent(server) as refused:
            assert refused.read_to_end() == b""
        exchange(server)
    assert len(tracebacks_in(caplog)) == 1


def readable(client, seconds=0):
    return bool(select.select([client.sock], [], [], seconds)[0])
