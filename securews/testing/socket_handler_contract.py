"""What every `SocketHandler` and `SocketStream` has to do, as tests that can be imported.

For authors of handlers of their own. Subclass the suite and say how the two ends are made;
pytest (or unittest, with `unittest.TestCase` as a second base) finds the rest:

    from securews.testing.socket_handler_contract import SocketHandlerContract

    class TestMyHandler(SocketHandlerContract):
        def server_handler(self):
            return MyHandler(...)

        def client_handler(self):
            return securews.TLSClientSocketHandler("ca.pem")

`preface` is what a client's side of the wire carries before its handshake (a proxy's header),
`make_sockets()` gives connected sockets other than TCP ones, `wrap()` is for a handler that wraps
another one. For pytest's explanations of failed
asserts put `pytest.register_assert_rewrite("securews.testing.socket_handler_contract")` into a
conftest.py. Nothing here imports pytest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from securews.common.errors import ConfigurationError, HandshakeError
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import (
    MAX_SEND,
    SocketHandler,
    SocketStream,
    TruncatedError,
    Want,
)

__all__ = [
    "Pair",
    "SocketHandlerContract",
    "receive",
    "receive_end",
    "send_all",
    "shake_hands",
    "wait",
]

TIMEOUT = 10.0
"""Seconds that any wait here may last; only a broken stream comes near it."""


@dataclasses.dataclass
class Pair:
    """Both ends of one connection, and the sockets under them."""

    server: SocketStream
    client: SocketStream
    server_socket: socket.socket
    client_socket: socket.socket

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


def wait(wants: Mapping[SocketStream, Want]) -> None:
    """Wait until one of the streams can go on, as a poller does; no longer than TIMEOUT."""
    if any(want is Want.READ and stream.bytes_available for stream, want in wants.items()):
        return
    poller = select.poll()
    for stream, want in wants.items():
        poller.register(stream.fileno(), select.POLLIN if want is Want.READ else select.POLLOUT)
    assert poller.poll(TIMEOUT * 1000), f"nothing came: {wants}"


def shake_hands(*streams: SocketStream) -> None:
    """Run the handshakes of these streams, all in this thread."""
    waiting = list(streams)
    deadline = time.monotonic() + TIMEOUT
    while waiting:
        assert time.monotonic() < deadline, "the handshake does not come to an end"
        wants = {stream: stream.handshake() for stream in waiting}
        waiting = [stream for stream in waiting if wants[stream] is not Want.NOTHING]
        if len(waiting) == len(wants):
            wait(wants)


def receive(stream: SocketStream, size: int) -> bytes:
    """Read at least `size` bytes; an end before that fails."""
    received = bytearray()
    while len(received) < size:
        data = stream.recv()
        if isinstance(data, Want):
            wait({stream: data})
            continue
        assert data, f"an end after {len(received)} of {size} bytes"
        received += data
    return bytes(received)


def receive_end(stream: SocketStream) -> bytes:
    """Read until the orderly end; return what came before it."""
    received = bytearray()
    while data := stream.recv():
        if isinstance(data, Want):
            wait({stream: data})
        else:
            received += data
    return bytes(received)


def finish(stream: SocketStream, step: Callable[[], Want]) -> None:
    """Call `flush` or `shutdown` until it is done."""
    while (want := step()) is not Want.NOTHING:
        wait({stream: want})


def send_all(sender: SocketStream, receiver: SocketStream, data: bytes) -> bytes:
    """Send `data` in pieces while the other end reads; return what arrived."""
    arrived = bytearray()
    for start in range(0, len(data), MAX_SEND):
        want = sender.send(data[start : start + MAX_SEND])
        while want is not Want.NOTHING:
            got = receiver.recv()
            if isinstance(got, bytes):
                arrived += got
            else:
                wait({sender: want, receiver: got})
            want = sender.flush()
    return bytes(arrived) + receive(receiver, len(data) - len(arrived))


@contextlib.contextmanager
def raises(*errors: type[Exception]) -> Iterator[None]:
    """Fail unless one of these is raised."""
    try:
        yield
    except errors:
        return
    raise AssertionError(f"none of {[error.__name__ for error in errors]} was raised")


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection on loopback: (server, client), blocking as accept gives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), TIMEOUT)
        server, _ = listener.accept()
    client.settimeout(None)
    return server, client


THE_WRAPPERS_OWN = {"accept", "connect", "check", "on_connect_query", "secure", "insecure"}
"""What a handler that wraps another one may decide by itself: the bytes, and whom it meets."""


def handler_that_notes(asked: list[str]) -> SocketHandler:
    """A handler that notes what it is asked for, but for what is a wrapper's own."""

    def noting(name: str, member: object) -> object:
        def note(*_: object) -> None:
            asked.append(name)

        return property(note) if isinstance(member, property) else note

    members = {
        name: noting(name, member)
        for name, member in vars(SocketHandler).items()
        if not name.startswith("_") and name not in THE_WRAPPERS_OWN
    }
    kind: type[PlainSocketHandler] = type("Inner", (PlainSocketHandler,), members)
    return kind()


class SocketHandlerContract:
    """The suite. See the module's own words for how to use it."""

    server_name = "localhost"
    """What the client asks the server to prove."""

    preface = b""
    """Sent in the clear on the client's socket before its handshake."""

    def server_handler(self) -> SocketHandler:
        """The handler that is tested."""
        raise NotImplementedError

    def client_handler(self) -> SocketHandler:
        """A handler that can connect to it."""
        raise NotImplementedError

    def make_sockets(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets: (server, client)."""
        return tcp_sockets()

    def wrap(self, inner: SocketHandler) -> SocketHandler | None:
        """The handler around another one than its own; None for a handler that wraps none."""
        del inner
        return None

    @contextlib.contextmanager
    def silent_pair(self, *, buffers: int | None = None) -> Iterator[Pair]:
        """Both ends before their handshake, with small socket buffers if asked."""
        server_socket, client_socket = self.make_sockets()
        if buffers is not None:
            for end in (server_socket, client_socket):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        address = server_socket.getpeername()
        client_socket.sendall(self.preface)
        pair = Pair(
            self.server_handler().accept(server_socket, address),
            self.client_handler().connect(client_socket, self.server_name),
            server_socket,
            client_socket,
        )
        try:
            yield pair
        finally:
            pair.close()

    @contextlib.contextmanager
    def pair(self, *, buffers: int | None = None) -> Iterator[Pair]:
        """Both ends after their handshake."""
        with self.silent_pair(buffers=buffers) as pair:
            shake_hands(pair.client, pair.server)
            yield pair

    def test_the_handshake_ends_and_stays_done(self) -> None:
        """NOTHING is said again, and secure streams have facts to tell."""
        with self.pair() as pair:
            for stream in (pair.server, pair.client):
                assert stream.handshake() is Want.NOTHING
                assert stream.last_error is None
            assert (pair.server.info is not None) == self.server_handler().secure

    def test_a_silent_peer_is_not_waited_for(self) -> None:
        """Although the socket was given blocking."""
        with self.silent_pair() as pair:
            expected = Want.READ if self.server_handler().secure else Want.NOTHING
            while (want := pair.server.handshake()) is not expected:
                # A preface may be under way; after it there is silence.
                wait({pair.server: want})
            assert not pair.server_socket.getblocking()

    def test_nothing_to_read_is_said_at_once(self) -> None:
        """READ, and nothing is available without the socket."""
        with self.pair() as pair:
            for stream in (pair.server, pair.client):
                while stream.recv() is not Want.READ:
                    pass  # TLS 1.3 sends tickets behind the handshake
                assert stream.bytes_available == 0
                assert stream.bytes_pending == 0

    def test_bytes_arrive_both_ways(self) -> None:
        """Sizes around the borders of records and pieces."""
        with self.pair() as pair:
            for size in (1, 2, 125, 16383, 16384, 16385, MAX_SEND - 1, MAX_SEND):
                data = bytes(i * 7 % 251 for i in range(size))
                assert send_all(pair.client, pair.server, data) == data
                assert send_all(pair.server, pair.client, data) == data

    def test_a_mebibyte_arrives_unchanged(self) -> None:
        """In pieces, through small buffers."""
        data = bytes(i * 31 % 253 for i in range(1 << 16)) * 16
        with self.pair(buffers=32 << 10) as pair:
            assert send_all(pair.server, pair.client, data) == data

    def test_bytearray_and_memoryview_are_copied(self) -> None:
        """What was sent does not change with the caller's buffer."""
        with self.pair() as pair:
            buffer = bytearray(b"before")
            pair.client.send(buffer)
            pair.client.send(memoryview(buffer))
            buffer[:] = b"after!"
            assert receive(pair.server, 12) == b"beforebefore"

    def test_sending_nothing_sends_nothing(self) -> None:
        """And is no end."""
        with self.pair() as pair:
            assert pair.client.send(b"") is Want.NOTHING
            pair.client.send(b"x")
            assert receive(pair.server, 1) == b"x"

    def test_many_small_sends_arrive_in_order(self) -> None:
        """Whether one `recv()` brings all of them or, for the work that they are, a share."""
        data = bytes(range(200))
        with self.pair() as pair:
            for start in range(len(data)):
                assert pair.client.send(data[start : start + 1]) is Want.NOTHING
            assert receive(pair.server, len(data)) == data
            assert pair.server.recv() is Want.READ
            assert pair.server.bytes_available == 0

    def test_data_right_behind_the_handshake_is_found(self) -> None:
        """It may have come in the handshake's last read, where no poller sees it."""
        with self.silent_pair() as pair:
            sent = False
            while True:
                wants: dict[SocketStream, Want] = {}
                if not sent and (want := pair.client.handshake()) is not Want.NOTHING:
                    wants[pair.client] = want
                elif not sent:
                    pair.client.send(b"early")
                    sent = True
                if (want := pair.server.handshake()) is Want.NOTHING:
                    break
                wait({**wants, pair.server: want})
            if not sent:  # in TLS 1.2 the server's half ends first
                shake_hands(pair.client)
                pair.client.send(b"early")
            if not pair.server.bytes_available:
                wait({pair.server: Want.READ})
            assert receive(pair.server, 5) == b"early"

    def test_data_then_shutdown_gives_data_then_end(self) -> None:
        """The end is said again."""
        with self.pair() as pair:
            pair.client.send(b"last words")
            finish(pair.client, pair.client.shutdown)
            assert receive_end(pair.server) == b"last words"
            assert receive_end(pair.server) == b""
            assert pair.server.last_error is None

    def test_shutdown_again_does_nothing(self) -> None:
        """From either side, in any order."""
        with self.pair() as pair:
            for stream in (pair.client, pair.server, pair.client, pair.server):
                finish(stream, stream.shutdown)
            assert receive_end(pair.server) is not None
            assert receive_end(pair.client) is not None

    def test_shutdown_delivers_what_is_pending(self) -> None:
        """However long the peer takes to read it."""
        with self.pair(buffers=32 << 10) as pair:
            sent = self._fill(pair.server)
            arrived = bytearray()
            while (want := pair.server.shutdown()) is not Want.NOTHING:
                got = pair.client.recv()
                if isinstance(got, bytes):
                    arrived += got
                else:
                    wait({pair.server: want, pair.client: got})
            arrived += receive_end(pair.client)
            assert len(arrived) == sent

    def test_unread_input_does_not_destroy_what_was_sent(self) -> None:
        """After shutdown() reading goes on until the peer is gone."""
        with self.pair() as pair:
            pair.client.send(b"never asked for" * 1000)
            pair.server.send(b"goodbye")
            finish(pair.server, pair.server.shutdown)
            assert receive_end(pair.client) == b"goodbye"
            finish(pair.client, pair.client.shutdown)
            receive_end(pair.server)

    def test_a_peer_that_does_not_read_makes_send_wait(self) -> None:
        """WRITE is said, a second send is refused, flush goes on; nothing is lost."""
        with self.pair(buffers=32 << 10) as pair:
            sent = self._fill(pair.server)
            assert pair.server.bytes_pending > 0
            assert pair.server.flush() is Want.WRITE
            with raises(RuntimeError):
                pair.server.send(b"more")
            arrived = 0
            while (want := pair.server.flush()) is not Want.NOTHING or arrived < sent:
                got = pair.client.recv()
                if isinstance(got, bytes):
                    arrived += len(got)
                elif want is Want.WRITE:
                    wait({pair.client: got, pair.server: want})
                else:
                    wait({pair.client: got})
            assert arrived == sent
            assert pair.server.bytes_pending == 0

    def _fill(self, stream: SocketStream) -> int:
        """Send until the socket takes nothing more."""
        sent = 0
        while sent < 64 << 20:
            sent += MAX_SEND
            want, pending = stream.send(bytes(MAX_SEND)), 0
            # What the kernel took may have gone on to the peer's socket, and made room for more.
            while want is Want.WRITE and stream.bytes_pending != pending:
                pending = stream.bytes_pending
                want = stream.flush()
            if want is Want.WRITE:
                return sent
        raise AssertionError("64 MiB were sent to a peer that does not read")

    def test_misuse_raises(self) -> None:
        """Too much at once, and sending after the end."""
        with self.pair() as pair:
            with raises(ValueError):
                pair.client.send(bytes(MAX_SEND + 1))
            finish(pair.client, pair.client.shutdown)
            with raises(RuntimeError):
                pair.client.send(b"x")

    def test_sending_before_the_handshake_is_refused(self) -> None:
        """It would go out in the clear."""
        with self.silent_pair() as pair:
            if self.server_handler().secure:
                with raises(RuntimeError):
                    pair.server.send(b"secret")

    def test_closing_twice_is_harmless(self) -> None:
        """And the descriptor is gone after the first time."""
        with self.pair() as pair:
            info = pair.server.info
            assert pair.server.fileno() >= 0
            for _ in range(2):
                pair.server.close()
                assert pair.server.fileno() == -1
            with raises(OSError):
                pair.server.recv()
            with raises(OSError):
                pair.server.send(b"x")
            assert pair.server.flush() is Want.NOTHING
            assert pair.server.shutdown() is Want.NOTHING
            assert pair.server.bytes_available == 0
            assert pair.server.info == info

    def test_a_peer_that_resets_raises(self) -> None:
        """After what it had said; `last_error` keeps it."""
        with self.pair() as pair:
            linger = struct.pack("ii", 1, 0)
            pair.client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if pair.client_socket.family == socket.AF_UNIX:
                pair.server.send(b"unread input resets a Unix socket")
            pair.client.close()
            with raises(OSError):
                receive_end(pair.server)
                # A Unix socket may tell the writer only.
                pair.server.send(b"x")
            assert isinstance(pair.server.last_error, OSError)
            assert pair.server.shutdown() is Want.NOTHING

    def test_a_bare_end_is_an_end_only_where_nobody_can_forge_it(self) -> None:
        """Truncation raises on a secure stream."""
        with self.pair() as pair:
            pair.client.send(b"half of it")
            pair.client_socket.shutdown(socket.SHUT_WR)
            assert receive(pair.server, 10) == b"half of it"
            if self.server_handler().secure:
                with raises(TruncatedError):
                    receive_end(pair.server)
                assert isinstance(pair.server.last_error, TruncatedError)
            else:
                assert receive_end(pair.server) == b""

    def test_nonsense_instead_of_a_handshake_is_refused(self) -> None:
        """With HandshakeError; the stream can still be ended in order."""
        with self.silent_pair() as pair:
            if not self.server_handler().secure:
                return
            pair.client_socket.sendall(bytes(64))
            with raises(HandshakeError):
                shake_hands(pair.server)
            assert pair.server.last_error is not None
            finish(pair.server, pair.server.shutdown)
            pair.client_socket.shutdown(socket.SHUT_WR)
            receive_end(pair.server)

    def test_a_peer_that_leaves_during_the_handshake_is_refused(self) -> None:
        """With HandshakeError, not with an OSError."""
        with self.silent_pair() as pair:
            pair.client.close()
            if self.server_handler().secure:
                with raises(HandshakeError):
                    shake_hands(pair.server)

    def test_addresses_are_known(self) -> None:
        """Also after the end, when the socket has none any more."""
        with self.pair() as pair:
            local = pair.server_socket.getsockname()
            remote = pair.server.remote_address
            assert pair.server.local_address == local
            pair.close()
            assert pair.server.local_address == local
            assert pair.server.remote_address == remote

    def test_a_handler_is_shared_by_threads(self) -> None:
        """Four threads, each with connections of its own."""
        server, client = self.server_handler(), self.client_handler()
        failures: list[BaseException] = []

        def connections() -> None:
            try:
                for number in range(5):
                    server_socket, client_socket = self.make_sockets()
                    client_socket.sendall(self.preface)
                    ends = (
                        client.connect(client_socket, self.server_name),
                        server.accept(server_socket, server_socket.getpeername()),
                    )
                    shake_hands(*ends)
                    assert send_all(ends[0], ends[1], b"%d" % number) == b"%d" % number
                    for end in ends:
                        end.close()
            except BaseException as exc:  # told by the test's own thread
                failures.append(exc)

        threads = [threading.Thread(target=connections) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert not failures, failures

    def test_loopback_may_be_served(self) -> None:
        """And what does not encrypt is refused elsewhere, unless that was asked for."""
        handler = self.server_handler()
        for host in ("localhost", "127.0.0.1", "::1"):
            handler.check(host)
        if not handler.secure and not handler.insecure:
            with raises(ConfigurationError):
                handler.check("0.0.0.0")  # noqa: S104  # the refusal is what is tested

    def test_it_may_be_renewed_at_any_time(self) -> None:
        """A server asks for it every half hour."""
        handler = self.server_handler()
        handler.renew_if_due()
        for begin, end in handler.validities:
            assert begin < end
        with self.pair() as pair:
            handler.renew_if_due()
            assert send_all(pair.client, pair.server, b"as ever") == b"as ever"

    def test_its_certificates_are_as_their_files(self) -> None:
        """`expires` is the first end of `validities`, and nothing has changed yet."""
        handler = self.server_handler()
        assert handler.expires == min((end for _, end in handler.validities), default=None)
        assert handler.files_changed() is False

    def test_a_wrapping_handler_passes_on_what_it_does_not_decide(self) -> None:
        """`WrappingSocketHandler` does, what `SocketHandler` gets later too."""
        asked: list[str] = []
        inner = handler_that_notes(asked)
        handler = self.wrap(inner)
        for name, member in vars(type(inner)).items() if handler is not None else ():
            if name.startswith("_"):
                continue
            asked.clear()
            found = getattr(handler, name)
            if not isinstance(member, property):
                found(*[None] * len(inspect.signature(found).parameters))
            assert asked == [name], f"{name} of a wrapping handler asked {asked} of the inner one"

    def test_peers_are_let_in_or_not(self) -> None:
        """`on_connect_query` says yes or no."""
        server_socket, client_socket = self.make_sockets()
        with server_socket, client_socket:
            answer = self.server_handler().on_connect_query(server_socket.getpeername())
            assert answer is True
