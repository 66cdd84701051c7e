"""The system calls that run for every message: the module in use and its source do the same."""

import errno
import os
import select
import socket
import sys
import threading

import pytest
from support import source_of

from securews.common import syscalls


@pytest.fixture(params=[syscalls, source_of(syscalls)], ids=["in use", "in Python"])
def calls(request):
    return request.param


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    yield read, write
    os.close(read)
    os.close(write)


def test_what_is_sent_is_received(calls, pair):
    one, other = pair
    assert calls.send(one, b"hello") == 5
    assert calls.receive(other, 2) == b"he"
    assert calls.receive(other, 65536) == b"llo"


def test_nothing_yet_and_no_room_are_said_so(calls, pair):
    one, other = pair
    with pytest.raises(BlockingIOError):
        calls.receive(other, 100)
    with pytest.raises(BlockingIOError):
        while calls.send(one, bytes(65536)):
            pass


def test_an_end_is_empty_and_a_broken_connection_an_error(calls, pair):
    one, other = pair
    one.close()
    assert calls.receive(other, 100) == b""
    with pytest.raises(BrokenPipeError):
        calls.send(other, b"x")


def test_a_closed_socket_is_an_error(calls, pair):
    one, _ = pair
    one.close()
    for call in (lambda: calls.receive(one, 1), lambda: calls.send(one, b"x")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_pipe_is_poked_and_drained(calls, pipe):
    read, write = pipe
    assert calls.drain(read) == b""
    calls.poke(write)
    os.write(write, b"\x0f")  # as a signal does
    calls.poke(write)
    assert calls.drain(read) == b"\0\x0f\0"
    assert calls.drain(read) == b""


def test_a_full_pipe_is_poked_without_an_error(calls, pipe):
    read, write = pipe
    with pytest.raises(BlockingIOError):
        while os.write(write, bytes(65536)):
            pass
    calls.poke(write)
    assert calls.drain(read) == bytes(512)


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
class TestWaiting:
    @pytest.fixture
    def epoll(self):
        with select.epoll() as epoll:
            yield epoll

    def test_what_is_ready_comes_with_its_reason(self, calls, pair, epoll):
        one, other = pair
        epoll.register(other, select.EPOLLIN | select.EPOLLRDHUP)
        assert calls.wait_ready(epoll, 0) == []
        one.send(b"x")
        assert calls.wait_ready(epoll, None) == [(other.fileno(), select.EPOLLIN)]
        one.close()
        assert calls.wait_ready(epoll, 10)[0][1] & (select.EPOLLRDHUP | select.EPOLLHUP)

    def test_it_waits_without_holding_up_other_threads(self, calls, pair, epoll):
        one, other = pair
        epoll.register(other, select.EPOLLIN)
        sender = threading.Thread(target=one.send, args=(b"x",))
        sender.start()
        assert calls.wait_ready(epoll, 30) == [(other.fileno(), select.EPOLLIN)]
        sender.join()

    def test_it_waits_no_longer_than_was_asked(self, calls, epoll):
        assert calls.wait_ready(epoll, 0.01) == []

    def test_a_closed_epoll_is_an_error(self, calls, epoll):
        epoll.close()
        with pytest.raises(ValueError):
            calls.wait_ready(epoll, 0)
