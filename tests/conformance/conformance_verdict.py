"""What the suite found, held against NOTES.md: which results are right, and the report."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

NOTES = Path(__file__).with_name("NOTES.md")
"""The results other than OK that are right, each with its reason."""

_TOLERABLE = {"NON-STRICT", "INFORMATIONAL"}
_NOTE = re.compile(
    r"\| (?P<cases>[0-9., ]+) \| (?P<handlers>[a-z, ]+) \| (?P<result>[A-Z-]+) \| (?P<why>.+) \|"
)


class Result(NamedTuple):
    """One case against one agent."""

    agent: str
    case: str
    behavior: str
    """What was received: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, FAILED."""
    closing: str
    """How it ended: OK, INFORMATIONAL, UNCLEAN, WRONG CODE, FAILED BY CLIENT."""

    @property
    def verdict(self) -> str:
        """The worse of the two; OK if both are."""
        if self.behavior == "OK":
            return self.closing
        return self.behavior if self.closing in {"OK", *_TOLERABLE} else self.closing


def read_notes(text: str) -> set[tuple[str, str, str]]:
    """(case, handler, verdict) of each line of the table in NOTES.md."""
    noted = set()
    for line in text.splitlines():
        if match := _NOTE.fullmatch(line):
            for case in match["cases"].split(","):
                for handler in match["handlers"].split(","):
                    noted.add((case.strip(), handler.strip(), match["result"]))
    return noted


def read_results(index: Path) -> list[Result]:
    """The results in the suite's own index.json."""
    found: dict[str, dict[str, dict[str, object]]] = json.loads(index.read_text())
    return [
        Result(agent, case, str(result["behavior"]), str(result["behaviorClose"]))
        for agent, cases in found.items()
        for case, result in sorted(cases.items(), key=lambda item: case_order(item[0]))
    ]


def case_order(case: str) -> list[int]:
    """7.3.2 before 7.13.1."""
    return [int(number) for number in case.split(".")]


def faults(
    results: Iterable[Result], wanted: dict[str, Sequence[str]], notes: set[tuple[str, str, str]]
) -> list[str]:
    """What is wrong, one line each: bad results, tolerable ones without a note, missing ones.

    Args:
        results: what the suite found.
        wanted: the cases that each agent had to go through.
        notes: as `read_notes` returns them.
    """
    wrong = []
    left = {agent: set(cases) for agent, cases in wanted.items()}
    for result in results:
        left[result.agent].discard(result.case)
        verdict = result.verdict
        if verdict == "OK":
            continue
        if verdict not in _TOLERABLE:
            wrong.append(f"{result.agent}: {result.case} is {verdict}")
        elif not any((result.case, word, verdict) in notes for word in result.agent.split()):
            wrong.append(f"{result.agent}: {result.case} is {verdict}, without a line in NOTES.md")
    for agent, cases in left.items():
        if cases:
            missing = ", ".join(sorted(cases, key=case_order))
            wrong.append(f"{agent}: {len(cases)} cases were not run, see its suite.log: {missing}")
    return wrong


def report(results: Sequence[Result], wrong: Sequence[str], remarks: Sequence[str]) -> str:
    """The report as Markdown: a line for each agent, and each result that is not OK."""
    by_agent: dict[str, list[Result]] = {}
    for result in results:
        by_agent.setdefault(result.agent, []).append(result)
    verdicts = sorted({result.verdict for result in results} - {"OK", *_TOLERABLE})
    columns = ["OK", *sorted(_TOLERABLE), *verdicts]
    lines = ["# Autobahn test suite", "", *(f"- {remark}" for remark in remarks), ""]
    lines += [f"| agent | cases | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for agent, its in by_agent.items():
        counts = Counter(result.verdict for result in its)
        figures = " | ".join(str(counts[column]) for column in columns)
        lines.append(f"| {agent} | {len(its)} | {figures} |")
    lines += ["", "Not OK, and right (NOTES.md says why):", ""]
    for agent, its in by_agent.items():
        for verdict in sorted(_TOLERABLE):
            cases = [result.case for result in its if result.verdict == verdict]
            if cases:
                lines.append(f"- {agent}: {verdict} {', '.join(cases)}")
    lines += ["", "Wrong:" if wrong else "Nothing is wrong.", ""]
    lines += [f"- {line}" for line in wrong]
    return "\n".join(lines).rstrip() + "\n"
