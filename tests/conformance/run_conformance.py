"""Runs the Autobahn test suite against servers of its own. `scripts/conformance` calls it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance_servers import (
    MAX_FRAGMENTS,
    MAX_QUEUE_BYTES,
    MAX_SIZE,
    OUTBOX_BYTES,
    Agent,
    agents,
    serving,
)
from conformance_verdict import NOTES, Result, faults, read_notes, read_results, report

COMPRESSION_CASES = ["12.*", "13.*"]
LONG_CASES = ["9.*"]
"""Limits and performance: messages of up to 16 MiB. They take most of the time."""

_LIST_CASES = """
import json, sys
from autobahntestsuite.case import CaseBasename, CaseCategories, Cases, CaseSubCategories
from autobahntestsuite.caseset import CaseSet
cases = CaseSet("", CaseBasename, Cases, CaseCategories, CaseSubCategories)
json.dump(cases.parseSpecCases(json.load(sys.stdin)), sys.stdout)
"""


def main() -> int:
    """Run, report; 1 if a case is wrong."""
    arguments = _parser().parse_args()
    # A peer that breaks the protocol is what this is about.
    logging.getLogger("securews").setLevel(logging.CRITICAL)
    out = arguments.out = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    chosen = [agent for agent in agents() if all(word in agent.name for word in arguments.only)]
    if arguments.quick:  # with compression, what is left of the suite says nothing new
        chosen = [agent for agent in chosen if not agent.compression]
    if not chosen:
        sys.exit(f"no agent has {' and '.join(arguments.only)} in its name")

    began = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(_run, agent, arguments) for agent in chosen]
        found = [run.result() for run in runs]
    results = [result for each, _ in found for result in each]
    wanted = {agent.name: cases for agent, (_, cases) in zip(chosen, found, strict=True)}
    wrong = faults(results, wanted, read_notes(NOTES.read_text()))
    text = report(results, wrong, _remarks(arguments, time.monotonic() - began))
    (out / "report.md").write_text(text)
    (out / "report.json").write_text(
        json.dumps({"wrong": wrong, "results": [result._asdict() for result in results]}, indent=1)
    )
    print(text)
    print(f"written to {out}")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__)
    parser.add_argument("--suite", type=Path, required=True, help="environment with wstest in it")
    parser.add_argument("--out", type=Path, required=True, help="where reports go")
    parser.add_argument("--quick", action="store_true", help="leave out 9.*, 12.* and 13.*")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="agents with this in their name: wss, ws, event, blocking, deflate; repeatable",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="agents at once (default: cores)"
    )
    parser.add_argument(
        "--timeout", type=float, default=3600, help="seconds for one agent (default: %(default)g)"
    )
    return parser


def _run(agent: Agent, arguments: argparse.Namespace) -> tuple[list[Result], Sequence[str]]:
    """Let the suite go through its cases against one agent: results, and the cases it had."""
    out = arguments.out / agent.name.replace(" ", "-")
    out.mkdir()
    with serving(agent) as url:
        spec = {
            "outdir": str(out),
            "servers": [{"agent": agent.name, "url": url.rstrip("/")}],
            "cases": ["*"],
            "exclude-cases": [
                *([] if agent.compression else COMPRESSION_CASES),
                *(LONG_CASES if arguments.quick else []),
            ],
            "exclude-agent-cases": {},
        }
        spec_file = out / "spec.json"
        spec_file.write_text(json.dumps(spec))
        cases = _cases(arguments.suite, spec)
        with (out / "suite.log").open("w") as log:
            try:
                subprocess.run(
                    [arguments.suite / "bin" / "wstest", "-m", "fuzzingclient", "-s", spec_file],
                    stdout=log,
                    stderr=log,
                    cwd=out,
                    timeout=arguments.timeout,
                    check=False,  # its index says whether it came to the end
                )
            except subprocess.TimeoutExpired:
                print(f"{agent.name}: the suite did not end in {arguments.timeout:g} s")
    index = out / "index.json"
    return read_results(index) if index.exists() else [], cases


def _cases(suite: Path, spec: dict[str, object]) -> list[str]:
    """The cases that the suite has for this: it says so itself."""
    listed = subprocess.run(
        [suite / "bin" / "python", "-W", "ignore", "-c", _LIST_CASES],
        input=json.dumps(spec),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cases: list[str] = json.loads(listed.stdout)
    return cases


def _remarks(arguments: argparse.Namespace, seconds: float) -> list[str]:
    options = (
        f"max_size {MAX_SIZE >> 20} MiB, max_fragments {MAX_FRAGMENTS}, "
        f"max_queue_bytes {MAX_QUEUE_BYTES >> 20} MiB, outbox_bytes {OUTBOX_BYTES >> 20} MiB"
    )
    remarks = [
        f"Options that are not the defaults: {options}.",
        f"{seconds:.0f} s, Python {sys.version.split()[0]}.",
    ]
    if arguments.quick:
        remarks.append("Left out (--quick): 9.* (limits), 12.* and 13.* (compression).")
    else:
        remarks.append("12.* and 13.* run where compression is on.")
    return remarks


if __name__ == "__main__":
    sys.exit(main())
