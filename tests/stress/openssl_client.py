"""A WebSocket client over the command `openssl s_client`, which can ask for TLS key updates.

s_client takes a read that begins with "K" for the command to ask for one. So its standard input
is a socket that keeps the borders between writes: what is written in one piece is read in one
piece. Frames go in whole, and begin with a byte that is no letter.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from securews.protocol.events import Close, Failure, Ping
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

MOST = 16 << 10
"""Bytes that s_client reads from its standard input at once."""

_KEEPS_BORDERS = socket.SOCK_DGRAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET


class OpenSSLClient:
    """Any thread may send and ask for key updates; one of its own receives.

    Args:
        port: on localhost.
        path: of the request.
        ca_file: whom to trust.
        trace: a file for what TLS said.
        on_message: called with each message, in the receiving thread.
    """

    def __init__(
        self,
        port: int,
        path: str,
        *,
        ca_file: str,
        trace: Path,
        on_message: Callable[[str | bytes], object],
    ) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise FileNotFoundError("openssl is needed")
        self._trace = trace
        self._on_message = on_message
        self._lock = threading.Lock()
        self.close_code: int | None = None
        """Of the server's Close frame; 1006 if it ended without one."""
        self.fault: BaseException | None = None
        self._input, theirs = socket.socketpair(socket.AF_UNIX, _KEEPS_BORDERS)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(openssl, "s_client", "-connect", f"localhost:{port}", "-tls1_3"),
                    *("-servername", "localhost", "-CAfile", ca_file, "-verify_return_error"),
                    *("-brief", "-msg", "-msgfile", trace),
                ],
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._output = self._process.stdout
        self._rest = b""
        self._open(path)
        self._thread = threading.Thread(target=self._receive, name=f"openssl-client {path}")
        self._thread.start()

    def send(self, message: str | bytes) -> None:
        """Send one message in one frame."""
        if isinstance(message, str):
            self._send_frame(Opcode.TEXT, message.encode())
        else:
            self._send_frame(Opcode.BINARY, message)

    def update_keys(self) -> None:
        """Have both ends use new keys from here on (RFC 8446, section 4.6.3)."""
        with self._lock:
            self._input.send(b"K\n")

    def key_updates(self) -> tuple[int, int]:
        """How many were sent and received; once the client has ended."""
        sent = received = 0
        with self._trace.open(errors="replace") as lines:
            for line in lines:
                if line.startswith((">>>", "<<<")) and "KeyUpdate" in line:
                    sent += line[0] == ">"
                    received += line[0] == "<"
        return sent, received

    def wait_closed(self, timeout: float) -> bool:
        """Wait for the end; False if it did not come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        self._input.close()
        self._output.close()

    def _open(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        # A request begins with a letter, but it is neither K nor Q nor R.
        self._input.send(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self._output.read1(1 << 16)
            if not piece:
                raise ConnectionError(f"no answer but {head!r}")
            head += piece
        head, _, self._rest = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head.decode())

    def _send_frame(self, opcode: Opcode, payload: bytes) -> None:
        frame = encode_frame(opcode, payload, masking_key=os.urandom(4))
        assert len(frame) <= MOST
        with self._lock:
            self._input.send(frame)

    def _receive(self) -> None:
        decoder = WebSocketParser(Role.CLIENT, max_size=1 << 20)
        code = 1006
        try:
            data = self._rest
            while True:
                for event in decoder.receive(data):
                    if isinstance(event, str | bytes):
                        self._on_message(event)
                    elif isinstance(event, Ping):
                        self._send_frame(Opcode.PONG, event.payload)
                    elif isinstance(event, Close):
                        code = event.code
                        self._send_frame(Opcode.CLOSE, event.code.to_bytes(2))
                    elif isinstance(event, Failure):
                        raise event.error
                data = self._output.read1(1 << 16)
                if not data:
                    break
        except BaseException as error:
            self.fault = error
        finally:
            self.close_code = code
