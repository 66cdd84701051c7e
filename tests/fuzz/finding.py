"""What the fuzzing of whole connections ends with."""

from __future__ import annotations

__all__ = ["Finding"]


class Finding(Exception):
    """Something that has to hold does not."""
