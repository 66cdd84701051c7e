"""Row 76: an old server, its successor and a third one, in processes, at one unix socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from server_process import ROOT, Stopwatch

PATH = "ws.sock"
SERVE = """
import securews
server = securews.serve(
    None, lambda ws: None, path="ws.sock", tls=False, limits=securews.Limits(backlog=1)
)
print("listens", flush=True)
server.serve_forever()
"""


def start(directory):
    return subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=directory, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def fill(stack):
    """Connect until there is no more room in the queue."""
    while True:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        try:
            client.connect(PATH)
        except BlockingIOError:
            return


@pytest.mark.promise(76)
def test_a_successor_keeps_its_socket_and_a_hung_server_delays_nobody(
    measured, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the kernel's limit of 108 bytes
    with ExitStack() as stack:

        def started():
            process = stack.enter_context(start(tmp_path))
            stack.callback(process.kill)
            return process

        old = started()
        assert old.stdout.readline() == "listens\n"
        (tmp_path / PATH).unlink()  # as some deployments do
        successor = started()
        assert successor.stdout.readline() == "listens\n"
        old.terminate()
        assert old.wait(20) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(PATH)

        successor.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, successor.pid, os.WSTOPPED)  # until then it still accepts
        fill(stack)
        third, watch = started(), Stopwatch()
        try:
            _, errors = third.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            pytest.fail("a start beside a hung server had not ended after 20 s")
        seconds = watch.seconds
        assert "another server listens on 'ws.sock', and its queue is full" in errors
        successor.send_signal(signal.SIGCONT)
        successor.terminate()
        assert successor.wait(20) == 0
    assert not (tmp_path / PATH).exists()
    measured(
        "an old server's stop leaves its successor's socket; a start beside a stopped process whose "
        f"queue is full is refused after {seconds:.1f} s, the start of Python included"
    )
