"""Who is slow: who does not take what the socket offered, and nobody else."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from harness import Bench, elsewhere, message
from support import errors_in

from securews.common.errors import ConnectionClosed
from securews.connection.compressing import SharedMessage
from securews.connection.interfaces import Consumer
from securews.connection.link import HARD_BOUND
from securews.protocol.deflate import Deflate
from securews.protocol.events import Close
from securews.protocol.frames import Opcode

EARLY_BYTES, EARLY_SECONDS = 64 << 10, 0.001  # those of sender.py, which compiled are in C only
BOUND = 10_000
IN_HAND = 32 << 10
"""Bytes that the stream has taken from the queue, and the socket not from the stream."""


@pytest.fixture
def bench():
    with Bench() as bench:
        yield bench


def offer(peer, payload):
    """As `broadcast` does in this thread."""
    return peer.connection.sender.offer_shared(SharedMessage(Opcode.BINARY, payload, compress=True))


def offer_until_refused(peer, size=1000, most=10_000):
    """How many messages were taken."""
    for count in range(most):
        try:
            if not offer(peer, bytes(size)):
                return count
        except ConnectionClosed:
            return count
    raise AssertionError("nobody is ever slow")


# -- one who takes what is offered ------------------------------------------------------------------


@pytest.mark.promise(52)
def test_a_client_that_takes_everything_is_never_slow_however_far_its_bursts_lie_apart(bench):
    peer = bench.open(outbox_bytes=BOUND)
    for _ in range(3):
        for _ in range(20):
            assert offer(peer, bytes(BOUND // 2))
        bench.settle()
        bench.clock.now += 3 * 3600
        peer.says(message(b"alive"))
        bench.settle()
    assert len(peer.data) == 60
    assert not peer.over


def test_a_client_whose_socket_was_full_once_is_not_slow_at_the_next_burst(bench):
    peer = bench.open(outbox_bytes=BOUND, write_timeout=None, ping_interval=None)
    peer.takes(0)
    offer(peer, bytes(2 * BOUND))
    bench.advance(10)
    peer.takes(None)
    bench.settle()
    bench.advance(3600, step=600)
    for _ in range(20):
        assert offer(peer, bytes(BOUND // 2))
    bench.settle()
    assert len(peer.data) == 21


@pytest.mark.promise(52)
@pytest.mark.parametrize("bound", [BOUND, 1 << 20])
def test_six_messages_of_the_size_of_the_bound_in_a_row_close_nobody(bench, bound):
    peer = bench.open(outbox_bytes=bound)
    for _ in range(6):
        assert offer(peer, bytes(bound))
    bench.settle()
    assert [len(data) for data in peer.data] == [bound] * 6


# -- one who does not ------------------------------------------------------------------------------


@pytest.mark.promise(52)
def test_on_its_loop_a_slow_client_is_closed_with_1013_at_four_times_its_bound(bench):
    peer = bench.open(outbox_bytes=BOUND)
    peer.takes(0)
    taken = offer_until_refused(peer) * 1004
    assert HARD_BOUND * BOUND <= taken <= HARD_BOUND * BOUND + IN_HAND + 2 * 1004
    assert peer.link.closing.code == 1013
    with pytest.raises(ConnectionClosed) as closed:
        offer(peer, b"late")
    assert (closed.value.code, closed.value.reason) == (1013, "too slow")


@pytest.mark.promise(52)
def test_where_it_is_to_be_dropped_only_the_message_is_and_whole(bench):
    peer = bench.open(outbox_bytes=BOUND, slow_client="drop")
    peer.takes(0)
    taken = offer_until_refused(peer)
    assert offer(peer, b"dropped") is False
    peer.takes(None)
    bench.settle()
    assert offer(peer, b"and on")
    bench.settle()
    assert peer.data == [bytes(1000)] * taken + [b"and on"]
    assert not peer.over


def test_one_message_of_any_size_fits_an_empty_queue(bench):
    peer = bench.open(outbox_bytes=1)
    peer.takes(0)
    assert offer(peer, bytes(1 << 20))


def test_closing_a_slow_client_gives_up_what_has_not_begun_to_leave(bench):
    peer = bench.open(outbox_bytes=BOUND)
    peer.takes(5)
    offer_until_refused(peer)
    assert peer.link.sending.size < 2000
    peer.takes(None)
    bench.settle()
    assert peer.frames[-1] == Close(1013, "too slow")


# -- who is named ----------------------------------------------------------------------------------


@pytest.mark.promise(52)
def test_a_callback_that_sends_too_much_at_once_is_named_in_a_warning(bench, caplog):
    peer: Any = bench.open(outbox_bytes=BOUND, on_message=lambda _: offer_until_refused(peer))
    peer.takes(0)
    peer.says(message(b"go"))
    bench.settle()
    (warning,) = errors_in(caplog)
    assert (
        "closed with 1013: Recorder.on_message has sent more than 4 times outbox_bytes" in warning
    )
    assert "or from a thread, where send() waits" in warning


def test_a_client_that_was_slow_before_the_callback_is_its_own_cause_and_an_info(bench, caplog):
    caplog.set_level(logging.INFO)
    peer: Any = bench.open(outbox_bytes=BOUND, on_message=lambda _: offer_until_refused(peer))
    other = bench.open(on_message=lambda _: offer_until_refused(peer))
    peer.takes(0)
    offer(peer, bytes(BOUND))
    bench.settle()
    bench.clock.now += 1
    other.says(message(b"go"))
    bench.settle()
    assert errors_in(caplog) == []
    assert "peer: closed with 1013: it does not take what is sent" in caplog.text


def test_without_a_callback_it_is_an_info(bench, caplog):
    caplog.set_level(logging.INFO)
    peer = bench.open(outbox_bytes=BOUND)
    peer.takes(0)
    offer_until_refused(peer)
    assert errors_in(caplog) == []
    assert "it does not take what is sent" in caplog.text


# -- other threads ---------------------------------------------------------------------------------


@pytest.mark.promise(52)
def test_from_another_thread_who_is_over_the_bound_needs_a_turn_before_it_is_slow(bench):
    peer = bench.open(outbox_bytes=BOUND)
    sender = peer.connection.sender
    for _ in range(HARD_BOUND):
        assert not elsewhere(lambda: sender.needs_turn)
        assert elsewhere(offer, peer, bytes(BOUND))
    assert elsewhere(lambda: sender.needs_turn)
    bench.turn()
    assert not elsewhere(lambda: sender.needs_turn)
    assert elsewhere(offer, peer, bytes(BOUND))
    bench.settle()
    assert len(peer.data) == HARD_BOUND + 1


def test_from_another_thread_who_is_over_the_bound_after_a_turn_is_slow(bench):
    peer = bench.open(outbox_bytes=BOUND)
    peer.takes(0)
    elsewhere(offer, peer, bytes(IN_HAND))
    bench.turn()
    for _ in range(HARD_BOUND):
        assert elsewhere(offer, peer, bytes(BOUND))
    bench.turn()
    with pytest.raises(ConnectionClosed, match="too slow"):
        elsewhere(offer, peer, b"one too many")


def test_from_another_thread_nobody_is_slow_whom_a_busy_loop_has_offered_nothing(bench):
    peer = bench.open(outbox_bytes=BOUND)
    for _ in range(HARD_BOUND + 1):  # and no turn in between
        elsewhere(offer, peer, bytes(BOUND))
    bench.settle()
    assert not peer.over


def test_on_another_loop_nobody_is_slow_before_its_own_loop_had_a_turn(bench):
    peer = bench.open(outbox_bytes=BOUND)
    other = Bench()

    def broadcast_there():
        other.loop.enter()
        try:
            return [offer(peer, bytes(BOUND)) for _ in range(2 * HARD_BOUND)]
        finally:
            other.loop.leave()

    assert elsewhere(broadcast_there) == [True] * 2 * HARD_BOUND
    bench.settle()
    assert len(peer.data) == 2 * HARD_BOUND


# -- when it leaves --------------------------------------------------------------------------------


def test_on_its_loop_nobody_is_slow_whose_connection_has_not_begun_to_send(bench):
    """Between `accept()` and its first turn a connection is among those that a broadcast meets."""
    peer = bench.open(outbox_bytes=1000)
    peer.channel.consumer = Consumer()  # the opening, which gives up nothing of the queue
    for _ in range(6):
        assert offer(peer, bytes(1000))


def test_what_is_much_or_late_in_a_callback_leaves_at_once(bench):
    peer = bench.open()
    send = peer.connection.sender.send_message
    send(Opcode.BINARY, b"little and early")
    assert not peer.stream.sent
    send(Opcode.BINARY, bytes(EARLY_BYTES))
    assert len(peer.data) == 2
    bench.settle()
    bench.loop.now = bench.clock()
    send(Opcode.BINARY, b"early")
    assert len(peer.data) == 2
    bench.clock.now += 2 * EARLY_SECONDS
    send(Opcode.BINARY, b"late")
    assert len(peer.data) == 4


def test_what_goes_to_many_leaves_at_the_end_of_the_turn(bench):
    peer = bench.open()
    bench.clock.now += 2 * EARLY_SECONDS
    offer(peer, bytes(EARLY_BYTES + 1))
    assert not peer.stream.sent
    bench.settle()
    assert len(peer.data) == 1


def test_what_breaks_in_a_callback_is_told_in_the_turn(bench):
    peer = bench.open()
    peer.says(BrokenPipeError(32, "Broken pipe"))
    offer(peer, bytes(2 * EARLY_BYTES))
    assert not peer.over
    bench.settle()
    assert peer.user.end == (1006, "network")


# -- compressed in a context -----------------------------------------------------------------------


@pytest.mark.promise(52)
def test_messages_that_were_dropped_are_no_part_of_the_context_of_later_ones(bench):
    peer = bench.open(
        outbox_bytes=500, slow_client="drop", deflate=Deflate(True, 15, True, 15, 6, 8, 1)
    )
    noise = random.Random(9).randbytes
    peer.takes(0)
    payloads = [b"%d " % number + noise(200) for number in range(300)]
    for payload in payloads[:200]:
        peer.connection.sender.send_message(Opcode.BINARY, payload)
    peer.takes(None)
    bench.settle()
    received = len(peer.data)
    assert received < 200
    for payload in payloads[200:]:
        peer.connection.sender.send_message(Opcode.BINARY, payload)
    bench.settle()
    assert peer.data == payloads[:received] + payloads[200:]
