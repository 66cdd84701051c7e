"""Unix sockets: whose file it is, while servers start, hang and stop beside each other."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import TIMEOUT

from securews import ConfigurationError
from securews.server import unix_socket
from securews.server.unix_socket import UnixListener, open_unix

PATH = "ws.sock"
BACKLOG = 16
A_WHILE = 0.4
"""Seconds in which something would have happened that does not."""


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the kernel's limit of 108 bytes
    return tmp_path


@pytest.fixture
def leftover():
    """What a killed server leaves."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(PATH)


@pytest.fixture
def opened():
    """What is to be closed at the end."""
    with ExitStack() as stack:
        yield stack


def answers():
    """Whether somebody listens at the path."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(PATH) == 0


class Start:
    """A start in a thread of its own: the listener, or why there is none."""

    def __init__(self, opened):
        self.listener = None
        self.error = None
        self._opened = opened
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.listener = self._opened.enter_context(open_unix(PATH, BACKLOG))
        except ConfigurationError as error:
            self.error = str(error)

    def ends(self, seconds=TIMEOUT):
        self._thread.join(seconds)
        return not self._thread.is_alive()


# -- a stop ----------------------------------------------------------------------------------------


@pytest.mark.promise(76)
def test_a_stop_leaves_the_socket_of_a_successor(opened):
    old = open_unix(PATH, BACKLOG)
    Path(PATH).unlink()  # as some deployments do before they start a new server
    opened.enter_context(open_unix(PATH, BACKLOG))
    old.close()
    assert answers()


@pytest.mark.promise(76)
def test_the_file_goes_before_its_socket_so_that_it_is_never_another_ones(opened, monkeypatch):
    def close(listener):
        monkeypatch.setattr(socket.socket, "close", real_close)
        successor = Start(opened)  # whoever starts in this moment
        assert successor.ends()
        assert successor.error is None
        listener.close()

    real_close = socket.socket.close
    old = open_unix(PATH, BACKLOG)
    monkeypatch.setattr(socket.socket, "close", close)
    old.close()
    assert answers()


def test_the_file_goes_wherever_the_program_has_gone(directory):
    listener = open_unix(PATH, BACKLOG)
    os.chdir("/")  # the fixture goes back
    listener.close()
    listener.close()
    assert not list(directory.iterdir())


def test_a_forked_process_leaves_the_file(directory, monkeypatch):
    listener = open_unix(PATH, BACKLOG)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    listener.close()
    assert (directory / PATH).is_socket()


# -- a start ---------------------------------------------------------------------------------------


@pytest.mark.promise(76)
def test_a_start_beside_a_hung_server_does_not_wait(opened):
    hung = opened.enter_context(socket.socket(socket.AF_UNIX))
    hung.bind(PATH)
    hung.listen(0)
    client = opened.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(PATH)  # its queue is full now, and it accepts nobody
    start = Start(opened)
    assert start.ends()
    assert "its queue is full: it may hang" in start.error


@pytest.mark.promise(76)
@pytest.mark.usefixtures("leftover")
def test_of_two_starts_at_once_one_is_told_of_the_other(opened, monkeypatch):
    second = []
    real_listen = UnixListener.listen

    def listen(listener, backlog):  # it is bound: to who looks now it is like one left over
        monkeypatch.setattr(UnixListener, "listen", real_listen)
        second.append(Start(opened))
        second[0].ends(A_WHILE)
        listener.listen(backlog)

    monkeypatch.setattr(UnixListener, "listen", listen)
    first = opened.enter_context(open_unix(PATH, BACKLOG))
    assert second[0].ends()
    assert "another server listens on" in second[0].error
    first.close()
    assert not answers()


@pytest.mark.promise(76)
def test_a_lock_that_somebody_keeps_delays_a_start_by_its_deadline(directory, monkeypatch):
    monkeypatch.setattr(unix_socket, "LOCK_SECONDS", 0.05)
    kept = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(kept, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match=r"the lock of its directory for 0\.05 s"):
            open_unix(PATH, BACKLOG)
    finally:
        os.close(kept)
    open_unix(PATH, BACKLOG).close()


@pytest.mark.parametrize("cannot", ["flock", "open"])
def test_a_directory_that_cannot_be_locked_is_served_all_the_same(cannot, opened, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(fcntl if cannot == "flock" else os, cannot, refuse)
    opened.enter_context(open_unix(PATH, BACKLOG))
    assert answers()


def test_a_start_that_fails_leaves_nothing(directory, monkeypatch):
    def listen(listener, backlog):
        raise OSError(errno.ENOBUFS, "no buffers")

    monkeypatch.setattr(UnixListener, "listen", listen)
    with pytest.raises(ConfigurationError, match="cannot be made: no buffers"):
        open_unix(PATH, BACKLOG)
    assert not list(directory.iterdir())


def test_a_directory_that_is_not_there_is_told():
    with pytest.raises(ConfigurationError, match=r"'none/ws\.sock' cannot be made: No such file"):
        open_unix("none/ws.sock", BACKLOG)
