"""The fuzzing finds what is there to be found, within a minute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted import BUGS

REPOSITORY = Path(__file__).parent.parent.parent
SECONDS = 60


@pytest.mark.slow
@pytest.mark.promise(63)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_within_a_minute(bug, tmp_path):
    package = tmp_path / "with-a-bug"
    bug.plant(package)
    environment = os.environ | {"PYTHONPATH": str(package)}
    if Path(sys.prefix, "stamp-base").exists():  # an environment that a script has made
        environment["VENV"] = sys.prefix
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(REPOSITORY / "scripts" / "fuzz", bug.target),
            *("--seconds", str(SECONDS), "--out", out),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if "No matching distribution found for atheris" in said:
        pytest.skip("atheris has no wheel for this Python or system")
    assert "number_of_executed_units" in said, said[-3000:]
    assert done.returncode != 0, "it was not found"
    assert list((out / bug.target / "crashes").iterdir())
