"""Row 65: few bytes that cost much work, and what others notice of it."""

from __future__ import annotations

import select
import time

import pytest
from peers import PeerProcess, p50
from server_process import ServerProgram, Stopwatch
from wire import TEXT, WireClient, close_frame, frame

MIB = 1 << 20
SECONDS = 5
"""That each flood lasts."""
FLOODS = ["fragments", "empty_compressed", "small_messages", "chunks", "records", "pings"]


def round_trips(server, ca_file, kind):
    """Of honest clients: all of an idle server's, those under a flood, and the flood's figures."""
    common = {"address": server.address, "ca_file": ca_file}
    with (
        PeerProcess("probe", path="/echo", seconds=SECONDS + 3, **common) as honest,
        PeerProcess("flood", kind=kind, seconds=SECONDS, **common) as flood,
    ):
        assert honest.read() == "ready"
        assert flood.read() == "ready"
        honest.go()
        time.sleep(2)
        flood.go()
        begin, end, sent, cpu = flood.read()
        trips = honest.read()
    # Those that were under way when the flood began are of the flood.
    idle = [seconds for when, seconds in trips if when + seconds < begin]
    busy = [seconds for when, seconds in trips if when + seconds > begin and when < end]
    return idle, busy, (end - begin, sent, cpu)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(65)
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_that_costs_work_does_not_hold_up_others(certificates, measured, kind):
    with ServerProgram("Paths", tls=certificates.server, compression=True) as server:
        idle, busy, (seconds, sent, cpu) = round_trips(server, certificates.ca_file, kind)
        assert server.alive
    usual, median = p50(idle), p50(busy)
    worst = sorted(busy)[int(len(busy) * 0.999)]
    figures = (
        f"{kind.replace('_', ' ')}: {sent / seconds / 1e6:.1f} MB/s: p50 {median * 1e3:.2f} ms "
        f"(idle {usual * 1e3:.2f} ms), p99.9 {worst * 1e3:.0f} ms, {len(busy)} round trips"
    )
    print(f"{figures}; {cpu:.1f} s of CPU of the flooding process in {seconds:.1f} s")
    assert median < 10 * usual, figures
    assert worst < 0.1, figures
    measured(figures)


# -- a peer that has closed ------------------------------------------------------------------------


@pytest.mark.promise(65)
def test_a_byte_behind_a_close_while_the_socket_is_full_costs_nothing(measured):
    """The server cannot send what waits, and does not read what comes: it has nothing to do."""
    close_timeout = 3
    options = {"close_timeout": close_timeout, "write_timeout": 60, "outbox_bytes": 16 * MIB}
    with (
        ServerProgram("Paths", **options) as server,
        WireClient(server.address, receive_buffer=4096) as peer,
    ):
        peer.upgrade("/burst")
        peer.send(frame(TEXT, b"128 65536"))
        assert select.select([peer.socket], [], [], 5)[0]  # it came
        peer.send(close_frame())
        watch = Stopwatch()
        time.sleep(0.2)
        peer.socket.send(b"x")
        cpu = server.cpu
        time.sleep(2)
        share = (server.cpu - cpu) / 2
        while not (over := not server.ask("stats")["sockets"]) and watch.seconds < 10:
            time.sleep(0.05)
        seconds = watch.seconds
    figures = f"{share * 100:.0f} % of a core, over after {seconds:.1f} s"
    print(figures)
    assert share < 0.05, figures
    assert over, figures
    assert seconds < close_timeout + 3, figures  # and what the descriptor drains, at most 2 s
    measured(f"a byte behind a Close while the socket is full: {figures}")
