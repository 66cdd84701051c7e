"""Files that hold secrets: mode 0600, replaced in one step, refused when others may read them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import securews

__all__ = ["create_private", "make_private_directory", "read_private", "write_private"]


def make_private_directory(path: Path) -> None:
    """Make `path` (and its parents) so that only this user may look into it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_private(path: Path) -> bytes | None:
    """The content of `path`; None where there is no such file.

    Raises:
        securews.ConfigurationError: others than the owner may read or write it.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        # The opened file is judged, not the name: the name may change hands in between.
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise securews.ConfigurationError(
                f"{path} can be read by others; mend it with: chmod 600 {path}"
            )
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by a file of mode 0600: readers see all of the old one or all of the new."""
    with _finished_beside(path, content) as finished:
        finished.replace(path)


def create_private(path: Path, content: bytes) -> None:
    """As `write_private`, but a `path` that exists already (another was first) is left alone."""
    with _finished_beside(path, content) as finished, contextlib.suppress(FileExistsError):
        path.hardlink_to(finished)


@contextlib.contextmanager
def _finished_beside(path: Path, content: bytes) -> Iterator[Path]:
    # mkstemp makes the file 0600; beside `path`, so that a rename or link stays on one disk.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
