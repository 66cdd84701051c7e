"""A worker of `--workers N`, seen from inside: what it inherits, and how it obeys its parent.

The parent (workers.py) leaves the descriptors' numbers in an environment variable: the listening
sockets, and one end of a socket pair, the lifeline. The worker says there once that it serves;
then it listens. The end of the lifeline is the end of the parent, killed perhaps: the worker
drains and ends as if it had been told to.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING

from securews.common.errors import ConfigurationError

if TYPE_CHECKING:
    from securews.server.server import WebSocketServer

__all__ = ["FORCE", "RELOAD", "STOP", "VARIABLE", "Inheritance", "inherited"]

log = logging.getLogger("securews.workers")

VARIABLE = "SECUREWS_WORKER"
STOP, FORCE, RELOAD = b"s", b"f", b"r"
"""What a parent says: end in order; end at once; read the certificate files again."""


class Inheritance:
    """What a parent has left to this process.

    Args:
        listeners: listening sockets.
        lifeline: to the parent.
    """

    def __init__(self, listeners: list[socket.socket], lifeline: socket.socket) -> None:
        self.listeners = listeners
        self._lifeline = lifeline

    def serve(self, server: WebSocketServer) -> None:
        """Serve until the parent, or a signal, ends it."""
        try:
            self._lifeline.send(server.url.encode())
        except OSError:
            pass  # the parent is gone, which is what the thread is about to read
        threading.Thread(target=self._obey, args=(server,), daemon=True).start()
        server.serve_forever()

    def _obey(self, server: WebSocketServer) -> None:
        while word := self._next_word():
            if word == RELOAD:
                _reload(server)
            else:
                # In a thread of its own: stop() waits, and more words may come.
                grace = {} if word == STOP else {"grace": 0.0}
                threading.Thread(target=server.stop, kwargs=grace, daemon=True).start()
        server.stop()

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


def _reload(server: WebSocketServer) -> None:
    try:
        server.reload_tls()
    except ConfigurationError as error:
        log.error("%s", error)
