"""Medians, ratios, and the tables that are printed."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.loads import FIGURE_WORDS, Figure, Load
from benchmarks.measurement import Measurement
from benchmarks.peers import Kind, Server

__all__ = ["Row", "aligned", "load_table", "make_rows"]

_MEDIANS = (
    "per_second",
    "p50_us",
    "p99_us",
    "load_cpu_share",
    "server_cpu_share",
    "server_cpu_us",
    "memory_per_connection",
    "threads",
    "processes",
)

MOST_LOAD_CPU = 0.8
"""Share of a core above which the load generator may be what a rate shows."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One server under one load: medians over the rounds, and what they are to others."""

    server: Server
    medians: dict[str, float]
    """By the name of the figure; what was not measured is not in it."""
    figure: float
    """The one that the load compares."""
    to_limit: float | None
    to_best_peer: float | None


def make_rows(
    load: Load, servers: Sequence[Server], measurements: Iterable[Measurement]
) -> list[Row]:
    """A row for each server that was measured under this load, in their order."""
    by_server: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.load == load.name:
            by_server.setdefault(measurement.server, []).append(measurement)
    medians = {name: _medians(found) for name, found in by_server.items()}
    measured = [s for s in servers if load.figure.value in medians.get(s.name, {})]
    figures = {s.name: medians[s.name][load.figure.value] for s in measured}
    best = max if load.figure.more_is_better else min
    peers = [figures[s.name] for s in measured if s.kind is Kind.PEER]
    limits = [figures[s.name] for s in measured if s.kind is Kind.LIMIT]
    return [
        Row(
            server,
            medians[server.name],
            figures[server.name],
            ratio(figures[server.name], limits[0] if limits else None),
            ratio(figures[server.name], best(peers) if peers else None),
        )
        for server in measured
    ]


def ratio(value: float, other: float | None) -> float | None:
    """How many times the other it is; None where there is no other."""
    return value / other if other else None


def load_table(load: Load, rows: Sequence[Row]) -> list[str]:
    """The lines of one load's table."""
    better = "more" if load.figure.more_is_better else "less"
    head = f"{load.name}: {load.title}"
    compared = f"compared: {FIGURE_WORDS[load.figure]} ({better} is better)"
    if load.note:
        compared += f"; {load.note}"
    columns = _IDLE_COLUMNS if load.idle else _WORK_COLUMNS
    titles = [title.format(unit=load.unit) for title, _, _ in columns]
    table = [["server", *titles, "x limit", "x best peer"]]
    for row in rows:
        cells = [_cell(row, name, form) for _, name, form in columns]
        if _load_was_limit(load, row):
            cells[-1] += "*"
        table.append([row.server.title, *cells, _times(row.to_limit), _times(row.to_best_peer)])
    lines = [head, compared, *aligned(table)]
    if any(_load_was_limit(load, row) for row in rows):
        lines.append("* the load generator was the limit, or nearly: this server could do more")
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of one width: the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


_WORK_COLUMNS = (
    ("{unit}/s", "per_second", "{:,.0f}"),
    ("CPU us", "server_cpu_us", "{:.2f}"),
    ("p50 us", "p50_us", "{:,.0f}"),
    ("p99 us", "p99_us", "{:,.0f}"),
    ("server CPU", "server_cpu_share", "{:.0%}"),
    ("load CPU", "load_cpu_share", "{:.0%}"),
)
_IDLE_COLUMNS = (
    ("KiB/connection", "memory_per_connection", "kib"),
    ("processes", "processes", "{:.0f}"),
    ("threads", "threads", "{:.0f}"),
    ("server CPU", "server_cpu_share", "{:.2%}"),
)


def _medians(measurements: Sequence[Measurement]) -> dict[str, float]:
    found = {}
    for name in _MEDIANS:
        values = [getattr(measurement, name) for measurement in measurements]
        values = [value for value in values if value is not None]
        if values:
            found[name] = statistics.median(values)
    return found


def _load_was_limit(load: Load, row: Row) -> bool:
    busiest = row.medians["load_cpu_share"]
    return load.figure is Figure.RATE and busiest > MOST_LOAD_CPU


def _cell(row: Row, name: str, form: str) -> str:
    value = row.medians.get(name)
    if value is None:
        return "-"
    return f"{value / 1024:.1f}" if form == "kib" else form.format(value)


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
