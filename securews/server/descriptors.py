"""The limit on open files: raised to what the server may need, or one warning says so."""

from __future__ import annotations

import logging
import resource

__all__ = ["allow_descriptors"]

log = logging.getLogger("securews.server")

SPARE = 64
"""Descriptors for everything that is not a connection."""


def allow_descriptors(connections: int) -> None:
    """Raise the soft limit so that `connections` fit; never lower it."""
    wanted = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, reachable), hard))
    except (OSError, ValueError):
        reachable = soft
    if reachable < wanted:
        log.warning(
            "max_connections=%d needs %d open files, but the limit is %d; raise it (ulimit -n, "
            "or LimitNOFILE= in a systemd unit) or lower max_connections",
            connections,
            wanted,
            max(soft, reachable),
        )
