"""What the kernel says it still holds of what was sent."""

from __future__ import annotations

import os
import socket
import sys

import pytest
from support import eventually

from securews.connection.progress import bytes_in_kernel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the numbers of Linux")


@pytest.fixture(params=["tcp", "unix"])
def pair(request):
    """Two connected sockets, the first of which sends."""
    if request.param == "unix":
        one, other = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            other, _ = listener.accept()
    with one, other:
        one.setblocking(False)
        yield one, other


def fill(sock):
    """Send until the socket is full."""
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except BlockingIOError:
        return sent


def test_nothing_was_sent_and_nothing_is_held(pair):
    assert bytes_in_kernel(pair[0].fileno()) == 0


@pytest.mark.promise(51)
def test_what_is_held_falls_while_the_peer_reads_and_is_nothing_in_the_end(pair):
    one, other = pair
    sent = fill(one)
    full = bytes_in_kernel(one.fileno())
    assert full > 0
    taken = len(other.recv(sent // 2))
    while taken < sent // 2:
        taken += len(other.recv(sent // 2 - taken))
    eventually(lambda: bytes_in_kernel(one.fileno()) < full, "progress")
    while taken < sent:
        taken += len(other.recv(sent))
    eventually(lambda: bytes_in_kernel(one.fileno()) == 0, "the end")


def test_where_nobody_says_it_is_nothing():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"something")
        assert bytes_in_kernel(writer) == 0
    finally:
        os.close(reader)
        os.close(writer)
    assert bytes_in_kernel(writer) == 0  # closed
    assert bytes_in_kernel(-1) == 0
