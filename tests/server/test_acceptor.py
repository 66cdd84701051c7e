"""Whatever goes wrong while a connection is accepted, nothing that it held is kept."""

import errno
import logging
import socket

import pytest
from support import Happened, RawClient, errors_in, eventually, tracebacks_in

import securews
from securews.server import acceptor as module
from securews.server.acceptor import Acceptor
from securews.server.opening import Opening

BAD_LUCK = [SystemExit(3), ValueError("of the user"), MemoryError()]


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


class Failing(securews.PlainSocketHandler):
    """Raises what is told in one of its methods, the first `times` times."""

    def __init__(self, error, method="accept", times=1):
        super().__init__()
        self.error, self.method, self.times = error, method, times

    def on_connect_query(self, address):
        self._perhaps_raise("on_connect_query")
        return True

    def accept(self, sock, address):
        self._perhaps_raise("accept")
        return super().accept(sock, address)

    def _perhaps_raise(self, method):
        if method == self.method and self.times:
            self.times -= 1
            raise self.error


def fails_once(monkeypatch, owner, name, error):
    """The next call of `name` raises."""
    original, failed = getattr(owner, name), Happened()

    def once(*args, **kwargs):
        if not failed.items:
            failed()
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, once)


def silent(server):
    return RawClient(server.address, upgrade=False)


def served(server):
    """One client is served, and leaves nothing behind."""
    with RawClient(server.address) as client:
        assert client.status == 101
    nothing_is_held(server)


def nothing_is_held(server):
    def held():
        stats = server.stats()
        return stats["sockets"] or stats["leases"] or server._core.io.has_channels()

    eventually(lambda: not held(), f"nothing to be held: {server.stats()}")


def ended(client):
    try:
        return client.read_to_end() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("error", BAD_LUCK, ids=repr)
@pytest.mark.parametrize("method", ["accept", "on_connect_query"])
def test_a_socket_handler_that_raises_costs_one_connection(error, method, caplog):
    with securews.serve(0, Echo(), tls=Failing(error, method), max_connections=1) as server:
        with silent(server) as peer:
            assert ended(peer)
        nothing_is_held(server)
        served(server)
    assert len(tracebacks_in(caplog)) == 1


def test_a_peer_that_was_reset_already_is_nothing_for_the_log(caplog):
    handler = Failing(ConnectionResetError())
    with securews.serve(0, Echo(), tls=handler, max_connections=1) as server:
        with silent(server) as peer:
            assert ended(peer)
        served(server)
    assert errors_in(caplog) == []


@pytest.mark.parametrize("error", BAD_LUCK, ids=repr)
@pytest.mark.parametrize("where", ["Channel", "_set_keepalive"])
def test_a_connection_that_cannot_be_made_is_closed_and_counted_out(
    monkeypatch, error, where, caplog
):
    with securews.serve(0, Echo(), tls=False, max_connections=1) as server:
        fails_once(monkeypatch, module, where, error)
        with silent(server) as peer:
            assert ended(peer)
        nothing_is_held(server)
        served(server)
    assert len(tracebacks_in(caplog)) == 1


@pytest.mark.parametrize("method", ["__init__", "start"])
def test_an_opening_that_cannot_begin_is_aborted_and_counted_out(monkeypatch, method, caplog):
    """As where the kernel has no memory left to watch its descriptor."""
    with securews.serve(0, Echo(), tls=False, max_connections=1, open_timeout=None) as server:
        fails_once(monkeypatch, Opening, method, OSError(errno.ENOSPC, "no space"))
        with silent(server) as peer:
            assert ended(peer)
        nothing_is_held(server)
        served(server)
    assert "internal error while a connection was opened; it is aborted" in errors_in(caplog)


def test_an_opening_that_raises_is_aborted_and_counted_out(monkeypatch, caplog):
    with securews.serve(0, Echo(), tls=False, max_connections=1, open_timeout=None) as server:
        fails_once(monkeypatch, Opening, "on_ready", ValueError("ours"))
        with silent(server) as peer:
            peer.send_raw(b"GET ")
            assert ended(peer)
        nothing_is_held(server)
        served(server)
    assert len(tracebacks_in(caplog)) == 1


@pytest.mark.parametrize("error", BAD_LUCK, ids=repr)
@pytest.mark.parametrize("where", ["Channel", "Opening"])
def test_refusals_that_fail_do_not_use_up_the_refusals(monkeypatch, error, where, caplog):
    monkeypatch.setattr(module, "MAX_REFUSALS", 1)
    with (
        securews.serve(0, Echo(), tls=False, max_connections=1) as server,
        RawClient(server.address),
    ):
        fails_once(monkeypatch, module, where, error)
        with silent(server) as peer:
            assert ended(peer)
        eventually(lambda: len(server._core.io.first.channels()) == 1)
        with silent(server) as refused:
            assert refused.read_to_end().startswith(b"HTTP/1.1 503 ")
        assert server.stats()["refused"] == 2
        assert server.stats()["sockets"] == 1
    assert tracebacks_in(caplog)


class Poller:
    """Has no memory to watch anything, a few times."""

    def __init__(self, poller):
        self.poller, self.failures = poller, 0

    def watch(self, fd, *, read, write):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.poller.watch(fd, read=read, write=write)

    def __getattr__(self, name):
        return getattr(self.poller, name)


def test_a_listener_that_cannot_be_watched_is_tried_again(caplog):
    server = securews.serve(0, Echo(), tls=False, host="127.0.0.1")
    poller = server._core.loop._poller = Poller(server._core.loop._poller)
    poller.failures = 3
    with server:
        served(server)
    assert poller.failures == 0
    (warning,) = errors_in(caplog)
    assert "No space left on device" in warning


class Listener(socket.socket):
    """A process that has no descriptor left, a few times."""

    failures = 0

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.mark.d(19)
def test_nobody_is_let_go_for_a_short_shortage():
    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.failures = 4
        with securews.serve(None, Echo(), tls=False, sockets=[listener]) as server:
            served(server)
        assert listener.failures == 0


@pytest.mark.promise(8)
@pytest.mark.d(19)
def test_a_shortage_that_lasts_lets_one_peer_go_each_time_accepting_is_tried(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.02)
    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.failures = 3  # after 5, 10 and 20 ms
        with securews.serve(None, Echo(), tls=False, sockets=[listener]) as server:
            with silent(server) as peer:
                assert ended(peer)
            served(server)


def test_accepting_goes_on_after_whatever_is_raised_in_it(monkeypatch, caplog):
    with securews.serve(0, Echo(), tls=False) as server:
        fails_once(monkeypatch, Acceptor, "_admit", ValueError("ours"))
        with silent(server) as peer:
            assert ended(peer)
        served(server)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "while a connection was accepted" in record.getMessage()
