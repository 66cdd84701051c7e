"""Bytes, progress, phases and the end of one stream, on a clock that the test turns."""

from __future__ import annotations

import pytest
from harness import END, Bench, ScriptedStream

from securews.connection.channel import (
    DRAIN_BYTES,
    DRAIN_SECONDS,
    IDLE_READS,
    IDLE_READS_SECONDS,
    MIN_PROGRESS,
    Channel,
    NoProgressError,
    Phase,
)
from securews.connection.interfaces import Consumer
from securews.transport.socket_handler import MAX_SEND, Want

RESET = ConnectionResetError(104, "Connection reset by peer")
TIMEOUT = 10.0


class Idle:
    """A read that yields ciphertext, and no plaintext."""


class Stream(ScriptedStream):
    """Also: reads that yield nothing, bytes that are decrypted already, a close that raises."""

    def __init__(self):
        super().__init__()
        self.decrypted = 0
        self.close_error = None

    @property
    def bytes_available(self):  # type: ignore[override]
        return self.decrypted

    def recv(self):
        if self.incoming and isinstance(self.incoming[0], Idle):
            self.reads += 1
            self.incoming.popleft()
            return Want.READ
        self.decrypted = 0
        return super().recv()

    def close(self):
        super().close()
        if self.close_error is not None:
            raise self.close_error


class Notes(Consumer):
    """A consumer that notes what it is told, and has `outgoing` to send."""

    def __init__(self):
        self.outgoing = b""
        self.received = b""
        self.told = []
        self.error = None

    def data_received(self, data):
        self.received += data

    def end_received(self):
        self.told.append("end")

    def peer_finished(self):
        self.told.append("peer finished")

    def next_piece(self, limit):
        assert limit <= MAX_SEND
        piece, self.outgoing = self.outgoing[:limit], self.outgoing[limit:]
        return piece or None

    def continue_work(self):
        self.told.append("continue")

    def drained(self):
        self.told.append("drained")

    def finished(self):
        self.told.append("finished")

    def lost(self, error):
        self.told.append("lost")
        self.error = error


class Line:
    """A channel on a bench, its stream and its consumer."""

    def __init__(self, bench, **options):
        self.bench = bench
        self.stream = Stream()
        self.released = []
        options = {"write_timeout": TIMEOUT, **options}
        self.channel = Channel(self.stream, bench.loop, released=self.released.append, **options)
        self.consumer = self.channel.consumer = Notes()
        self.channel.set_reading(True)

    def sends(self, data):
        self.consumer.outgoing += data
        self.channel.flush()

    @property
    def told(self):
        return self.consumer.told


@pytest.fixture
def bench():
    with Bench() as bench:
        yield bench


@pytest.fixture
def line(bench):
    return Line(bench)


# -- sending ---------------------------------------------------------------------------------------


def test_what_waits_is_sent_piece_by_piece_until_the_socket_is_full_and_then_goes_on(line):
    line.stream.room = 50_000
    data = bytes(range(250)) * 400
    line.sends(data)
    assert line.channel.blocked
    assert line.stream.sent == data[:50_000]
    assert line.bench.poller.watched[line.channel.fd] == (True, True)
    line.stream.room = None
    line.bench.settle()
    assert line.stream.sent == data
    assert line.told == ["drained"]
    assert line.bench.poller.watched[line.channel.fd] == (True, False)


def test_a_flush_in_a_callback_tries_a_full_socket_and_tells_nothing_before_the_turn(line):
    line.stream.room = 10
    line.sends(bytes(20))
    line.stream.room = None
    assert line.channel.flush_in_callback() is None
    assert not line.channel.blocked
    assert len(line.stream.sent) == 20
    assert line.told == []
    line.channel.flush()
    assert line.told == ["drained"]
    line.stream.broken = RESET
    line.consumer.outgoing = b"more"
    assert line.channel.flush_in_callback() is RESET
    assert line.channel.phase is Phase.OPEN  # the caller has it aborted
    line.channel.abort(RESET)
    assert line.channel.flush_in_callback() is None


# -- progress --------------------------------------------------------------------------------------


def passes(line, seconds):
    line.bench.advance(seconds, step=seconds)


@pytest.mark.promise(51)
def test_a_peer_that_takes_1_kib_in_each_write_timeout_lives(line):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    for _ in range(39):
        line.stream.in_kernel -= MIN_PROGRESS
        passes(line, TIMEOUT + 0.01)
    assert line.channel.phase is Phase.OPEN


@pytest.mark.promise(51)
@pytest.mark.parametrize("taken", [0, 1, MIN_PROGRESS - 1])
def test_a_peer_that_takes_less_does_not(line, taken):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    line.stream.in_kernel -= taken
    passes(line, TIMEOUT - 0.1)
    assert line.channel.phase is Phase.OPEN
    passes(line, 0.2)
    assert isinstance(line.consumer.error, NoProgressError)
    assert str(line.consumer.error) == "the peer took less than 1024 bytes in 10 s"
    assert line.stream.closed


@pytest.mark.promise(51)
def test_a_peer_that_stops_has_its_write_timeout_from_the_last_bytes_it_took(line):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    line.stream.in_kernel -= 20_000
    line.bench.advance(TIMEOUT * 1.04, step=0.1)
    assert line.channel.phase is Phase.OPEN
    line.bench.advance(TIMEOUT * 0.03, step=0.1)
    assert isinstance(line.consumer.error, NoProgressError)


@pytest.mark.promise(51)
def test_one_byte_now_and_then_holds_nothing_for_ever(line):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    for _ in range(11):
        line.stream.in_kernel -= 1
        passes(line, 1.0)
    assert line.told == ["lost"]


def test_one_byte_of_room_now_and_then_holds_nothing_for_ever_though_it_is_offered_often(line):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    for _ in range(30):
        line.stream.room = 1
        line.channel.flush_in_callback()
        passes(line, 1.0)
    assert line.told == ["lost"]


def test_offering_a_full_socket_often_does_not_give_its_peer_more_time(line):
    line.stream.room = 40_000
    line.sends(bytes(60_000))
    for _ in range(11):
        line.channel.flush_in_callback()
        passes(line, 1.0)
    assert line.told == ["lost"]


def test_a_socket_that_takes_everything_is_never_slow_however_rarely(line):
    for _ in range(5):
        line.sends(bytes(100_000))
        passes(line, 3600)
    assert line.told == []


def test_a_socket_that_was_full_once_has_its_time_anew_when_it_is_full_again(line):
    line.stream.room = 10
    line.sends(bytes(20))
    passes(line, TIMEOUT - 0.5)
    line.stream.room = 10
    line.bench.settle()
    assert line.told == ["drained"]
    line.sends(bytes(20))
    passes(line, TIMEOUT - 0.5)
    assert line.told == ["drained"]
    passes(line, 1)
    assert line.told == ["drained", "lost"]


def test_the_time_can_be_changed_while_the_socket_is_full(line):
    line.stream.room = 10
    line.sends(bytes(20))
    line.channel.set_write_timeout(None)
    passes(line, 1000)
    assert line.told == []
    line.channel.set_write_timeout(2.0)
    passes(line, 1.5)
    assert line.told == []
    passes(line, 1.0)
    assert line.told == ["lost"]


# -- receiving -------------------------------------------------------------------------------------


def test_bytes_that_are_decrypted_already_are_read_without_the_kernel_saying_so(line):
    line.channel.set_reading(False)
    line.stream.decrypted = 1
    line.stream.incoming.append(b"here")
    line.bench.poller.ready = list  # the kernel reports nothing
    line.channel.set_reading(True)
    line.bench.turn()
    assert line.consumer.received == b"here"


def test_the_time_of_the_peer_begins_when_we_listen_again(line):
    line.channel.set_reading(False)
    passes(line, 100)
    before = line.channel.received_at
    line.channel.set_reading(True)
    assert line.channel.received_at >= before + 100
    again = line.channel.received_at
    line.bench.clock.now += 5
    line.channel.set_reading(True)  # it did already
    assert line.channel.received_at == again


def test_an_end_is_told_once(line):
    line.stream.incoming.append(END)
    line.bench.settle()
    line.bench.settle()
    assert line.told.count("end") == 1


def test_a_peer_that_ends_while_nothing_is_read_is_told_of(line):
    line.channel.set_reading(False)
    line.stream.incoming.append(END)
    line.bench.settle()
    assert line.told == ["peer finished"]


@pytest.mark.parametrize("reads", [IDLE_READS - 1, IDLE_READS])
def test_so_many_reads_without_a_byte_are_a_flood(line, reads):
    line.stream.incoming.extend([Idle()] * reads)
    line.bench.turn(reads)
    assert (line.told == ["lost"]) is (reads == IDLE_READS)


def test_as_many_reads_over_a_longer_time_are_none_nor_are_those_between_bytes(line):
    for pause, between in ((IDLE_READS_SECONDS + 1, []), (0, [b"x"])):
        line.stream.incoming.extend([Idle()] * (IDLE_READS - 1) + between)
        line.bench.turn(IDLE_READS)
        line.bench.clock.now += pause
        line.stream.incoming.extend([Idle()] * (IDLE_READS - 1) + [b"x"])
        line.bench.turn(IDLE_READS)
    assert line.told == []


# -- the phases ------------------------------------------------------------------------------------


def test_finishing_sends_what_waits_ends_and_throws_away_what_comes_until_the_peers_end(line):
    line.consumer.outgoing = bytes(100_000)
    line.stream.room = 50_000
    line.channel.finish(5.0)
    assert line.channel.phase is Phase.FINISHING
    line.stream.incoming.append(b"nobody reads this")
    line.bench.settle()
    assert line.stream.reads == 0
    line.stream.room = None
    line.bench.settle()
    assert line.channel.phase is Phase.DRAINING
    assert line.stream.shut
    assert len(line.stream.sent) == 100_000
    assert line.told == ["finished"]
    assert line.stream.reads == 1
    line.stream.incoming.append(END)
    line.bench.settle()
    assert line.channel.phase is Phase.CLOSED
    assert line.released == [line.channel]
    assert line.consumer.received == b""
    assert line.told == ["finished"]


@pytest.mark.parametrize("endless", ["time", "bytes", "reset"])
def test_draining_is_bounded_in_time_and_bytes_and_ends_with_a_reset(line, endless):
    line.channel.finish(5.0)
    if endless == "time":
        passes(line, DRAIN_SECONDS - 0.1)
        assert not line.stream.closed
        passes(line, 0.2)
    elif endless == "bytes":
        line.stream.incoming.extend([bytes(DRAIN_BYTES // 4)] * 5)
        line.bench.settle()
        assert line.stream.reads == 4
    else:
        line.stream.broken = RESET
        line.bench.settle()
    assert line.stream.closed
    assert line.told == ["finished"]
    assert line.released == [line.channel]


def test_finishing_is_given_up_after_a_while(line):
    line.stream.room = 10
    line.consumer.outgoing = bytes(20)
    line.channel.finish(3.0)
    line.channel.finish(100.0)  # it does already
    passes(line, 3.1)
    assert line.told == ["lost"]
    assert line.stream.closed


def test_an_abort_in_each_phase_closes_and_tells_at_most_once(bench):
    for phase in Phase:
        line = Line(bench)
        if phase is Phase.FINISHING:
            line.stream.room, line.consumer.outgoing = 0, b"x"
        if phase is not Phase.OPEN:
            line.channel.finish(5.0)
        if phase is Phase.CLOSED:
            line.channel.abort()
        assert line.channel.phase is phase
        line.channel.abort(OSError("one"))
        line.channel.abort(OSError("two"))
        bench.settle()
        assert line.stream.closed
        assert line.released == [line.channel]
        assert line.told == (["finished"] if phase in (Phase.DRAINING, Phase.CLOSED) else ["lost"])
        bench.advance(30)
        assert len(line.told) == 1, "a timer of it still runs"


def test_the_descriptor_is_closed_at_the_end_of_the_turn_and_not_before(line):
    line.channel.abort()
    assert not line.stream.closed
    assert line.channel.fd not in line.bench.poller.watched
    line.bench.turn()
    assert line.stream.closed


def test_a_stream_whose_close_raises_gives_its_place_back_all_the_same(line, caplog):
    line.stream.close_error = OSError("as asked")
    line.channel.abort()
    line.bench.turn()
    assert line.released == [line.channel]
    assert "while a descriptor was closed" in caplog.text


def test_a_consumer_that_is_forgotten_is_told_nothing_more(line):
    line.channel.forget_consumer()
    line.channel.finish(5.0)
    line.stream.incoming.append(END)
    line.bench.settle()
    assert line.told == []
    assert line.stream.closed


def test_what_breaks_the_stream_is_told_without_the_frames_that_it_came_through(line):
    line.stream.broken = RESET
    line.bench.settle()
    assert line.consumer.error is RESET
    assert RESET.__traceback__ is None


def test_another_thread_is_given_the_stream_alone(line):
    line.channel.hand_over()
    assert line.channel.fd not in line.bench.poller.watched
    line.stream.incoming.append(b"for the other thread")
    line.bench.settle()
    assert line.stream.reads == 0
    line.channel.set_reading(True)
    line.bench.settle()
    assert line.consumer.received == b"for the other thread"
