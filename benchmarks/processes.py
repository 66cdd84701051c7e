"""Starts a server, runs the load generator against it, stops it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks import measuring
from benchmarks.build import Certificates
from benchmarks.peers import Kind, Server

__all__ = ["Bench", "BenchError", "Running"]

REPOSITORY = Path(__file__).parent.parent
START_SECONDS = 20.0
STOP_SECONDS = 3.0
TAIL_LINES = 12


class BenchError(Exception):
    """A measurement that came to nothing; the text says why, and what the server said."""


@dataclasses.dataclass
class Running:
    """A server that is ready."""

    port: int
    pids: list[int]
    tls: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all runs share.

    Args:
        programs: the folder with `load` and `limit`.
        server_cores: on which the servers run; None is all of them.
        load_cores: on which the load generator runs.
    """

    programs: Path
    certificates: Certificates
    server_cores: frozenset[int] | None = None
    load_cores: frozenset[int] | None = None

    @contextlib.contextmanager
    def running(self, server: Server, flags: tuple[str, ...] = ()) -> Iterator[Running]:
        """A server for the time of a `with`; the one that it yields has answered once.

        Raises:
            BenchError: it did not start, or it died meanwhile.
        """
        port = _free_port()
        with tempfile.TemporaryFile("w+") as errors:
            process = self._start(server, port, flags, errors)
            try:
                tls = self._greet(process, port)
                yield Running(port, measuring.processes(process.pid), tls)
                if process.poll() is not None:
                    raise BenchError(f"it ended, status {process.returncode}")
            except (BenchError, OSError) as error:  # OSError: /proc of a process that is gone
                raise BenchError(f"{error}{_tail(errors)}") from error
            finally:
                _stop(process)

    def load(self, running: Running, arguments: list[str], timeout: float) -> dict[str, Any]:
        """Run the load generator; what it measured."""
        with self.load_process(running, arguments, timeout) as process:
            out, complaint = process.communicate()
        return parse_output(out, complaint, process.returncode)

    @contextlib.contextmanager
    def load_process(
        self, running: Running, arguments: list[str], timeout: float
    ) -> Iterator[subprocess.Popen[str]]:
        """The load generator, for who reads its lines while it runs."""
        command = [
            *(str(self.programs / "load"), "--port", str(running.port)),
            *("--ca", str(self.certificates.ca), "--timeout", str(timeout)),
            *arguments,
        ]
        if running.pids:
            command += ["--server-pids", ",".join(map(str, running.pids))]
        with _on_cores(self.load_cores):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def _start(
        self, server: Server, port: int, flags: tuple[str, ...], errors: IO[str]
    ) -> subprocess.Popen[bytes]:
        files = ("--cert", str(self.certificates.cert), "--key", str(self.certificates.key))
        if server.kind is Kind.LIMIT:
            program = [str(self.programs / "limit")]
        else:
            program = [sys.executable, "-m", f"benchmarks.servers.{server.module}"]
        environment = dict(os.environ)
        if server.pure:
            environment["SECUREWS_PURE"] = "1"
        with _on_cores(self.server_cores):
            return subprocess.Popen(
                [*program, "--port", str(port), *files, *server.arguments, *flags],
                cwd=server.tree or REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                process_group=0,  # with its own children it can be stopped as one
            )

    def _greet(self, process: subprocess.Popen[bytes], port: int) -> dict[str, str]:
        """One connection that is echoed to: the server is ready. Its TLS version and suite."""
        deadline = time.monotonic() + START_SECONDS
        arguments = ["--mode", "echo", "--seconds", "0.05", "--warmup", "0.05"]
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BenchError(f"it ended at once, status {process.returncode}")
            if measuring.is_listening(port):
                measured = self.load(Running(port, [], {}), arguments, START_SECONDS)
                tls: dict[str, str] = measured["tls"]
                return tls
            time.sleep(0.02)
        raise BenchError(f"it did not listen within {START_SECONDS:.0f} s")


def parse_output(out: str, complaint: str, status: int) -> dict[str, Any]:
    """The last line that the load generator printed.

    Raises:
        BenchError: it failed; the text is what it complained about.
    """
    if status != 0:
        raise BenchError(complaint.strip() or f"the load generator ended with status {status}")
    measured: dict[str, Any] = json.loads(out.splitlines()[-1])
    return measured


def _free_port() -> int:
    # Nothing else asks for ports here, so it is still free when the server binds it.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """What is started in here runs on these cores; all its threads do, from the first moment."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if number is signal.SIGKILL:
            return


def _tail(errors: IO[str]) -> str:
    errors.seek(0)
    lines = errors.read().splitlines()[-TAIL_LINES:]
    return "".join(f"\n    | {line}" for line in lines)
