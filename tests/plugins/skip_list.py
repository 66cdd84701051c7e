"""A skipped test fails the run, unless tests/skips.txt lists it. Their number is printed last.

`scripts/test` loads this with `-p skip_list`. Plain pytest goes without it: there a missing
browser is the developer's own business.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SKIPS = Path(__file__).parent.parent / "skips.txt"


def read_patterns(path: Path) -> list[str]:
    """The ids of tests that may be skipped; each line has a reason behind its id."""
    patterns = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            test_id, _, reason = line.partition(" ")
            if not reason.strip():
                raise pytest.UsageError(f"{path}, line {number}: {test_id} has no reason")
            patterns.append(test_id)
    return patterns


class SkipList:
    """Notes every skip; those that are not listed turn the exit status to failure."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = patterns
        self.skipped = 0
        self.unlisted: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """A test or a module was skipped; what is expected to fail (xfail) is not a skip."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        self.skipped += 1
        if not any(fnmatch.fnmatchcase(report.nodeid, pattern) for pattern in self._patterns):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.unlisted.append(f"{report.nodeid}: {why}")

    pytest_runtest_logreport = note
    pytest_collectreport = note

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Before pytest's closing line is written."""
        if self.unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that should have run."""
        if self.unlisted:
            terminalreporter.section("skipped, and not in tests/skips.txt: a failure")
            for line in self.unlisted:
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """The last line of all."""
        sys.stdout.write(f"skipped: {self.skipped}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Called once, when `-p skip_list` is there."""
    config.pluginmanager.register(SkipList(read_patterns(SKIPS)), "securews-skip-list")
