"""Everything at once, from many threads: a program that ends with status 0 if all went right.

    python -X dev tests/stress/storm.py --seconds 60 --key-updates 1000

One wss server, in this process. Some clients stay: three are `openssl s_client`, which ask for
TLS key updates all the while, two are our own. Others come and go, closed by either side in every
way there is. Threads send whole messages, messages in fragments, broadcasts and pings in both
directions, list connections, reload certificates; then several stop the server at once while
others still send.

Each message says who sent it, which one it is, and the hash of its payload. Receivers check that
each is whole, once and in order; at the end both ends' counts and hashes of everything are
compared. The result is one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ledger import Received, Sent
from openssl_client import OpenSSLClient

import securews.testing
from securews import Communicator, ConnectionClosed, EventWebSocketHandler, MessageType
from securews.testing import LocalServer

TIMEOUT = 60.0
"""Seconds for anything that has to happen; only a fault comes near it."""
PING_PAUSE = 0.03
"""Seconds between two pings of a client: over 50 a second (control_rate) it would close."""
PAUSE = 0.002
"""Seconds between two rounds of a thread: all of them share one interpreter's lock."""
FORKED = ("openssl-0", "openssl-1", "openssl-2")
OWN = ("own-0", "own-1")
STAYING = (*FORKED, *OWN)


class Storm:
    """What all threads share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.over = threading.Event()
        """The time for everything but the stop is up."""
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.logged: list[str] = []
        self.sent: list[Sent] = []
        self.servers_end: dict[str, Communicator] = {}
        """Of the clients that stay."""
        self.at_server: dict[str, Received] = {}
        self.at_client: dict[str, Received] = {}
        self.openssl: dict[str, OpenSSLClient] = {}
        self.own: dict[str, Communicator] = {}
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)

    def count(self, what: str, number: int = 1) -> None:
        """One more of something."""
        with self._lock:
            self.counts[what] += number

    def fail(self, where: str) -> None:
        """Note the exception that is being handled."""
        with self._lock:
            self.faults.append(f"{where}: {traceback.format_exc()}")
        self.over.set()

    def thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        """A started thread whose exceptions are faults."""

        def guarded() -> None:
            try:
                work()
            except BaseException:
                self.fail(name)

        thread = threading.Thread(target=guarded, name=name)
        thread.start()
        return thread

    def again_and_again(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` until the storm is over."""

        def loop() -> None:
            while not self.over.wait(PAUSE):
                work()

        return loop

    def new_sender(self, name: str) -> Sent:
        """The accounts of a sending thread."""
        sender = Sent(name)
        self.sent.append(sender)
        return sender

    # -- the server's end --------------------------------------------------------------------

    def welcome(self, ws: Communicator) -> Received:
        """Greet a new connection; `?name` says whose. What it sends goes to the result."""
        name = ws.request.query
        ws.send(Sent("greeting").next_message(name))
        received = Received(f"server from {name}")
        with self._arrived:
            self.at_server[name] = received
            if name in STAYING:
                self.servers_end[name] = ws
            self._arrived.notify_all()
        return received

    def wait_for_all(self) -> None:
        """Until the server has welcomed all that stay."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.servers_end) == len(STAYING), TIMEOUT)
            assert came, sorted(self.servers_end)

    def blocking(self, ws: Communicator) -> None:
        """The handler of /blocking."""
        received = self.welcome(ws)
        try:
            for message in ws:
                received.take(message)
        except ConnectionClosed:
            pass  # aborted by one of us
        except AssertionError:
            self.fail("a blocking handler")


class Events(EventWebSocketHandler):
    """The handler of /event."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm

    def on_open(self, ws: Communicator) -> None:
        """Open its account."""
        self._storm.count("on_open")
        ws.state.received = self._storm.welcome(ws)

    def on_message(self, ws: Communicator, message: str | bytes) -> None:
        """Check it."""
        try:
            ws.state.received.take(message)
        except AssertionError:
            self._storm.fail("an event handler")

    def on_close(self, ws: Communicator, code: int | None, reason: str) -> None:
        """Count it: exactly once for each."""
        self._storm.count("on_close")


def path_of(name: str) -> str:
    """Half of the clients go to each handler."""
    return f"/{'event' if name[-1] in '02468' else 'blocking'}?{name}"


# -- what threads do ------------------------------------------------------------------------------


def sender_to_clients(storm: Storm, name: str) -> Callable[[], None]:
    """Sends to all clients that stay, in one frame."""
    sent = storm.new_sender(name)

    def work() -> None:
        for receiver, ws in storm.servers_end.items():
            message = sent.next_message(receiver)
            ws.send(message)
            sent.note(receiver, message)
            storm.count("sent by the server")

    return work


def fragmenter(storm: Storm, name: str) -> Callable[[], None]:
    """Sends to all clients that stay, in many frames."""
    sent = storm.new_sender(name)

    def work() -> None:
        for receiver, ws in storm.servers_end.items():
            message = sent.next_message(receiver)
            kind = MessageType.TEXT if isinstance(message, str) else MessageType.BINARY
            with ws.write_message(kind, max_frame_length=700) as stream:
                for start in range(0, len(message), 1000):
                    stream.write(message[start : start + 1000])
            sent.note(receiver, message)
            storm.count("sent in fragments")

    return work


def broadcaster(storm: Storm, server: LocalServer, name: str) -> Callable[[], None]:
    """Broadcasts to everybody; who was skipped does not wait for it."""
    sent = storm.new_sender(name)

    def work() -> None:
        message = sent.next_message("all")
        skipped = set(server.broadcast(message))
        for receiver, ws in storm.servers_end.items():
            if ws in skipped:
                storm.count("broadcasts skipped")
            else:
                sent.note(receiver, message)
        storm.count("broadcasts")

    return work


def pinger(storm: Storm) -> Callable[[], None]:
    """Pings every client that stays, and waits for the answers."""

    def work() -> None:
        for waiter in [ws.ping() for ws in storm.servers_end.values()]:
            waiter.wait(TIMEOUT)
            storm.count("pings answered")
        storm.over.wait(PING_PAUSE)

    return work


def sender_to_server(storm: Storm, name: str) -> Callable[[], None]:
    """Sends to the server over every connection that stays."""
    sent = storm.new_sender(name)

    def work() -> None:
        clients: dict[str, OpenSSLClient | Communicator] = {**storm.openssl, **storm.own}
        for receiver, client in clients.items():
            message = sent.next_message(receiver)
            client.send(message)
            sent.note(receiver, message)
            storm.count("sent by clients")

    return work


def key_updater(storm: Storm) -> Callable[[], None]:
    """Has every `openssl s_client` ask for new keys."""

    def work() -> None:
        for client in storm.openssl.values():
            client.update_keys()
        storm.over.wait(0.05)

    return work


def churner(storm: Storm, server: LocalServer, name: str) -> Callable[[], None]:
    """Opens a connection, sends and receives, and ends it, each time in another way."""
    turns = iter(range(1_000_000))

    def work() -> None:
        turn = next(turns)
        client_name = f"{name}-{turn}"
        sent, received = Sent(client_name), Received(client_name)
        ws = server.connect(path_of(client_name), timeout=TIMEOUT)
        try:
            for _ in range(5):
                ws.send(sent.next_message("server"))
            received.take(ws.recv(TIMEOUT))
            end = turn % 5
            if end == 0:
                ws.close()
            elif end == 1:
                ws.abort()
            elif end == 2:
                server.close_where(lambda its: its.request.query == client_name, 4000, "enough")
            elif end == 3:
                closers = [storm.thread(ws.close, f"{client_name} closer") for _ in range(3)]
                for closer in closers:
                    closer.join(TIMEOUT)
            else:
                for its in server.connections:
                    if its.request.query == client_name:
                        its.abort()
            for message in ws:
                received.take(message)
        except ConnectionClosed:
            pass  # that is how it ends
        finally:
            ws.abort()
        assert ws.wait_closed(TIMEOUT)
        storm.count("connections come and gone")

    return work


def observer(storm: Storm, server: LocalServer) -> Callable[[], None]:
    """Looks at everything, and renews the certificates."""

    def work() -> None:
        assert server.stats()
        for ws in server.connections:
            assert repr(ws)
            assert ws.latency is None or ws.latency >= 0
        server.reload_tls()
        storm.count("reloads")
        storm.over.wait(0.2)

    return work


# -- the course of the storm ----------------------------------------------------------------------


def connect_all(storm: Storm, server: LocalServer) -> None:
    """The clients that stay."""
    for name in FORKED:
        received = storm.at_client[name] = Received(name)
        storm.openssl[name] = OpenSSLClient(
            server.address[1],
            path_of(name),
            ca_file=server.ca_file,
            trace=storm.directory / name,
            on_message=received.take,
        )
    for name in OWN:
        storm.at_client[name] = Received(name)
        storm.own[name] = server.connect(path_of(name), timeout=TIMEOUT)
    storm.wait_for_all()


def read_own(storm: Storm, name: str) -> Callable[[], None]:
    """Receives in one of our own clients until its end."""

    def work() -> None:
        for message in storm.own[name]:
            storm.at_client[name].take(message)

    return work


def blow(storm: Storm, server: LocalServer, seconds: float) -> int:
    """All threads at once for so long; how many there were."""
    work: dict[str, Callable[[], None]] = {
        "server-a": sender_to_clients(storm, "server-a"),
        "server-b": sender_to_clients(storm, "server-b"),
        "fragments": fragmenter(storm, "fragments"),
        "broadcast-a": broadcaster(storm, server, "broadcast-a"),
        "broadcast-b": broadcaster(storm, server, "broadcast-b"),
        "pings": pinger(storm),
        "client-a": sender_to_server(storm, "client-a"),
        "client-b": sender_to_server(storm, "client-b"),
        "keys": key_updater(storm),
        "churn-a": churner(storm, server, "churn-a"),
        "churn-b": churner(storm, server, "churn-b"),
        "observer": observer(storm, server),
    }
    threads = [storm.thread(storm.again_and_again(each), name) for name, each in work.items()]
    storm.over.wait(seconds)
    storm.over.set()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), f"{thread.name} does not end"
    return len(threads)


def compare(storm: Storm) -> None:
    """Everything that was sent to or by those who stay has come, and nothing else."""
    for sent in storm.sent:
        ends = storm.at_server if sent.name.startswith("client") else storm.at_client
        for receiver, account in sent.accounts.items():
            count, _ = account.total
            came = ends[receiver].wait_for(sent.name, count, TIMEOUT)
            got = ends[receiver].total(sent.name)
            assert came, f"{got} of {count} from {sent.name} came to {receiver}"
            assert got == account.total, f"{sent.name} to {receiver}: {account.total}, but {got}"
            storm.count("messages compared", count)


def stop(storm: Storm, server: LocalServer) -> float:
    """Stop from several threads while others send; the seconds that it takes."""

    def keep_sending(ws: Communicator) -> Callable[[], None]:
        late = Sent("late")

        def work() -> None:
            try:
                while True:
                    ws.send(late.next_message("its"))
            except ConnectionClosed as closed:
                storm.count(f"late senders that ended with {closed.code}")

        return work

    began = time.monotonic()
    threads = [
        storm.thread(keep_sending(ws), f"late sender {name}")
        for name, ws in storm.servers_end.items()
    ]
    threads += [storm.thread(lambda: server.stop(grace=20), f"stop {n}") for n in range(4)]
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), f"{thread.name} does not end"
    return time.monotonic() - began


def run(storm: Storm, seconds: float) -> dict[str, object]:
    """The whole; what is worth knowing of it."""
    server = securews.testing.server(slow_client="drop")
    server.register_handler("*", "/event", Events(storm), default_host=True)
    server.register_handler("*", "/blocking", storm.blocking, default_host=True)
    readers: list[threading.Thread] = []
    try:
        with server:
            connect_all(storm, server)
            readers = [storm.thread(read_own(storm, name), f"reader {name}") for name in OWN]
            threads = blow(storm, server, seconds)
            if not storm.faults:
                compare(storm)
            took = stop(storm, server)
        for name, client in storm.openssl.items():
            assert client.wait_closed(TIMEOUT), f"{name} does not end"
            assert client.fault is None, f"{name}: {client.fault!r}"
            assert client.close_code == 1001, f"{name} ended with {client.close_code}"
        updates = [client.key_updates() for client in storm.openssl.values()]
        opened, closed = storm.counts["on_open"], storm.counts["on_close"]
        assert opened == closed, f"{opened} connections were opened, and {closed} closed"
    finally:
        for client in storm.openssl.values():
            client.__exit__()
        for ws in storm.own.values():
            ws.abort()
        for reader in readers:
            reader.join(TIMEOUT)
    return {
        "threads": threads,
        "key updates sent": sum(sent for sent, _ in updates),
        "key updates received": sum(received for _, received in updates),
        "stop took": round(took, 3),
        **storm.counts,
    }


class LogReader(logging.Handler):
    """An error in the log is a fault; warnings are shown (a busy machine makes callbacks slow)."""

    def __init__(self, storm: Storm) -> None:
        super().__init__(logging.WARNING)
        self._storm = storm

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        self._storm.logged.append(f"{record.levelname} {record.getMessage()}")
        if record.levelno >= logging.ERROR:
            self._storm.faults.append(f"logged: {record.getMessage()} {record.exc_info}")


def main() -> int:
    """Run, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--key-updates", type=int, default=1, help="that have to be counted")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.001)  # thirty threads want the interpreter
    result: dict[str, object] = {
        "python": sys.version.split()[0],
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "seconds": arguments.seconds,
    }
    with tempfile.TemporaryDirectory(prefix="securews-storm-") as directory:
        storm = Storm(Path(directory))
        logger = logging.getLogger("securews")
        logger.addHandler(LogReader(storm))
        logger.propagate = False
        try:
            result |= run(storm, arguments.seconds)
            updates = result["key updates sent"]
            assert isinstance(updates, int)
            assert updates >= arguments.key_updates, f"only {updates} key updates were counted"
        except BaseException:
            storm.fail("the storm")
    result |= {"logged": storm.logged[:10], "faults": storm.faults}
    print(json.dumps(result))
    return 1 if storm.faults else 0


if __name__ == "__main__":
    sys.exit(main())
