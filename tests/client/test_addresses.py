"""Names, addresses and sockets of the client, within one deadline."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

import pytest
from support import TIMEOUT

import securews
from securews.client import addresses
from securews.client.addresses import connect_tcp, resolve
from securews.common.deadlines import Deadline

SHORT = 0.2

real_getaddrinfo = socket.getaddrinfo


@pytest.fixture
def resolver(monkeypatch):
    """Sets what names resolve to: a function without arguments."""

    def answer_by(look_up):
        def getaddrinfo(host, port, *, type, flags=0):  # noqa: A002 - as in the standard library
            if flags & socket.AI_NUMERICHOST:
                return real_getaddrinfo(host, port, type=type, flags=flags)
            return look_up()

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer_by


def info(port, host="127.0.0.1"):
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def no_threads(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_ip_address_needs_no_thread(host, no_threads):
    assert [info[4][:2] for info in resolve(host, 1, Deadline(TIMEOUT))] == [(host, 1)]


def test_a_name_without_a_thread_to_resolve_it_is_an_error_with_words(no_threads):
    with pytest.raises(OSError, match=r"'name\.example' cannot be resolved, for no thread"):
        resolve("name.example", 1, Deadline(TIMEOUT))


@pytest.mark.promise(73)
def test_a_resolver_that_hangs_does_not_put_off_the_deadline(resolver):
    over = threading.Event()
    resolver(lambda: over.wait(TIMEOUT) and [])
    try:
        with pytest.raises(TimeoutError, match=r"'name\.example' was not resolved in time"):
            securews.connect("ws://name.example/", timeout=SHORT)
    finally:
        over.set()


def test_a_name_that_nobody_knows_is_in_the_error(resolver):
    def unknown():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver(unknown)
    with pytest.raises(socket.gaierror, match=r"'name\.example' cannot be resolved: Name or"):
        securews.connect("ws://name.example/")


def test_whatever_ends_the_look_up_is_raised(resolver):
    def broken():
        raise MemoryError

    resolver(broken)
    with pytest.raises(MemoryError):
        resolve("name.example", 1, Deadline(TIMEOUT))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_what_can_be_no_host_name_is_a_mistake_of_the_program(host):
    with pytest.raises(securews.ConfigurationError, match="is no host name"):
        securews.connect(f"ws://{host}/")


def test_an_address_that_refuses_is_followed_by_the_next(resolver):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        resolver(lambda: [info(unused_port()), info(port)])
        with connect_tcp("name.example", 1, Deadline(TIMEOUT)) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


@contextlib.contextmanager
def swallowing():
    """A port whose SYNs are dropped: the queue of its listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer from a full queue")
def test_an_address_that_answers_nothing_leaves_time_to_the_next(resolver):
    with swallowing() as silent, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        resolver(lambda: [info(silent), info(port)])
        with connect_tcp("name.example", 1, Deadline(2.0)) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


@pytest.mark.promise(73)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer from a full queue")
def test_addresses_that_answer_nothing_have_one_deadline_together(resolver):
    deadline = Deadline(SHORT)
    with swallowing() as silent:
        resolver(lambda: [info(silent)] * 3)
        with pytest.raises(TimeoutError, match=r"'name\.example' port 7 cannot be reached: timed"):
            connect_tcp("name.example", 7, deadline)
    assert deadline.passed


def test_each_attempt_has_an_even_share_of_what_is_left(resolver, monkeypatch):
    shares = []
    monkeypatch.setattr(
        addresses, "_attempt", lambda info, share: shares.append(share) or OSError("no")
    )
    resolver(lambda: [info(1)] * 4)
    with pytest.raises(OSError, match="cannot be reached: no"):
        connect_tcp("name.example", 7, Deadline(1200))
    assert shares == pytest.approx([300, 400, 600, 1200], rel=0.05)
    shares.clear()
    with pytest.raises(OSError, match="cannot be reached: no"):
        connect_tcp("name.example", 7, Deadline(None))
    assert shares == [None] * 4


def test_no_time_left_is_no_attempt(resolver):
    resolver(lambda: [info(unused_port())])
    with pytest.raises(TimeoutError):
        securews.connect("ws://127.0.0.1:1/", timeout=0)


def test_the_error_names_host_port_and_the_last_reason(resolver):
    resolver(lambda: [info(unused_port()), info(unused_port())])
    with pytest.raises(
        ConnectionRefusedError,
        match=r"'name\.example' port 7 cannot be reached: Connection refused",
    ):
        securews.connect("ws://name.example:7/", timeout=TIMEOUT)


def test_an_interrupt_closes_the_socket(monkeypatch):
    made = []

    class Interrupted(socket.socket):
        def connect(self, address):
            made.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, "socket", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect_tcp("127.0.0.1", 1, Deadline(TIMEOUT))
    assert [sock.fileno() for sock in made] == [-1]
