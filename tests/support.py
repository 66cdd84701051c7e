"""What the tests share: certificates by trustme, a client that shows its bytes, waiting."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import importlib.util
import os
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

import trustme
import websockets

import securews
from securews import Communicator
from securews.protocol.frames import Opcode, encode_frame

TIMEOUT = 10.0
"""Seconds that a test waits for what must happen; only a fault comes near it."""


class Clock:
    """A clock that the test turns.

    Args:
        now: seconds at the start.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + TIMEOUT
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {TIMEOUT:g} s"
        pause.wait(0.005)


class Happened:
    """Something that a handler notes and a test waits for."""

    def __init__(self) -> None:
        self._items: list[object] = []
        self._changed = threading.Condition()

    def __call__(self, item: object = None) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list:
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._items) >= count, TIMEOUT)
            assert came, f"{len(self._items)} of {count} in {TIMEOUT:g} s: {self._items}"
            return list(self._items)

    @property
    def items(self) -> list:
        with self._changed:
            return list(self._items)


class Certificates:
    """One CA by trustme, and what it and another one have signed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self._other_ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.server = self._pair("server", self._ca.issue_cert("localhost", "127.0.0.1", "::1"))
        self.client = self._pair(
            "pump-1", self._ca.issue_cert("pump-1.example.org", common_name="pump-1")
        )
        self.client_of_other_ca = self._pair(
            "other", self._other_ca.issue_cert("pump-1.example.org", common_name="pump-1")
        )
        now = dt.datetime.now(dt.UTC)
        self.expired_client = self._pair(
            "expired",
            self._ca.issue_cert(
                "pump-1.example.org",
                common_name="pump-1",
                not_before=now - dt.timedelta(days=30),
                not_after=now - dt.timedelta(days=1),
            ),
        )

    def context(self, client: tuple[str, str] | None = None) -> ssl.SSLContext:
        """A verifying client's."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if client is not None:
            context.load_cert_chain(*client)
        return context

    def _pair(self, name: str, leaf: trustme.LeafCert) -> tuple[str, str]:
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}-key.pem"
        key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(str(key))
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return str(cert), str(key)


class Frame(NamedTuple):
    fin: bool
    opcode: Opcode
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode is Opcode.CLOSE, self
        return int.from_bytes(self.payload[:2]) if self.payload else 1005


class RawClient:
    """A WebSocket client that sends any bytes and reads frame by frame. Blocking."""

    def __init__(
        self,
        address: tuple,
        *,
        context: ssl.SSLContext | None = None,
        path: str = "/",
        headers: str = "",
        upgrade: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family)
        try:
            self.sock.settimeout(TIMEOUT)
            if receive_buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.connect(address[:2])
            if context is not None:
                self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
            self._buffer = b""
            self.head = ""
            if upgrade:
                self.send_upgrade(path, headers)
                self.head = self.read_head()
        except BaseException:
            self.sock.close()
            raise

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def local_address(self) -> tuple:
        return self.sock.getsockname()

    def send_upgrade(self, path: str = "/", headers: str = "") -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"{headers}\r\n".encode()
        )

    def read_head(self) -> str:
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head.decode()

    def send(self, opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> None:
        self.sock.sendall(masked(opcode, payload, fin=fin))

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        self.send(Opcode.CLOSE, code.to_bytes(2) + reason.encode())

    def read_frame(self) -> Frame:
        first, second = self._take(2)
        assert not first & 0x70, "reserved bits"
        assert not second & 0x80, "a server does not mask"
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self._take(2))
        elif length == 127:
            length = int.from_bytes(self._take(8))
        return Frame(bool(first & 0x80), Opcode(first & 0x0F), self._take(length))

    def read_data_frame(self) -> Frame:
        """The next frame that is no ping; pings are answered."""
        while (frame := self.read_frame()).opcode is Opcode.PING:
            self.send(Opcode.PONG, frame.payload)
        return frame

    def read_close(self) -> Frame:
        """Skip to the Close frame."""
        while (frame := self.read_frame()).opcode is not Opcode.CLOSE:
            pass
        return frame

    def read_to_end(self) -> bytes:
        """Everything until the orderly end."""
        try:
            while True:
                self._fill()
        except EOFError:
            data, self._buffer = self._buffer, b""
            return data

    def reset(self) -> None:
        """Vanish: the server's kernel is told that nobody is here."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the server has ended its side")
        self._buffer += data


def for_threads(context: ssl.SSLContext) -> ssl.SSLContext:
    """A context for a client that reads in one thread while it writes in another, without a lock.

    TLS 1.2 sends session tickets inside the handshake, so that nothing but data comes after it;
    with TLS 1.3 a ticket that comes while the request is written can cost such a client its
    request, once in a few hundred connections. Other clients of ours cover TLS 1.3.
    """
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


class ForeignClient:
    """A client of the `websockets` package, for `with`.

    Not its threaded one: that writes from one thread while another reads, on one SSL object
    without a lock. A session ticket that comes at that moment can then cost it its request.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None, **options: object) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._ws = self._run(
                websockets.connect(
                    url, ssl=context, proxy=None, compression=None, max_size=None, **options
                )
            )
        except BaseException:
            self._loop.close()
            raise

    def send(self, message: str | bytes | list[str] | list[bytes]) -> None:
        """A list is sent as one message in fragments."""
        self._run(self._ws.send(message))

    def recv(self) -> str | bytes:
        return self._run(self._ws.recv())

    def recv_fragments(self) -> list[str] | list[bytes]:
        async def collected():
            return [fragment async for fragment in self._ws.recv_streaming()]

        return self._run(collected())

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._run(self._ws.close(code, reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self._loop.close()

    def _run(self, step):
        async def limited():
            return await asyncio.wait_for(step, TIMEOUT)

        return self._loop.run_until_complete(limited())


def masked(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame."""
    return encode_frame(opcode, payload, fin=fin, masking_key=os.urandom(4))


def thread_kind() -> str:
    """The kind of the calling thread: its name without its number."""
    name = threading.current_thread().name
    return name.rstrip("0123456789").rstrip("-")


def errors_in(caplog) -> list[str]:
    """Everything that was logged as WARNING or worse."""
    return [r.getMessage() for r in caplog.records if r.levelno >= 30]


def tracebacks_in(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.exc_info]


@contextmanager
def held(handler: Callable | None = None, **options) -> Iterator[tuple[Communicator, RawClient]]:
    """The server's end of one connection, for the test to use, and the client at the other end.

    `handler` is called first, in the handler's thread.
    """
    communicators, over = queue.SimpleQueue(), threading.Event()

    def hold(ws):
        if handler is not None:
            handler(ws)
        communicators.put(ws)
        over.wait(TIMEOUT * 2)

    receive_buffer = options.pop("receive_buffer", None)
    with (
        securews.serve(0, hold, tls=False, **options) as server,
        RawClient(server.address, receive_buffer=receive_buffer) as client,
    ):
        try:
            yield communicators.get(timeout=TIMEOUT), client
        finally:
            over.set()


def source_of(module: ModuleType) -> ModuleType:
    """A module from its source, beside the compiled twin that may be in use."""
    path = Path(securews.__file__).parents[1].joinpath(*module.__name__.split("."))
    name = f"{path.name}_in_python"
    specification = importlib.util.spec_from_file_location(name, path.with_suffix(".py"))
    assert specification is not None
    assert specification.loader is not None
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded
