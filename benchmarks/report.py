"""What is left of a run: the printed tables, the JSON file, the plots, the published page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loads import LOADS, Load
from benchmarks.machine import one_line
from benchmarks.measurement import Measurement
from benchmarks.peers import SERVERS, Server, pure_twin
from benchmarks.plots import load_chart
from benchmarks.table import Row, load_table, make_rows
from benchmarks.targets import target_table

__all__ = ["Report", "publish", "read_report"]


@dataclasses.dataclass
class Report:
    """All that a run found. Grows while it runs."""

    facts: dict[str, Any]
    command: str
    rounds: int
    servers: list[Server]
    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def rows(self, *, pinned: bool = False) -> dict[str, list[Row]]:
        """The rows of each load that was measured."""
        chosen = [m for m in self.measurements if m.pinned == pinned]
        tables = {load.name: make_rows(load, self.servers, chosen) for load in LOADS}
        return {name: rows for name, rows in tables.items() if rows}

    def header(self) -> list[str]:
        """The facts, for the top of the tables."""
        facts = self.facts
        peers = ", ".join(f"{name} {version}" for name, version in facts["peers"].items())
        kind = "compiled part in use" if facts["accelerated"] else "pure Python"
        return [
            f"{facts['date']}, {self.command}",
            f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}",
            f"{facts['python']}, {facts['openssl']}",
            f"securews {facts['securews']}, ACCELERATED = {facts['accelerated']} ({kind})",
            f"peers: {peers}",
            f"medians of {self.rounds} round(s); each ratio compares what its table says",
        ]

    def text(self) -> str:
        """All tables."""
        parts = ["\n".join(self.header())]
        for pinned in (False, True):
            rows = self.rows(pinned=pinned)
            if not rows:
                continue
            if pinned:
                parts.append("The same once more, all servers on one core:")
            parts += ["\n".join(load_table(load, rows[load.name])) for load in _of(rows)]
            parts += filter(None, ["\n".join(target_table(rows))])
        return "\n\n".join(parts) + "\n"

    def write_json(self, path: Path) -> None:
        """All rounds, and what they depend on."""
        found = {
            "machine": self.facts,
            "command": self.command,
            "rounds": self.rounds,
            "errors": self.errors,
            "servers": {s.name: {"title": s.title, "setup": s.setup} for s in self.servers},
            "measurements": [dataclasses.asdict(m) for m in self.measurements],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")

    def write_plots(self, folder: Path) -> list[Path]:
        """A chart of each load; the files."""
        folder.mkdir(parents=True, exist_ok=True)
        footer = f"{one_line(self.facts)}; {self.command}"
        rows = self.rows()
        written = []
        for load in _of(rows):
            path = folder / f"{load.name}.svg"
            path.write_text(load_chart(load, rows[load.name], footer))
            written.append(path)
        return written


def read_report(path: Path) -> Report:
    """What `write_json` wrote."""
    found = json.loads(path.read_text())
    known = [*SERVERS, *map(pure_twin, SERVERS)]
    return Report(
        facts=found["machine"],
        command=found["command"],
        rounds=found["rounds"],
        servers=[server for server in known if server.name in found["servers"]],
        measurements=[Measurement(**m) for m in found["measurements"]],
        errors=found["errors"],
    )


def _of(rows: dict[str, list[Row]]) -> list[Load]:
    return [load for load in LOADS if load.name in rows]


def publish(report: Report, folder: Path) -> None:
    """The plots and the tables, for the documentation."""
    plots: Sequence[Path] = report.write_plots(folder)
    pictures = "\n".join(f"![{path.stem}]({path.name})" for path in plots)
    page = (
        "# Results\n\nMade by `scripts/bench --publish`; [the method](../benchmarks.md).\n\n"
        f"{pictures}\n\n```text\n{report.text()}```\n"
    )
    (folder / "results.md").write_text(page)
