"""One measurement: a fresh server under one load."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from benchmarks import measuring
from benchmarks.loads import Load
from benchmarks.peers import Kind, Server
from benchmarks.processes import Bench, BenchError, Running, parse_output

__all__ = ["DEFAULT_CONNECTIONS", "Measurement", "Timing", "measure"]

DEFAULT_CONNECTIONS = 1000
"""securews' own default of `max_connections`; a load with more has to raise it."""

OPENING_RATE = 150
"""Connections per second that even the slowest server opens; bounds the time of a load."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a measurement."""

    seconds: float
    warmup: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one server did in one round of one load; field names are those of the JSON file."""

    load: str
    server: str
    pinned: bool
    round: int
    per_second: float
    p50_us: float
    p99_us: float
    load_cpu_share: float
    server_cpu_share: float
    server_cpu_us: float | None
    """None where nothing was done."""
    processes: int
    tls: dict[str, str]
    resumed: int | None = None
    memory_per_connection: float | None = None
    """Bytes; only of idle loads, as are threads."""
    threads: int | None = None


def measure(
    bench: Bench, load: Load, server: Server, timing: Timing, *, round_number: int
) -> Measurement:
    """Start the server, measure, stop it.

    Raises:
        BenchError: it did not work; the text has the end of what the server said.
    """
    with bench.running(server, _flags(load, server)) as running:
        idle: dict[str, Any] = {}
        if load.idle:
            found, idle = _measure_idle(bench, running, load, timing)
        else:
            found = bench.load(running, _arguments(load, timing), _timeout(load, timing))
        if measuring.processes(running.pids[0]) != running.pids:
            raise BenchError("its processes changed while it was measured")
    return Measurement(
        load=load.name,
        server=server.name,
        pinned=bench.server_cores is not None,
        round=round_number,
        per_second=found["per_second"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        load_cpu_share=found["load_cpu_share"],
        server_cpu_share=found["server_cpu_share"],
        server_cpu_us=found.get("server_cpu_us"),
        processes=len(running.pids),
        tls=found["tls"],
        resumed=found.get("resumed"),
        **idle,
    )


def _flags(load: Load, server: Server) -> tuple[str, ...]:
    if server.kind is Kind.OURS and load.connections > DEFAULT_CONNECTIONS:
        return (*load.flags, "--connections", str(load.connections))
    return load.flags


def _arguments(load: Load, timing: Timing) -> list[str]:
    times = ["--seconds", str(timing.seconds), "--warmup", str(timing.warmup)]
    return [*load.load_arguments, *times]


def _timeout(load: Load, timing: Timing) -> float:
    return 30 + load.connections / OPENING_RATE + timing.seconds + timing.warmup


def _measure_idle(
    bench: Bench, running: Running, load: Load, timing: Timing
) -> tuple[dict[str, Any], dict[str, Any]]:
    before = measuring.memory(running.pids)
    arguments = _arguments(load, timing)
    with bench.load_process(running, arguments, _timeout(load, timing)) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        idle: dict[str, Any] = {}
        if first and json.loads(first)["event"] == "open":
            # All are open now. Half of the warm-up is for what the server puts off.
            time.sleep(timing.warmup / 2)
            grown = measuring.memory(running.pids) - before
            idle["memory_per_connection"] = grown / load.connections
            idle["threads"] = measuring.threads(running.pids)
        out, complaint = process.communicate()
    return parse_output(out, complaint, process.returncode), idle
