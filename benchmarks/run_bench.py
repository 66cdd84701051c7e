"""Measures securews beside its peers, all over wss, and prints ratios: `scripts/bench`.

The servers take turns: each round measures all of them under a load before the next round
begins, so what the machine does meanwhile meets them all. docs/benchmarks.md is the method.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.build import compile_programs, make_certificates
from benchmarks.loads import LOADS, QUICK_SERVERS, Load, choose_loads
from benchmarks.measurement import Timing, measure
from benchmarks.peers import SERVERS, Kind, Server, choose_servers, installed, pure_twin, twin_of
from benchmarks.processes import Bench, BenchError
from benchmarks.report import Report, publish, read_report

REPOSITORY = Path(__file__).parent.parent
PUBLISHED = REPOSITORY / "docs" / "benchmarks"
FULL = Timing(seconds=3.0, warmup=1.0)
QUICK = Timing(seconds=1.0, warmup=0.3)
STARTING_SECONDS = 1.5
"""Roughly what starting and stopping a server adds to each measurement, for the estimate."""


class Options(argparse.Namespace):
    """The command line."""

    quick: bool
    rounds: int | None
    seconds: float | None
    only: list[str]
    servers: list[str]
    pin: bool
    pure: bool
    beside: Path | None
    publish: bool
    out: Path
    read: Path | None


def main() -> int:
    """Measure and report; the exit code."""
    options = parse_arguments()
    if options.read:
        report = read_report(options.read)
    else:
        report = Report(
            facts={},
            command=" ".join(["scripts/bench", *sys.argv[1:]]),
            rounds=options.rounds or (1 if options.quick else 5),
            servers=choose(options),
        )
        report.facts = machine.describe(report.servers)
        print("\n".join(report.header()), flush=True)
        run(options, report)
        report.write_json(options.out)
        report.write_plots(options.out.parent)
    print(f"\n{report.text()}")
    if options.publish:
        publish(report, PUBLISHED)
    for error in report.errors:
        print(f"failed: {error}", file=sys.stderr)
    return 1 if report.errors else 0


def parse_arguments() -> Options:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter; about 2 minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5, quick 1")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"of each measurement; default: {FULL.seconds:g}, quick {QUICK.seconds:g}",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help=f"only loads with this in their name: {', '.join(load.name for load in LOADS)}",
    )
    parser.add_argument(
        "--servers",
        action="append",
        default=[],
        metavar="WORD",
        help=f"only servers with this in their name: {', '.join(each.name for each in SERVERS)}",
    )
    parser.add_argument("--pin", action="store_true", help="once more with servers on one core")
    parser.add_argument(
        "--pure", action="store_true", help="securews without its compiled part too"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="securews of another checkout too, in turns with this one; compiled if that one is",
    )
    parser.add_argument("--publish", action="store_true", help=f"renew {PUBLISHED.name}/ in docs/")
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "test-artifacts" / "bench" / "bench.json",
        metavar="FILE",
        help="all rounds as JSON, with plots beside it; default: test-artifacts/bench/bench.json",
    )
    parser.add_argument(
        "--from", dest="read", type=Path, metavar="FILE", help="measure nothing; report this file"
    )
    return parser.parse_args(namespace=Options())


def choose(options: Options) -> list[Server]:
    """The servers to measure; says which are left out because they are not installed."""
    servers = choose_servers(options.servers)
    if options.quick and not options.servers:
        servers = [server for server in servers if server.name in QUICK_SERVERS]
    for server in servers:
        if not installed(server):
            print(f"left out: {server.title} is not installed here")
    servers = [server for server in servers if installed(server)]
    if options.pure:
        servers += [pure_twin(server) for server in servers if server.kind is Kind.OURS]
    if options.beside:
        tree = options.beside.resolve()
        servers += [twin_of(server, tree) for server in servers if server.kind is Kind.OURS]
    if not servers:
        sys.exit("no server is left to measure")
    return servers


def run(options: Options, report: Report) -> None:
    """Measure everything; what fails is left out from then on, and the rest goes on."""
    timing = QUICK if options.quick else FULL
    if options.seconds:
        timing = dataclasses.replace(timing, seconds=options.seconds)
    loads = choose_loads(options.only, quick=options.quick)
    if not loads:
        sys.exit("no load has that in its name; --help lists them")
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="securews-bench-") as name:
        folder = Path(name)
        compile_programs(folder)
        bench = Bench(folder, make_certificates(folder / "certs"))
        report.servers = greet(bench, report)
        passes = [bench, on_one_core(bench)] if options.pin else [bench]
        plan = [
            Turn(each, load, server, number)
            for each in passes
            for number in range(1, report.rounds + 1)
            for load in loads
            for server in report.servers
            if number <= load.most_rounds and takes_part(server, load)
        ]
        try:
            work_through(plan, timing, report)
        except KeyboardInterrupt:
            report.errors.append("interrupted; the tables show what was measured before")


@dataclasses.dataclass(frozen=True)
class Turn:
    """One server's turn in one round of one load."""

    bench: Bench
    load: Load
    server: Server
    number: int


def work_through(plan: list[Turn], timing: Timing, report: Report) -> None:
    """Measure turn by turn, with a line for each."""
    failed: set[tuple[str, str]] = set()
    began = time.monotonic()
    per_turn = timing.seconds + timing.warmup + STARTING_SECONDS
    for done, turn in enumerate(plan):
        if done:
            per_turn = (time.monotonic() - began) / done
        left = per_turn * (len(plan) - done)
        pinned = ", one core" if turn.bench.server_cores else ""
        say(
            f"{done + 1}/{len(plan)} {turn.load.name}: {turn.server.title}{pinned}, "
            f"round {turn.number}; {left / 60:.0f} min {left % 60:02.0f} s left"
        )
        if (turn.load.name, turn.server.name) in failed:
            continue
        try:
            found = measure(turn.bench, turn.load, turn.server, timing, round_number=turn.number)
        except BenchError as error:
            failed.add((turn.load.name, turn.server.name))
            report.errors.append(f"{turn.load.name}, {turn.server.title}: {error}")
            say(f"failed: {report.errors[-1]}", lasting=True)
        else:
            report.measurements.append(found)
    say("", lasting=False)


def takes_part(server: Server, load: Load) -> bool:
    """Whether this load is for this server."""
    return (
        not load.servers
        or server.name.removesuffix("-beside").removesuffix("-pure") in load.servers
    )


def greet(bench: Bench, report: Report) -> list[Server]:
    """Start each server once; those that answer.

    Raises:
        SystemExit: they do not all speak the same TLS version, suite and group.
    """
    answering = []
    facts = {}
    for server in report.servers:
        try:
            with bench.running(server) as running:
                facts[server.title] = " ".join(running.tls.values())
        except BenchError as error:
            report.errors.append(f"{server.title} does not answer: {error}")
            say(f"failed: {report.errors[-1]}", lasting=True)
            continue
        answering.append(server)
        print(f"{server.title}: {facts[server.title]}", flush=True)
    if len(set(facts.values())) > 1:
        sys.exit("the servers speak different TLS; no ratio would mean anything")
    return answering


def on_one_core(bench: Bench) -> Bench:
    """The same with the servers on one core, and the load generator on the others."""
    cores = sorted(os.sched_getaffinity(0))
    others = frozenset(cores[1:]) or frozenset(cores)
    return dataclasses.replace(bench, server_cores=frozenset(cores[:1]), load_cores=others)


def raise_descriptor_limit() -> None:
    """Raise the soft limit, which the servers inherit: some do not raise it themselves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def say(text: str, *, lasting: bool = False) -> None:
    """A progress line on stderr; on a terminal the next one replaces it, unless it is lasting."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if lasting else "", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
