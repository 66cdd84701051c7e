"""A client that says on the wire exactly what a test wants said, right or wrong.

It knows nothing of securews: what it sends and reads is made from RFC 6455 alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from typing import NamedTuple, Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = base64.b64encode(b"sixteen bytes :)").decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(NamedTuple):
    """A frame as it came. `first` is its first byte: FIN, RSV bits and opcode."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a Close frame."""
        assert self.opcode == CLOSE, self
        code = int.from_bytes(self.payload[:2]) if self.payload else 1005
        return code, self.payload[2:].decode()


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode()).digest()).decode()


def client_context(ca_file: str | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


def request_head(
    path: str = "/",
    *,
    host: str | None = "localhost",
    version: str = "HTTP/1.1",
    method: str = "GET",
    without: tuple[str, ...] = (),
    headers: dict[str, str] | None = None,
) -> bytes:
    """An upgrade request; `headers` replace the usual ones, `without` leaves some out."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    if host is not None:
        fields = {"Host": host, **fields}
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in without]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: bytes | None = None,
) -> bytes:
    """A client's frame; `length` is the raw length field where it is to be a wrong one."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if length is None:
        if len(payload) < 126:
            length = bytes([len(payload)])
        elif len(payload) < 65536:
            length = b"\x7e" + struct.pack("!H", len(payload))
        else:
            length = b"\x7f" + struct.pack("!Q", len(payload))
    if not masked:
        return bytes([first]) + length + payload
    key = os.urandom(4)
    covered = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + key + covered


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


class WireClient:
    """A socket, TLS if there is a context, and the few words of HTTP and WebSocket it needs."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None = None,
        *,
        server_name: str = "localhost",
        receive_buffer: int | None = None,
        source: str | None = None,
    ) -> None:
        raw = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(10)
        try:
            if source is not None:
                raw.bind((source, 0))
            raw.connect(address[:2])
            self.socket = (
                raw
                if context is None
                else context.wrap_socket(
                    raw, server_hostname=server_name, suppress_ragged_eofs=False
                )
            )
        except BaseException:
            raw.close()
            raise
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    # -- HTTP ------------------------------------------------------------------------------

    def ask(self, data: bytes) -> Answer:
        """Send a request and read the answer, with its body by Content-Length."""
        self.send(data)
        return self.answer(head_only=data.startswith(b"HEAD"))

    def answer(self, *, head_only: bool = False) -> Answer:
        while b"\r\n\r\n" not in self._unread:
            self._read_more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Answer(int(status.split(" ")[1]), headers, self.read(length))

    def upgrade(self, path: str = "/", **changes: object) -> Answer:
        """Open the WebSocket; the answer has to be a right 101."""
        answer = self.ask(request_head(path, **changes))  # type: ignore[arg-type]  # passed on
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-accept"] == accept_key(KEY)
        return answer

    # -- WebSocket -------------------------------------------------------------------------

    def send_frame(self, opcode: int, payload: bytes = b"", **options: object) -> None:
        self.send(frame(opcode, payload, **options))  # type: ignore[arg-type]  # passed on

    def read_frame(self) -> Frame:
        first, second = self.read(2)
        assert not second & 0x80, "a server's frame carries no mask"
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(self.read(2))
        elif length == 127:
            length = int.from_bytes(self.read(8))
        return Frame(first, self.read(length))

    def read_close(self) -> tuple[int, str]:
        """The next frame has to be a Close: its code and reason."""
        return self.read_frame().close

    # -- bytes -----------------------------------------------------------------------------

    def read(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._read_more()
        data, self._unread = self._unread[:count], self._unread[count:]
        return data

    def read_to_end(self) -> bytes:
        """Everything up to the orderly end; an end without close_notify raises."""
        while chunk := self.socket.recv(65536):
            self._unread += chunk
        data, self._unread = self._unread, b""
        return data

    def _read_more(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise EOFError(f"the server ended the connection after {self._unread!r}")
        self._unread += chunk
