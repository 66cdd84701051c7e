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
import json
import os
import queue
import random
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
TESTS = HERE.parent
sys.path[:0] = [str(TESTS), str(TESTS / "promises")]

from connection_plans import CLOSED, Plan, make_plan  # noqa: E402
from server_process import ServerProgram  # noqa: E402
from wire import CLOSE, PING, PONG, client_context, frame, request_head  # noqa: E402

from securews.certificates.dev_certificates import ensure_certificates  # noqa: E402

PEERS = 32
"""At a time."""
CONNECTIONS = 600
"""Of a round."""
CROWD = 150
"""Sockets at once, in every `CROWDED` round: more than there are places."""
CROWDED = 4
MOST_ROUNDS = 10_000
HONEST_PATHS = ("/event", "/blocking", "/slow", "/threaded")

PATIENCE = 15.0
"""Seconds that an answer may take on a machine that has other things to do."""
SLOWEST = 5.0
"""The same for a round trip of those who only wait for it."""
REST = 30.0
"""Seconds after which the limits below have ended everything."""
CALM = 8.0
"""Seconds in which the servers have to be found at rest while peers are there."""
IDLE_SHARE = 0.25
"""Of a core, that a server takes at rest, at most: with other processes it is counted coarsely."""
PEAK_MIB = 100
"""Memory beyond that of the start, while it goes on: outboxes and queues of PEERS and CROWD."""
KEPT_MIB = 10
"""The same at rest: what malloc does not give back; a leak grows beyond it."""
KEPT_BLOCKS = 4000
"""Blocks of memory of the interpreter beyond those after the first rounds, at rest..."""
BLOCKS_PER_CONNECTION = 0.1
"""... and for each connection since: caches are filled for some time."""
WARM_UP = 2
"""Rounds before memory is compared."""

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


class Finding(Exception):
    """Something that has to hold does not."""


# -- one peer ------------------------------------------------------------------------------


class Wire:
    """A socket that does not block, perhaps with TLS, and what came and is to go."""

    def __init__(self, plan: Plan, address: tuple[str, int], context: ssl.SSLContext | None):
        self.out = bytearray()
        self.inbox = bytearray()
        self.ended: str | None = None
        """How the other end has ended it."""
        raw = socket.socket()
        try:
            if plan.reads != "all":
                size = 4096 if plan.reads == "nothing" else 32768
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            raw.settimeout(PATIENCE)
            raw.connect(address)
            if context is not None:
                raw = context.wrap_socket(raw, server_hostname="localhost")
            raw.setblocking(False)
        except BaseException:
            raw.close()
            raise
        self.socket = raw

    def pump(self, seconds: float, *, read: bool, until=lambda: False) -> bool:
        """Send and receive; until `until`, an end, or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while True:
            moved = self._move(read=read)
            if until():
                return True
            left = deadline - time.monotonic()
            if self.ended or left <= 0:
                return False
            if not moved:
                select.select(
                    [self.socket] if read else [], [self.socket] if self.out else [], [], left
                )

    def _move(self, *, read: bool) -> bool:
        moved = False
        try:
            if self.out:
                sent = self.socket.send(self.out)
                del self.out[:sent]
                moved = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.out.clear()  # what came before is still to be read
            if not read:
                self.ended = "broken"
        try:
            if read:
                data = self.socket.recv(65536)
                self.inbox += data
                if not data:
                    self.ended = "eof"
                moved = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self.ended = type(error).__name__
        return moved


class Answers:
    """What the server says, as far as a peer looks at it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.status: int | None = None
        self.messages: list[bytes] = []
        self.close: int | None = None
        self._pongs = b""
        self._message = bytearray()
        self._compressed = False
        self._inflater = zlib.decompressobj(-15)

    def read(self) -> None:
        """Take what has come."""
        inbox = self._wire.inbox
        if self.status is None:
            if (end := inbox.find(b"\r\n\r\n")) < 0:
                return
            self.status = int(inbox[9:12])
            del inbox[: end + 4]
        while self.status == 101 and self._take_frame(inbox):
            pass

    def take_pongs(self) -> bytes:
        """Answers to its pings, to be sent between two frames of ours."""
        pongs, self._pongs = self._pongs, b""
        return pongs

    def _take_frame(self, inbox: bytearray) -> bool:
        if len(inbox) < 2:
            return False
        first, size, start = inbox[0], inbox[1], 2
        if size > 125:
            start += 2 if size == 126 else 8
            if len(inbox) < start:
                return False
            size = int.from_bytes(inbox[2:start])
        if len(inbox) < start + size:
            return False
        payload = bytes(inbox[start : start + size])
        del inbox[: start + size]
        opcode = first & 0x0F
        if opcode == PING:
            self._pongs += frame(PONG, payload)
        elif opcode == CLOSE:
            self.close = int.from_bytes(payload[:2]) if payload else 1005
        elif opcode < CLOSE:
            if opcode:
                self._compressed = bool(first & 0x40)
            self._message += payload
            if first & 0x80:
                whole, self._message = bytes(self._message), bytearray()
                if self._compressed:
                    whole = self._inflater.decompress(whole + b"\0\0\xff\xff")
                self.messages.append(whole)
        return True


def play(plan: Plan, fuzz: Fuzz) -> str:
    """Do what a plan says; how it ended. Finding: the server did not do its part."""
    if plan.hello is not None:
        return play_hello(plan, fuzz)
    secure = plan.secure != plan.wrong_port
    address = fuzz.servers[plan.secure].address
    context = fuzz.contexts[plan.tls12] if secure else None
    try:
        wire = Wire(plan, address, context)
    except OSError as error:
        if plan.judged and not fuzz.crowded:
            raise Finding(f"it could not connect: {error}") from error
        return "not let in"
    answers = Answers(wire)
    try:
        _say(plan, wire, answers, fuzz)
        if plan.judged:
            _judge(plan, wire, answers, fuzz)
        return _end(plan, wire, answers, fuzz)
    finally:
        wire.socket.close()


def play_hello(plan: Plan, fuzz: Fuzz) -> str:
    """Send a TLS handshake's first flight in part, and end."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = fuzz.contexts[plan.tls12].wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    plan.pieces = [(0.0, outgoing.read()[: plan.hello])]
    try:
        wire = Wire(plan, fuzz.servers[True].address, None)
    except OSError:
        return "not let in"
    try:
        answers = Answers(wire)
        _say(plan, wire, answers, fuzz)
        return _end(plan, wire, answers, fuzz)
    finally:
        wire.socket.close()


def _say(plan: Plan, wire: Wire, answers: Answers, fuzz: Fuzz) -> None:
    """The pieces; a judged peer that reads waits until each is gone, others only a moment."""
    reads = plan.reads == "all"
    late = plan.reads == "late"
    patience = PATIENCE if plan.judged and reads else 0.3
    for pause, piece in plan.pieces:
        if not plan.judged:  # the others may come to a time limit
            fuzz.going.wait()
        if pause:
            wire.pump(pause, read=reads)
        wire.out += piece
        wire.pump(0.0 if late else patience, read=reads, until=lambda: not wire.out)
        if plan.reads == "slowly":
            wire.pump(0.0, read=True)
        answers.read()
        if wire.ended or (wire.out and not late):
            return
    if late:
        wire.pump(patience, read=False, until=lambda: not wire.out)


def _judge(plan: Plan, wire: Wire, answers: Answers, fuzz: Fuzz) -> None:
    """All that has to come back comes."""

    def complete() -> bool:
        answers.read()
        wire.out += answers.take_pongs()
        enough = answers.status == 101 and len(answers.messages) >= len(plan.messages)
        return enough or answers.close is not None

    wire.pump(PATIENCE, read=True, until=complete)
    if answers.status != 101:
        refused = answers.status == 503 or (answers.status is None and wire.ended)
        if fuzz.crowded and refused:
            return
        raise Finding(f"the upgrade was answered with {answers.status} ({wire.ended or 'silence'})")
    if answers.messages != plan.messages:
        right = sum(a == b for a, b in zip(answers.messages, plan.messages, strict=False))
        raise Finding(
            f"{right} of {len(plan.messages)} messages came back, in {len(answers.messages)}; "
            f"closed with {answers.close} ({wire.ended or 'still open'})"
        )
    fuzz.count("messages", len(plan.messages))


def _end(plan: Plan, wire: Wire, answers: Answers, fuzz: Fuzz) -> str:
    end = plan.end
    if end in CLOSED:
        wire.out += frame(CLOSE, (1000).to_bytes(2))
        if end == "close and talk":
            wire.out += frame(PING, b"x") * 3
        wire.pump(0.3, read=False, until=lambda: not wire.out)
        if end == "close":

            def over() -> bool:
                answers.read()
                return answers.close is not None

            wire.pump(PATIENCE if plan.judged else 1.0, read=True, until=over)
            if plan.judged and answers.close is None and not wire.ended:
                raise Finding("its Close was not answered")
    elif end == "half":
        with contextlib.suppress(OSError):
            wire.socket.shutdown(socket.SHUT_WR)
        wire.pump(0.5, read=True)
    elif end == "fin":
        wire.pump(0.05, read=True)
    elif end == "wait":
        seconds = 8.0 if plan.number % 20 == 0 else 2.0 if plan.reads == "late" else 1.0
        wire.pump(seconds, read=plan.reads != "nothing")
    while not fuzz.going.wait(0.0):  # it stays, and answers pings
        wire.pump(0.1, read=plan.reads != "nothing")
        answers.read()
        wire.out += answers.take_pongs()
    if end.endswith("reset"):
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return f"{end}, {wire.ended}" if wire.ended else end


# -- the servers ---------------------------------------------------------------------------


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

    def check_calm(self, until: float) -> None:
        """Finding: it is busy though nobody says anything."""
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


# -- the fuzzing ---------------------------------------------------------------------------


class Fuzz:
    """Servers, honest clients, and rounds of peers."""

    def __init__(self, seed: str, directory: Path) -> None:
        self.seed = seed
        self.going = threading.Event()
        self.going.set()
        self.crowded = False
        self.connections = 0
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._rounds = 0
        self._lock = threading.Lock()
        report = ensure_certificates(directory)
        ca_file = str(report.ca_file)
        server = report.entries[1]
        tls = (str(server.certificate), str(server.key))
        self.contexts = [
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

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
        self.crowded = number % CROWDED == 0
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(CONNECTIONS):
            waiting.put(index)
        found: list[Finding] = []
        threads = [
            threading.Thread(target=self._peer, args=(f"{self.seed}/{number}", waiting, found))
            for _ in range(PEERS)
        ]
        if self.crowded:
            threads.append(threading.Thread(target=self._crowd, args=(number,)))
        before, began = self.counts.copy(), time.monotonic()
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
            server.check_calm(time.monotonic() + CALM)
        rested = time.monotonic() - began - took
        self.honest.say("go")
        return (
            f"{CONNECTIONS} connections in {took:.0f} s, "
            f"{self.counts['messages'] - before['messages']} messages came back"
            f"{', a crowd' if self.crowded else ''}; honest: {report['trips']} round trips, "
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
        self.going.set()
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
        self.going.clear()
        self.honest.say("rest")
        for server in self.servers:
            server.check_calm(time.monotonic() + CALM)
        self.honest.say("go")
        self.going.set()

    def _peer(self, seed: str, waiting, found: list[Finding]) -> None:
        while not found:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            plan = make_plan(seed, number)
            self.going.wait()
            try:
                end = play(plan, self)
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

    def _crowd(self, number: int) -> None:
        """More sockets than there are places, for a moment."""
        chance = random.Random(f"{self.seed}/crowd/{number}")
        sockets = []
        try:
            for _ in range(CROWD):
                self.going.wait()
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
            f"{fuzz.connections} connections, {fuzz.counts['messages']} messages came back, "
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
