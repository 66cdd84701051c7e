"""Compressed messages of several threads, in the order in which they were compressed."""

import pytest
from harness import Bench, elsewhere

from securews.connection.compressing import Compressing
from securews.protocol.deflate import Deflate, Deflater
from securews.protocol.frames import Opcode
from securews.protocol.parser import Role, WebSocketParser

DEFLATE = Deflate(
    incoming_takeover=True,
    incoming_window_bits=15,
    outgoing_takeover=True,
    outgoing_window_bits=15,
    level=6,
    memory_level=8,
    min_size=1,
)


class Interrupted(Deflater):
    """While it compresses, another thread sends."""

    def compress(self, message):
        if self.meanwhile is not None:
            self.meanwhile()
        return super().compress(message)


@pytest.fixture
def bench():
    with Bench() as bench:
        yield bench


def test_a_message_that_is_compressed_while_another_fills_the_queue_is_sent(bench):
    peer = bench.open(event_driven=False, outbox_bytes=1000)
    sender = peer.connection.sender
    sender.compressing = compressing = Compressing(DEFLATE)
    compressing._context = context = Interrupted(6, 8, 15)
    large = bytes(10_000)

    context.meanwhile = lambda: sender.send(sender.frame(Opcode.BINARY, large))
    elsewhere(sender.send_message, Opcode.TEXT, b"first " * 50)
    context.meanwhile = None
    bench.settle()
    elsewhere(sender.send_message, Opcode.TEXT, b"first " * 50)
    bench.settle()

    parser = WebSocketParser(Role.CLIENT, max_size=1 << 20, deflate=DEFLATE)
    events = parser.receive(bytes(peer.stream.sent))
    assert events == [large, "first " * 50, "first " * 50]
