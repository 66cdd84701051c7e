"""Servers on loopback that answer a client by a script, right or wrong."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support import TIMEOUT
from wire import accept_key

INTERIM = {
    100: b"HTTP/1.1 100 Continue\r\n\r\n",
    103: b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
}


class Peer:
    """The server's end of one connection, as a script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._pause = threading.Event()

    def read_request(self) -> bytes:
        request = b""
        while b"\r\n\r\n" not in request:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(request)
            request += data
        return request

    def switch(self, extra: bytes = b"", behind: bytes = b"") -> None:
        """Read the request and answer with a right 101, with more headers, and frames behind it."""
        _, _, rest = self.read_request().partition(b"Sec-WebSocket-Key: ")
        key = rest.partition(b"\r\n")[0].decode()
        self.socket.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n" + extra + b"\r\n"
            + behind
        )  # fmt: skip

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_for_ever(self, data: bytes) -> None:
        """Until the client has gone."""
        while True:
            self.socket.sendall(data)

    def drip(self, data: bytes, then: bytes = b"a", pause: float = 0.05) -> None:
        """A piece each 50 ms, until the client has gone."""
        self.socket.sendall(data)
        while not self._pause.wait(pause):
            self.socket.sendall(then)

    def read_to_end(self) -> bytes:
        """Answer nothing; what the client sent before it went."""
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data


@contextmanager
def scripted(
    script: Callable[[Peer], object], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The URL of a server that runs the script for each client, until the client has gone.

    The end of the `with` waits for the scripts: each ends only when its client has closed.
    """
    threads: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        try:
            with sock:
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                with sock:
                    peer = Peer(sock)
                    script(peer)
                    peer.read_to_end()
        except (OSError, EOFError):
            pass  # the client has gone

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        scheme = "ws" if context is None else "wss"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(TIMEOUT)
        listener.close()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "the client did not close its socket"
