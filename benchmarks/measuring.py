"""What /proc says of a server: its processes, their memory and their threads. Linux."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["is_listening", "memory", "processes", "threads"]

PROC = Path("/proc")
LISTEN = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h, as /proc/net/tcp writes it."""


def processes(root: int) -> list[int]:
    """The process and all that descend from it."""
    found = [root]
    for pid in found:  # grows while it is walked
        for task in (PROC / str(pid) / "task").glob("*/children"):
            try:
                children = task.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
            found.extend(int(child) for child in children.split())
    return found


def memory(pids: list[int]) -> int:
    """Bytes of memory of some processes: Pss, which counts what they share once."""
    return sum(_kilobytes(PROC / str(pid) / "smaps_rollup", "Pss") for pid in pids) * 1024


def threads(pids: list[int]) -> int:
    """How many threads some processes have together."""
    return sum(len(list((PROC / str(pid) / "task").iterdir())) for pid in pids)


def is_listening(port: int) -> bool:
    """Whether somebody listens on an IPv4 port. Asks the kernel, so that no server notices."""
    wanted = f"{port:04X}"
    for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN and fields[1].rpartition(":")[2] == wanted:
            return True
    return False


def _kilobytes(file: Path, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{file} has no {name}")
    return int(match[1])
