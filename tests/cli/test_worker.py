"""A worker of `--workers N` from inside: how it obeys its parent."""

import logging
import socket
import threading

import pytest
from support import TIMEOUT, eventually

import securews
from securews.cli.worker import FORCE, RELOAD, RELOADED, STOP, Inheritance


class Server:
    """Notes what it is told; a reload takes until `may_reload` is set."""

    url = "ws://localhost:1/"

    def __init__(self):
        self.told = []
        self.may_reload = threading.Event()
        self.stopped = threading.Event()

    def serve_forever(self):
        assert self.stopped.wait(TIMEOUT)

    def stop(self, grace=10.0):
        self.told.append(grace)
        self.stopped.set()

    def reload_tls(self):
        assert self.may_reload.wait(TIMEOUT)
        raise securews.ConfigurationError("as the test wants it")


@pytest.fixture
def parent():
    """The other end of the lifeline, and what runs a worker with it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    running = []

    def run(server):
        inheritance = Inheritance([], theirs)
        thread = threading.Thread(target=inheritance.serve, args=(server,))
        running.append(thread)
        thread.start()
        assert ours.recv(100) == server.url.encode()
        return thread

    yield ours, run
    ours.close()
    for thread in running:
        thread.join(TIMEOUT)
    theirs.close()


def test_an_end_is_obeyed_while_a_reload_hangs(parent):
    lifeline, run = parent
    server = Server()
    thread = run(server)
    lifeline.send(RELOAD + STOP)
    thread.join(TIMEOUT)
    assert server.told == [10.0]
    server.may_reload.set()


def test_a_reload_is_answered_when_it_is_over_whatever_came_of_it(parent, caplog):
    lifeline, run = parent
    server = Server()
    run(server)
    lifeline.send(RELOAD)
    server.may_reload.set()
    assert lifeline.recv(100) == RELOADED
    assert caplog.record_tuples == [("securews.workers", logging.ERROR, "as the test wants it")]


def test_without_a_thread_for_it_an_end_is_obeyed_all_the_same(parent, monkeypatch):
    lifeline, run = parent
    server = Server()
    run(server)

    def none_left(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", none_left)
        lifeline.send(FORCE)
        eventually(lambda: server.told == [0.0])


def test_an_end_that_comes_before_the_start_is_no_fault(parent):
    lifeline, run = parent
    server = securews.serve(0, lambda ws: None, tls=False)
    serve_forever = server.serve_forever
    stopped, raised = threading.Event(), []

    def late():
        assert stopped.wait(TIMEOUT)
        try:
            serve_forever()
        except RuntimeError as error:
            raised.append(str(error))
            raise

    def stop(*arguments):
        type(server).stop(server, *arguments)
        stopped.set()

    server.serve_forever, server.stop = late, stop
    thread = run(server)
    lifeline.send(STOP)
    thread.join(TIMEOUT)
    assert raised == ["the server is stopped; make a new one"]
