"""The fuzzing itself: it finds what is there to be found, and in the package nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from planted import BUGS

REPOSITORY = Path(__file__).parent.parent.parent
SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.promise(63)]


def fuzz(target, *arguments, **environment):
    """`scripts/fuzz` for a minute, in the environment of this test where a script has made it."""
    if Path(sys.prefix, "stamp-base").exists():
        environment["VENV"] = sys.prefix
    done = subprocess.run(
        [REPOSITORY / "scripts" / "fuzz", target, "--seconds", str(SECONDS), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if "No matching distribution found for atheris" in said:
        pytest.skip("atheris has no wheel for this Python or system")
    assert "number_of_executed_units: " in said, said[-3000:]
    return done.returncode, said


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_within_a_minute(bug, tmp_path):
    package, out = tmp_path / "with-a-bug", tmp_path / "out"
    bug.plant(package)
    status, _ = fuzz(bug.target, "--out", out, PYTHONPATH=str(package))
    assert status != 0, "it was not found"
    assert list((out / bug.target / "crashes").iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_a_minute(target, record_property):
    """With the corpus that earlier runs have left; their inputs count."""
    status, said = fuzz(target)
    assert status == 0, said[-3000:]
    count = int((REPOSITORY / "test-artifacts/fuzz" / target / "executions").read_text())
    record_property("measured", f"{target}: {count / 1e6:.1f} million inputs, nothing found")
