"""The system calls that run for every message, on descriptors that never wait.

Python gives up the GIL around each of them, which is right for calls that wait. These do not: to
give the GIL up for a microsecond means to queue behind every busy thread of the program, for up
to 5 ms each time. The compiled twins (`syscalls.pyx`) keep it.
"""

from __future__ import annotations

import os
import select
import socket

__all__ = ["drain", "poke", "receive", "send", "wait_ready"]


def receive(sock: socket.socket, size: int) -> bytes:
    """What is there, at most `size` bytes; `b""` at the end. One thread at a time.

    Raises:
        BlockingIOError: there is nothing yet.
        OSError: the connection is broken.
    """
    return sock.recv(size)


def send(sock: socket.socket, data: bytes) -> int:
    """Send what the socket takes; how many bytes that were. One thread at a time.

    Raises:
        BlockingIOError: it takes nothing at present.
        OSError: the connection is broken.
    """
    return sock.send(data)


def poke(pipe: int) -> None:
    """Write a zero into a non-blocking pipe, unless it is full. Any thread."""
    try:
        os.write(pipe, b"\0")
    except BlockingIOError:
        pass  # whoever waits for the other end wakes up anyway


def drain(pipe: int) -> bytes:
    """What is in a non-blocking pipe, at most 512 bytes of it. One thread at a time."""
    try:
        return os.read(pipe, 512)
    except BlockingIOError:
        return b""


def wait_ready(epoll: select.epoll, timeout: float | None) -> list[tuple[int, int]]:
    """The descriptors that are ready, and why; waits at most `timeout` seconds for the first.

    The compiled twin keeps the GIL where something is ready at once, and gives it up to wait.
    """
    return epoll.poll(timeout)
