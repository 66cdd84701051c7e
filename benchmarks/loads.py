"""The loads: what clients do, against which servers, and which figure is compared."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

__all__ = ["LOADS", "QUICK_SERVERS", "Figure", "Load", "choose_loads"]


class Figure(enum.Enum):
    """A figure of a measurement; the value is its name there."""

    CPU = "server_cpu_us"
    RATE = "per_second"
    P50 = "p50_us"
    MEMORY = "memory_per_connection"
    IDLE_CPU = "server_cpu_share"
    THREADS = "threads"
    PROCESSES = "processes"

    @property
    def more_is_better(self) -> bool:
        """Whether a higher figure is the better one."""
        return self is Figure.RATE


FIGURE_WORDS = {
    Figure.CPU: "server CPU per operation",
    Figure.RATE: "operations per second",
    Figure.P50: "median latency",
    Figure.MEMORY: "memory per connection",
    Figure.IDLE_CPU: "share of a core",
    Figure.THREADS: "threads",
    Figure.PROCESSES: "processes",
}


@dataclasses.dataclass(frozen=True)
class Load:
    """One load; `scripts/bench --only NAME` measures it alone."""

    name: str
    title: str
    figure: Figure
    """What the ratios compare."""
    arguments: tuple[str, ...]
    """For the load generator."""
    unit: str = "messages"
    """What is counted."""
    servers: tuple[str, ...] = ()
    """Only these, by name; all without."""
    flags: tuple[str, ...] = ()
    """For the server program."""
    connections: int = 1
    idle: bool = False
    """Whether memory is measured instead of work."""
    most_rounds: int = 99
    quick: bool = False
    """Whether --quick measures it."""
    note: str = ""

    @property
    def load_arguments(self) -> list[str]:
        """For the load generator, with the number of connections."""
        return [*self.arguments, "--connections", str(self.connections)]


_HANDSHAKES = ("--mode", "handshake", "--source-addresses", "64")
"""Many source addresses, for a port of one address is not free for a while after each."""

LOADS = (
    Load(
        "pingpong",
        "1 connection, 256 B, one in flight",
        Figure.P50,
        ("--mode", "echo", "--size", "256"),
        quick=True,
    ),
    Load(
        "64-connections",
        "64 connections, 256 B, one in flight",
        Figure.CPU,
        ("--mode", "echo", "--size", "256"),
        connections=64,
        quick=True,
    ),
    Load(
        "text",
        "64 connections, 256 B of UTF-8 text, one in flight",
        Figure.CPU,
        ("--mode", "echo", "--size", "256", "--text"),
        connections=64,
    ),
    Load(
        "bursts",
        "16 connections, 64 B, 32 in flight",
        Figure.RATE,
        ("--mode", "echo", "--size", "64", "--in-flight", "32"),
        connections=16,
        quick=True,
    ),
    Load(
        "large",
        "8 connections, 64 KiB, one in flight",
        Figure.RATE,
        ("--mode", "echo", "--size", "65536"),
        connections=8,
        quick=True,
    ),
    Load(
        "fan-out",
        "each message to 1,000 connections, 256 B",
        Figure.CPU,
        ("--mode", "fanout", "--size", "256"),
        unit="deliveries",
        flags=("--broadcast",),
        connections=1000,
        servers=(
            "limit",
            "securews",
            "picows",
            "aiohttp",
            "websockets",
            "websockets-threading",
            "uvicorn",
            "granian",
            "socketify",
        ),
    ),
    Load(
        "busy",
        "64 connections, 256 B, beside a thread that computes",
        Figure.RATE,
        ("--mode", "echo", "--size", "256"),
        flags=("--busy",),
        connections=64,
        servers=("securews", "securews-blocking", "picows", "aiohttp"),
        note="the server's CPU is that of the computing thread too",
    ),
    Load(
        "handshakes",
        "full TLS handshake, opening and close; 32 at once",
        Figure.RATE,
        _HANDSHAKES,
        unit="handshakes",
        connections=32,
        quick=True,
    ),
    Load(
        "resumed",
        "resumed TLS handshake, opening and close; 32 at once",
        Figure.RATE,
        (*_HANDSHAKES, "--resume"),
        unit="handshakes",
        connections=32,
    ),
    Load(
        "idle-1000",
        "1,000 idle connections",
        Figure.MEMORY,
        ("--mode", "idle"),
        connections=1000,
        idle=True,
        most_rounds=3,
        quick=True,
    ),
    Load(
        "idle-10000",
        "10,000 idle connections",
        Figure.MEMORY,
        ("--mode", "idle"),
        connections=10000,
        idle=True,
        most_rounds=1,
        servers=("limit", "securews", "picows", "socketify"),
        note="securews with max_connections=10000",
    ),
)

QUICK_SERVERS = frozenset(
    {"limit", "securews", "securews-blocking", "picows", "aiohttp", "websockets-threading"}
)
"""What --quick measures."""


def choose_loads(words: Iterable[str], *, quick: bool) -> list[Load]:
    """Those whose name contains one of the words; without words all, or all quick ones."""
    wanted = list(words)
    if wanted:
        return [load for load in LOADS if any(word in load.name for word in wanted)]
    return [load for load in LOADS if load.quick or not quick]
