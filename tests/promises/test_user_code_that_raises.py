"""Row 68: whatever user code raises ends its own connection, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from server_process import ServerProgram
from support import eventually
from wire import CLOSE, TEXT, WireClient, close_frame, request_head

ERRORS = ["RuntimeError", "SystemExit", "GeneratorExit", "CancelledError", "KeyboardInterrupt"]
TIMES = 9
"""One more than request_threads has places; handshake_workers and I/O threads are fewer."""

CALLBACKS = ["on_open", "on_message", "predicate", "on_close"]
OF_THE_WS = ["ws.on_close", "ws.on_receive_message"]
HANDLERS = ["create", "prepare", "handler", "finalize"]
BEFORE_HTTP = ["authorize", "on_connect_query"]
PLACES = [*CALLBACKS, *OF_THE_WS, *HANDLERS, "accept", "page", *BEFORE_HTTP]


class Raisings:
    """One server for as many tests as it survives."""

    def __init__(self, certificates, method) -> None:
        self._certificates = certificates
        self._method = method
        self._server: ServerProgram | None = None
        self.context = certificates.context(certificates.client)

    @contextmanager
    def server(self) -> Iterator[ServerProgram]:
        """A server that is well; after a failure the next test has a new one."""
        if self._server is None:
            self._server = ServerProgram(
                "Raising",
                tls=self._certificates.server,
                client_ca=self._certificates.ca_file,
                accepting_method=self._method,
            )
            self.assert_everybody_is_served(self._server)  # all lasting threads have begun
        try:
            yield self._server
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def client(self, server) -> WireClient:
        client = WireClient(server.address, self.context)
        client.socket.settimeout(3)
        # The request follows the end of the handshake at once, and must not wait for its ACK.
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def assert_everybody_is_served(self, server) -> None:
        """By an event handler, by a blocking one, and by a page."""
        for path in ("/", "/blocking"):
            with self.client(server) as client:
                client.upgrade(path)
                client.send_frame(TEXT, b"hello")
                assert client.read_frame().payload == b"hello"
                client.send(close_frame())
                assert client.read_close()[0] == 1000

    def assert_all_places_are_free(self, server) -> None:
        """Eight `accept()`, and eight pages, that wait for each other."""
        if self._method != "serial":
            assert self._together(server, request_head("/accept_together")) == [101] * 8
        page = request_head("/page_together", without=("Upgrade", "Connection"))
        assert self._together(server, page) == [200] * 8

    def _together(self, server, request):
        with ExitStack() as stack:
            clients = [stack.enter_context(self.client(server)) for _ in range(8)]
            for client in clients:
                client.send(request)
            return [client.answer().status for client in clients]

    def let_raise(self, server, place, error):
        """Make a peer for whom user code raises; what it sees."""
        if place in BEFORE_HTTP:
            server.ask("arm", place=place, error=error)
        try:
            with self.client(server) as client:
                answer = client.ask(request_head(f"/{place}?{error}", without=without(place)))
                if answer.status != 101:
                    return answer.status
                if place in ("on_message", "predicate", "handler", "ws.on_receive_message"):
                    client.send_frame(TEXT, b"hello")
                elif place not in ("on_open", "prepare", "create"):
                    client.send(close_frame())
                while (frame := client.read_frame()).opcode != CLOSE:
                    pass
                return frame.close[0]
        except TimeoutError:
            return "nothing"
        except (OSError, EOFError):
            return "the end"


def without(place):
    return ("Upgrade", "Connection") if place == "page" else ()


ENDS = {"accept": 500, "page": 500, "create": 500, **dict.fromkeys(BEFORE_HTTP, "the end")}
"""What the peer sees where it is not 1011; or where all was said already, its own 1000."""
ENDS |= dict.fromkeys(["on_close", "ws.on_close", "finalize"], 1000)


@pytest.fixture(scope="module")
def raisings(request, certificates) -> Iterator[Raisings]:
    found = Raisings(certificates, request.param)
    yield found
    found.close()


def the_method(*methods):
    return pytest.mark.parametrize("raisings", methods, indirect=True, scope="module")


@pytest.mark.promise(68)
@the_method("pool")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_raised_ends_its_own_connection(raisings, place, error):
    assert_only_its_own_connection_ends(raisings, place, error)


@pytest.mark.promise(68)
@the_method("threaded", "serial")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["accept", *HANDLERS])
def test_so_it_does_in_the_other_accepting_methods(raisings, place, error):
    assert_only_its_own_connection_ends(raisings, place, error)


def assert_only_its_own_connection_ends(raisings, place, error):
    with raisings.server() as server:
        threads, tracebacks = set(server.ask("threads")), server.log.count("Traceback (most")
        for number in range(TIMES):
            end = raisings.let_raise(server, place, error)
            assert end == ENDS.get(place, 1011), f"time {number + 1}: {server.log[-1500:]}"
        raisings.assert_everybody_is_served(server)
        raisings.assert_all_places_are_free(server)
        assert threads <= set(server.ask("threads")), "a thread of the server has ended"
        eventually(lambda: server.ask("stats")["sockets"] == 0, "the end of all connections")
        assert server.log.count("Traceback (most") == tracebacks + TIMES, server.log[-1500:]
