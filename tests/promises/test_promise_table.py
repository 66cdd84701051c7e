"""docs/promises.md: every promise has a test or a reason, and the page names those that are there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def maker():
    return runpy.run_path(str(ROOT / "tests/plugins/promise_table.py"))


def test_every_promise_has_a_test_or_a_reason(maker):
    promises, tests = maker["promises"](), maker["marked_tests"]()
    assert list(promises) == list(maker["ROWS"])
    without = [row for row in promises if not tests[row] and "untested" not in promises[row]]
    assert not without
    assert {row for row in promises if "untested" in promises[row]} <= {11, 64}


def test_the_page_names_the_tests_that_there_are(maker):
    page = maker["PAGE"].read_text()
    measured = maker["measured_before"](page)
    assert maker["with_table"](page, measured) == page, "run: scripts/promises --names"


def test_every_promise_was_measured_and_kept(maker):
    measured = maker["measured_before"](maker["PAGE"].read_text())
    assert set(measured) == set(maker["ROWS"])
    empty = [row for row, figure in measured.items() if not figure]
    assert not empty
    assert not [row for row, figure in measured.items() if figure.startswith("FAILED")]


def test_the_mark_of_a_whole_module_is_one_of_each_of_its_tests(maker):
    module = "fuzz/test_fuzzing.py"
    assert f"{module}::test_nothing_is_found_in_a_minute" in maker["marked_tests"]()[63]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "1 of 4 tests ran and passed"),
        ("2 of 3 tests ran and passed", "2 of 4 tests ran and passed"),
        ("0.1 s", "0.1 s"),
        ("FAILED: test_a", "1 of 4 tests ran and passed"),
    ],
)
def test_a_run_of_a_part_takes_nothing_away(maker, monkeypatch, before, after):
    collected = maker["PromiseTable"]()
    collected._passed[7].add("tests/x.py::test_a")
    names = [f"x.py::test_{name}" for name in "abcd"]
    monkeypatch.setitem(collected.figures.__globals__, "marked_tests", lambda: {7: names})
    assert collected.figures({7: before}) == {7: after}
