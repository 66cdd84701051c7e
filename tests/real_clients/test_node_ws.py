"""Node's `ws` against each kind of handler."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("node_client.cjs")
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def node(*arguments):
    # scripts/test installs ws there, and sets NODE_PATH; a plain pytest finds it too.
    path = os.environ.get("NODE_PATH") or str(ROOT / ".tools" / "node_modules")
    done = subprocess.run(
        [NODE, PROGRAM, *arguments],
        env={**os.environ, "NODE_PATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "Cannot find module 'ws'" not in done.stderr, "scripts/test installs ws"
    return done


def test_it_talks_and_closes(echo, certificates):
    done = node(echo.url, certificates.ca_file)
    assert done.stderr == ""
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"extensions": ""},
        *[{"text": True}] * 4,
        *[{"binary": True}] * 6,
        {"pong": "inside a message"},
        {"fragments": "hello world"},
        {"order": True},
        {"close": [3001, ""]},
    ]
    assert done.returncode == 0


def test_a_server_that_it_does_not_trust_is_not_talked_to(echo, tmp_path):
    other = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    done = node(echo.url, str(other))
    assert done.returncode == 1
    assert "unable to verify the first certificate" in done.stderr
