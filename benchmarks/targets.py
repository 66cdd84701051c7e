"""What securews wants to reach, as ratios to others within one run, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.loads import Figure
from benchmarks.table import Row, aligned

__all__ = ["TARGETS", "Target", "target_table", "verdict"]

KIB = 1024


@dataclasses.dataclass(frozen=True)
class Target:
    """One figure of one of our servers, beside another's or as it is."""

    load: str
    server: str
    figure: Figure
    against: str = ""
    """A server's name; empty: the figure itself, in `unit`."""
    must: float | None = None
    aim: float | None = None
    unit: float = 1

    @property
    def text(self) -> str:
        """What is compared."""
        other = f" / {self.against}" if self.against else ""
        return f"{self.load}: {_WORDS[self.figure]}, {self.server}{other}"

    def value(self, rows: Mapping[str, Sequence[Row]]) -> float | None:
        """The measured figure or ratio; None if one of the two was not measured."""
        found = {row.server.name: row.medians for row in rows.get(self.load, ())}
        ours = found.get(self.server, {}).get(self.figure.value)
        if not self.against:
            return None if ours is None else ours / self.unit
        other = found.get(self.against, {}).get(self.figure.value)
        return ours / other if ours is not None and other else None


_WORDS = {
    Figure.CPU: "CPU",
    Figure.RATE: "rate",
    Figure.P50: "p50",
    Figure.MEMORY: "KiB per connection",
    Figure.PROCESSES: "processes",
    Figure.THREADS: "threads",
    Figure.IDLE_CPU: "% of a core",
}
_EVENT = "securews"
_BLOCKING = "securews-blocking"

TARGETS = (
    Target("64-connections", _EVENT, Figure.CPU, "picows", must=1.25, aim=1.0),
    Target("64-connections", _EVENT, Figure.CPU, "limit", must=1.6, aim=1.2),
    Target("pingpong", _EVENT, Figure.P50, "picows", must=1.15, aim=1.0),
    Target("bursts", _EVENT, Figure.RATE, "picows", must=6, aim=10),
    Target("bursts", _EVENT, Figure.RATE, "limit", must=0.3, aim=0.5),
    Target("large", _EVENT, Figure.RATE, "picows", must=0.9, aim=1.05),
    Target("fan-out", _EVENT, Figure.CPU, "picows", must=1.15, aim=0.8),
    Target("fan-out", _EVENT, Figure.CPU, "socketify", must=1.25, aim=1.0),
    Target("64-connections", _BLOCKING, Figure.CPU, "websockets-threading", must=0.35, aim=0.25),
    Target("64-connections", _BLOCKING, Figure.CPU, "aiohttp", must=2.2, aim=1.3),
    Target("bursts", _BLOCKING, Figure.RATE, "websockets-threading", must=10, aim=30),
    Target("busy", _EVENT, Figure.RATE, "aiohttp", must=5),
    Target("busy", _EVENT, Figure.RATE, "picows", aim=1.0),
    Target("handshakes", _EVENT, Figure.RATE, "picows", must=1.0, aim=1.3),
    Target("resumed", _EVENT, Figure.RATE, "picows", aim=1.3),
    Target("idle-1000", _EVENT, Figure.MEMORY, must=30, aim=20, unit=KIB),
    Target("idle-1000", _BLOCKING, Figure.MEMORY, must=85, aim=60, unit=KIB),
    Target("idle-10000", _EVENT, Figure.PROCESSES, must=1, aim=1),
    Target("idle-10000", _EVENT, Figure.THREADS, must=8, aim=8),
    Target("idle-10000", _EVENT, Figure.IDLE_CPU, must=1, aim=1, unit=0.01),
)


def verdict(target: Target, value: float) -> str:
    """What is reached: `aim`, `must`, or neither."""
    for word, bound in (("aim", target.aim), ("must", target.must)):
        if bound is not None and _reaches(target, value, bound):
            return word
    return "missed" if target.must is not None else "below aim"


def target_table(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """The lines of the table of targets, for what was measured; none if nothing of it was."""
    table = [["targets", "must", "aim", "measured", ""]]
    for target in TARGETS:
        value = target.value(rows)
        if value is not None:
            must, aim = _bound(target, target.must), _bound(target, target.aim)
            table.append([target.text, must, aim, f"{value:.2f}", verdict(target, value)])
    return aligned(table) if len(table) > 1 else []


def _reaches(target: Target, value: float, bound: float) -> bool:
    return value >= bound if target.figure.more_is_better else value <= bound


def _bound(target: Target, bound: float | None) -> str:
    if bound is None:
        return "-"
    return f"{'>=' if target.figure.more_is_better else '<='} {bound:g}"
