"""A worker of `--workers N`, seen from inside: what it inherits, and how it obeys its parent.

The parent (workers.py) leaves the descriptors' numbers in an environment variable: the listening
sockets, and one end of a socket pair, the lifeline. The worker says there that it serves; then it
listens. The end of the lifeline is the end of the parent, killed perhaps: the worker drains and
ends as if it had been told to.

Each word is obeyed apart from the listening, so that an end is heard while files of a file system
that hangs are read. The parent says RELOAD again only after RELOADED: words do not pile up, and
there is always room for STOP and FORCE.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from securews.common.errors import ConfigurationError

if TYPE_CHECKING:
    from securews.server.server import WebSocketServer

__all__ = ["FORCE", "RELOAD", "RELOADED", "STOP", "VARIABLE", "Inheritance", "inherited"]

log = logging.getLogger("securews.workers")

VARIABLE = "SECUREWS_WORKER"
STOP, FORCE, RELOAD = b"s", b"f", b"r"
"""What a parent says: end in order; end at once; read the certificate files again."""
RELOADED = b"r"
"""What a worker says, after its URL: that it has read them, or could not."""


class Inheritance:
    """What a parent has left to this process.

    Args:
        listeners: listening sockets.
        lifeline: to the parent.
    """

    def __init__(self, listeners: list[socket.socket], lifeline: socket.socket) -> None:
        self.listeners = listeners
        self._lifeline = lifeline
        self._told_to_end = False

    def serve(self, server: WebSocketServer) -> None:
        """Serve until the parent, or a signal, ends it."""
        self._say(server.url.encode())
        threading.Thread(target=self._obey, args=(server,), daemon=True).start()
        try:
            server.serve_forever()
        except RuntimeError:
            if not self._told_to_end:  # else the end has come before the start, and is no fault
                raise

    def _obey(self, server: WebSocketServer) -> None:
        while word := self._next_word():
            if word == RELOAD:
                _apart(partial(self._reload, server))
            else:
                self._told_to_end = True
                _apart(server.stop if word == STOP else partial(server.stop, 0.0))
        self._told_to_end = True
        server.stop()

    def _reload(self, server: WebSocketServer) -> None:
        try:
            server.reload_tls()
        except ConfigurationError as error:
            log.error("%s", error)
        finally:
            self._say(RELOADED)

    def _say(self, word: bytes) -> None:
        try:
            self._lifeline.send(word)
        except OSError:
            pass  # the parent is gone, which is what _obey reads

    def _next_word(self) -> bytes:
        try:
            return self._lifeline.recv(1)
        except OSError:
            return b""


def inherited() -> Inheritance | None:
    """What a parent has left to this process; None where it was started by somebody else."""
    text = os.environ.pop(VARIABLE, None)  # it is not for programs that the handler starts
    if text is None:
        return None
    try:
        descriptors = [int(number) for number in text.split(",")]
        *listeners, lifeline = [socket.socket(fileno=number) for number in descriptors]
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"the environment variable {VARIABLE} is for workers alone: unset it"
        ) from error
    for number in descriptors:
        os.set_inheritable(number, False)
    return Inheritance(listeners, lifeline)


def _apart(work: Callable[[], None]) -> None:
    """Do it in a thread of its own, which may wait; where none can be started, in this one."""
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:
        work()
