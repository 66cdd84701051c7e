"""Rows 66, 67 and 70: what connections hold, open and over, and who has to go when it is too much.

Memory is VmRSS of the server's process, read from outside, after malloc has given back what nobody
holds (`ServerProgram.settled_rss`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from peers import MIB, PeerProcess
from server_process import ServerProgram, Stopwatch
from wire import WireClient

ROOM = 60
"""MiB that a server may have more than it held before, or than its limits say."""
STEADY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""Large blocks are given back at once, and small ones lie together (mallopt(3))."""


# -- row 67 ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(67)
@pytest.mark.parametrize("method", ["pool", "threaded", "serial"])
def test_who_closes_and_comes_again_gets_no_second_place(measured, method):
    """2.7 MB from each of 40 peers, again and again, for handlers that are busy for a second."""
    limits = {"max_connections": 5, "max_buffered": 8 * MIB}
    with ServerProgram("Paths", accepting_method=method, environment=STEADY, **limits) as server:
        before, highest, unseen = server.rss, 0.0, 0
        with PeerProcess("come_again", address=server.address, path="/busy", seconds=10) as peers:
            assert peers.read() == "ready"
            watch = Stopwatch()
            while watch.seconds < 11:
                seen = server.ask("busy")
                highest = max(highest, server.rss)
                unseen = max(unseen, seen["running"] - seen["stats"]["handlers"])
                time.sleep(0.05)
            came = peers.read()
        most = server.ask("busy")["most"]
    figures = (
        f"{method}: at most {most} handlers at a time, {highest - before:+.0f} MiB, at most "
        f"{unseen} handlers that `stats()` did not count, {came} served"
    )
    print(figures)
    assert came > 5, figures
    assert most <= 5, figures
    assert highest - before < ROOM, figures
    assert not unseen, figures
    measured(figures)


# -- row 66 ----------------------------------------------------------------------------------------

WAVES = {
    "unfinished messages": {"path": "/sink", "size": MIB, "missing": 1},
    "queued messages": {"path": "/deaf", "size": MIB},
    "full outboxes": {"path": "/gush", "size": 0, "receive_buffer": 4096},
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(66)
@pytest.mark.parametrize("kind", WAVES)
def test_connections_that_are_over_hold_nothing(measured, kind):
    """Two waves of 850 peers with 1 MiB each; the collector is off."""
    waves = 2
    with ServerProgram(
        "Paths", collector=False, max_buffered=4096 * MIB, environment=STEADY
    ) as server:
        before, highest, after = server.rss, [], []
        with PeerProcess(
            "leave", address=server.address, count=850, waves=waves, **WAVES[kind]
        ) as peers:
            for _ in range(waves):
                assert peers.read() == 850
                highest.append(server.rss)
                let_go(peers, server)
                after.append(server.settled_rss(before + ROOM) - before)
                peers.go()
        assert server.alive
    figures = (
        f"{kind}: {highest[0] - before:+.0f} MiB while they were there, "
        f"{', '.join(f'{mib:+.0f}' for mib in after)} MiB after each wave"
    )
    print(figures)
    assert highest[0] - before > 500, figures  # else it shows nothing
    assert max(after) < ROOM, figures
    measured(figures)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(66)
def test_one_large_connection_after_another_holds_nothing(measured):
    """63 of 64 MiB of a message, and the end; twenty times."""
    options = {"collector": False, "max_size": 64 * MIB}
    with ServerProgram("Paths", environment=STEADY, **options) as server:
        before, count = server.rss, 20
        settings = {"path": "/sink", "count": 1, "size": 64 * MIB, "missing": MIB, "waves": count}
        with PeerProcess("leave", address=server.address, **settings) as peers:
            for _ in range(count):
                assert peers.read() == 1
                let_go(peers, server)
                peers.go()
        growth = server.settled_rss(before + ROOM) - before
    figures = f"{count} times 63 MiB, one after another: {growth:+.0f} MiB"
    print(figures)
    assert growth < ROOM, figures
    measured(figures)


def let_go(peers, server):
    """Have all peers close, and wait until the server has nobody left."""
    peers.go()
    assert peers.read() == "gone"
    watch = Stopwatch()
    while server.ask("stats")["sockets"]:
        assert watch.seconds < 20, server.ask("stats")
        time.sleep(0.05)


# -- row 70, and what an event handler is not given yet ----------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(70)
def test_messages_that_wait_for_an_event_handler_are_counted(measured):
    """Compressed ones, while their answers wait to be sent: each counts as what it inflates to."""
    limit, count = 64, 240
    with ServerProgram(
        "Paths", compression=True, max_buffered=limit * MIB, environment=STEADY
    ) as server:
        before, highest = server.rss, 0.0
        with PeerProcess(
            "leave_compressed", address=server.address, path="/echo", count=count
        ) as peers:
            assert peers.read() == "ready"
            watch = Stopwatch()
            while watch.seconds < 15:
                highest = max(highest, server.rss)
                time.sleep(0.05)
        assert server.alive
    figures = f"{count} peers: {highest - before:+.0f} MiB at max_buffered={limit} MiB"
    print(figures)
    assert highest - before < limit + ROOM, figures
    measured(f"messages of 1 MiB in 1 KiB to an echo whose answers nobody reads, {figures}")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(70)
def test_who_holds_less_than_its_share_is_never_closed(measured):
    """20 clients that read all the time what they are sent, and 400 peers that leave 900 KiB."""
    limit, greedy = 256, 400
    with (
        ServerProgram("Paths", outbox_bytes=256 << 10, environment=STEADY) as server,
        ExitStack() as stack,
    ):
        before = highest = server.rss
        honest = []
        for _ in range(20):
            client = WireClient(server.address, receive_buffer=64 << 10)
            honest.append(stack.enter_context(client))
            client.upgrade("/stream")
        peers = stack.enter_context(
            PeerProcess("leave", address=server.address, path="/sink", count=greedy,
                        size=900 << 10, missing=1, patience=0.05)
        )  # fmt: skip
        closed, watch = set(), Stopwatch()
        while watch.seconds < 15:
            for client in honest:
                if client not in closed and not take(client.socket, 32 << 10):
                    closed.add(client)
            highest = max(highest, server.rss)
            time.sleep(0.1)  # 320 kB/s each
        left = server.ask("stats")["open"]
        assert peers.read() == greedy
    figures = (
        f"{len(closed)} of 20 honest clients were closed, {left} of {20 + greedy} are open, "
        f"{highest - before:+.0f} MiB at max_buffered={limit} MiB"
    )
    print(figures)
    assert not closed, figures
    assert highest - before < limit + ROOM, figures
    measured(figures)


def take(sock, size):
    """Read at most `size` bytes of what is there; False at the end."""
    sock.settimeout(0)
    try:
        return bool(sock.recv(size))
    except BlockingIOError:
        return True
    except OSError:
        return False
