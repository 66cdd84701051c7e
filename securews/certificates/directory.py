"""Where development certificates are: what the command makes, and what server and client find."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["development_directory"]


def development_directory() -> Path:
    """Where development certificates are looked for: $SECUREWS_CERTS or ./certs."""
    return Path(os.environ.get("SECUREWS_CERTS") or "certs")
