"""The pollers keep one contract."""

from __future__ import annotations

import socket
import sys

import pytest

from securews.connection.channel import HANGUP, READABLE, WRITABLE
from securews.loop import poller as pollers
from securews.loop.poller import SelectorPoller

KINDS = [SelectorPoller, *([pollers.EpollPoller] if sys.platform == "linux" else [])]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def poller(request):
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_nothing_is_ready_when_nothing_came(poller, pair):
    poller.watch(pair[0].fileno(), read=True, write=False)
    assert poller.poll(0) == []


def test_bytes_make_a_descriptor_readable_until_they_are_read(poller, pair):
    ours, theirs = pair
    poller.watch(ours.fileno(), read=True, write=False)
    theirs.send(b"x")
    for _ in range(2):  # level-triggered
        ((fd, mask),) = poller.poll(1)
        assert fd == ours.fileno()
        assert mask & READABLE
    ours.recv(1)
    assert poller.poll(0) == []


def test_an_empty_socket_is_writable_only_if_asked(poller, pair):
    poller.watch(pair[0].fileno(), read=True, write=True)
    ((_, mask),) = poller.poll(1)
    assert mask & WRITABLE
    poller.watch(pair[0].fileno(), read=True, write=False)
    assert poller.poll(0) == []


def test_an_unwatched_descriptor_reports_nothing_and_may_be_unwatched_again(poller, pair):
    ours, theirs = pair
    poller.watch(ours.fileno(), read=True, write=False)
    theirs.send(b"x")
    poller.unwatch(ours.fileno())
    poller.unwatch(ours.fileno())
    assert poller.poll(0) == []


def test_bytes_do_not_wake_a_paused_descriptor(poller, pair):
    ours, theirs = pair
    poller.watch(ours.fileno(), read=False, write=False)
    poller.poll(0)
    theirs.send(b"x")
    assert not [mask for _, mask in poller.poll(0) if mask & READABLE]


@pytest.mark.skipif(sys.platform != "linux", reason="EPOLLRDHUP is Linux's")
def test_epoll_tells_once_that_the_peer_of_a_paused_descriptor_is_gone(pair):
    ours, theirs = pair
    poller = pollers.EpollPoller()
    poller.watch(ours.fileno(), read=False, write=False)
    theirs.close()
    ((_, mask),) = poller.poll(1)
    assert mask & HANGUP
    assert poller.poll(0) == []  # edge-triggered: it does not spin
    poller.close()
