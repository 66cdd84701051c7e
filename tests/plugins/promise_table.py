"""The table in docs/promises.md: each promise, its tests, and what a run of them measured.

`scripts/promises` loads this with `-p promise_table`, and pytest then writes the table at the end.
A row that was not run keeps the figures that it had; a test that fails takes them away.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "promises.md"
PROMISES = ROOT / "tests" / "promises" / "promises.toml"
ROWS = range(1, 77)
THE_PYTHONS = 64
"""The row of the Pythons that everything passed on: `scripts/test` leaves a file for each."""
PYTHONS = ROOT / "test-artifacts" / "pythons"

_BEGIN = "<!-- table of promises, made by scripts/promises -->\n"
_ROW = re.compile(r"^\| (\d+) \|(?:[^|]*\|){2}([^|]*)\|", re.MULTILINE)
_MEASURED = re.compile(r"measured(?: (\d+))?")


def marked_tests() -> dict[int, list[str]]:
    """The tests of each row, `file::name`, by their marks."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text())
        of_all = [row for node in module.body if _is_pytestmark(node) for row in _rows_of(node)]
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in [*of_all, *_rows_of(*node.decorator_list)]:
                    found[row].append(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
    return found


def _is_pytestmark(node: ast.stmt) -> bool:
    """Whether its marks are those of every test in the module."""
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"


def _rows_of(*marks: ast.AST) -> Iterator[int]:
    for node in (node for mark in marks for node in ast.walk(mark)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
            for argument in node.args:
                row = ast.literal_eval(argument)
                if row not in ROWS:
                    raise ValueError(f"there is no promise {row}")
                yield row


def promises() -> dict[int, dict[str, str]]:
    """What promises.toml says of each row."""
    with PROMISES.open("rb") as file:
        return {entry.pop("row"): entry for entry in tomllib.load(file)["promise"]}


def measured_before(page: str) -> dict[int, str]:
    """The figures that the page shows."""
    return {int(row): figure.strip() for row, figure in _ROW.findall(page)}


def table(measured: dict[int, str]) -> str:
    """The Markdown table."""
    tests = marked_tests()
    lines = ["| row | promise | promised | measured | shown by |", "|---|---|---|---|---|"]
    for row, promise in sorted(promises().items()):
        shown = _by_file(tests[row])
        if "untested" in promise:
            shown += f"<br>No test shows {promise['untested']}."
        cells = [str(row), promise["keeps"], promise["figure"], measured.get(row, ""), shown]
        assert not any("|" in cell for cell in cells), cells
        lines.append(re.sub(r" +", " ", f"| {' | '.join(cells)} |"))
    return "\n".join(lines) + "\n"


def _by_file(tests: list[str]) -> str:
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        path, _, name = test.partition("::")
        by_file[path].append(name)
    return "<br>".join(
        f"`{path}`: {', '.join(name.removeprefix('test_').replace('_', ' ') for name in names)}"
        for path, names in by_file.items()
    )


def with_table(page: str, measured: dict[int, str]) -> str:
    """The page with the table as the tests have it now."""
    before, _, _ = page.partition(_BEGIN)
    return before + _BEGIN + table(measured)


def _function(nodeid: str) -> str:
    """A test's id without its parameters."""
    return nodeid.partition("[")[0]


def _is_figure(cell: str) -> bool:
    """Whether this was measured: a run of a part of the row's tests must not replace it."""
    return bool(cell) and not cell.startswith("FAILED") and "tests ran and passed" not in cell


def _count(cell: str) -> int:
    """How many tests a cell says ran: a run of a few of them does not make it less."""
    match = re.match(r"(\d+) of \d+ tests", cell)
    return int(match[1]) if match else 0


class PromiseTable:
    """Collects what the tests of a run measured."""

    def __init__(self) -> None:
        self._rows_of: dict[str, list[int]] = {}
        self._figures: dict[int, list[str]] = defaultdict(list)
        self._passed: dict[int, set[str]] = defaultdict(set)
        self._failed: dict[int, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which rows each test is of."""
        for item in session.items:
            rows = [row for mark in item.iter_markers("promise") for row in mark.args]
            self._rows_of[item.nodeid] = rows

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test measured, or that it failed."""
        rows = self._rows_of.get(report.nodeid, [])
        if report.failed:
            for row in rows:
                self._failed[row].append(report.nodeid.rpartition("::")[2])
        elif report.when == "call" and report.passed:
            for row in rows:
                self._passed[row].add(_function(report.nodeid))
            for name, text in report.user_properties:
                if (match := _MEASURED.fullmatch(name)) is not None:
                    for row in [int(match[1])] if match[1] else rows:
                        self._figures[row].append(str(text))

    def figures(self, before: dict[int, str]) -> dict[int, str]:
        """What the table says: this run's, where the row was run."""
        figures, tests = dict(before), marked_tests()
        for row in {*self._passed, *self._failed}:
            if self._failed[row]:
                figures[row] = f"FAILED: {', '.join(self._failed[row])}"
            elif self._figures[row] and (
                len(self._passed[row]) == len(tests[row]) or not _is_figure(before.get(row, ""))
            ):
                figures[row] = "; ".join(self._figures[row])
            elif not _is_figure(before.get(row, "")):
                ran = max(len(self._passed[row]), _count(before.get(row, "")))
                figures[row] = f"{ran} of {len(tests[row])} tests ran and passed"
        return figures

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        page = PAGE.read_text()
        figures = self.figures(measured_before(page))
        notes = [path.read_text().strip() for path in sorted(PYTHONS.glob("*"))]
        if notes and not self._failed[THE_PYTHONS]:
            figures[THE_PYTHONS] = f"passed on {', '.join(notes)}"
        PAGE.write_text(with_table(page, figures))


def pytest_configure(config: pytest.Config) -> None:
    """Called once, when `-p promise_table` is there."""
    config.pluginmanager.register(PromiseTable(), "securews-promise-table")


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(with_table(text, measured_before(text)))
