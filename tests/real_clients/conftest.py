"""Servers for foreign clients: the command line's, each in a process of its own, over wss."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Server(NamedTuple):
    """A `securews` process that listens."""

    url: str
    port: int
    process: subprocess.Popen
    log: Path


@contextmanager
def command(certificates, directory, *arguments):
    """Run `securews` with a certificate until the end of the block; its log has to stay empty."""
    cert, key = certificates.server
    log = directory / "stderr"
    line = [sys.executable, "-m", "securews", *arguments]
    line += ["--port", "0", "--tls-cert", cert, "--tls-key", key]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            line,
            cwd=HERE,
            # The test's own environment may not have the package installed.
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            url = re.search(r"wss://\S+", process.stdout.readline())
            assert url is not None, log.read_text()
            yield Server(url[0], int(re.search(r":(\d+)/", url[0])[1]), process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            finally:
                process.kill()
    assert process.returncode == 0
    assert log.read_text() == ""


@pytest.fixture(scope="session", params=["event", "blocking", "threaded"])
def echo(request, certificates, tmp_path_factory):
    """`securews echo` with each kind of handler."""
    directory = tmp_path_factory.mktemp(f"echo-{request.param}")
    with command(certificates, directory, "echo", "--handler", request.param) as server:
        yield server


@pytest.fixture
def run(certificates, tmp_path):
    """Gives what runs `securews` in a `with`."""
    return lambda *arguments: command(certificates, tmp_path, *arguments)
