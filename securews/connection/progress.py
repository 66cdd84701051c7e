"""How much of what was sent the kernel still holds, because the peer has not taken it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios

__all__ = ["bytes_in_kernel"]

SO_NWRITE = 0x1024
"""macOS, <sys/socket.h>: bytes in the send buffer. Python has no name for it; it was never run."""


def bytes_in_kernel(fd: int) -> int:
    """Bytes that were sent on a socket and not acknowledged by its peer. Any thread.

    SIOCOUTQ on Linux (tcp(7), unix(7); its number is that of TIOCOUTQ). 0 where nobody says.
    """
    try:
        return _on_linux(fd) if sys.platform == "linux" else _on_macos(fd)
    except (OSError, ValueError):
        return 0  # a stream of the user's whose descriptor is no socket, or another system


def _on_linux(fd: int) -> int:
    number: int = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
    return number


def _on_macos(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
