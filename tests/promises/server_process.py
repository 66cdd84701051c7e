"""A server in a process of its own, seen from outside: through its port, and in /proc."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent
LAB = "lab_handlers:lab"
LAB_EVENTS = "lab_handlers:lab_events"

_LISTENING = re.compile(r"listening on wss?://localhost:(\d+)/")
_STATES = {"established": "01", "close-wait": "08"}  # as in the kernel's tcp_states.h
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """`securews echo`, or `securews serve TARGET`, on a free port.

    Args:
        tls: certificate and key; None is plain.
        flags: of the command line, behind the common ones.
        serve: what to serve instead of the echo.
        prefix: a command that starts the server's command.
    """

    def __init__(
        self,
        tls: tuple[str, str] | None,
        *flags: str,
        serve: str | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        command = ["echo"] if serve is None else ["serve", serve]
        secured = ["--plain"] if tls is None else ["--tls-cert", tls[0], "--tls-key", tls[1]]
        command = ["-m", "securews", *command, "--port", "0", *secured, *flags]
        self._start([*prefix, sys.executable, *command])

    def _start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Run a command that says where it listens."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
                **(environment or {}),
            },
            text=True,
        )
        line = self.process.stdout.readline()
        found = _LISTENING.match(line)
        if found is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)  # until then its last words may be missing
            log = self.log
            self.close()
            raise AssertionError(f"the server did not start: {line!r} {log}")
        self.address = ("127.0.0.1", int(found[1]))

    @property
    def log(self) -> str:
        """Everything that it wrote to stderr."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def rss(self) -> float:
        """MiB of memory."""
        return self._status("VmRSS") / 1024

    @property
    def virtual(self) -> int:
        """Bytes of address space."""
        return self._status("VmSize") * 1024

    @property
    def threads(self) -> int:
        return self._status("Threads")

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def cpu(self) -> float:
        """Seconds of processor time since the start."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def sockets(self, state: str) -> int:
        """Connections of its port that the kernel has in this state."""
        port, number = f":{self.address[1]:04X}", _STATES[state]
        lines = Path("/proc/net/tcp").read_text().splitlines()
        fields = (line.split() for line in lines)
        return sum(f[1].endswith(port) and f[3] == number for f in fields)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        if self.alive:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found
        return int(found[1])


class ServerProgram(ServerProcess):
    """A class of served_programs.py in a process of its own, which answers questions.

    Args:
        name: of the class.
        environment: variables that the process has beside ours.
        program: another file of such classes.
        settings: keyword arguments of the class: what is its own, and options of `serve()`.
    """

    def __init__(
        self,
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        program: Path = Path(__file__).parent / "served_programs.py",
        **settings: object,
    ) -> None:
        command = [sys.executable, str(program), name, json.dumps(settings)]
        self._start(command, environment)

    def ask(self, method: str, **arguments: object) -> Any:
        """Call a method of the program, in its main thread; what it returns."""
        self.process.stdin.write(json.dumps([method, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the program has ended: {self.log}"
        return json.loads(answer)

    def settled_rss(self, limit: float, seconds: float = 10) -> float:
        """MiB of memory, once it is no more than `limit` or after so many seconds.

        Free memory that malloc keeps is given back first (malloc_trim), so that what is counted is
        what somebody holds.
        """
        watch = Stopwatch()
        while True:
            self.ask("trim")
            if self.rss <= limit or watch.seconds > seconds:
                return self.rss
            time.sleep(0.1)


def p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
