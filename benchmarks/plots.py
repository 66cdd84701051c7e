"""Bar charts as SVG, without a library: one for each load, bright and dark."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.loads import FIGURE_WORDS, Figure, Load
from benchmarks.peers import Kind
from benchmarks.table import Row

__all__ = ["Bar", "bar_chart", "load_chart"]

SVG = "http://www.w3.org/2000/svg"
WIDTH = 760
LEFT = 190
RIGHT = 100
BAR = 20
GAP = 10
TOP = 64
BOTTOM = 34

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.note { font-size: 11px; fill: #656d76 }
.ours { fill: #1a7f5a } .peer { fill: #9aa7b4 } .limit { fill: #d4a72c }
.ground { fill: #ffffff } .axis { stroke: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .ground { fill: #0d1117 }
  .ours { fill: #3fb98a } .peer { fill: #6e7b8a } .limit { fill: #bb9a3a }
}"""


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    value: float
    shown: str
    """The value as text, at its end."""
    kind: Kind


def bar_chart(title: str, subtitle: str, bars: Sequence[Bar], footer: str) -> str:
    """Horizontal bars from zero, as an SVG document."""
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    longest = max((bar.value for bar in bars), default=0) or 1
    size = f'width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="{SVG}" {size} viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" {size}/>',
        _text(16, 26, title, "title"),
        _text(16, 46, subtitle, "note"),
    ]
    for index, bar in enumerate(bars):
        lines += _bar_lines(bar, TOP + index * (BAR + GAP), longest)
    bottom = height - BOTTOM + 2
    lines += [
        f'<line class="axis" x1="{LEFT}" y1="{TOP - 6}" x2="{LEFT}" y2="{bottom}"/>',
        _text(16, height - 12, footer, "note"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def load_chart(load: Load, rows: Sequence[Row], footer: str) -> str:
    """The chart of the figure that a load compares, the best at the top."""
    better = "more" if load.figure.more_is_better else "less"
    ordered = sorted(rows, key=lambda row: row.figure, reverse=load.figure.more_is_better)
    bars = [
        Bar(row.server.title, row.figure, _shown(load.figure, row.figure), row.server.kind)
        for row in ordered
    ]
    subtitle = f"{FIGURE_WORDS[load.figure]}, all over wss ({better} is better)"
    return bar_chart(_capital(load.title), subtitle, bars, footer)


def _bar_lines(bar: Bar, top: int, longest: float) -> list[str]:
    length = max(1.0, (WIDTH - LEFT - RIGHT) * bar.value / longest)
    middle = top + BAR - 5
    place = f'x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}"'
    return [
        f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{bar.kind.value}" {place} rx="2"/>',
        _text(LEFT + length + 8, middle, bar.shown),
    ]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _shown(figure: Figure, value: float) -> str:
    if figure is Figure.MEMORY:
        return f"{value / 1024:.1f} KiB"
    if figure is Figure.RATE:
        return f"{value:,.0f}/s"
    return f"{value:.2f} us" if value < 100 else f"{value:,.0f} us"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
