"""The servers of fuzz_connections.py and their honest clients, watched from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from finding import Finding
from server_process import ServerProgram

__all__ = ["HonestPeers", "Server"]

HERE = Path(__file__).parent
TESTS = HERE.parent

HONEST_PATHS = ("/event", "/blocking", "/slow", "/threaded")
SLOWEST = 5.0
"""Seconds that a round trip may take of those who only wait for it."""
CALM = 8.0
"""Seconds in which the servers have to be found at rest while peers are there."""
IDLE_SHARE = 0.25
"""Of a core, that a server takes at rest, at most: with other processes it is counted coarsely."""
PEAK_MIB = 100
"""Memory beyond that of the start, while it goes on: outboxes and queues of all its peers."""
KEPT_MIB = 10
"""The same at rest: what malloc does not give back; a leak grows beyond it."""
KEPT_BLOCKS = 4000
"""Blocks of memory of the interpreter beyond those after the first rounds, at rest..."""
BLOCKS_PER_CONNECTION = 0.1
"""... and for each connection since: caches are filled for some time."""

LIMITS = {
    "max_connections": 100,
    "open_timeout": 5,
    "ping_interval": 2 * CALM,  # what nobody wakes is seen to be at rest, or not
    "ping_timeout": 4,
    "close_timeout": 2,
    "write_timeout": 4,
    "message_timeout": 4,
    "outbox_bytes": 256 << 10,
    "max_size": 64 << 10,
    "max_queue": 4,
    "request_threads": 2,
    "handshake_workers": 1,
    "compression": True,
}
BAD_LOG = re.compile(r"^(ERROR|CRITICAL):|Traceback|^Exception ", re.MULTILINE)


class Server(ServerProgram):
    """One of the servers, and what it held at the start."""

    def __init__(self, name: str, tls: tuple[str, str] | None, method: str) -> None:
        given = os.environ.get("PYTHONPATH")  # a copy of the package with a fault, perhaps
        path = [*([given] if given else []), str(TESTS.parent), str(TESTS / "promises")]
        super().__init__(
            "Fuzzed",
            environment={"PYTHONPATH": os.pathsep.join(path)},
            program=HERE / "fuzzed_server.py",
            tls=tls,
            accepting_method=method,
            **LIMITS,
        )
        self.name = name
        self.peak = 0.0
        self._log_read = 0
        self._start: dict[str, Any] = {}
        self._warm: tuple[float, int, int] | None = None

    def check_log(self) -> None:
        """Finding: an error was logged since the last time."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size - self._log_read, self._log_read).decode()
        self._log_read = size
        if found := BAD_LOG.search(text):
            raise Finding(f"{self.name}: an error in the log: {text[found.start() :][:3000]}")

    def check_calm(self) -> None:
        """Finding: it is busy though nobody says anything."""
        until = time.monotonic() + CALM
        shares = []
        while True:
            cpu, began = self.cpu, time.monotonic()
            time.sleep(0.5)
            shares.append((self.cpu - cpu) / (time.monotonic() - began))
            if shares[-1] < IDLE_SHARE:
                return
            if time.monotonic() > until:
                busy = ", ".join(f"{share:.0%}" for share in shares)
                raise Finding(f"{self.name}: nobody says anything, and it is busy: {busy}")

    def check_memory(self) -> None:
        """Finding: it takes too much while it goes on."""
        rss = self.rss
        self.peak = max(self.peak, rss)
        if self._warm is not None and rss > self._warm[0] + PEAK_MIB:
            raise Finding(f"{self.name}: {rss:.0f} MiB of memory, {self._warm[0]:.0f} at the start")

    def show_stacks(self) -> None:
        """Have its log say where its threads are, three times."""
        for _ in range(3):
            if self.alive:
                self.signal(signal.SIGUSR1)
                time.sleep(0.1)

    def begin(self) -> None:
        """Note what it holds while only the honest clients are there."""
        self._start = self._facts()

    def check_rest(self, deadline: float, connections: int, *, warm: bool) -> None:
        """Finding: what the peers have left behind does not go."""
        while True:
            facts = self._facts()
            left = [
                f"{what} {facts[what]} (at the start {start})"
                for what, start in self._start.items()
                if what not in ("blocks", "objects") and facts[what] > start
            ]
            if not left:
                # What a connection makes when it needs it, the honest ones may have made since.
                start, lazily = self._start["objects"], self._start["sockets"]
                left = [
                    f"{count} objects {name} (at the start {start.get(name, 0)})"
                    for name, count in facts["objects"].items()
                    if count > max(start.get(name, 0), lazily)
                ]
            if not left:
                break
            if time.monotonic() > deadline:
                kinds = [kind for kind in facts["objects"] if any(kind in what for what in left)]
                held_by = self.ask("holders", kinds=kinds)
                raise Finding(
                    "\n".join(
                        [f"{self.name}: nobody is there any more, and left are: {left}", *held_by]
                    )
                )
            time.sleep(0.2)
        rss = self.rss
        if not warm:
            return
        if self._warm is None:
            self._warm = rss, facts["blocks"], connections
        first_rss, first_blocks, first_connections = self._warm
        if rss > first_rss + KEPT_MIB:
            raise Finding(f"{self.name}: {rss:.0f} MiB at rest, {first_rss:.0f} before")
        since = connections - first_connections
        if facts["blocks"] > first_blocks + KEPT_BLOCKS + BLOCKS_PER_CONNECTION * since:
            raise Finding(
                f"{self.name}: {facts['blocks']} blocks of memory at rest, {first_blocks} before "
                f"the last {since} connections"
            )

    def _facts(self) -> dict[str, Any]:
        held = self.ask("held")
        stats = held["stats"]
        return {
            **{what: stats[what] for what in ("sockets", "leases", "handlers", "gone")},
            "descriptors": self.descriptors,
            "threads": self.threads,
            "objects": held["objects"],
            "blocks": held["blocks"],
        }


class HonestPeers:
    """honest_peers.py in a process of its own."""

    def __init__(self, servers: list[tuple[tuple[str, int], str | None]]) -> None:
        self.trips = 0
        settings = json.dumps({"servers": servers, "paths": HONEST_PATHS})
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "honest_peers.py"), settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, word: str) -> dict[str, Any]:
        """Say "rest", "go" or "report"; what was seen since the last time. Finding: a fault."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        if report["faults"]:
            raise Finding(f"honest clients: {report['faults']}")
        self.trips += report["trips"]
        if report["worst"] > SLOWEST:
            raise Finding(f"a round trip of an honest client took {report['worst']:.1f} s")
        return report

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
