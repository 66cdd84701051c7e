"""Every seed, and every input that once broke something, without atheris."""

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from fuzz_inflate import SIZES as INFLATED_SIZES
from fuzz_input import MAX_LENGTH, TIME_LIMIT, FuzzInput, check_in_time
from fuzz_targets import CHECKS, TARGETS
from planted import BUGS

HERE = Path(__file__).parent

INPUTS = [
    pytest.param(target, path, id=f"{target}-{path.name}")
    for target in TARGETS
    for folder in ("seeds", "regressions")
    for path in sorted((HERE / folder / target).glob("*"))
]

REPLAY = """
import sys
from pathlib import Path
import securews
from fuzz_targets import CHECKS
for path in Path(sys.argv[2]).iterdir():
    CHECKS[sys.argv[1]](path.read_bytes())
print(Path(securews.__file__).parent.parent)
"""

MEMORY = 256 << 10
"""Bytes of memory that a check takes for its own objects, at most."""


@pytest.mark.promise(63)
@pytest.mark.parametrize(("target", "path"), INPUTS)
def test_an_input_keeps_the_promises(target, path):
    TARGETS[target](path.read_bytes())


@pytest.mark.promise(63)
@pytest.mark.parametrize("target", CHECKS)
def test_memory_follows_what_came(target):
    """Whatever an input announces, and whatever it would inflate to."""
    check = CHECKS[target]
    allowed = 4 * max(size or 0 for size in INFLATED_SIZES) if target == "inflate" else 0
    for path in sorted((HERE / "seeds" / target).glob("*")):
        data = path.read_bytes()
        check(data)  # imports and caches
        tracemalloc.start()
        try:
            check(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= MEMORY + 64 * len(data) + allowed, path.name


def test_every_seed_belongs_to_a_target_and_is_small():
    for folder in ("seeds", "regressions"):
        for path in (HERE / folder).glob("*/*"):
            assert path.parent.name in TARGETS
            assert path.stat().st_size <= MAX_LENGTH
            assert b"PRIVATE KEY" not in path.read_bytes()


def test_every_target_has_seeds_and_a_planted_bug():
    for target in TARGETS:
        assert list((HERE / "seeds" / target).glob("*"))
        assert target in {bug.target for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_nothing_that_a_seed_finds(bug, tmp_path):
    """It is there for the fuzzing to find. The package with the bug runs in its own process."""
    bug.plant(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, bug.target, HERE / "seeds" / bug.target],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}\n", "")


def test_pieces_are_the_payload_in_any_cut():
    for sizes in (b"\0\0\0", b"\2\0\xff", b"\xff\xff\xff"):
        payload = bytes(range(256)) * 20
        given = FuzzInput.of(b"\5" + sizes + payload)
        pieces = list(given.pieces())
        assert b"".join(pieces) == given.payload == payload
        assert all(pieces)
        assert len(pieces) <= 512
        assert given.flags == 5


def busy(data):
    """Takes twice the processor time that an input may."""
    end = time.thread_time() + 2 * TIME_LIMIT
    while time.thread_time() < end:
        pass


def test_an_input_that_takes_too_long_is_a_fault():
    with pytest.raises(AssertionError, match="takes"):
        check_in_time(busy, b"")


def test_an_input_that_was_slow_once_is_none():
    checks = iter([busy, bytes])

    def check(data):
        next(checks)(data)

    check_in_time(check, b"")
    assert not list(checks), "it was not tried again"
