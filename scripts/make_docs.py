"""Writes the tables of docs/options.md from the dataclasses in securews/common/options.py.

`python scripts/make_docs.py`, in an environment that has securews. A test says when it is due.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from pathlib import Path

from securews.common.options import Compression, ConnectionOptions, Limits, ServerOptions

OPTIONS = Path(__file__).parent.parent / "docs" / "options.md"
KINDS = (ConnectionOptions, ServerOptions, Limits, Compression)

_TABLE = re.compile(r"(<!-- table of (\w+), made by scripts/make_docs.py -->\n)(?:\|.*\n)*")


def with_tables(text: str) -> str:
    """`text` with each table as the code has it now."""
    kinds = {kind.__name__: kind for kind in KINDS}
    return _TABLE.sub(lambda match: match[1] + table(kinds[match[2]]), text)


def table(kind: type[ConnectionOptions | ServerOptions | Limits | Compression]) -> str:
    """The options of a kind, as a Markdown table."""
    lines = ["| option | default | reason |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        reason = field.metadata["reason"]
        lines.append(f"| `{field.name}` | {_default(field)} | {reason} |")
    return "\n".join(lines) + "\n"


def _default(field: dataclasses.Field[object]) -> str:
    value, unit = field.default, field.metadata["unit"]
    if value in (None, ()):
        return f"`{value}`"
    if isinstance(value, enum.Enum):
        return f"`{value.name}`"
    if isinstance(value, Limits):
        return "`Limits()`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if unit == "bytes" and isinstance(value, int) and value >= 1024:
        return f"{value >> 20} MiB" if value % (1 << 20) == 0 else f"{value >> 10} KiB"
    if isinstance(value, float):
        return f"{value:g} {'per second' if unit == '1/s' else unit}".rstrip()
    return f"{value} {unit}".rstrip()


if __name__ == "__main__":
    OPTIONS.write_text(with_tables(OPTIONS.read_text()))
