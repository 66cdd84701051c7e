"""In which context a message is compressed, and that the peer's stays the same as ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.connection.compressing import Compressing, SharedMessage
from securews.protocol.deflate import Deflate
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser

TEXT = b"the same words again and again, the same words"


def deflate(*, takeover):
    return Deflate(takeover, 15, takeover, 15, 6, 8, 1)


class ScriptedSender:
    """What compressing asks for: `room` says for each message whether the queue takes it."""

    def __init__(self, agreed, *, waits=True):
        self.waits = waits
        self.has_room = True
        self.room = []
        self.frames = []
        self.told = []
        self.waited = 0
        self.streaming = False
        self.while_compressing = None
        self.parser = WebSocketParser(Role.CLIENT, deflate=agreed, max_size=1 << 20)

    def frame(self, opcode, payload, fin=True, compressed=False):
        return encode_frame(opcode, payload, fin=fin, compressed=compressed)

    def send(self, frame, timeout=None):
        self.frames.append(frame)

    def make_room(self):
        self.told.append("make_room")

    def put(self, frame):
        taken = self.room.pop(0) if self.room else True
        if taken:
            self.frames.append(frame)
        return taken

    def sent(self):
        self.told.append("sent")

    def refused(self):
        self.told.append("refused")

    def wait_for_room(self, timeout):
        self.waited += 1
        assert self.waited < 10, "it waits for ever"
        self.has_room = True

    def begin_stream(self):
        self.streaming = True

    def begin_stream_now(self):
        begun, self.streaming = not self.streaming, True
        return begun

    def wait_for_streams(self):
        self.streaming = False

    @property
    def received(self):
        """What the peer makes of the frames, in its one context."""
        return self.parser.receive(b"".join(self.frames))


@pytest.fixture(params=[True, False], ids=["takeover", "no takeover"])
def agreed(request):
    return deflate(takeover=request.param)


def send(compressing, sender, payload=TEXT):
    compressing.send(sender, Opcode.BINARY, payload, None)


def test_messages_are_compressed_and_arrive(agreed):
    sender, compressing = ScriptedSender(agreed), Compressing(agreed)
    for _ in range(3):
        send(compressing, sender)
    first, *_, last = sender.frames
    assert len(first) < len(TEXT)
    assert (len(last) < len(first)) is agreed.outgoing_takeover
    assert sender.received == [TEXT] * 3


def test_an_empty_message_is_never_compressed(agreed):
    assert Compressing(deflate(takeover=True)).min_size == 1


@pytest.mark.parametrize("waits", [True, False], ids=["thread", "I/O thread"])
def test_a_message_that_finds_no_room_is_no_part_of_the_context(waits):
    """What is compressed after it must not refer to it, for the peer never sees it."""
    agreed = deflate(takeover=True)
    sender, compressing = ScriptedSender(agreed, waits=waits), Compressing(agreed)
    send(compressing, sender, b"first" + TEXT)
    sender.room = [False]
    send(compressing, sender, b"refused" * 20)
    send(compressing, sender, b"refused" * 20 + TEXT)
    expected = [b"first" + TEXT, b"refused" * 20 + TEXT]
    if waits:  # a thread waits for room and sends it again: it is never lost
        expected.insert(1, b"refused" * 20)
    assert sender.received == expected
    assert sender.told.count("refused") == (not waits)


def test_a_thread_that_finds_others_were_faster_waits_again():
    agreed = deflate(takeover=True)
    sender, compressing = ScriptedSender(agreed), Compressing(agreed)
    rounds = iter([False, False, True])
    type(sender).has_room = property(lambda self: next(rounds), lambda self, value: None)
    try:
        send(compressing, sender)
    finally:
        del type(sender).has_room
    assert sender.waited == 3
    assert sender.received == [TEXT]


def test_where_nothing_may_wait_a_busy_context_means_uncompressed():
    agreed = deflate(takeover=True)
    sender, compressing = ScriptedSender(agreed, waits=False), Compressing(agreed)
    send(compressing, sender)
    shared = SharedMessage(Opcode.BINARY, TEXT, compress=True)
    with compressing._lock:
        send(compressing, sender)
        assert compressing.offer_shared(sender, shared)
        assert compressing.begin_stream(sender) is None
    assert sender.frames[1:] == [encode_frame(Opcode.BINARY, TEXT)] * 2
    sender.streaming = False
    send(compressing, sender)
    assert sender.received == [TEXT] * 4


def test_a_shared_message_is_made_once_for_each_shape_and_ends_the_context(agreed):
    shared = SharedMessage(Opcode.BINARY, memoryview(TEXT), compress=True)
    senders = [ScriptedSender(agreed) for _ in range(3)]
    for sender in senders:
        compressing = Compressing(agreed)
        send(compressing, sender)
        assert compressing.offer_shared(sender, shared)
        send(compressing, sender)
        assert sender.received == [TEXT] * 3
    assert len({id(sender.frames[1]) for sender in senders}) == 1


def test_what_compression_makes_longer_goes_as_it_is():
    agreed = deflate(takeover=False)
    sender, compressing = ScriptedSender(agreed), Compressing(agreed)
    send(compressing, sender, b"\x8f")
    assert compressing.offer_shared(sender, SharedMessage(Opcode.BINARY, b"\x8f", compress=True))
    assert sender.frames == [encode_frame(Opcode.BINARY, b"\x8f")] * 2


def test_a_stream_waits_for_another_one_and_ends_the_context(agreed):
    sender, compressing = ScriptedSender(agreed), Compressing(agreed)
    send(compressing, sender)
    sender.streaming = True
    deflater = compressing.begin_stream(sender)
    assert sender.streaming
    packed = deflater.add(TEXT) + deflater.finish()
    sender.send(sender.frame(Opcode.BINARY, packed[:5], fin=False, compressed=True))
    sender.send(sender.frame(Opcode.CONTINUATION, packed[5:]))
    send(compressing, sender)
    assert sender.received == [TEXT] * 3


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["send", "offer", "shared", "shared while busy"]),
            st.sampled_from([TEXT, TEXT[::-1], b"x" * 300, bytes(range(256)), b"y"]),
            st.booleans(),
        ),
        max_size=20,
    ),
)
def test_whatever_is_taken_arrives_and_nothing_else(takeover, steps):
    agreed = deflate(takeover=takeover)
    sender, compressing, taken = ScriptedSender(agreed), Compressing(agreed), []
    for name, payload, room in steps:
        before = len(sender.frames)
        sender.waits, sender.waited = name == "send", 0
        sender.room = [room] if takeover or name.startswith("shared") else []
        if name in ("send", "offer"):
            send(compressing, sender, payload)
        else:
            shared = SharedMessage(Opcode.BINARY, payload, compress=True)
            if name == "shared while busy" and takeover:
                with compressing._lock:
                    compressing.offer_shared(sender, shared)
            else:
                compressing.offer_shared(sender, shared)
        if len(sender.frames) > before:
            taken.append(payload)
        assert name != "send" or len(sender.frames) == before + 1
    assert sender.received == taken
