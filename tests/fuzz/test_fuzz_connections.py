"""The fuzzing of whole connections: what it says is right, and it finds what is there to be found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from connection_plans import MAX_SIZE, make_plan
from planted import CONNECTION_BUGS

from securews.common.options import Compression
from securews.protocol.deflate_negotiation import accept_offer
from securews.protocol.parser import Role, WebSocketParser

HERE = Path(__file__).parent
FIVE_MINUTES = 300


def fuzz(seconds, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, HERE / "fuzz_connections.py", "--seconds", str(seconds), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.stderr == ""
    return done.returncode, done.stdout


def judged_plans():
    plans = (make_plan("a seed", number) for number in range(300))
    return [plan for plan in plans if plan.judged]


def test_a_plan_is_drawn_from_seed_and_number_alone():
    assert [make_plan("1/2", n) for n in range(50)] == [make_plan("1/2", n) for n in range(50)]
    assert make_plan("1/2", 3) != make_plan("1/3", 3)


def test_who_is_judged_says_only_what_is_right():
    for plan in judged_plans():
        said = b"".join(piece for _, piece in plan.pieces)
        head, _, frames = said.partition(b"\r\n\r\n")
        deflate = None
        if b"permessage-deflate" in head:
            _, deflate = accept_offer(["permessage-deflate"], Compression(), confidential=False)
        events = WebSocketParser(Role.SERVER, max_size=MAX_SIZE, deflate=deflate).receive(frames)
        messages = [event for event in events if isinstance(event, str | bytes)]
        came = [m.encode() if isinstance(m, str) else m for m in messages]
        assert came == plan.messages, str(plan)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.promise(63)
def test_nothing_is_found_in_a_minute(tmp_path, record_property):
    status, said = fuzz(60, "--out", tmp_path)
    assert status == 0, said
    figures = re.search(r"^(\d+ connections, .*; nothing found)$", said, re.MULTILINE)
    record_property("measured", figures[1])


@pytest.mark.slow
@pytest.mark.timeout(FIVE_MINUTES + 120)
@pytest.mark.promise(63)
@pytest.mark.parametrize("what", CONNECTION_BUGS)
def test_a_planted_fault_is_found_within_five_minutes(what, tmp_path):
    package = tmp_path / "with-a-fault"
    CONNECTION_BUGS[what].plant(package)
    status, said = fuzz(FIVE_MINUTES, "--out", tmp_path, PYTHONPATH=str(package), SECUREWS_PURE="1")
    assert status == 1, "it was not found"
    assert re.search(
        r"^again: scripts/fuzz connections --seed \d+ --round \d+$", said, re.MULTILINE
    )
    assert list((tmp_path / "findings").iterdir())
