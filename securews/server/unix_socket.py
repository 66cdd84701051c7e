"""Listening on a unix socket, whose file outlives its server and may by then be another one's.

Theory of operation
-------------------
What a start and a stop do to the file holds together by three rules:

- A start looks whether somebody listens, removes what was left over, binds and listens under the
  lock of the directory (flock(2)). Without it the second of two starts would take the first one's
  socket, which is bound and does not listen yet, for left over.
- That look never waits: connecting to a unix socket succeeds, is refused, or finds the queue full,
  and whoever has a queue listens, however long he has not accepted.
- A stop removes the file while its socket is open, and only if it is the socket's own, by device
  and inode. As long as the socket is open the kernel gives its inode to no other file; as long as
  it listens, no start replaces it.

Where the directory cannot be locked (it may not be read, or its file system has no such locks), the
first rule does not hold: of two starts at the same moment one may lose its file to the other.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from securews.common.deadlines import Deadline
from securews.common.errors import ConfigurationError

__all__ = ["UnixListener", "open_unix"]

LOCK_SECONDS = 5.0
"""In which other starts leave the directory; each needs a millisecond."""
RETRY_SECONDS = 0.01


class UnixListener(socket.socket):
    """A unix socket that listens, and the file at its path, which goes when it is closed.

    Args:
        path: nothing is there; the file gets the mode 0660.
        backlog: connections that the kernel holds for accept.

    Raises:
        OSError: it cannot be made; nothing is left of it.
    """

    def __init__(self, path: str, backlog: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = Path(path).absolute()
        self._file: tuple[int, int] | None = None
        self._process = os.getpid()
        try:
            self.bind(path)
            self._file = _identity(self._path)
            self._path.chmod(0o660)  # before listen: until then nobody can connect
            self.listen(backlog)
            self.setblocking(False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the file, unless it is another one's by now, and close. Idempotent.

        In a process that was forked since, only its own descriptor is closed.
        """
        if self.fileno() >= 0 and os.getpid() == self._process:
            try:
                if _identity(self._path) == self._file:
                    self._path.unlink()
            except OSError:
                pass  # somebody has removed it
        super().close()


def open_unix(path: str, backlog: int) -> UnixListener:
    """Bind and listen, in place of a socket at `path` that nobody listens on.

    Waits for at most `LOCK_SECONDS`, and only for other starts in the same directory.

    Raises:
        ConfigurationError: somebody listens there, or it cannot be made; the text says what to do.
    """
    try:
        with _directory_locked(path):
            _remove_leftover(path)
            return UnixListener(path, backlog)
    except OSError as error:
        raise ConfigurationError(
            f"unix socket {path!r} cannot be made: {error.strerror or error}"
        ) from error


def _identity(path: Path) -> tuple[int, int]:
    """Which file is at `path`: device and inode."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def _remove_leftover(path: str) -> None:
    """Remove a socket that nobody listens on; anything else at `path` is not ours to remove."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path!r} exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            raise ConfigurationError(
                f"another server listens on {path!r}, and its queue is full: it may hang; end that "
                "process (ss -lxp shows which it is) or choose another path"
            ) from None
    raise ConfigurationError(f"another server listens on {path!r}; stop it or choose another path")


@contextmanager
def _directory_locked(path: str) -> Iterator[None]:
    """Keep other starts out of the directory of `path`, where it can be locked."""
    try:
        directory = os.open(Path(path).parent, os.O_RDONLY)
    except PermissionError:
        directory = None
    try:
        if directory is not None:
            _lock(directory, path)
        yield
    finally:
        if directory is not None:
            os.close(directory)  # which gives the lock back


def _lock(directory: int, path: str) -> None:
    deadline = Deadline(LOCK_SECONDS)
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline.passed:
                raise ConfigurationError(
                    f"unix socket {path!r} cannot be made: another process has kept the lock of "
                    f"its directory for {LOCK_SECONDS:g} s; end that process (lslocks shows which "
                    "it is) or choose another directory"
                ) from None
            time.sleep(RETRY_SECONDS)
        except OSError:  # this file system has no such locks
            return
        else:
            return
