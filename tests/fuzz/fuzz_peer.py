"""One peer of fuzz_connections.py: does what its plan says, and judges what comes back."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from dataclasses import dataclass

from connection_plans import CLOSED, Plan
from finding import Finding
from wire import CLOSE, PING, PONG, frame

__all__ = ["PATIENCE", "Field", "play"]

PATIENCE = 15.0
"""Seconds that an answer may take on a machine that has other things to do."""


@dataclass
class Field:
    """What all peers meet: two servers, plain and with TLS, and what they all have to heed."""

    addresses: list[tuple[str, int]]
    contexts: list[ssl.SSLContext]
    """A client's: the newest TLS, and TLS 1.2."""
    going: threading.Event
    """Not set: nobody says anything, and everybody stays."""
    crowded: bool = False
    """There are more peers than places, so an honest one may be refused."""


class Wire:
    """A socket that does not block, perhaps with TLS, and what came and is to go."""

    def __init__(self, plan: Plan, address: tuple[str, int], context: ssl.SSLContext | None):
        self.out = bytearray()
        self.inbox = bytearray()
        self.ended: str | None = None
        """How the other end has ended it."""
        raw = socket.socket()
        try:
            if plan.reads != "all":
                size = 4096 if plan.reads == "nothing" else 32768
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            raw.settimeout(PATIENCE)
            raw.connect(address)
            if context is not None:
                raw = context.wrap_socket(raw, server_hostname="localhost")
            raw.setblocking(False)
        except BaseException:
            raw.close()
            raise
        self.socket = raw

    def pump(self, seconds: float, *, read: bool, until=lambda: False) -> bool:
        """Send and receive; until `until`, an end, or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while True:
            moved = self._move(read=read)
            if until():
                return True
            left = deadline - time.monotonic()
            if self.ended or left <= 0:
                return False
            if not moved:
                select.select(
                    [self.socket] if read else [], [self.socket] if self.out else [], [], left
                )

    def _move(self, *, read: bool) -> bool:
        moved = False
        try:
            if self.out:
                sent = self.socket.send(self.out)
                del self.out[:sent]
                moved = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.out.clear()  # what came before is still to be read
            if not read:
                self.ended = "broken"
        try:
            if read:
                data = self.socket.recv(65536)
                self.inbox += data
                if not data:
                    self.ended = "eof"
                moved = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self.ended = type(error).__name__
        return moved


class Answers:
    """What the server says, as far as a peer looks at it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.status: int | None = None
        self.messages: list[bytes] = []
        self.close: int | None = None
        self._pongs = b""
        self._message = bytearray()
        self._compressed = False
        self._inflater = zlib.decompressobj(-15)

    def read(self) -> None:
        """Take what has come."""
        inbox = self._wire.inbox
        if self.status is None:
            if (end := inbox.find(b"\r\n\r\n")) < 0:
                return
            self.status = int(inbox[9:12])
            del inbox[: end + 4]
        while self.status == 101 and self._take_frame(inbox):
            pass

    def take_pongs(self) -> bytes:
        """Answers to its pings, to be sent between two frames of ours."""
        pongs, self._pongs = self._pongs, b""
        return pongs

    def _take_frame(self, inbox: bytearray) -> bool:
        if len(inbox) < 2:
            return False
        first, size, start = inbox[0], inbox[1], 2
        if size > 125:
            start += 2 if size == 126 else 8
            if len(inbox) < start:
                return False
            size = int.from_bytes(inbox[2:start])
        if len(inbox) < start + size:
            return False
        payload = bytes(inbox[start : start + size])
        del inbox[: start + size]
        opcode = first & 0x0F
        if opcode == PING:
            self._pongs += frame(PONG, payload)
        elif opcode == CLOSE:
            self.close = int.from_bytes(payload[:2]) if payload else 1005
        elif opcode < CLOSE:
            if opcode:
                self._compressed = bool(first & 0x40)
            self._message += payload
            if first & 0x80:
                whole, self._message = bytes(self._message), bytearray()
                if self._compressed:
                    whole = self._inflater.decompress(whole + b"\0\0\xff\xff")
                self.messages.append(whole)
        return True


def play(plan: Plan, field: Field) -> tuple[str, int]:
    """Do what a plan says. Returns how it ended, and how many messages came back as they had to.

    Raises:
        Finding: the server did not do its part.
    """
    if plan.hello is not None:
        return _play_hello(plan, field), 0
    secure = plan.secure != plan.wrong_port
    address = field.addresses[plan.secure]
    context = field.contexts[plan.tls12] if secure else None
    try:
        wire = Wire(plan, address, context)
    except OSError as error:
        if plan.judged and not field.crowded:
            raise Finding(f"it could not connect: {error}") from error
        return "not let in", 0
    answers = Answers(wire)
    try:
        _say(plan, wire, answers, field)
        came = _judge(plan, wire, answers, field) if plan.judged else 0
        return _end(plan, wire, answers, field), came
    finally:
        wire.socket.close()


def _play_hello(plan: Plan, field: Field) -> str:
    """Send a TLS handshake's first flight in part, and end."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = field.contexts[plan.tls12].wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    plan.pieces = [(0.0, outgoing.read()[: plan.hello])]
    try:
        wire = Wire(plan, field.addresses[True], None)
    except OSError:
        return "not let in"
    try:
        answers = Answers(wire)
        _say(plan, wire, answers, field)
        return _end(plan, wire, answers, field)
    finally:
        wire.socket.close()


def _say(plan: Plan, wire: Wire, answers: Answers, field: Field) -> None:
    """The pieces; a judged peer that reads waits until each is gone, others only a moment."""
    reads = plan.reads == "all"
    late = plan.reads == "late"
    patience = PATIENCE if plan.judged and reads else 0.3
    for pause, piece in plan.pieces:
        if not plan.judged:  # the others may come to a time limit
            field.going.wait()
        if pause:
            wire.pump(pause, read=reads)
        wire.out += piece
        wire.pump(0.0 if late else patience, read=reads, until=lambda: not wire.out)
        if plan.reads == "slowly":
            wire.pump(0.0, read=True)
        answers.read()
        if wire.ended or (wire.out and not late):
            return
    if late:
        wire.pump(patience, read=False, until=lambda: not wire.out)


def _judge(plan: Plan, wire: Wire, answers: Answers, field: Field) -> int:
    """All that has to come back comes: how many messages."""

    def complete() -> bool:
        answers.read()
        wire.out += answers.take_pongs()
        enough = answers.status == 101 and len(answers.messages) >= len(plan.messages)
        return enough or answers.close is not None

    wire.pump(PATIENCE, read=True, until=complete)
    if answers.status != 101:
        refused = answers.status == 503 or (answers.status is None and wire.ended)
        if field.crowded and refused:
            return 0
        raise Finding(f"the upgrade was answered with {answers.status} ({wire.ended or 'silence'})")
    if answers.messages != plan.messages:
        right = sum(a == b for a, b in zip(answers.messages, plan.messages, strict=False))
        raise Finding(
            f"{right} of {len(plan.messages)} messages came back, in {len(answers.messages)}; "
            f"closed with {answers.close} ({wire.ended or 'still open'})"
        )
    return len(plan.messages)


def _end(plan: Plan, wire: Wire, answers: Answers, field: Field) -> str:
    end = plan.end
    if end in CLOSED:
        wire.out += frame(CLOSE, (1000).to_bytes(2))
        if end == "close and talk":
            wire.out += frame(PING, b"x") * 3
        wire.pump(0.3, read=False, until=lambda: not wire.out)
        if end == "close":

            def over() -> bool:
                answers.read()
                return answers.close is not None

            wire.pump(PATIENCE if plan.judged else 1.0, read=True, until=over)
            if plan.judged and answers.close is None and not wire.ended:
                raise Finding("its Close was not answered")
    elif end == "half":
        with contextlib.suppress(OSError):
            wire.socket.shutdown(socket.SHUT_WR)
        wire.pump(0.5, read=True)
    elif end == "fin":
        wire.pump(0.05, read=True)
    elif end == "wait":
        seconds = 8.0 if plan.number % 20 == 0 else 2.0 if plan.reads == "late" else 1.0
        wire.pump(seconds, read=plan.reads != "nothing")
    while not field.going.wait(0.0):  # it stays, and answers pings
        wire.pump(0.1, read=plan.reads != "nothing")
        answers.read()
        wire.out += answers.take_pongs()
    if end.endswith("reset"):
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return f"{end}, {wire.ended}" if wire.ended else end
