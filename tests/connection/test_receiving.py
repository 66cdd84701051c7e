"""What a handler receives, how it waits, and what happens when it does not."""

import signal
import threading

import pytest
from support import TIMEOUT, Happened, RawClient, eventually, held, masked, tracebacks_in

import securews
from securews import Pong
from securews.protocol.frames import Opcode

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


def texts(*messages):
    """The frames of these text messages in one piece, so that one read brings them all."""
    return b"".join(masked(TEXT, message.encode()) for message in messages)


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


# -- recv and iteration ---------------------------------------------------------------------------


def test_text_is_str_and_binary_is_bytes():
    with held() as (ws, client):
        client.send(TEXT, "✓".encode())
        client.send(BINARY, b"\xff")
        assert ws.recv(timeout=TIMEOUT) == "✓"
        assert ws.recv(timeout=TIMEOUT) == b"\xff"


@pytest.mark.parametrize("receive", ["recv", "recv_json", "receive_messages", "wait_for_message"])
def test_receiving_gives_up_after_its_timeout(receive):
    with held() as (ws, client):
        with pytest.raises(TimeoutError, match=r"nothing came within 0\.05 s"):
            getattr(ws, receive)(timeout=0.05)
        with pytest.raises(TimeoutError):
            getattr(ws, receive)(timeout=0)
        client.send(TEXT, b"7")
        assert ws.recv_json(timeout=TIMEOUT) == 7


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_a_signal_that_does_not_end_the_wait_is_handled_all_the_same(timeout):
    def interrupt(number, frame):
        raise InterruptedError

    over = threading.Event()
    # The system gives the signal to the other thread: as if it had come just before the wait.
    other = in_thread(over.wait, TIMEOUT)
    previous = signal.signal(signal.SIGALRM, interrupt)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        with held() as (ws, client):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedError):
                ws.recv(timeout=timeout)
            client.send(TEXT, b"and on")
            assert ws.recv(timeout=TIMEOUT) == "and on"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, previous)
        over.set()
        other.join(TIMEOUT)


def test_bad_json_is_a_value_error():
    with held() as (ws, client):
        client.send(TEXT, b"{")
        with pytest.raises(ValueError, match="Expecting property name"):
            ws.recv_json(timeout=TIMEOUT)


def test_a_second_thread_that_receives_is_a_runtime_error_and_harms_nobody():
    with held() as (ws, client):
        got = Happened()
        first = in_thread(lambda: got(ws.recv(timeout=TIMEOUT)))

        def refused():
            try:
                ws.recv(timeout=0)
            except RuntimeError as error:
                return "another thread is receiving" in str(error)
            except TimeoutError:
                return False  # the first has not begun to wait yet

        eventually(refused)
        client.send(TEXT, b"for the first")
        first.join(TIMEOUT)
        assert got.items == ["for the first"]
        client.send(TEXT, b"again")
        assert ws.recv(timeout=TIMEOUT) == "again"


@pytest.mark.parametrize("code", [1000, 1001])
def test_iteration_ends_quietly_on_an_orderly_close(code):
    with held() as (ws, client):
        client.send_raw(texts("a", "b"))
        client.send_close(code)
        assert list(ws) == ["a", "b"]


@pytest.mark.parametrize("code", [1008, 4000])
def test_iteration_raises_on_any_other_close(code):
    with held() as (ws, client):
        client.send_raw(texts("a"))
        client.send_close(code, "because")
        messages = iter(ws)
        assert next(messages) == "a"
        with pytest.raises(securews.ConnectionClosedError) as closed:
            next(messages)
        assert (closed.value.code, closed.value.reason) == (code, "because")
        assert closed.value.initiator == "peer"


def test_what_came_before_a_close_is_read_before_it():
    with held() as (ws, client):
        client.send_raw(texts("a", "b", "c") + masked(Opcode.CLOSE, b"\x03\xe8"))
        eventually(lambda: not ws.open)
        assert [ws.recv() for _ in range(3)] == ["a", "b", "c"]
        for _ in range(2):
            with pytest.raises(securews.ConnectionClosedOK):
                ws.recv()


@pytest.mark.d(25)
@pytest.mark.promise(26)
def test_what_came_before_an_end_without_a_close_is_read_before_it():
    with held(max_queue=2) as (ws, client):
        client.send_raw(texts(*"abcdef"))
        client.close()
        assert [ws.recv(timeout=TIMEOUT) for _ in range(6)] == list("abcdef")
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv(timeout=TIMEOUT)
        assert (closed.value.code, closed.value.initiator) == (1006, "network")


@pytest.mark.d(26)
@pytest.mark.promise(54)
def test_a_reset_is_1006():
    with held() as (ws, client):
        client.reset()
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv(timeout=TIMEOUT)
        assert closed.value.code == 1006
        assert isinstance(ws.socket_stream.last_error, ConnectionResetError)


# -- the seed's way ---------------------------------------------------------------------------------


@pytest.mark.d(43)
def test_receive_messages_says_how_many_are_queued():
    with held() as (ws, client):
        client.send_raw(texts("a", "b", "c"))
        assert ws.receive_messages(timeout=TIMEOUT) == 3
        assert ws.receive_messages(timeout=TIMEOUT) == 3  # none was taken
        assert ws.has_messages
        assert ws.get_unprocessed_messages() == ["a", "b", "c"]
        assert not ws.has_messages
        assert ws.get_unprocessed_messages() == []
        client.send_close()
        assert ws.receive_messages(timeout=TIMEOUT) == 0


@pytest.mark.d(43)
def test_wait_for_message_leaves_in_place_what_it_skips():
    with held() as (ws, client):
        client.send_raw(texts("a", "b") + masked(BINARY, b"1") + texts("c") + masked(BINARY, b"2"))
        assert ws.wait_for_message({bytes}, timeout=TIMEOUT) == b"1"
        assert ws.wait_for_message({bytes}, timeout=TIMEOUT) == b"2"
        with pytest.raises(TimeoutError):
            ws.wait_for_message([bytes], timeout=0)
        assert ws.wait_for_message({str, bytes}) == "a"
        assert ws.get_unprocessed_messages() == ["b", "c"]


@pytest.mark.parametrize("types", [{int}, {str, dict}, set()])
def test_wait_for_message_of_another_type_is_a_type_error(types):
    with held() as (ws, _), pytest.raises(TypeError, match=r"securews\.Pong"):
        ws.wait_for_message(types)


def test_the_newest_pong_that_was_asked_for_is_kept_in_one_slot():
    with held() as (ws, client):
        for payload in (b"old", b"new"):
            ws.ping(payload)
            assert client.read_frame().payload == payload
        client.send_raw(masked(Opcode.PONG, b"old") + masked(Opcode.PONG, b"new") + texts("behind"))
        assert ws.recv(timeout=TIMEOUT) == "behind"  # recv passes over pongs
        assert ws.receive_messages(timeout=TIMEOUT) == 1
        assert ws.wait_for_message({Pong}, timeout=TIMEOUT) == Pong(b"new")
        with pytest.raises(TimeoutError):
            ws.wait_for_message({Pong}, timeout=0)


def test_a_pong_comes_with_the_unprocessed_messages():
    with held() as (ws, client):
        ws.ping(b"p")
        client.send_raw(texts("a") + masked(Opcode.PONG, b"p") + texts("b"))
        eventually(lambda: ws.receive_messages(timeout=TIMEOUT) == 3)
        assert ws.get_unprocessed_messages() == ["a", "b", Pong(b"p")]


def test_a_pong_that_nobody_asked_for_is_not_kept():
    with held() as (ws, client):
        client.send_raw(masked(Opcode.PONG, b"unasked") + texts("behind"))
        assert ws.receive_messages(timeout=TIMEOUT) == 1
        assert ws.get_unprocessed_messages() == ["behind"]


def test_wait_closed_discards_what_comes_and_says_whether_it_ended():
    with held(max_queue=2) as (ws, client):
        client.send_raw(texts(*"abcdef"))
        assert ws.wait_closed(timeout=0.05) is False
        client.send_raw(texts(*"ghijkl") * 1000)
        client.send_close(4000)
        assert ws.wait_closed(timeout=TIMEOUT) is True
        assert ws.close_code == 4000
        assert not ws.has_messages


# -- callbacks --------------------------------------------------------------------------------------


def test_on_receive_message_is_a_notice_per_read_beside_recv():
    notices = Happened()

    def prepare(ws):
        ws.on_receive_message = notices

    with held(prepare) as (ws, client):
        client.send_raw(texts("a", "b", "c"))
        assert [ws.recv(timeout=TIMEOUT) for _ in range(3)] == ["a", "b", "c"]
        client.send_raw(texts("d"))
        assert ws.recv(timeout=TIMEOUT) == "d"
        assert notices.wait(2) == [ws, ws]


def test_on_receive_message_tells_of_what_came_before_it_was_set():
    notices = Happened()
    with held() as (ws, client):
        client.send_raw(texts("early"))
        ws.receive_messages(timeout=TIMEOUT)
        ws.on_receive_message = notices
        assert notices.wait() == [ws]
        assert ws.recv() == "early"


def test_on_receive_message_that_raises_closes_with_1011_and_is_logged_once(caplog):
    def prepare(ws):
        ws.on_receive_message = lambda ws: 1 / 0

    with held(prepare) as (_, client):
        client.send_raw(texts("a"))
        assert client.read_close().close_code == 1011
    assert len(tracebacks_in(caplog)) == 1


def test_on_close_comes_once_with_the_facts_still_valid():
    facts = Happened()

    def prepare(ws):
        ws.on_close = lambda ws: facts((ws.close_code, ws.close_reason, ws.remote_address))

    with held(prepare) as (ws, client):
        address = client.local_address
        client.send_close(4000, "bye")
        assert facts.wait() == [(4000, "bye", address)]
        ws.close()
        ws.abort()
        ws.wait_closed(TIMEOUT)
    assert len(facts.items) == 1


def test_on_close_that_is_set_too_late_is_told_all_the_same():
    told = Happened()
    with held() as (ws, client):
        client.send_close()
        assert ws.wait_closed(TIMEOUT)
        ws.on_close = told
        assert told.wait() == [ws]
        ws.on_close = told
    assert len(told.items) == 1


def test_on_close_that_is_set_after_the_loop_has_ended_is_told_too():
    told = Happened()
    with held() as (server_ws, _), securews.connect(server_ws.server.url) as ws:
        ws.abort()
        assert ws.wait_closed(TIMEOUT)
        for thread in threading.enumerate():
            if thread.name == "securews-client-io":
                thread.join(TIMEOUT)
        ws.on_close = told
        assert told.wait() == [ws]
    server_ws.on_close = told
    assert told.wait(2) == [ws, server_ws]


def test_on_close_that_raises_is_logged(caplog):
    def prepare(ws):
        ws.on_close = lambda ws: 1 / 0

    with held(prepare) as (ws, client):
        client.send_close()
        assert ws.wait_closed(TIMEOUT)
        eventually(lambda: tracebacks_in(caplog))
    assert len(tracebacks_in(caplog)) == 1


def test_callbacks_come_one_at_a_time_and_never_inside_one_another():
    calls = Happened()

    class Nested(securews.EventWebSocketHandler):
        def on_open(self, ws):
            calls("open")
            ws.send("opened")
            calls("open ends")

        def on_message(self, ws, message):
            calls(message)
            ws.close(4000)
            with pytest.raises(securews.ConnectionClosed):
                ws.send("too late")
            calls(f"{message} ends")

        def on_close(self, ws, code, reason):
            calls(code)

    with securews.serve(0, Nested(), tls=False) as server, RawClient(server.address) as client:
        client.send_raw(texts("first", "second"))
        assert client.read_frame().payload == b"opened"
        assert client.read_close().close_code == 4000
        client.send_close(4000)
        calls.wait(5)
    # What came behind our own Close was not asked for any more.
    assert calls.items == ["open", "open ends", "first", "first ends", 4000]


def test_abort_in_on_message_queues_on_close_behind_it():
    calls = Happened()

    class Aborts(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            ws.abort()
            calls("message ends")

        def on_close(self, ws, code, reason):
            calls(code)

    with securews.serve(0, Aborts(), tls=False) as server, RawClient(server.address) as client:
        client.send_raw(texts("now"))
        assert calls.wait(2) == ["message ends", 1006]


# -- back-pressure ----------------------------------------------------------------------------------


@pytest.mark.promise(50)
@pytest.mark.d(31)
@pytest.mark.parametrize("options", [{"max_queue": 4}, {"max_queue_bytes": 100_000}])
def test_a_full_queue_stops_reading_and_room_resumes_it(options):
    message, count = b"\xa5" * 60_000, 400  # more than the kernel's buffers hold
    with held(**options) as (ws, client):
        sender = in_thread(lambda: [client.send(BINARY, message) for _ in range(count)])
        ws.receive_messages(timeout=TIMEOUT)
        sender.join(0.3)
        assert sender.is_alive()  # the peer is held up
        assert ws.receive_messages() < 8
        assert [ws.recv(timeout=TIMEOUT) for _ in range(count)] == [message] * count
        sender.join(TIMEOUT)
        assert not sender.is_alive()


def test_many_small_messages_of_one_read_stop_at_the_bound_of_bytes():
    with held(max_queue=10_000, max_queue_bytes=10_000) as (ws, client):
        client.send_raw(texts("x" * 100) * 600)
        assert 10_000 / 250 < ws.receive_messages(timeout=TIMEOUT) < 10_000 / 100
        assert [ws.recv(timeout=TIMEOUT) for _ in range(600)] == ["x" * 100] * 600


def test_max_queue_0_drops_messages_and_serves_control_frames():
    with held(max_queue=0) as (ws, client):
        client.send_raw(texts("dropped") * 100 + masked(Opcode.PING, b"alive"))
        assert client.read_frame().payload == b"alive"
        assert not ws.has_messages
        waiter = ws.ping(b"ours")
        assert client.read_frame().payload == b"ours"
        client.send(Opcode.PONG, b"ours")
        assert waiter.wait(TIMEOUT) > 0
        client.send_close(4000)
        assert client.read_close().close_code == 4000


def test_a_peer_that_leaves_while_we_do_not_read_is_noticed():
    gone = Happened()

    def prepare(ws):
        ws.on_close = gone

    with held(prepare, max_queue=2) as (ws, client):
        client.send_raw(texts(*"abcdef"))
        ws.receive_messages(timeout=TIMEOUT)
        client.send_raw(texts("g"))
        client.close()
        gone.wait()
        assert ws.get_unprocessed_messages() == list("abcdefg")
