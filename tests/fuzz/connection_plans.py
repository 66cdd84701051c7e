"""What a peer of fuzz_connections.py says and does, drawn from a seed and from nothing else.

A plan is made before its connection is: the bytes, their cut and pauses, what has to be echoed,
and the end. Most bytes are right: noise alone would not come past the first line of a request.
"""

from __future__ import annotations

import random
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS)]

from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, request_head  # noqa: E402

ECHOES = ("/event", "/blocking", "/slow", "/accept", "/fragments", "/seed", "/threaded", "/busy")
"""Paths where all that is right comes back."""
OTHERS = ("/push", "/pinged", "/deaf", "/goodbye", "/refused", "/nowhere")
PAGES = ("/page", "/large", "/form", "/form", "/nowhere")
MAX_SIZE = 64 << 10
"""The largest message that the server takes."""
SIZES = (0, 1, 2, 3, 7, 100, 125, 126, 127, 1000, 5000, 65535)
RSV1 = 4

LEFT = ("reset", "vanish", "fin", "half", "wait")
"""Ends without a Close: RST; close() with whatever is unread; read, then FIN; FIN and read on; let
the server find out."""
CLOSED = ("close", "close and reset", "close and vanish", "close and talk")
"""Ends with a Close frame; only the first of them waits for the answer."""


@dataclass
class Plan:
    """One connection.

    Attributes:
        number: which one of its round.
        secure: over TLS.
        tls12: with TLS 1.2.
        hello: bytes of the TLS handshake's first flight that are sent; None is all of it.
        wrong_port: speak plainly where TLS is spoken, or the other way round.
        pieces: bytes, and the seconds to wait before them.
        judged: whether all of it is right, so that all has to come back.
        messages: what has to come back.
        reads: "all", "slowly", "late" (when all is said) or "nothing"; all but the first with a
            small socket buffer.
        end: one of LEFT or CLOSED.
        what: for people.
    """

    number: int
    secure: bool
    tls12: bool = False
    hello: int | None = None
    wrong_port: bool = False
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    judged: bool = False
    messages: list[bytes] = field(default_factory=list)
    reads: str = "all"
    end: str = "vanish"
    what: str = ""

    def __str__(self) -> str:
        lengths = [len(piece) for _, piece in self.pieces]
        return (
            f"{self.number}: {self.what}, {'TLS' if self.secure else 'plain'}"
            f"{' 1.2' if self.tls12 else ''}"
            f"{f', {self.hello} bytes of its hello' if self.hello is not None else ''}, "
            f"{len(lengths)} pieces of {sum(lengths)} bytes, "
            f"{len(self.messages)} messages{', judged' if self.judged else ''}, "
            f"reads {self.reads}, end: {self.end}"
        )


def make_plan(seed: str, number: int) -> Plan:
    """The plan of one connection of a round."""
    chance = random.Random(f"{seed}/{number}")
    plan = Plan(number, secure=chance.random() < 0.5)
    plan.tls12 = chance.random() < 0.3
    kind = chance.random()
    if kind < 0.45:
        _honest(plan, chance)
    elif kind < 0.53:
        _late(plan, chance)
    elif kind < 0.8:
        _mutated(plan, chance)
    elif kind < 0.9:
        _page(plan, chance)
    else:
        _stranger(plan, chance)
    return plan


# -- kinds of peers ------------------------------------------------------------------------


def _honest(plan: Plan, chance: random.Random) -> None:
    """Everything is right, but perhaps for the end."""
    plan.judged = True
    path = chance.choice(ECHOES)
    deflate = chance.random() < 0.4
    speech = _Speech(chance, deflate=deflate)
    speech.messages_in_a_row(chance.choice([0, 1, 1, 2, 4, 10, 40]))
    plan.messages = speech.messages
    plan.pieces = _cut(chance, [_upgrade(chance, path, deflate=deflate), *speech.frames])
    plan.end = chance.choice(CLOSED[:1] * 2 + CLOSED[1:] + LEFT)
    if chance.random() < 0.3:
        plan.judged = False  # it goes while answers are under way
        plan.reads = chance.choice(["all", "slowly", "nothing"])
    plan.what = f"{path}{' compressed' if deflate else ''}"


def _late(plan: Plan, chance: random.Random) -> None:
    """It reads nothing until it has said all, and then everything, and stays for a while."""
    path = chance.choice(["/push", "/push", "/event", "/blocking", "/threaded"])
    speech = _Speech(chance, deflate=False)
    speech.messages_in_a_row(chance.choice([0, 0, 1, 10, 40]))
    if path != "/push":
        plan.judged, plan.messages = True, speech.messages
    plan.pieces = _cut(chance, [_upgrade(chance, path, deflate=False), *speech.frames])
    plan.reads = "late"
    plan.end = chance.choice(["wait", "wait", "close", "reset"])
    plan.what = path


def _mutated(plan: Plan, chance: random.Random) -> None:
    """One thing or another is wrong, or much is sent to who does not read it."""
    path = chance.choice(ECHOES + OTHERS)
    deflate = chance.random() < 0.4
    speech = _Speech(chance, deflate=deflate)
    speech.messages_in_a_row(chance.choice([0, 1, 3]))
    wrong = chance.choice(list(_WRONG))
    _WRONG[wrong](speech, chance)
    speech.messages_in_a_row(chance.choice([0, 1]))
    parts = [_upgrade(chance, path, deflate=deflate), *speech.frames]
    if wrong == "a byte":
        which = chance.randrange(len(parts))
        parts[which] = _with_other_byte(parts[which], chance)
    plan.pieces = _cut(chance, parts)
    plan.reads = chance.choice(["all", "all", "slowly", "nothing"])
    plan.end = chance.choice(LEFT + CLOSED)
    plan.what = f"{path} with {wrong}"


def _page(plan: Plan, chance: random.Random) -> None:
    """A request for a page, whole or in part."""
    path = chance.choice(PAGES)
    headers = {}
    body = b""
    if path == "/form":
        body = b"&".join(b"a%d=b" % number for number in range(chance.choice([0, 1, 100, 9000])))
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        if chance.random() < 0.4:
            headers["Transfer-Encoding"] = "chunked"
            size = chance.choice([1, 10, 1000]) if len(body) < 1000 else 2000
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
        else:
            headers["Content-Length"] = str(len(body) + chance.choice([0, 0, 0, 1, -1]))
        if chance.random() < 0.2:
            headers["Expect"] = "100-continue"
    head = request_head(
        path,
        method="POST" if path == "/form" else chance.choice(["GET", "GET", "HEAD", "DELETE"]),
        without=("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
        headers=headers,
    )
    whole = head + body
    if chance.random() < 0.3:
        whole = whole[: chance.randrange(len(whole))]
    if chance.random() < 0.2:
        whole = _with_other_byte(whole, chance)
    plan.pieces = _cut(chance, [whole])
    plan.reads = chance.choice(["all", "all", "slowly", "nothing"])
    plan.end = chance.choice(LEFT)
    plan.what = f"page {path}"


def _stranger(plan: Plan, chance: random.Random) -> None:
    """Who does not come as far as a request."""
    plan.what = chance.choice(["silence", "noise", "a hello in part", "the other port"])
    if plan.what == "noise":
        plan.pieces = _cut(chance, [chance.randbytes(chance.choice([1, 10, 300, 20_000]))])
        plan.wrong_port = plan.secure
    elif plan.what == "a hello in part":
        plan.secure, plan.hello = True, chance.choice([0, 1, 5, 6, 60, 200, 400, 10_000])
    elif plan.what == "the other port":
        plan.wrong_port = True
        plan.pieces = _cut(chance, [_upgrade(chance, "/event", deflate=False)])
    plan.end = chance.choice(LEFT)


# -- what they say -------------------------------------------------------------------------


def _upgrade(chance: random.Random, path: str, *, deflate: bool) -> bytes:
    headers = {}
    if deflate:
        headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
    if chance.random() < 0.2:
        headers["X-Padding"] = "x" * chance.choice([1, 1000, 7000])
    return request_head(path, headers=headers)


class _Speech:
    """Frames, and the messages that they carry."""

    def __init__(self, chance: random.Random, *, deflate: bool) -> None:
        self.frames: list[bytes] = []
        self.messages: list[bytes] = []
        self._chance = chance
        self._deflate = deflate

    def messages_in_a_row(self, count: int) -> None:
        for _ in range(count):
            self.message()

    def message(self) -> None:
        """A message in frames, with control frames between them."""
        chance = self._chance
        size = chance.choice(SIZES if chance.random() < 0.5 else SIZES[:10])
        text = chance.random() < 0.5
        payload = b"\xc3\xa9" * (size // 2) if text else chance.randbytes(size)
        self.messages.append(payload)
        compressed = self._deflate and chance.random() < 0.7
        if compressed:
            payload = _deflated(payload)
        frames = 1 if chance.random() < 0.6 else chance.choice([2, 3, 9])
        cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(frames - 1))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, part in enumerate(parts):
            opcode = CONTINUATION if index else (TEXT if text else BINARY)
            rsv = RSV1 if compressed and not index else 0
            self.frame(opcode, part, fin=index == frames - 1, rsv=rsv)
            if chance.random() < 0.15:
                self.frame(
                    chance.choice([PING, PONG]), chance.randbytes(chance.choice([0, 1, 125]))
                )

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        key = self._chance.choice([bytes(4), self._chance.randbytes(4)])
        first = (0x80 if fin else 0) | rsv << 4 | opcode
        size = len(payload)
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 1 << 16:
            length = b"\xfe" + size.to_bytes(2)
        else:
            length = b"\xff" + size.to_bytes(8)
        self.frames.append(bytes([first]) + length + key + _masked(payload, key))


def _masked(payload: bytes, key: bytes) -> bytes:
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(len(payload))


def _deflated(payload: bytes) -> bytes:
    """One message (RFC 7692, section 7.2.1), which refers to no earlier one."""
    deflater = zlib.compressobj(wbits=-15)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def _too_large(speech: _Speech, chance: random.Random) -> None:
    speech.frame(BINARY, bytes(MAX_SIZE + 1))


def _bomb(speech: _Speech, chance: random.Random) -> None:
    speech.frame(BINARY, _deflated(bytes(20 * MAX_SIZE)), rsv=RSV1)


def _flood(speech: _Speech, chance: random.Random) -> None:
    """The same again and again, up to a mebibyte or so."""
    begun = len(speech.frames)
    speech.messages_in_a_row(2)
    again = speech.frames[begun:]
    speech.frames += again * min(400, (1 << 20) // sum(map(len, again)))


def _controls(speech: _Speech, chance: random.Random) -> None:
    for _ in range(chance.choice([60, 190, 300])):
        speech.frame(chance.choice([PING, PONG]), b"x" * chance.choice([0, 125]))


def _unfinished(speech: _Speech, chance: random.Random) -> None:
    speech.frame(chance.choice([TEXT, BINARY]), b"x" * chance.choice([0, 10, 60_000]), fin=False)


def _many_fragments(speech: _Speech, chance: random.Random) -> None:
    speech.frame(BINARY, b"", fin=False)
    for _ in range(chance.choice([10, 1100])):
        speech.frame(CONTINUATION, b"x", fin=False)


_WRONG = {
    "a byte": lambda speech, chance: None,
    "a reserved bit": lambda speech, chance: speech.frame(BINARY, b"x", rsv=chance.randrange(8)),
    "an opcode": lambda speech, chance: speech.frame(chance.randrange(16), b"x"),
    "a long control frame": lambda speech, chance: speech.frame(PING, bytes(126)),
    "a fragmented control frame": lambda speech, chance: speech.frame(PING, b"x", fin=False),
    "text that is none": lambda speech, chance: speech.frame(TEXT, b"caf\xe9 au lait"),
    "text cut in a character": lambda speech, chance: speech.frame(TEXT, b"caf\xc3"),
    "nothing to continue": lambda speech, chance: speech.frame(CONTINUATION, b"x"),
    "a Close of one byte": lambda speech, chance: speech.frame(CLOSE, b"x"),
    "a wrong close code": lambda speech, chance: speech.frame(CLOSE, (1005).to_bytes(2)),
    "a Close and more": lambda speech, chance: speech.frame(CLOSE, (1000).to_bytes(2) + b"bye"),
    "too large a message": _too_large,
    "a compressed bomb": _bomb,
    "a flood": _flood,
    "control frames": _controls,
    "a message without an end": _unfinished,
    "many fragments": _many_fragments,
}


def _with_other_byte(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    other = bytes([chance.randrange(256)])
    return data[:at] + chance.choice([b"", other, other + other]) + data[at + 1 :]


def _cut(chance: random.Random, parts: list[bytes]) -> list[tuple[float, bytes]]:
    """The same bytes, in the pieces in which they are sent, with pauses."""
    how = chance.choice(["as they are", "together", "anywhere", "anywhere", "at the heads"])
    if how == "together":
        parts = [b"".join(parts)]
    elif how == "anywhere":
        whole = b"".join(parts)
        cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(chance.choice([1, 3, 10])))
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    elif how == "at the heads":  # in the first bytes of frames, a few of them
        cut = []
        for part in parts:
            at = chance.randrange(1, 16) if len(cut) < 30 else 0
            cut += [part[:at], part[at:]]
        parts = cut
    parts = [part for part in parts if part]
    longest = chance.choice([0.0, 0.0, 0.002, 0.02])
    pauses = [chance.random() * longest if index < 40 else 0.0 for index in range(len(parts))]
    return list(zip(pauses, parts, strict=True))
