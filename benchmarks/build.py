"""Compiles the load generator and the limit, and makes the certificate that all servers use."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["Certificates", "compile_programs", "make_certificates"]

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion")
SHARED = ("websocket.c", "tls.c", "common.c")
PROGRAMS = {
    "load": ("load.c", "client.c", "incoming.c", "histogram.c", *SHARED),
    "limit": ("limit.c", *SHARED),
}


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    ca: Path
    cert: Path
    key: Path


def compile_programs(folder: Path) -> None:
    """Compile `load` and `limit` into a folder; seconds.

    Raises:
        SystemExit: there is no compiler, or no OpenSSL to compile with.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(shlex.split(compiler)[0]) is None:
        sys.exit(f"no C compiler ({compiler}); on Debian: apt install gcc libssl-dev")
    for name, sources in PROGRAMS.items():
        command = [
            *(*shlex.split(compiler), *FLAGS, "-o", str(folder / name)),
            *(str(SOURCES / source) for source in sources),
            *("-lssl", "-lcrypto"),
        ]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"{name} does not compile; on Debian: apt install gcc libssl-dev")


def make_certificates(folder: Path) -> Certificates:
    """A CA and a certificate for localhost, as `securews gen-dev-certs` makes them."""
    command = [sys.executable, "-m", "securews", "gen-dev-certs", "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server-key.pem")
