"""What LazWebsocketsServer gets wrong in frames, messages and closing, over wss, byte by byte."""

import threading

import pytest
from support import Happened, eventually
from wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WireClient,
    client_context,
    close_frame,
    frame,
)

import securews
from securews import testing


class Echo(securews.EventWebSocketHandler):
    def __init__(self):
        self.closed = Happened()

    def on_message(self, ws, message):
        ws.send(message)

    def on_close(self, ws, code, reason):
        self.closed((code, reason))


@pytest.fixture
def handler():
    return Echo()


@pytest.fixture
def server(handler):
    with testing.server(handler, limits=securews.Limits(max_fragments=16)) as made:
        yield made


@pytest.fixture
def client(server):
    with WireClient(server.address, client_context(server.ca_file)) as made:
        made.upgrade()
        yield made


def check_failed(client, handler, code):
    """The connection is closed with `code` in order, and the handler is told the same."""
    assert client.read_close()[0] == code
    assert client.read_to_end() == b""
    [(told, _)] = handler.closed.wait()
    assert told == code


@pytest.mark.d(29)
@pytest.mark.parametrize("announced", [1 << 30, (1 << 20) + 1])
def test_a_message_that_is_too_big_is_refused_by_its_header_alone(client, handler, announced):
    client.send_frame(BINARY, length=b"\x7f" + announced.to_bytes(8))
    check_failed(client, handler, 1009)


@pytest.mark.d(29)
def test_fragments_that_are_too_big_together_are_refused_by_the_last_header(client, handler):
    client.send_frame(BINARY, bytes(1 << 19), fin=False)
    client.send_frame(CONTINUATION, bytes(1 << 19), fin=False)
    client.send_frame(CONTINUATION, length=b"\x01")
    check_failed(client, handler, 1009)


@pytest.mark.d(30, 49)
def test_a_length_with_its_top_bit_set_is_1002(client, handler):
    client.send_frame(BINARY, length=b"\x7f\x80" + bytes(7))
    check_failed(client, handler, 1002)


@pytest.mark.d(31)
def test_too_many_fragments_are_1008(client, handler):
    client.send_frame(TEXT, b"x", fin=False)
    client.send(b"".join(frame(CONTINUATION, b"x", fin=False) for _ in range(16)))
    check_failed(client, handler, 1008)


@pytest.mark.d(31)
def test_too_many_control_frames_are_1008(client, handler):
    client.send(b"".join(frame(PONG, b"x") for _ in range(300)))
    check_failed(client, handler, 1008)


@pytest.mark.d(31)
def test_a_handler_that_does_not_read_stops_the_peer_not_the_memory():
    queued = Happened()
    stuck = threading.Event()

    def handler(ws):
        assert stuck.wait(10)
        queued(len(ws.get_unprocessed_messages()))
        ws.wait_closed()

    with (
        testing.server(handler, max_queue=4) as server,
        WireClient(server.address, client_context(server.ca_file)) as client,
    ):
        client.upgrade()
        client.socket.settimeout(0.5)  # this long without progress: the peer is stopped
        message = frame(BINARY, bytes(16 << 10))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 10_000:
                client.send(message)
                sent += 1
        stuck.set()
        # The bound is judged before a read, and a read brings at most 64 KiB: four messages.
        [count] = queued.wait()
    assert 4 <= count <= 8


@pytest.mark.d(32, 49)
@pytest.mark.parametrize(
    "wrong",
    [
        frame(TEXT, b"x", rsv=4),
        frame(TEXT, b"x", rsv=2),
        frame(TEXT, b"x", rsv=1),
        frame(3, b"x"),
        frame(7, b"x"),
        frame(11, b"x"),
        frame(15, b"x"),
        frame(TEXT, b"x", length=b"\x7e\x00\x01"),
        frame(TEXT, b"x", length=b"\x7f" + bytes(7) + b"\x01"),
        frame(TEXT, b"x", masked=False),
        frame(CONTINUATION, b"x"),
    ],
    ids=[
        "rsv1",
        "rsv2",
        "rsv3",
        "opcode 3",
        "opcode 7",
        "opcode 11",
        "opcode 15",
        "16-bit length",
        "64-bit length",
        "no mask",
        "continues nothing",
    ],
)
def test_a_frame_that_breaks_a_rule_is_1002(client, handler, wrong):
    client.send(wrong)
    check_failed(client, handler, 1002)


@pytest.mark.d(33, 49)
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_short_and_whole(client, handler, opcode):
    client.send_frame(opcode, bytes(126))
    check_failed(client, handler, 1002)


@pytest.mark.d(33, 49)
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_not_fragmented(client, handler, opcode):
    client.send_frame(opcode, fin=False)
    check_failed(client, handler, 1002)


@pytest.mark.d(34)
def test_ping_and_pong_inside_a_message_leave_it_whole(client):
    client.send_frame(TEXT, b"hello", fin=False)
    client.send_frame(PING, b"are you there?")
    assert client.read_frame() == (0x8A, b"are you there?")
    client.send_frame(PONG, b"nobody asked")
    client.send_frame(CONTINUATION, b" wor", fin=False)
    client.send_frame(PING)
    assert client.read_frame() == (0x8A, b"")
    client.send_frame(CONTINUATION, b"ld")
    assert client.read_frame() == (0x81, b"hello world")


@pytest.mark.d(35, 49)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_inside_a_message_is_1002(client, handler, opcode):
    client.send_frame(TEXT, b"aaa", fin=False)
    client.send_frame(opcode, b"bbb")
    check_failed(client, handler, 1002)


@pytest.mark.d(36)
@pytest.mark.parametrize(
    "frames",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xed\xa0\x80"),  # a surrogate
        frame(TEXT, b"\xc0\xaf"),  # overlong
        frame(TEXT, b"\xf4\x90\x80\x80"),  # beyond U+10FFFF
        frame(TEXT, b"\xe2\x82"),  # cut short
        frame(TEXT, b"ok", fin=False) + frame(CONTINUATION, b"\xff"),
        # Only half of the frame comes: it fails at the bad byte, not at the end.
        frame(TEXT, b"ok \xff" + bytes(4))[:-4],
    ],
    ids=["FF FE", "surrogate", "overlong", "too high", "cut", "fragment", "half a frame"],
)
def test_text_that_is_not_utf_8_is_1007_at_the_first_bad_byte(client, handler, frames):
    client.send(frames)
    check_failed(client, handler, 1007)


@pytest.mark.d(36)
def test_a_character_may_be_cut_by_fragments(client):
    text = "a€𝄞".encode()
    client.send_frame(TEXT, text[:2], fin=False)
    client.send_frame(CONTINUATION, text[2:6], fin=False)
    client.send_frame(CONTINUATION, text[6:])
    assert client.read_frame() == (0x81, text)


@pytest.mark.d(37)
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (1011, "€"), (3000, "x" * 123), (4999, "")]
)
def test_code_and_reason_of_a_close_are_echoed_and_told(client, handler, code, reason):
    client.send(close_frame(code, reason.encode()))
    assert client.read_close()[0] == code
    assert client.read_to_end() == b""
    assert handler.closed.wait() == [(code, reason)]


@pytest.mark.d(37)
def test_a_close_without_a_code_is_answered_without_one(client, handler):
    client.send(close_frame(None))
    assert client.read_frame() == (0x88, b"")
    assert handler.closed.wait() == [(1005, "")]


@pytest.mark.d(37)
@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"\x03", 1002),
        *((code.to_bytes(2), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)),
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_a_close_that_is_none_is_refused(client, handler, payload, answer):
    client.send_frame(CLOSE, payload)
    check_failed(client, handler, answer)


@pytest.mark.d(38)
def test_one_close_is_sent_and_nothing_behind_it(client, handler):
    client.send(
        close_frame(1000) + close_frame(1001) + frame(TEXT, b"too late") + frame(PING, b"too late")
    )
    assert client.read_close() == (1000, "")
    assert client.read_to_end() == b""
    assert handler.closed.wait() == [(1000, "")]


@pytest.mark.d(38)
def test_sending_after_closing_is_an_error_not_a_frame():
    met = Happened()

    def handler(ws):
        ws.close(3001, "enough")
        for call in (lambda: ws.send("too late"), ws.ping, ws.write_message):
            try:
                call()
            except securews.ConnectionClosed as closed:
                met((closed.code, closed.reason, closed.initiator))
        ws.close(1000)

    with (
        testing.server(handler) as server,
        WireClient(server.address, client_context(server.ca_file)) as client,
    ):
        client.upgrade()
        assert client.read_close() == (3001, "enough")
        client.send(close_frame(3001))
        assert client.read_to_end() == b""
    assert met.wait(3) == [(3001, "enough", "us")] * 3


@pytest.mark.d(40)
@pytest.mark.parametrize(
    ("pieces", "frames"),
    [
        (["hello world"], [(0x01, b"hello"), (0x00, b" worl"), (0x80, b"d")]),
        (["hel", "lo wor", "ld"], [(0x01, b"hello"), (0x00, b" worl"), (0x80, b"d")]),
        (["hello"], [(0x81, b"hello")]),
        (["hello", "world"], [(0x01, b"hello"), (0x80, b"world")]),
        ([], [(0x81, b"")]),
    ],
)
def test_fragments_are_text_continuation_and_a_final_continuation(pieces, frames):
    def handler(ws):
        with ws.write_message(securews.MessageType.TEXT, max_frame_length=5) as stream:
            for piece in pieces:
                stream.write(piece)

    with (
        testing.server(handler) as server,
        WireClient(server.address, client_context(server.ca_file)) as client,
    ):
        client.upgrade()
        assert [client.read_frame() for _ in frames] == frames
        client.send(close_frame(client.read_close()[0]))


@pytest.mark.d(41)
def test_messages_of_several_threads_never_mix():
    threads, messages = 4, 25

    def handler(ws):
        def write(name):
            for _ in range(messages):
                with ws.write_message(securews.MessageType.BINARY, max_frame_length=5) as stream:
                    stream.write(name * 23)
                ws.send(name * 7)

        writers = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(threads)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(10)

    with (
        testing.server(handler) as server,
        WireClient(server.address, client_context(server.ca_file)) as client,
    ):
        client.upgrade()
        got = []
        while True:
            first, payload = client.read_frame()
            if first & 0x0F == CLOSE:
                client.send(close_frame())
                break
            assert first & 0x0F == (BINARY if not got or got[-1][0] else CONTINUATION)
            if not got or got[-1][0]:
                got.append([False, b""])
            got[-1] = [bool(first & 0x80), got[-1][1] + payload]
    assert all(complete and len(set(message)) == 1 for complete, message in got)
    assert len(got) == threads * messages * 2


@pytest.mark.d(43)
def test_waiting_for_one_kind_leaves_the_others_in_their_order():
    got = Happened()

    def handler(ws):
        eventually(lambda: ws.receive_messages(10) == 4)
        got(ws.wait_for_message({bytes}, 10))
        got(ws.wait_for_message({bytes}, 10))
        got(ws.get_unprocessed_messages())

    with testing.server(handler) as server, server.connect() as ws:
        for message in ("one", b"two", "three", b"four"):
            ws.send(message)
        assert got.wait(3) == [b"two", b"four", ["one", "three"]]
