"""What is sent, in which frames and which order, and what a slow peer can do to it."""

import threading
import time
from itertools import count

import pytest
from support import TIMEOUT, Frame, Happened, RawClient, errors_in, eventually, held

import securews
from securews import MessageType
from securews.protocol.frames import Opcode

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
SMALL = 4096
"""Of a receive buffer: the kernel holds little for a client that does not read."""


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def outcome(happened, function, *args, **options):
    """Call `function`; note its result or its error."""
    try:
        happened(function(*args, **options))
    except Exception as error:
        happened(error)


def fill(ws):
    """Send numbered messages until there is no room; how many were taken."""
    for number in count():
        try:
            ws.send(numbered(number), timeout=0.1)
        except TimeoutError:
            return number
    raise AssertionError("there is always room")


def numbered(number):
    return f"{number:<60000}"


# -- send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ("✓", Frame(True, TEXT, "✓".encode())),
        ("", Frame(True, TEXT, b"")),
        (b"\xff", Frame(True, BINARY, b"\xff")),
        (bytearray(b"\xfe"), Frame(True, BINARY, b"\xfe")),
        (memoryview(b"abcd")[::2], Frame(True, BINARY, b"ac")),
    ],
)
def test_str_is_sent_as_text_and_bytes_as_binary(message, frame):
    with held() as (ws, client):
        ws.send(message)
        assert client.read_frame() == frame


@pytest.mark.parametrize("message", [{"a": 1}, 5, None, ["x"]])
def test_anything_else_is_a_type_error_that_says_send_json(message):
    with held() as (ws, client):
        with pytest.raises(TypeError, match=r"send_json"):
            ws.send(message)
        ws.send_json({"a": [1, None, "✓"]})
        assert client.read_frame().opcode is TEXT


def test_text_that_utf_8_cannot_carry_is_a_value_error():
    with held() as (ws, client):
        with pytest.raises(ValueError, match="surrogates"):
            ws.send("\ud800")
        ws.send("still open")
        assert client.read_frame().payload == b"still open"


@pytest.mark.d(41)
def test_messages_of_many_threads_never_mix():
    with held() as (ws, client):

        def send(letter):
            for _ in range(20):
                ws.send(letter * 1000)
                with ws.write_message(MessageType.BINARY, max_frame_length=100) as stream:
                    stream.write(letter.encode() * 1000)

        threads = [in_thread(send, letter) for letter in "abcd"]
        for _ in range(160):
            first = frame = client.read_frame()
            assert first.opcode in (TEXT, BINARY)
            letters = set(first.payload)
            while not frame.fin:
                frame = client.read_frame()
                assert frame.opcode is CONTINUATION
                letters |= set(frame.payload)
            assert len(letters) == 1
        for thread in threads:
            thread.join(TIMEOUT)


def test_sending_on_a_closed_connection_raises_how_it_ended():
    with held() as (ws, client):
        client.send_close(4000, "bye")
        assert ws.wait_closed(TIMEOUT)
        for call in (
            lambda: ws.send("late"),
            lambda: ws.send_json(1),
            ws.ping,
            ws.write_message,
        ):
            with pytest.raises(securews.ConnectionClosedError) as closed:
                call()
            assert (closed.value.code, closed.value.reason) == (4000, "bye")
        assert not ws.open


# -- write_message ------------------------------------------------------------------------------


@pytest.mark.d(40)
def test_fragments_are_01_00_80_on_the_wire():
    with held() as (ws, client):
        with ws.write_message(MessageType.TEXT, max_frame_length=5) as stream:
            assert stream.write("fragmented") == 10
            stream.write(" text")
        assert client._take(2 + 5) == b"\x01\x05fragm"
        assert client._take(2 + 5) == b"\x00\x05ented"
        assert client._take(2 + 5) == b"\x80\x05 text"


def test_a_short_message_is_one_frame_and_so_is_an_empty_one():
    with held() as (ws, client):
        with ws.write_message(MessageType.BINARY) as stream:
            stream.write(b"short")
        assert client.read_frame() == Frame(True, BINARY, b"short")
        with ws.write_message():
            pass
        assert client.read_frame() == Frame(True, TEXT, b"")


def test_a_stream_is_a_file_for_print():
    with held() as (ws, client):
        with ws.write_message() as stream:
            print("a", 1, file=stream, flush=True)
        assert client.read_frame().payload == b"a 1\n"


def test_a_ping_is_written_as_one_frame():
    with held() as (ws, client):
        with ws.write_message(MessageType.PING) as stream:
            stream.write(b"pi")
            stream.write(b"ng")
        assert client.read_frame() == Frame(True, Opcode.PING, b"ping")
        with pytest.raises(ValueError, match="125"), ws.write_message(MessageType.PING) as stream:
            stream.write(b"x" * 126)
        ws.send("still open")
        assert client.read_frame().payload == b"still open"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("text",), TypeError, r"MessageType\.TEXT"),
        ((MessageType.TEXT, 0), ValueError, "at least 1"),
    ],
)
def test_a_stream_of_a_wrong_kind_is_refused_and_nothing_is_begun(arguments, error, words):
    with held() as (ws, client):
        with pytest.raises(error, match=words):
            ws.write_message(*arguments)
        ws.send("not behind a stream")
        assert client.read_frame().payload == b"not behind a stream"


@pytest.mark.parametrize(
    ("kind", "data"), [(MessageType.TEXT, b"x"), (MessageType.BINARY, "x"), (MessageType.PING, "x")]
)
def test_a_stream_takes_only_its_own_kind_of_data(kind, data):
    with (
        held() as (ws, _),
        ws.write_message(kind) as stream,
        pytest.raises(TypeError, match=f"a {kind.value} message takes"),
    ):
        stream.write(data)


def test_a_complete_stream_takes_no_more_and_closes_twice():
    with held() as (ws, client):
        stream = ws.write_message()
        stream.write("done")
        stream.close()
        stream.close()
        with pytest.raises(ValueError, match="over"):
            stream.write("more")
        assert client.read_frame() == Frame(True, TEXT, b"done")


def test_other_messages_queue_behind_an_open_stream_and_control_frames_pass():
    with held() as (ws, client):
        with ws.write_message(MessageType.TEXT, max_frame_length=1) as stream:
            stream.write("ab")
            ws.send("of the same thread")
            other = in_thread(ws.send, "of another")
            other.join(TIMEOUT)
            assert client.read_frame() == Frame(False, TEXT, b"a")
            client.send(Opcode.PING, b"passes")
            assert client.read_frame() == Frame(True, Opcode.PONG, b"passes")
            ws.ping(b"passes too")
            assert client.read_frame() == Frame(True, Opcode.PING, b"passes too")
        assert client.read_frame() == Frame(True, CONTINUATION, b"b")
        assert client.read_frame().payload == b"of the same thread"
        assert client.read_frame().payload == b"of another"


def test_what_queues_behind_a_stream_does_not_hold_the_stream_up():
    with held(outbox_bytes=1000, write_timeout=5) as (ws, client):
        with ws.write_message(MessageType.TEXT, max_frame_length=10) as stream:
            stream.write("begin " * 2)
            ws.send("x" * 2000)  # taken: the outbox was below its bound
            with pytest.raises(TimeoutError):
                ws.send("y", timeout=0)
            stream.write("goes on " * 5)
        frames = [client.read_frame()]
        while not frames[-1].fin:
            frames.append(client.read_frame())
        assert b"".join(f.payload for f in frames) == b"begin " * 2 + b"goes on " * 5
        assert client.read_frame().payload == b"x" * 2000


def test_a_second_stream_waits_for_the_first():
    with held() as (ws, client):
        wrote = Happened()

        def second():
            with ws.write_message() as stream:
                stream.write("second")
            wrote()

        with ws.write_message(MessageType.TEXT, max_frame_length=1) as stream:
            stream.write("1st")
            other = in_thread(second)
            assert [client.read_frame().payload for _ in range(2)] == [b"1", b"s"]
            assert not wrote.items
        other.join(TIMEOUT)
        assert client.read_frame() == Frame(True, CONTINUATION, b"t")
        assert client.read_frame() == Frame(True, TEXT, b"second")


def test_a_stream_that_is_left_by_an_exception_closes_with_1011():
    with held() as (ws, client):
        with pytest.raises(ZeroDivisionError), ws.write_message(max_frame_length=1) as stream:
            stream.write("ab")
            ws.send("given up")
            raise ZeroDivisionError
        assert client.read_frame() == Frame(False, TEXT, b"a")
        assert client.read_frame().close_code == 1011
        assert not ws.open


def test_a_stream_whose_last_frame_finds_no_room_closes_with_1011():
    """On the I/O thread, where nothing waits for room."""
    result = Happened()

    class Stream(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            for _ in range(200):
                ws.send(b"\x00" * 60_000)  # until those that find no room are dropped
            stream = ws.write_message()
            stream.write("the only frame")
            outcome(result, stream.close)

    options = {"outbox_bytes": 10_000, "slow_client": "drop"}
    with (
        securews.serve(0, Stream(), tls=False, **options) as server,
        RawClient(server.address, receive_buffer=SMALL) as client,
    ):
        client.send(TEXT, b"go")
        (error,) = result.wait()
        assert isinstance(error, TimeoutError)
        assert client.read_close().close_code == 1011


# -- ping ---------------------------------------------------------------------------------------


def test_a_ping_waiter_gives_the_seconds_until_its_pong():
    with held() as (ws, client):
        assert ws.latency is None
        waiter = ws.ping(b"payload")
        assert client.read_frame() == Frame(True, Opcode.PING, b"payload")
        with pytest.raises(TimeoutError, match="no pong within"):
            waiter.wait(0.01)
        client.send(Opcode.PONG, b"payload")
        seconds = waiter.wait(TIMEOUT)
        assert 0.01 <= seconds < TIMEOUT
        assert ws.latency == waiter.wait() == seconds


def test_a_pong_answers_the_earlier_pings_too():
    with held() as (ws, client):
        waiters = [ws.ping(payload) for payload in (b"1", b"2", b"3")]
        client.send(Opcode.PONG, b"2")
        assert waiters[1].wait(TIMEOUT) <= waiters[0].wait(TIMEOUT)
        with pytest.raises(TimeoutError):
            waiters[2].wait(0)


def test_a_ping_waiter_is_told_of_the_end():
    with held() as (ws, client):
        waiter = ws.ping()
        client.send_close(4000)
        with pytest.raises(securews.ConnectionClosedError) as closed:
            waiter.wait(TIMEOUT)
        assert closed.value.code == 4000


def test_pings_are_bounded_in_size_and_in_number():
    with held() as (ws, client):
        with pytest.raises(ValueError, match="at most 125 bytes"):
            ws.ping(b"x" * 126)
        for _ in range(64):
            ws.ping(b"x" * 125)
        with pytest.raises(RuntimeError, match="64 pings are unanswered"):
            ws.ping()
        client.send(Opcode.PONG, b"x" * 125)  # the first of them
        eventually(lambda: ws.latency is not None)
        ws.ping()


# -- a peer that takes nothing --------------------------------------------------------------------


def test_a_message_of_any_size_fits_an_empty_outbox():
    with held(outbox_bytes=1, receive_buffer=SMALL) as (ws, client):
        ws.send(b"x" * 5_000_000, timeout=0)
        assert len(client.read_frame().payload) == 5_000_000


def test_a_thread_waits_for_room_before_its_message_is_taken():
    with held(outbox_bytes=10_000, receive_buffer=SMALL) as (ws, client):
        taken = fill(ws)
        sent = Happened()
        waiting = in_thread(lambda: sent(ws.send("this one")))
        for number in range(taken):
            assert client.read_frame().payload == numbered(number).encode()
        assert client.read_frame() == Frame(True, TEXT, b"this one")
        waiting.join(TIMEOUT)
        assert sent.items == [None]


@pytest.mark.d(27)
@pytest.mark.promise(51)
def test_a_peer_that_takes_no_byte_for_write_timeout_is_gone_and_senders_are_freed():
    gone = Happened()

    def prepare(ws):
        ws.on_close = gone

    options = {"write_timeout": 0.5, "outbox_bytes": 10_000, "receive_buffer": SMALL}
    with held(prepare, **options) as (ws, _):
        fill(ws)
        began = time.monotonic()
        results = Happened()
        senders = [in_thread(outcome, results, fill_for_ever, ws) for _ in range(3)]
        for sender in senders:
            sender.join(TIMEOUT)
        gone.wait()
        assert time.monotonic() - began < 2
        assert ws.close_code == 1006
        assert "took less than 1024 bytes" in ws.close_reason
        for result in results.wait(3):
            assert isinstance(result, (TimeoutError, securews.ConnectionClosedError))


def fill_for_ever(ws):
    while True:
        ws.send(b"\x00" * 60_000)


class Flood(securews.EventWebSocketHandler):
    """Sends from the I/O thread until the connection says no."""

    def __init__(self):
        self.sent = Happened()
        self.closed = Happened()

    def on_message(self, ws, message):
        for _ in range(200):
            ws.send(b"\x00" * 60_000)
        self.sent()

    def on_close(self, ws, code, reason):
        self.closed(code)


@pytest.mark.promise(52)
def test_on_the_io_thread_a_slow_client_is_closed_with_1013_and_nobody_waits(caplog):
    handler = Flood()
    with securews.serve(0, handler, tls=False, outbox_bytes=100_000) as server:
        with RawClient(server.address, receive_buffer=SMALL) as slow:
            with securews.connect(server.url):
                began = time.monotonic()
                slow.send(TEXT, b"go")
                eventually(lambda: not all(ws.open for ws in server.connections))
                assert time.monotonic() - began < 2
            assert slow.read_close().close_code == 1013
            slow.send_close(1013)
        assert sorted(handler.closed.wait(2)) == [1000, 1013]
    assert handler.sent.items == []
    (line,) = errors_in(caplog)
    assert "1013: Flood.on_message has sent more than 4 times outbox_bytes" in line


@pytest.mark.promise(52)
def test_on_the_io_thread_messages_of_a_slow_client_can_be_dropped_whole():
    handler = Flood()
    with (
        securews.serve(0, handler, tls=False, outbox_bytes=100_000, slow_client="drop") as server,
        RawClient(server.address, receive_buffer=SMALL) as slow,
    ):
        slow.send(TEXT, b"go")
        handler.sent.wait()
        slow.send(Opcode.PING, b"end")
        frames = []
        while (frame := slow.read_frame()).opcode is not Opcode.PONG:
            frames.append(frame)
        server.broadcast("behind")
        while (frame := slow.read_frame()).opcode is not TEXT:
            frames.append(frame)
        assert {len(frame.payload) for frame in frames} == {60_000}
        assert 0 < len(frames) < 200


@pytest.mark.promise(52)
@pytest.mark.parametrize("slow_client", ["close", "drop"])
def test_a_broadcast_waits_for_nobody_and_names_whom_it_skipped(slow_client):
    handler = securews.EventWebSocketHandler()
    options = {"outbox_bytes": 100_000, "slow_client": slow_client}
    with (
        securews.serve(0, handler, tls=False, **options) as server,
        RawClient(server.address, path="/slow", receive_buffer=SMALL) as slow,
        securews.connect(server.url + "good", max_queue=10_000, max_queue_bytes=1 << 30) as good,
    ):
        eventually(lambda: len(server.connections) == 2)
        everybody = server.connections
        skipped = []
        for sent in range(1, 1000):
            skipped = server.broadcast(b"\x00" * 20_000, to=everybody)
            eventually(lambda: good.receive_messages() == sent)  # noqa: B023 - called at once
            if skipped:
                break
        assert [ws.request.path for ws in skipped] == ["/slow"]
        if slow_client == "close":
            assert not skipped[0].open
            assert slow.read_close().close_code == 1013
            assert server.broadcast("next", to=everybody) == skipped
        else:
            assert skipped[0].open
            assert len(slow.read_frame().payload) == 20_000
        assert good.open
