"""`--workers N`: processes that share a port, seen from outside."""

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support import TIMEOUT, Certificates, RawClient, eventually

import securews
from securews.cli.worker import FORCE, RELOAD, STOP
from securews.cli.workers import Worker, _Signals

ROOT = Path(securews.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
A_WHILE = 0.4
"""Seconds in which something would have happened that does not."""

FACTS = """
import os, sys
import securews

if os.path.exists("doomed"):
    os._exit(7)

class Facts(securews.EventWebSocketHandler):
    def on_open(self, ws):
        ws.send_json([os.getpid(), sys.getswitchinterval(), os.environ.get("SECUREWS_WORKER")])

facts = Facts()
"""


@pytest.fixture
def module(tmp_path):
    """A directory with a handler that says who serves."""
    (tmp_path / "facts.py").write_text(FACTS)
    return tmp_path


def processes():
    """Parent of each process of this machine."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent in pairs}


class Command:
    """A server with workers, and everything that it has started."""

    def __init__(self, *arguments, cwd, port=0):
        command = [sys.executable, "-m", "securews", *map(str, arguments), "--port", str(port)]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._seen = set()
        self.url = ""

    def wait_for_line(self):
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (wss?://localhost:\d+/) \(Ctrl-C stops\)\n", line)
        assert found, f"{line!r}, {self.process.communicate()[1]}"
        self.url = found[1]

    @property
    def port(self):
        return int(self.url.rstrip("/").rpartition(":")[2])

    def workers(self):
        """Process ids."""
        found = {pid for pid, parent in processes().items() if parent == self.process.pid}
        self._seen |= found
        return found

    def end(self):
        """Exit code, the rest of stdout, stderr; and nobody is left."""
        code = self.process.wait(TIMEOUT)
        eventually(lambda: not self._seen & set(processes()), "the end of the workers")
        return code, self.process.stdout.read(), self.process.stderr.read()

    def close(self):
        if self.process.poll() is None:
            self.workers()
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        with contextlib.suppress(AssertionError):  # it is the test's own fault that matters
            eventually(lambda: not self._seen & set(processes()))
        for pid in self._seen & set(processes()):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(*arguments, cwd, port=0):
    command = Command(*arguments, cwd=cwd, port=port)
    try:
        command.wait_for_line()
        command.workers()
        yield command
    finally:
        command.close()


@pytest.fixture
def two(module):
    """A plain server with two workers."""
    with running("serve", "facts:facts", "--plain", "--workers", 2, cwd=module) as command:
        yield command


@contextlib.contextmanager
def one_of_each(command, **options):
    """A connection to each worker: process id to Communicator."""
    with contextlib.ExitStack() as opened:
        found = {}
        workers = command.workers()
        while set(found) != workers:
            ws = opened.enter_context(securews.connect(command.url, **options))
            found.setdefault(ws.recv_json(TIMEOUT)[0], ws)
        yield found


def closed_with(ws):
    with pytest.raises(securews.ConnectionClosed) as closed:
        ws.recv(TIMEOUT)
    return closed.value.code


def test_all_workers_get_their_share_of_the_connections(two, record_property):
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(securews.connect(two.url)) for _ in range(64)]
        spread = Counter(ws.recv_json(TIMEOUT)[0] for ws in clients)
    record_property("spread of 64 connections", sorted(spread.values()))
    assert set(spread) == two.workers()
    assert two.process.pid not in spread
    if sys.platform == "linux":
        assert min(spread.values()) >= 8  # a fair coin does worse once in ten billion times


def test_the_parent_alone_says_where_it_listens(two):
    two.process.terminate()
    assert two.end() == (0, "", "")


def test_a_worker_that_is_killed_is_replaced_and_the_others_clients_do_not_notice(
    two, record_property
):
    with one_of_each(two) as clients:
        killed, kept = clients
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        assert closed_with(clients[killed]) == 1006
        eventually(lambda: len(two.workers() - {killed}) == 2)
        seconds = time.monotonic() - began
        assert clients[kept].ping().wait(TIMEOUT) < TIMEOUT
        (new,) = two.workers() - {killed, kept}
        with one_of_each(two) as later:
            record_property(
                "seconds until it was replaced, and served", (seconds, time.monotonic() - began)
            )
            assert set(later) == {kept, new}
        assert seconds < 1
        assert clients[kept].open
    two.process.terminate()
    code, out, err = two.end()
    assert (code, out) == (0, "")
    assert re.search(
        rf"worker \d \(process {killed}\) was ended by SIGKILL and is replaced\n$", err
    )
    assert err.count("\n") == 1


def test_a_worker_that_is_terminated_drains_and_is_replaced(two):
    with one_of_each(two) as clients:
        ended, kept = clients
        os.kill(ended, signal.SIGTERM)
        assert closed_with(clients[ended]) == 1001
        eventually(lambda: len(two.workers() - {ended}) == 2)
        assert clients[kept].ping().wait(TIMEOUT) < TIMEOUT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers_together(two, number):
    with one_of_each(two) as clients:
        two.process.send_signal(number)
        assert [closed_with(ws) for ws in clients.values()] == [1001, 1001]
    assert two.end() == (0, "", "")


def test_a_signal_to_every_process_of_the_service_is_one_signal(two):
    # What systemd does by default (KillMode=control-group).
    with RawClient(("127.0.0.1", two.port)) as client:
        client.read_frame()
        for pid in (two.process.pid, *two.workers()):
            os.kill(pid, signal.SIGTERM)
        assert client.read_close().close_code == 1001
        assert not select.select([client.sock], [], [], A_WHILE)[0]  # there is time to answer
        client.send_close(1001)
        assert client.read_to_end() == b""
    assert two.end() == (0, "", "")


def test_a_second_signal_forces_the_end(two):
    with RawClient(("127.0.0.1", two.port)) as mute:
        mute.read_frame()
        two.process.terminate()
        assert mute.read_close().close_code == 1001
        began = time.monotonic()
        two.process.send_signal(signal.SIGINT)
        assert two.end() == (0, "", "")
        assert time.monotonic() - began < 5  # of a grace of 10


def test_the_port_refuses_while_workers_drain(two):
    with RawClient(("127.0.0.1", two.port)) as mute:
        mute.read_frame()
        two.process.terminate()
        mute.read_close()

        def refuses():
            try:
                socket.create_connection(("127.0.0.1", two.port)).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(refuses)
        mute.send_close(1001)
        assert mute.read_to_end() == b""
    assert two.end() == (0, "", "")


def test_workers_drain_and_end_when_their_parent_is_killed(two):
    with one_of_each(two) as clients:
        two.process.kill()
        assert [closed_with(ws) for ws in clients.values()] == [1001, 1001]
    assert two.end() == (-signal.SIGKILL, "", "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", two.port))


def test_a_hangup_has_all_workers_load_the_new_certificate(module, tmp_path):
    made = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        made.append(Certificates(tmp_path / name))
    old, new = made
    cert, key = old.server
    with running(
        "serve", "facts:facts", "--workers", 2, "--tls-cert", cert, "--tls-key", key, cwd=module
    ) as command:

        def workers_that_show(certificates):
            found = set()
            for _ in range(16):
                with (
                    contextlib.suppress(securews.HandshakeError, ssl.SSLError),
                    securews.connect(command.url, tls=certificates.ca_file) as ws,
                ):
                    found.add(ws.recv_json(TIMEOUT)[0])
            return found

        assert workers_that_show(old) == command.workers()
        for source, target in zip(reversed(new.server), reversed(old.server), strict=True):
            shutil.copyfile(source, target)
        assert workers_that_show(new) == set()
        command.process.send_signal(signal.SIGHUP)
        eventually(lambda: workers_that_show(new) == command.workers())
        assert workers_that_show(old) == set()
        shutil.copyfile(old.client[0], cert)  # belongs to another key
        command.process.send_signal(signal.SIGHUP)
        lines = [command.process.stderr.readline() for _ in command.workers()]
        assert all("does not belong to the certificate" in line for line in lines), lines
        assert workers_that_show(new) == command.workers()
        command.process.terminate()
        assert command.end() == (0, "", "")


@pytest.fixture
def told():
    """A worker without a process, and what it has been told since the last time."""
    worker = Worker(1, [])
    worker.lifeline, other = socket.socketpair()
    worker.lifeline.setblocking(False)
    other.setblocking(False)

    def words():
        try:
            return other.recv(4096)
        except BlockingIOError:
            return b""

    with other, worker.lifeline:
        yield worker, words


def test_an_end_has_room_behind_a_thousand_reloads_that_nobody_has_read(told):
    worker, words = told
    worker.listens()
    for _ in range(1000):
        worker.reload()
    worker.end(at_once=False)
    worker.end(at_once=True)
    assert words() == RELOAD + STOP + FORCE


def test_reloads_that_are_wanted_during_one_are_one_more(told):
    worker, words = told
    worker.listens()
    for _ in range(3):
        worker.reload()
    assert words() == RELOAD
    worker.listens()
    assert words() == RELOAD
    worker.listens()
    assert words() == b""


def test_a_worker_that_starts_reloads_when_it_serves(told):
    worker, words = told
    worker.reload()
    assert words() == b""
    worker.listens()
    assert words() == RELOAD


def test_a_signal_to_end_is_not_lost_among_a_thousand_others(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # no terminal
    with _Signals() as signals:
        for _ in range(1000):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert select.select([signals.bell], [], [], 0)[0]
        assert (signals.reload, signals.ends) == (True, 1)


def test_workers_end_in_order_in_a_storm_of_hangups_though_their_reload_hangs(
    module, certificates, tmp_path
):
    cert = tmp_path / "server.pem"
    shutil.copyfile(certificates.server[0], cert)
    arguments = ("--tls-cert", cert, "--tls-key", certificates.server[1])
    with (
        running("serve", "facts:facts", "--workers", 2, *arguments, cwd=module) as command,
        one_of_each(command, tls=certificates.ca_file) as clients,
    ):
        cert.unlink()
        os.mkfifo(cert)
        for _ in range(1000):
            command.process.send_signal(signal.SIGHUP)
        with cert.open("wb"):  # it opens when somebody reads: a reload is at work, and stays there
            command.process.terminate()
            assert [closed_with(ws) for ws in clients.values()] == [1001, 1001]
            assert command.end() == (0, "", "")


def test_more_signals_than_two_do_not_put_off_the_end_of_a_worker_that_hangs(two):
    stopped, *_ = two.workers()
    os.kill(stopped, signal.SIGSTOP)
    end = time.monotonic() + TIMEOUT
    while not select.select([two.process.stderr], [], [], 0.1)[0]:
        assert time.monotonic() < end
        two.process.terminate()  # the kill comes 3 s after the second
    code, _, err = two.end()
    assert code == 1
    assert f"(process {stopped}) has not ended in time and is killed" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("serve", "nowhere:room", "--plain"), 1, "there is no module 'nowhere'"),
        (("serve", "facts", "--plain"), 2, "not of the form MODULE:ATTRIBUTE"),
        (("serve", "facts:facts", "--plain", "--host", "0.0.0.0"), 1, "insecure"),
        (("serve", "facts:facts", "--tls-cert", "none.pem"), 1, "none.pem"),
        (("echo", "--plain", "--max-size", "0"), 2, "'max_size' is at least 1"),
        (("echo", "--plain", "--host", "no.such.host.invalid"), 1, "cannot be resolved"),
        (("echo", "--plain", "--broadcast"), 2, "leave --workers out"),
        (("echo", "--plain", "--accepting", "serial"), 2, "leave one of them out"),
    ],
)
def test_what_no_worker_can_serve_is_one_line_and_the_end(module, arguments, code, says):
    command = Command(*arguments, "--workers", 3, cwd=module)
    try:
        ended, out, err = command.end()
    finally:
        command.close()
    assert (ended, out) == (code, "")
    assert err.startswith("securews: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_worker_that_ends_without_a_word_while_it_starts_is_named(module):
    (module / "doomed").touch()
    command = Command("serve", "facts:facts", "--plain", "--workers", 2, cwd=module)
    try:
        assert command.end() == (7, "", "")
        (module / "facts.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)")
    finally:
        command.close()
    command = Command("serve", "facts:facts", "--plain", "--workers", 2, cwd=module)
    try:
        code, out, err = command.end()
    finally:
        command.close()
    assert (code, out) == (1, "")
    assert "was ended by SIGABRT before all were there" in err


def test_a_worker_that_ends_again_and_again_ends_the_server_in_order(two, module):
    with one_of_each(two) as clients:
        killed, kept = clients
        (module / "doomed").touch()
        os.kill(killed, signal.SIGKILL)
        assert closed_with(clients[kept]) == 1001
    code, out, err = two.end()
    assert (code, out) == (7, "")
    # On a slow machine the one that was killed may have lived for 5 s: then it does not count.
    replaced = err.count("has ended with exit code 7 and is replaced")
    assert replaced in (3, 4)
    assert "for the 5th time in a row; all workers stop" in err
    assert err.count("\n") == replaced + 2


def test_a_port_that_another_server_with_workers_has_is_in_use(two, module):
    arguments = ("serve", "facts:facts", "--plain", "--workers", 2)
    second = Command(*arguments, cwd=module, port=two.port)
    try:
        code, out, err = second.end()
    finally:
        second.close()
    assert (code, out) == (1, "")
    assert f"port {two.port} on localhost is in use" in err


def test_one_worker_is_replaced_too(module):
    with running("serve", "facts:facts", "--plain", "--workers", 1, cwd=module) as command:
        (first,) = command.workers()
        os.kill(first, signal.SIGKILL)
        with securews.connect(command.url) as ws:  # the parent holds the port meanwhile
            assert ws.recv_json(TIMEOUT)[0] != first


@pytest.mark.parametrize("workers", [(), ("--workers", 1)])
def test_the_switch_interval_is_set_where_the_handler_runs(module, workers):
    arguments = ("serve", "facts:facts", "--plain", "--switch-interval", "0.0005", *workers)
    with running(*arguments, cwd=module) as command, securews.connect(command.url) as ws:
        facts = ws.recv_json(TIMEOUT)
    assert facts[1] == pytest.approx(0.0005)
    assert facts[2] is None  # what a handler starts is no worker


@pytest.mark.parametrize("value", ["", "five", "5", "5,x", "999,1000"])
def test_a_variable_that_no_parent_has_set_is_one_line(module, value):
    done = subprocess.run(
        [sys.executable, "-m", "securews", "echo", "--plain", "--port", "0"],
        cwd=module, env=ENVIRONMENT | {"SECUREWS_WORKER": value}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "SECUREWS_WORKER is for workers alone: unset it" in done.stderr
    assert done.stderr.count("\n") == 1
