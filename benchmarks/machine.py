"""What the figures depend on: processor, system, interpreter, libraries, versions."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import ssl
from pathlib import Path
from typing import Any

import securews
from benchmarks.peers import Server, versions

__all__ = ["describe", "one_line"]


def describe(servers: list[Server]) -> dict[str, Any]:
    """Facts for the JSON file and the header of the table."""
    peers = {name: version for server in servers for name, version in versions(server).items()}
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "securews": securews.__version__,
        "accelerated": bool(getattr(securews, "ACCELERATED", False)),
        "peers": dict(sorted(peers.items())),
    }


def one_line(facts: dict[str, Any]) -> str:
    """The facts that belong under a picture."""
    return (
        f"{facts['date'][:10]}, {facts['cpu']}, {facts['cores']} cores, "
        f"Linux {facts['kernel'].partition('-')[0]}, {facts['python']}"
    )


def _cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()
