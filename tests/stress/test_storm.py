"""Thread safety, shown: see storm.py. A program of its own, in Python's development mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


def storm(seconds, key_updates):
    """The storm's own account of itself."""
    done = subprocess.run(
        [
            *(sys.executable, "-X", "dev", "-W", "error", HERE / "storm.py"),
            *("--seconds", str(seconds), "--key-updates", str(key_updates)),
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    print(done.stdout)  # the figures, where pytest is asked to show them
    return json.loads(done.stdout)


def check(result):
    assert result["threads"] >= 10
    assert result["key updates received"] > 0
    assert result["late senders that ended with 1001"] == 5
    assert result["stop took"] < 20
    for what in (
        "messages compared",
        "sent by the server",
        "sent in fragments",
        "sent by clients",
        "broadcasts",
        "pings answered",
        "reloads",
        "connections come and gone",
    ):
        assert result[what] > 0, what


@pytest.mark.timeout(180)
@pytest.mark.promise(1)
def test_everything_at_once_from_many_threads():
    check(storm(seconds=5, key_updates=30))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.promise(1, 64)
def test_everything_at_once_for_a_minute_with_a_thousand_key_updates(record_property):
    result = storm(seconds=60, key_updates=1000)
    check(result)
    record_property(
        "measured 1",
        f"{result['key updates sent']} key updates while {result['messages compared']} messages "
        f"passed in {result['threads']} threads; all hashes equal",
    )
