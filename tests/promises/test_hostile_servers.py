"""Row 73: servers that would keep `connect()` for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from peers import TESTS, PeerProcess

TIMEOUT = 1.0
"""Seconds, of `connect(timeout=)`."""
CONNECT = """
import json, resource, sys, time
import securews
usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began, memory, error = time.monotonic(), usage(), None
try:
    securews.connect(sys.argv[1], timeout=float(sys.argv[2]))
except Exception as raised:
    error = raised
print(json.dumps([type(error).__name__, time.monotonic() - began, usage() - memory]))
"""
SERVERS = [
    *("silence", "interim_answers", "early_hints", "dripping_head", "endless_head"),
    *("dripping_body", "endless_body"),
]


@pytest.mark.promise(73)
@pytest.mark.parametrize("kind", SERVERS)
def test_connect_ends_in_time_whatever_the_server_sends(measured, kind):
    with PeerProcess("serve_badly", kind=kind) as server:
        url = f"ws://127.0.0.1:{server.read()}/"
        try:
            seen = subprocess.run(
                [sys.executable, "-c", CONNECT, url, str(TIMEOUT)],
                capture_output=True, text=True, timeout=6, check=True,
                env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.fail("connect(timeout=1) had not ended after 6 s")
    error, seconds, memory = json.loads(seen.stdout)
    figures = f"{kind.replace('_', ' ')}: {error} after {seconds:.1f} s, {memory:+.0f} MiB"
    assert error in ("TimeoutError", "HandshakeError", "ProtocolError"), figures
    assert seconds < TIMEOUT + 0.5, figures
    assert memory < 20, figures
    measured(figures)
