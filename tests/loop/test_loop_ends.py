"""The loop's end: what was raised between two turns ends it, and leaves nobody waiting."""

import threading

import pytest
from support import TIMEOUT, Happened, tracebacks_in

from securews.loop.loop import Loop, Owner


class Poller:
    """Reports nothing; raises what it is given in its next wait."""

    def __init__(self):
        self.asked = threading.Semaphore(0)
        self.error = None
        self.watched = {}
        self.closed = False

    def watch(self, fd, *, read, write):
        assert not self.closed
        self.watched[fd] = read, write

    def unwatch(self, fd):
        assert not self.closed
        self.watched.pop(fd, None)

    def poll(self, timeout):
        if self.error is not None:
            raise self.error
        assert self.asked.acquire(timeout=TIMEOUT)
        if self.error is not None:
            raise self.error
        return []

    def close(self):
        self.closed = True
        if self.error is not None:
            raise OSError("it is broken")


class Connection(Owner):
    """Ends as a channel does: asked by `abort`, on the loop's thread, at the end of a turn."""

    def __init__(self, loop, fd, told):
        self.fd, self.loop, self.told = fd, loop, told

    def abort(self, error=None):
        self.told(("abort", self.fd))
        self.loop.schedule(self)

    def flush_scheduled(self):
        assert self.loop.on_loop_thread()
        self.loop.close_later(self)

    def release(self):
        self.told(("released", self.fd))


@pytest.fixture
def told():
    return Happened()


def running(loop):
    thread = threading.Thread(target=loop.run)
    thread.start()
    return thread


@pytest.mark.parametrize("error", [MemoryError(), OSError(9, "Bad file descriptor"), SystemExit(1)])
def test_a_loop_whose_poller_is_broken_says_so_and_aborts_its_owners(error, told, caplog):
    poller = Poller()
    loop = Loop(poller)
    for fd in (1000, 1001):
        loop.watch(Connection(loop, fd, told), read=True, write=False)
    loop.on_failure = lambda caught: told(("failed", caught))
    thread = running(loop)
    poller.error = error
    poller.asked.release()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert told.items == [
        ("failed", error),
        ("abort", 1000),
        ("abort", 1001),
        ("released", 1000),
        ("released", 1001),
    ]
    assert not loop.call_soon(told)
    assert len(tracebacks_in(caplog)) == 1  # of the poller that could not be closed


def test_without_somebody_to_tell_the_failure_goes_on_to_the_caller(told):
    poller = Poller()
    poller.error = MemoryError()
    loop = Loop(poller)
    loop.watch(Connection(loop, 1000, told), read=True, write=False)
    with pytest.raises(MemoryError):
        loop.run()
    assert told.items == [("abort", 1000), ("released", 1000)]


def test_what_is_opened_in_the_last_calls_is_aborted_too(told):
    poller = Poller()
    poller.error = MemoryError()
    loop = Loop(poller)

    def open_one_more():
        loop.watch(Connection(loop, 1000, told), read=True, write=False)

    loop.call_soon(open_one_more)
    with pytest.raises(MemoryError):
        loop.run()
    assert told.items == [("abort", 1000), ("released", 1000)]


def test_an_owner_whose_abort_raises_does_not_keep_the_others_from_theirs(told, caplog):
    class Failing(Connection):
        def abort(self, error=None):
            raise ValueError("ours")

    poller = Poller()
    poller.error = MemoryError()
    loop = Loop(poller)
    loop.watch(Failing(loop, 1000, told), read=True, write=False)
    loop.watch(Connection(loop, 1001, told), read=True, write=False)
    with pytest.raises(MemoryError):
        loop.run()
    assert ("released", 1001) in told.items


def test_a_loop_that_is_stopped_aborts_who_is_left(told):
    loop = Loop()
    loop.call_soon(
        lambda: loop.watch(Connection(loop, loop.signal_fd, told), read=False, write=False)
    )
    thread = running(loop)
    loop.stop()
    thread.join(TIMEOUT)
    assert told.items == [("abort", loop.signal_fd), ("released", loop.signal_fd)]
