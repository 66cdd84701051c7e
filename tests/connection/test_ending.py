"""How a connection ends: who says what, what each side is told, and who waits for whom."""

import threading
import time

import pytest
from support import (
    TIMEOUT,
    Frame,
    Happened,
    RawClient,
    errors_in,
    eventually,
    held,
    masked,
    tracebacks_in,
)

import securews
from securews.protocol.frames import Opcode

TEXT, CLOSE = Opcode.TEXT, Opcode.CLOSE


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def serve(handler, **options):
    return securews.serve(0, handler, tls=False, **options)


# -- close() ------------------------------------------------------------------------------------


@pytest.mark.promise(47)
@pytest.mark.d(37, 38)
def test_close_sends_one_close_frame_and_waits_for_the_answer():
    with held() as (ws, client):
        closing = in_thread(ws.close, 4000, "bye ✓")
        assert client.read_frame() == Frame(True, CLOSE, b"\x0f\xa0" + "bye ✓".encode())
        assert closing.is_alive()
        assert not ws.open
        assert ws.close_code is None  # it has not ended yet
        client.send_close(4000)
        closing.join(TIMEOUT)
        assert (ws.close_code, ws.close_reason) == (4000, "bye ✓")
        assert client.read_to_end() == b""


@pytest.mark.d(38)
def test_the_first_code_wins():
    with held() as (ws, client):
        closing = in_thread(ws.close, 4000)
        assert client.read_frame().close_code == 4000
        second = in_thread(ws.close, 4001)
        client.send_close(4002)
        for thread in (closing, second):
            thread.join(TIMEOUT)
        assert client.read_to_end() == b""
        assert ws.close_code == 4000
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv()
        assert (closed.value.code, closed.value.initiator) == (4000, "us")


@pytest.mark.d(37)
def test_the_peers_code_and_reason_are_answered_and_told():
    with held() as (ws, client):
        client.send_close(3456, "reason ✓")
        assert client.read_frame() == Frame(True, CLOSE, (3456).to_bytes(2))
        assert client.read_to_end() == b""
        assert ws.wait_closed(TIMEOUT)
        assert (ws.close_code, ws.close_reason) == (3456, "reason ✓")
        ws.close(4000)  # harmless
        assert ws.close_code == 3456


def test_a_close_without_a_code_is_1005_and_answered_without_one():
    with held() as (ws, client):
        client.send(CLOSE)
        assert client.read_frame() == Frame(True, CLOSE, b"")
        assert ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1005


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_code_that_may_not_be_sent_is_a_value_error_and_changes_nothing(code):
    with held() as (ws, client):
        with pytest.raises(ValueError, match=f"close code {code} may not be sent"):
            ws.close(code)
        assert ws.open
        ws.send("still open")
        assert client.read_frame().payload == b"still open"


def test_a_reason_is_cut_to_whole_characters():
    with held() as (ws, client):
        closing = in_thread(ws.close, 1000, "✓" * 100)
        assert client.read_frame().payload[2:] == ("✓" * 41).encode()
        client.send_close()
        closing.join(TIMEOUT)


@pytest.mark.promise(48)
@pytest.mark.d(39)
def test_close_waits_for_a_mute_peer_no_longer_than_close_timeout():
    with held(close_timeout=0.3) as (ws, client):
        began = time.monotonic()
        ws.close(4000)
        assert 0.3 <= time.monotonic() - began < 2
        assert client.read_close().close_code == 4000
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_frame()
        assert ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1006  # both Close frames make an end; one does not


def test_messages_that_were_sent_before_close_arrive_before_it():
    with held() as (ws, client):
        for number in range(100):
            ws.send(str(number))
        closing = in_thread(ws.close)
        assert [client.read_frame().payload for _ in range(100)] == [
            str(number).encode() for number in range(100)
        ]
        assert client.read_frame().close_code == 1000
        client.send_close()
        closing.join(TIMEOUT)


def test_what_comes_between_both_close_frames_is_not_delivered():
    with held() as (ws, client):
        closing = in_thread(ws.close)
        assert client.read_frame().close_code == 1000
        client.send_raw(masked(TEXT, b"late") * 1000)
        client.send_close()
        closing.join(TIMEOUT)
        assert not ws.has_messages


@pytest.mark.d(38)
def test_what_comes_behind_the_peers_close_is_ignored():
    with held() as (ws, client):
        client.send_raw(masked(CLOSE, b"\x03\xe8") + masked(TEXT, b"late") + masked(CLOSE))
        assert client.read_frame().close_code == 1000
        assert client.read_to_end() == b""
        assert ws.wait_closed(TIMEOUT)
        assert ws.get_unprocessed_messages() == []


def test_abort_drops_the_connection_at_once():
    told = Happened()

    def prepare(ws):
        ws.on_close = told

    with held(prepare) as (ws, client):
        ws.abort()
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_frame()
        told.wait()
        assert ws.close_code == 1006
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.send("late")
        assert closed.value.initiator == "us"
    assert len(told.items) == 1


def test_the_end_of_a_with_closes_and_an_exception_closes_with_1011():
    with held() as (server_ws, _):
        with securews.connect(server_ws.server.url) as ws:
            pass
        assert ws.close_code == 1000
        with pytest.raises(ZeroDivisionError), securews.connect(server_ws.server.url) as ws:
            raise ZeroDivisionError
        assert ws.close_code == 1011


def test_close_on_the_io_thread_never_waits():
    took = Happened()

    class Closes(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            began = time.monotonic()
            ws.close(4000)
            took(time.monotonic() - began)

    with serve(Closes()) as server, RawClient(server.address) as client:
        client.send(TEXT, b"close")
        assert client.read_close().close_code == 4000
        assert took.items[0] < 1  # of a close_timeout of 10
        client.send_close(4000)


@pytest.mark.parametrize(
    "blocking",
    [
        lambda ws: ws.recv(),
        lambda ws: ws.recv_json(),
        lambda ws: next(iter(ws)),
        lambda ws: ws.receive_messages(),
        lambda ws: ws.wait_for_message(),
        lambda ws: ws.wait_closed(),
        lambda ws: ws.ping().wait(),
    ],
)
def test_what_would_block_the_io_thread_is_a_runtime_error_at_once(blocking):
    errors = Happened()

    class Blocks(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            with pytest.raises(RuntimeError, match="would block the I/O thread") as error:
                blocking(ws)
            errors(error)
            ws.send("went on")

    with serve(Blocks()) as server, securews.connect(server.url) as ws:
        ws.send("block")
        assert ws.recv(timeout=TIMEOUT) == "went on"
    assert len(errors.items) == 1


# -- handlers' ends -------------------------------------------------------------------------------


class Phases(securews.WebSocketHandler):
    """Raises in the phases that it is told; notes all that are entered."""

    def __init__(self, raising=(), error=ZeroDivisionError):
        self.raising, self.error = raising, error
        self.entered = Happened()

    def _enter(self, phase):
        self.entered(phase)
        if phase in self.raising:
            raise self.error("as asked")

    def prepare_communication(self, ws):
        ws.on_close = lambda ws: self.entered(ws.close_code)
        self._enter("prepare")

    def handle_communication(self, ws):
        self._enter("handle")

    def finalize_communication(self, ws):
        self._enter("finalize")


def test_a_handler_that_returns_closes_with_1000(caplog):
    handler = Phases()
    with serve(handler) as server, RawClient(server.address) as client:
        assert client.read_frame() == Frame(True, CLOSE, b"\x03\xe8")
        client.send_close()
        assert handler.entered.wait(4) == ["prepare", "handle", "finalize", 1000]
    assert errors_in(caplog) == []


@pytest.mark.promise(55)
@pytest.mark.parametrize(
    ("phase", "entered"),
    [
        ("prepare", ["prepare", "finalize"]),
        ("handle", ["prepare", "handle", "finalize"]),
        ("finalize", ["prepare", "handle", "finalize"]),
    ],
)
@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_an_exception_is_1011_and_one_traceback(phase, entered, error, caplog):
    handler = Phases([phase], error)
    with serve(handler) as server:
        with RawClient(server.address) as client:
            close = client.read_frame()
            assert close.close_code == 1011
            assert b"asked" not in close.payload  # nothing internal reaches the peer
            client.send_close(1011)
            handler.entered.wait(len(entered) + 1)
        *phases, code = sorted(handler.entered.items, key=lambda item: item == 1011)
        assert (phases, code) == (entered, 1011)  # on_close comes from another thread
        with RawClient(server.address) as client:
            assert client.read_frame().close_code == 1011  # the server goes on
            client.send_close(1011)
    assert len(tracebacks_in(caplog)) == len(errors_in(caplog)) == 2


@pytest.mark.parametrize("call", ["on_open", "on_message"])
def test_an_exception_in_an_event_handler_is_1011_and_one_traceback(call, caplog):
    closes = Happened()

    def broken(self, ws, *args):
        raise ZeroDivisionError

    kind = type(
        "Broken",
        (securews.EventWebSocketHandler,),
        {call: broken, "on_close": lambda self, ws, code, reason: closes(code)},
    )
    with serve(kind()) as server, RawClient(server.address) as client:
        client.send_raw(masked(TEXT, b"one") + masked(TEXT, b"two"))
        assert client.read_frame().close_code == 1011
        client.send_close(1011)
        assert closes.wait() == [1011]
    assert len(tracebacks_in(caplog)) == len(errors_in(caplog)) == 1


def test_on_close_of_an_event_handler_that_raises_is_logged(caplog):
    class Broken(securews.EventWebSocketHandler):
        def on_close(self, ws, code, reason):
            raise ZeroDivisionError

    with serve(Broken()) as server, RawClient(server.address) as client:
        client.send_close()
        eventually(lambda: tracebacks_in(caplog))
    assert len(tracebacks_in(caplog)) == 1


def test_connection_closed_that_leaves_a_handler_is_a_normal_end(caplog):
    ended = Happened()

    def handler(ws):
        try:
            while True:
                ws.recv()
        finally:
            ended()

    with serve(handler) as server, RawClient(server.address) as client:
        client.send_close(4000)
        ended.wait()
    assert errors_in(caplog) == []


@pytest.mark.promise(54)
def test_a_client_that_vanishes_is_no_traceback(caplog):
    handler = Phases()
    handler.handle_communication = lambda ws: [ws.send(message) for message in ws]
    with serve(handler) as server:
        for _ in range(5):
            with RawClient(server.address) as client:
                client.send_raw(masked(TEXT, b"x" * 1000) * 100)
                client.reset()
        handler.entered.wait(15)
    assert handler.entered.items.count(1006) == 5
    assert errors_in(caplog) == []


# -- faults of the peer ---------------------------------------------------------------------------


@pytest.mark.d(49)
@pytest.mark.parametrize(
    ("frames", "code", "delivered"),
    [
        (masked(TEXT, b"ok") + b"\x83\x80\x00\x00\x00\x00", 1002, ["ok"]),
        (masked(TEXT, b"ok") + b"\x81\x02hi", 1002, ["ok"]),
        (masked(TEXT, b"\xff"), 1007, []),
        (masked(CLOSE, b"\x03"), 1002, []),
        (masked(CLOSE, (1006).to_bytes(2)), 1002, []),
        (masked(TEXT, b"ok") + b"\x82\xff" + (1 << 40).to_bytes(8) + bytes(4), 1009, ["ok"]),
    ],
)
def test_a_fault_is_answered_with_its_code_behind_what_came_before_it(
    frames, code, delivered, caplog
):
    with held() as (ws, client):
        client.send_raw(frames)
        assert client.read_frame().close_code == code
        assert client.read_to_end() == b""
        eventually(lambda: ws.close_code is not None)
        assert ws.get_unprocessed_messages() == delivered
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv()
        assert (closed.value.code, closed.value.initiator) == (code, "us")
    assert errors_in(caplog) == []


# -- pings, deadlines and floods --------------------------------------------------------------------


@pytest.mark.d(48)
@pytest.mark.promise(53)
def test_a_mute_peer_is_asked_and_then_given_up():
    with held(ping_interval=0.1, ping_timeout=0.2) as (ws, client):
        began = time.monotonic()
        assert client.read_frame().opcode is Opcode.PING
        with pytest.raises(securews.ConnectionClosedError) as closed:
            ws.recv(timeout=TIMEOUT)
        assert time.monotonic() - began < 2
        assert (closed.value.code, closed.value.initiator) == (1006, "network")
        assert closed.value.reason == "no pong in 0.2 s"


@pytest.mark.parametrize("sign", [Opcode.PONG, TEXT])
def test_any_sign_of_life_keeps_a_connection_open(sign):
    with held(ping_interval=0.05, ping_timeout=0.5, max_queue=0) as (ws, client):
        began = time.monotonic()
        for _ in range(20):
            frame = client.read_frame()
            assert frame.opcode is Opcode.PING
            client.send(sign, frame.payload if sign is Opcode.PONG else b"I am here")
        assert 0.5 < time.monotonic() - began < 5  # one ping in an interval, whatever the timeout
        assert ws.open
        assert (ws.latency is not None) is (sign is Opcode.PONG)
        assert ws.get_unprocessed_messages() == []  # nobody asked for these pongs


def test_pongs_that_the_user_asked_for_are_no_flood():
    limits = securews.Limits(control_rate=1, control_burst=5)
    with held(limits=limits) as (ws, client):
        for number in range(50):
            payload = str(number).encode()
            waiter = ws.ping(payload)
            assert client.read_frame() == Frame(True, Opcode.PING, payload)
            client.send(Opcode.PONG, payload)
            waiter.wait(TIMEOUT)
        assert ws.open


def test_no_ping_falls_into_the_wait_for_the_peers_close(caplog):
    with held(ping_interval=0.05, ping_timeout=0.05, close_timeout=0.5) as (ws, client):
        ws.close()
        assert client.read_close().close_code == 1000
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_frame()
    assert errors_in(caplog) == []


@pytest.mark.promise(41)
def test_a_message_that_does_not_get_on_is_1008_and_one_that_does_is_not():
    with (
        serve(lambda ws: [ws.send(m) for m in ws], message_timeout=0.5) as server,
        RawClient(server.address) as slow,
        RawClient(server.address) as quick,
    ):
        slow.send(TEXT, b"begun", fin=False)
        quick.send(TEXT, b"x" * 100_000, fin=False)  # over 1 KiB/s for a long while
        close = slow.read_close()
        assert close.close_code == 1008
        assert b"not complete after 0.5 s" in close.payload
        quick.send(Opcode.CONTINUATION, b"end")
        assert quick.read_frame().payload == b"x" * 100_000 + b"end"


@pytest.mark.promise(49)
@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_more_control_frames_than_the_burst_are_1008(opcode):
    limits = securews.Limits(control_rate=1, control_burst=5)
    with held(limits=limits) as (ws, client):
        client.send_raw(masked(opcode, b"flood") * 5 + masked(TEXT, b"so far"))
        assert ws.recv(timeout=TIMEOUT) == "so far"
        client.send_raw(masked(opcode, b"flood") * 5)
        close = client.read_close()
        assert close.close_code == 1008
        assert b"more than 1 control frames a second" in close.payload


@pytest.mark.promise(49)
def test_every_ping_of_a_burst_is_answered_by_default():
    with held() as (_, client):
        client.send_raw(b"".join(masked(Opcode.PING, str(n).encode()) for n in range(200)))
        for number in range(200):
            assert client.read_frame() == Frame(True, Opcode.PONG, str(number).encode())
