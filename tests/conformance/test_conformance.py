"""The Autobahn suite: how its results are judged, and the suite itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conformance_verdict import NOTES, Result, faults, read_notes, report

REPOSITORY = Path(__file__).parent.parent.parent
NOTED = {("3.2", "blocking", "NON-STRICT")}


def found(verdict="OK", closing="OK", agent="wss blocking", case="3.2"):
    return Result(agent, case, verdict, closing)


def test_a_result_that_is_ok_is_right():
    assert faults([found()], {"wss blocking": ["3.2"]}, set()) == []


@pytest.mark.parametrize("verdict", ["FAILED", "UNIMPLEMENTED", "a new word"])
def test_a_result_that_is_bad_is_wrong_whatever_the_notes_say(verdict):
    notes = {("3.2", "blocking", verdict)}
    assert faults([found(verdict)], {"wss blocking": ["3.2"]}, notes) == [
        f"wss blocking: 3.2 is {verdict}"
    ]


@pytest.mark.parametrize("verdict", ["OK", "NON-STRICT"])
@pytest.mark.parametrize("closing", ["UNCLEAN", "WRONG CODE", "FAILED BY CLIENT"])
def test_a_bad_end_is_wrong_however_the_rest_went(verdict, closing):
    assert faults([found(verdict, closing)], {"wss blocking": ["3.2"]}, NOTED) == [
        f"wss blocking: 3.2 is {closing}"
    ]


def test_a_tolerable_result_needs_a_note_for_its_case_its_handler_and_itself():
    wanted = {"wss blocking": ["3.2"], "wss event": ["3.2"]}
    noted = found("NON-STRICT")
    assert faults([noted, found(agent="wss event")], wanted, NOTED) == []
    assert faults([noted, found("NON-STRICT", agent="wss event")], wanted, NOTED) == [
        "wss event: 3.2 is NON-STRICT, without a line in NOTES.md"
    ]
    assert faults([found("INFORMATIONAL"), found(agent="wss event")], wanted, NOTED) == [
        "wss blocking: 3.2 is INFORMATIONAL, without a line in NOTES.md"
    ]


def test_a_case_that_was_not_run_is_wrong():
    wrong = faults([found(case="7.3.2")], {"wss blocking": ["7.13.1", "7.3.2", "7.3.1"]}, set())
    assert wrong == [
        "wss blocking: 2 cases were not run, see its suite.log: 7.3.1, 7.13.1",
    ]


def test_the_notes_are_read_from_their_table():
    line = "| 3.2, 4.1.3 | event, blocking | NON-STRICT | The reason. |"
    assert read_notes(f"# Notes\n\n{line}\n") == {
        (case, handler, "NON-STRICT")
        for case in ("3.2", "4.1.3")
        for handler in ("event", "blocking")
    }


def test_every_line_of_the_table_is_understood():
    lines = [line for line in NOTES.read_text().splitlines() if line.startswith("| ")][1:]
    assert lines
    assert all(read_notes(line) for line in lines)


def test_the_report_counts_and_names_what_is_not_ok():
    results = [found("NON-STRICT"), found(case="1.1"), found("FAILED", case="1.2")]
    text = report(results, ["wss blocking: 1.2 is FAILED"], ["3 s."])
    assert "| agent | cases | OK | INFORMATIONAL | NON-STRICT | FAILED |" in text
    assert "| wss blocking | 3 | 1 | 0 | 1 | 1 |" in text
    assert "- wss blocking: NON-STRICT 3.2" in text
    assert "- wss blocking: 1.2 is FAILED" in text


def run_suite(*arguments):
    """`scripts/conformance`, in the environment of this test where a script has made it."""
    environment = dict(os.environ)
    if Path(sys.prefix, "stamp-base").exists():
        environment["VENV"] = sys.prefix
    done = subprocess.run(
        [REPOSITORY / "scripts" / "conformance", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "needs Python 2.7" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return re.findall(r"^\| (wss? [a-z ]+) \| (\d+) \| (\d+) \|", done.stdout, re.MULTILINE)


@pytest.mark.timeout(300)
@pytest.mark.promise(45, 46, 47)
def test_the_quick_part_of_the_suite_over_wss():
    assert len(run_suite("--quick", "--only", "wss")) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.promise(45, 46, 47)
def test_the_whole_suite(record_property):
    for agent, cases, ok in run_suite():
        figures = f"Autobahn, {agent}: {ok} of {cases} OK, none FAILED or UNCLEAN"
        record_property("measured 45", figures)
