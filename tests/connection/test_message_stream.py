"""A message in pieces: what cannot be completed is broken off, and nothing is sent twice."""

from __future__ import annotations

import pytest
from harness import Bench, elsewhere, start_elsewhere
from support import eventually

from securews.common.errors import ConnectionClosed
from securews.connection.message_stream import MessageStream, MessageType
from securews.protocol.events import Close, Ping

BROKEN_OFF = "the peer does not take the message, which is broken off; .* closed with 1011"


@pytest.fixture
def bench():
    with Bench() as bench:
        yield bench


def begin(peer, kind=MessageType.BINARY, frame_length=10):
    return MessageStream(peer.connection, kind, frame_length)


@pytest.mark.parametrize("late", ["write", "close"])
def test_a_stream_that_the_peer_does_not_take_is_over_and_closes_with_1011(bench, late):
    peer = bench.open(outbox_bytes=1000, write_timeout=0.05)
    stream = begin(peer)
    stream.write(b"0123456789ab")
    bench.settle()
    sent = bytes(peer.stream.sent)
    assert sent == b"\x02\x0a0123456789"
    peer.takes(0)
    peer.link.blocked = False  # nothing judges the peer but the one who waits
    peer.link.send_fragment(bytes(2000), last=False, bound=1 << 30)
    with pytest.raises(TimeoutError, match=BROKEN_OFF):
        elsewhere(stream.close if late == "close" else lambda: stream.write(b"x" * 30))
    assert stream.closed
    with pytest.raises(ValueError, match="the message is over"):
        stream.write(b"again")
    stream.close()
    assert peer.link.closing.code == 1011


def test_after_a_timeout_nothing_of_the_message_is_sent_any_more(bench):
    peer = bench.open(outbox_bytes=100, write_timeout=0.05)
    stream = begin(peer)
    peer.takes(0)
    with pytest.raises(TimeoutError, match=BROKEN_OFF):
        elsewhere(stream.write, bytes(range(200)))
    for call in (stream.close, lambda: stream.write(b"x")):
        try:
            elsewhere(call)
        except ValueError:
            pass
    peer.takes(None)
    bench.settle()
    # Each frame once and in order, and then the Close: no last frame, and no frame again.
    sent, payload = bytes(peer.stream.sent), b""
    while sent[0] in (0x02, 0x00):
        payload += sent[2 : 2 + sent[1]]
        sent = sent[2 + sent[1] :]
    assert bytes(range(200)).startswith(payload)
    assert 0 < len(payload) < 200
    assert sent[:1] == b"\x88"
    assert sent[2:4] == (1011).to_bytes(2)


def test_on_the_loop_a_stream_breaks_off_at_the_hard_bound_instead_of_waiting(bench):
    peer = bench.open(outbox_bytes=100)
    stream = begin(peer)
    peer.takes(0)
    with pytest.raises(TimeoutError, match=BROKEN_OFF):
        for _ in range(100_000):
            stream.write(bytes(1000))
    assert peer.link.closing.code == 1011


class Interrupted:
    """A connection whose sender is interrupted while it waits."""

    def __init__(self, connection):
        self.start_close = connection.start_close
        self.sender = self
        self.frame = connection.sender.frame
        self.begin_message_stream = connection.sender.begin_message_stream

    def send_fragment(self, frame, *, last):
        raise KeyboardInterrupt


def test_a_write_that_is_interrupted_while_it_waits_breaks_the_message_off(bench):
    """The frame is out of the buffer and not in the queue: what follows would be another message."""
    peer = bench.open()
    stream = MessageStream(Interrupted(peer.connection), MessageType.BINARY, 10)
    with pytest.raises(KeyboardInterrupt):
        stream.write(bytes(30))
    with pytest.raises(ValueError, match="the message is over"):
        stream.write(b"more")
    stream.close()
    bench.settle()
    assert peer.frames == [Close(1011, "a message was broken off")]


def test_a_stream_whose_connection_ends_says_how_each_time(bench):
    peer = bench.open()
    stream = begin(peer)
    stream.write(b"begun")
    peer.link.abort()
    bench.settle()
    for _ in range(2):
        with pytest.raises(ConnectionClosed):
            stream.write(bytes(100))


def test_a_stream_that_is_left_by_an_exception_closes_with_1011_and_sends_no_more(bench):
    peer = bench.open()
    with pytest.raises(ZeroDivisionError), begin(peer) as stream:
        stream.write(b"0123456789abc")
        raise ZeroDivisionError
    bench.settle()
    assert bytes(peer.stream.sent).startswith(b"\x02\x0a0123456789\x88")
    assert peer.link.closing.code == 1011


def test_a_memoryview_of_any_stride_is_its_bytes(bench):
    peer = bench.open()
    with begin(peer) as stream:
        assert stream.write(memoryview(b"a-b-c-")[::2]) == 3
    bench.settle()
    assert peer.data == [b"abc"]


def test_a_ping_that_is_too_long_is_never_sent(bench):
    peer = bench.open()
    stream = begin(peer, MessageType.PING)
    stream.write(bytes(100))
    with pytest.raises(ValueError, match="at most 125 bytes"):
        stream.write(bytes(26))
    stream.close()
    bench.settle()
    assert peer.frames == [Ping(bytes(100))]


def test_a_stream_waits_for_the_one_that_is_open(bench):
    peer = bench.open()
    first = begin(peer)
    waiting = start_elsewhere(begin, peer)
    eventually(lambda: peer.link._room is not None)
    first.close()
    second = waiting.result(10)
    second.write(b"second")
    second.close()
    bench.settle()
    assert peer.data == [b"", b"second"]
