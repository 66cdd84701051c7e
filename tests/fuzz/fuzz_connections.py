"""Fuzzes whole connections with a server in a process of its own. `scripts/fuzz` calls it.

Theory of operation
-------------------
Two servers (TLS and plain) have every kind of handler, and short limits. In a round `CONNECTIONS`
peers connect, `PEERS` at a time, and do what their plans say (connection_plans.py): mostly right
things, in any cut, with any end. Honest clients in a process of their own (honest_peers.py) go on
all the while. What has to hold:

- whoever said only what is right has all of it back, within `PATIENCE`;
- the honest clients are never closed, and no round trip takes longer than `SLOWEST`;
- memory is bounded, while it goes on and when it is over;
- when nobody says anything for a moment, the servers do nothing;
- when the peers of a round have gone, descriptors, threads, places and objects are those of the
  start, within `REST`;
- nothing is in a server's log at ERROR, and no traceback.

A round is drawn from the seed and its number: the same bytes, cuts, pauses and ends. What is not
repeated is how the threads and the machine take turns, so a finding may need some rounds to come
again: `--seed SEED --round NUMBER` plays that round only, again and again.

Exit status 0: nothing was found. Else what was stands in the output and in `OUT/findings/`.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import random
import socket
import ssl
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = [str(TESTS), str(TESTS / "promises")]

from connection_plans import make_plan  # noqa: E402
from finding import Finding  # noqa: E402
from fuzz_peer import PATIENCE, Field, play  # noqa: E402
from watched_servers import HonestPeers, Server  # noqa: E402
from wire import client_context, request_head  # noqa: E402

from securews.certificates.dev_certificates import ensure_certificates  # noqa: E402

PEERS = 32
"""At a time."""
CONNECTIONS = 600
"""Of a round."""
CROWD = 150
"""Sockets at once, in every `CROWDED` round: more than there are places."""
CROWDED = 4
MOST_ROUNDS = 10_000

REST = 30.0
"""Seconds after which the servers' limits (watched_servers.py) have ended everything."""
WARM_UP = 2
"""Rounds before memory is compared."""


class Fuzz:
    """Servers, honest clients, and rounds of peers."""

    def __init__(self, seed: str, directory: Path) -> None:
        self.seed = seed
        self.connections = 0
        self.messages = 0
        """Of those that had to come back, and did."""
        self.ends: Counter[str] = Counter()
        self._rounds = 0
        self._lock = threading.Lock()
        report = ensure_certificates(directory)
        ca_file = str(report.ca_file)
        server = report.entries[1]
        tls = (str(server.certificate), str(server.key))
        contexts = [
            client_context(ca_file),
            client_context(ca_file, maximum_version=ssl.TLSVersion.TLSv1_2),
        ]
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(Server("the plain server", None, "threaded"))
            secure = stack.enter_context(Server("the TLS server", tls, "pool"))
            self.servers = [plain, secure]
            self.honest = HonestPeers([(plain.address, None), (secure.address, ca_file)])
            stack.callback(self.honest.close)
            self._stack = stack.pop_all()
        addresses = [server.address for server in self.servers]
        self._field = Field(addresses, contexts, threading.Event())
        self._field.going.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Wait until the honest clients are at work, and note what that takes."""
        end = time.monotonic() + PATIENCE
        while not (report := self.honest.say("report"))["trips"]:
            if time.monotonic() > end:
                raise Finding(f"the honest clients do not come in: {report}")
            time.sleep(0.2)
        self.honest.say("rest")
        for server in self.servers:
            server.begin()
        self.honest.say("go")

    def round(self, number: int) -> str:
        """One round of peers; what happened, in words."""
        self._field.crowded = number % CROWDED == 0
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(CONNECTIONS):
            waiting.put(index)
        found: list[Finding] = []
        threads = [
            threading.Thread(target=self._peer, args=(f"{self.seed}/{number}", waiting, found))
            for _ in range(PEERS)
        ]
        if self._field.crowded:
            threads.append(threading.Thread(target=self._crowd, args=(number,)))
        before, began = self.messages, time.monotonic()
        for thread in threads:
            thread.start()
        report = self._watch(threads, waiting, found)
        took = time.monotonic() - began
        if found:
            raise found[0]
        self.honest.say("rest")
        self.connections += CONNECTIONS
        self._rounds += 1
        deadline = time.monotonic() + REST
        for server in self.servers:
            server.check_log()
            server.check_rest(deadline, self.connections, warm=self._rounds > WARM_UP)
            server.check_calm()
        rested = time.monotonic() - began - took
        self.honest.say("go")
        return (
            f"{CONNECTIONS} connections in {took:.0f} s, "
            f"{self.messages - before} messages came back"
            f"{', a crowd' if self._field.crowded else ''}; honest: {report['trips']} round trips, "
            f"median {report['median'] * 1e3:.1f} ms, slowest {report['worst'] * 1e3:.0f} ms; "
            f"MiB {', '.join(f'{server.rss:.0f}' for server in self.servers)}; "
            f"at rest after {rested:.0f} s"
        )

    def _watch(self, threads: list[threading.Thread], waiting, found) -> dict[str, Any]:
        """While the peers are at work: memory, logs, and moments of rest."""
        rests = [CONNECTIONS * share // 4 for share in (3, 2, 1)]
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            try:
                for server in self.servers:
                    server.check_memory()
                    server.check_log()
                if rests and waiting.qsize() < rests[0]:
                    del rests[0]
                    self._hold()
            except Finding as finding:
                found.append(finding)
            if found:
                break
        self._field.going.set()
        if found:
            while not waiting.empty():
                with contextlib.suppress(queue.Empty):
                    waiting.get_nowait()
        for thread in threads:
            thread.join()
        return self.honest.say("report") if not found else {}

    def _hold(self) -> None:
        """Nobody says anything for a moment, and everybody stays."""
        for server in self.servers:
            server.ask("disturb")
        self._field.going.clear()
        self.honest.say("rest")
        for server in self.servers:
            server.check_calm()
        self.honest.say("go")
        self._field.going.set()

    def _peer(self, seed: str, waiting, found: list[Finding]) -> None:
        while not found:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            plan = make_plan(seed, number)
            self._field.going.wait()
            try:
                end, came = play(plan, self._field)
            except Finding as finding:
                finding.add_note(str(plan))
                found.append(finding)
            except Exception as error:
                finding = Finding(f"{type(error).__name__}: {error}")
                finding.__cause__ = error
                finding.add_note(str(plan))
                found.append(finding)
            else:
                with self._lock:
                    self.ends[end] += 1
                    self.messages += came

    def _crowd(self, number: int) -> None:
        """More sockets than there are places, for a moment."""
        chance = random.Random(f"{self.seed}/crowd/{number}")
        sockets = []
        try:
            for _ in range(CROWD):
                self._field.going.wait()
                sock = socket.socket()
                sockets.append(sock)
                with contextlib.suppress(OSError):
                    sock.settimeout(5)
                    sock.connect(chance.choice(self.servers).address)
                    sock.send(chance.choice([b"", b"GET / HTTP/1.1\r\n", request_head("/accept")]))
            time.sleep(0.5)
        finally:
            for sock in sockets:
                sock.close()


def main() -> int:
    """Rounds until the time is over or something is found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz connections")
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--seed", help="of an earlier run")
    parser.add_argument("--round", type=int, help="play this one only, again and again")
    parser.add_argument("--out", type=Path, required=True, help="for what is found")
    arguments = parser.parse_args()
    seed = arguments.seed or f"{random.SystemRandom().randrange(10**8):08}"
    print(f"seed {seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="securews-fuzz-") as directory,
        Fuzz(seed, Path(directory)) as fuzz,
    ):
        playing = 0
        try:
            fuzz.begin()
            end = time.monotonic() + arguments.seconds
            for number in range(1, MOST_ROUNDS + 1):
                if time.monotonic() >= end:
                    break
                playing = arguments.round or number
                print(f"round {playing}: {fuzz.round(playing)}", flush=True)
        except Finding as finding:
            _report(finding, f"{seed} --round {playing}", fuzz, arguments.out)
            return 1
        ends = ", ".join(f"{end} {count}" for end, count in fuzz.ends.most_common())
        peaks = ", ".join(f"{server.peak:.0f} MiB" for server in fuzz.servers)
        print(
            f"{fuzz.connections} connections, {fuzz.messages} messages came back, "
            f"{fuzz.honest.trips} round trips of honest clients, at most {peaks}; "
            f"nothing found\nends: {ends}"
        )
    return 0


def _report(finding: Finding, where: str, fuzz: Fuzz, out: Path) -> None:
    """Say what was found, and how to see it again."""
    text = "\n".join([f"found: {finding}", *getattr(finding, "__notes__", ())])
    if finding.__cause__ is not None:
        text += "\n" + "".join(traceback.format_exception(finding.__cause__))
    print(f"{text}\nagain: scripts/fuzz connections --seed {where}", flush=True)
    for server in fuzz.servers:
        server.show_stacks()
    directory = out / "findings"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{where.replace(' --', '-').replace(' ', '-')}.txt"
    logs = [f"-- log of {server.name}\n{server.log[-50_000:]}" for server in fuzz.servers]
    path.write_text("\n".join([text, *logs]))
    print(f"the servers' logs: {path}")


if __name__ == "__main__":
    sys.exit(main())
