"""The opening in the client: hostile servers, and one deadline for whatever they do."""

from __future__ import annotations

import select
import signal
import socket
import ssl
import threading
import time

import pytest
from hostile import INTERIM, Peer, scripted
from support import TIMEOUT

import securews
from securews.client.handshake import open_websocket
from securews.common.deadlines import Deadline
from securews.protocol.opening_client import ResponseParser
from securews.transport.socket_handler import Want

SHORT = 0.4
"""Seconds. It is asserted that an opening ends, and not how exactly."""


def failed_opening(script, *, timeout=SHORT, **options) -> Exception:
    with scripted(script, **options) as url:
        began = time.monotonic()
        with pytest.raises((TimeoutError, securews.HandshakeError)) as caught:
            securews.connect(url, timeout=timeout)
        assert time.monotonic() - began < TIMEOUT
    return caught.value


@pytest.mark.promise(73)
@pytest.mark.parametrize("status", INTERIM)
def test_endless_interim_answers_are_a_handshake_error(status):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send_for_ever(INTERIM[status])

    error = failed_opening(script, timeout=TIMEOUT)
    assert isinstance(error, securews.HandshakeError)
    assert f"17 interim answers (the last one: {status} " in str(error)


@pytest.mark.promise(73)
@pytest.mark.parametrize("status", INTERIM)
def test_interim_answers_do_not_put_off_the_deadline(status):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.drip(b"", INTERIM[status])

    assert isinstance(failed_opening(script), TimeoutError)


def test_a_few_interim_answers_are_read_over():
    def script(peer: Peer) -> None:
        peer.send(INTERIM[100] + INTERIM[103] * 15)
        peer.switch()

    with scripted(script) as url:
        securews.connect(url, timeout=TIMEOUT).abort()


@pytest.mark.promise(73)
@pytest.mark.parametrize(
    "head",
    [
        b"H",
        b"HTTP/1.1 101 Switching Protocols\r\nX: ",
        b"HTTP/1.1 403 Forbidden\r\nX: ",
        INTERIM[100] + b"H",
    ],
    ids=["status line", "101", "403", "after 100"],
)
def test_an_answer_that_drips_does_not_put_off_the_deadline(head):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.drip(head)

    error = failed_opening(script)
    assert isinstance(error, TimeoutError)
    assert str(error) == "the server did not answer in time"


@pytest.mark.promise(73)
@pytest.mark.parametrize(
    ("piece", "word"),
    [
        (b"a" * 4096, "a header line is over 8192 bytes"),
        (b"\r\nX: y", "header lines"),
    ],
    ids=["one line", "many lines"],
)
def test_a_head_without_end_is_cut(piece, word):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
        peer.send_for_ever(piece)

    error = failed_opening(script, timeout=TIMEOUT)
    assert isinstance(error, securews.HandshakeError)
    assert word in str(error)


@pytest.mark.promise(73)
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Content-Length: 1000000000000", b"a" * 4096),
        (b"Transfer-Encoding: chunked", b"1\r\na\r\n" * 1000),
        (b"X: until the end", b"a" * 4096),
    ],
    ids=["length", "chunked", "neither"],
)
def test_a_body_without_end_is_cut(head, piece):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 403 Forbidden\r\n" + head + b"\r\n\r\n")
        peer.send_for_ever(piece)

    error = failed_opening(script, timeout=TIMEOUT)
    assert isinstance(error, securews.HandshakeError)
    assert (error.status, len(error.body)) == (403, 64 << 10)
    assert len(str(error)) < 400


def test_a_refusal_whose_body_drips_is_a_refusal_when_the_time_is_up():
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.drip(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n")

    error = failed_opening(script)
    assert isinstance(error, securews.HandshakeError)
    assert error.status == 403
    assert error.body.strip(b"a") == b""


def test_a_server_that_answers_nothing():
    assert isinstance(failed_opening(Peer.read_to_end), TimeoutError)


def tls(certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    return context


@pytest.mark.promise(73)
def test_a_server_that_never_answers_tls(certificates):
    with scripted(Peer.read_to_end) as url, pytest.raises(TimeoutError, match="in time"):
        securews.connect(url.replace("ws:", "wss:"), tls=certificates.ca_file, timeout=SHORT)


@pytest.mark.promise(73)
def test_a_server_that_drips_into_the_tls_handshake(certificates):
    # The head of a TLS record of 16 KiB, and then a byte of it now and then.
    with (
        scripted(lambda peer: peer.drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")) as url,
        pytest.raises(TimeoutError, match="in time"),
    ):
        securews.connect(url.replace("ws:", "wss:"), tls=certificates.ca_file, timeout=SHORT)


@pytest.mark.promise(73)
def test_the_deadline_holds_over_tls_too(certificates):
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.drip(b"", INTERIM[103])

    with (
        scripted(script, tls(certificates)) as url,
        pytest.raises(TimeoutError, match="in time"),
    ):
        securews.connect(url, tls=certificates.ca_file, timeout=SHORT)


def test_an_interrupt_closes_the_socket():
    def script(peer: Peer) -> None:
        peer.read_request()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    with scripted(script) as url, pytest.raises(KeyboardInterrupt):  # the script waits for our end
        securews.connect(url, timeout=TIMEOUT)


class EndlessStream:
    """A stream whose socket is always ready, and which never gets any further."""

    bytes_available = 0

    def __init__(self, stuck_in: str) -> None:
        self._stuck_in = stuck_in
        self._ours, self._theirs = socket.socketpair()
        self._theirs.send(b"always readable")

    def handshake(self) -> Want:
        return Want.READ if self._stuck_in == "handshake" else Want.NOTHING

    def send(self, data: bytes) -> Want:
        return Want.WRITE if self._stuck_in == "send" else Want.NOTHING

    def flush(self) -> Want:
        return Want.WRITE

    def recv(self) -> bytes | Want:
        return Want.WRITE if self._stuck_in == "answering TLS" else Want.READ

    def fileno(self) -> int:
        return self._ours.fileno()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.mark.promise(73)
@pytest.mark.parametrize("stuck_in", ["handshake", "send", "answering TLS", "recv"])
def test_a_socket_that_is_always_ready_does_not_put_off_the_deadline(stuck_in):
    stream = EndlessStream(stuck_in)
    try:
        with pytest.raises(TimeoutError, match="in time"):
            open_websocket(stream, b"request", ResponseParser("key"), Deadline(0.05))
    finally:
        stream.close()


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\nnot you", 403, "not you"),
        (INTERIM[100], 0, "the connection broke during the opening: reset"),
    ],
    ids=["refused", "not refused"],
)
def test_a_reset_in_the_body_of_a_refusal_leaves_the_refusal(said, status, word):
    class Reset(EndlessStream):
        left = said

        def recv(self) -> bytes | Want:
            data, self.left = self.left, b""
            if not data:
                raise ConnectionResetError("reset")
            return data

    stream = Reset("")
    try:
        with pytest.raises(securews.HandshakeError, match=word) as caught:
            open_websocket(stream, b"request", ResponseParser("key"), Deadline(TIMEOUT))
    finally:
        stream.close()
    assert caught.value.status == status


def test_a_timeout_may_be_longer_than_a_poll_can_wait(monkeypatch):
    waited = []

    class Poll:
        def register(self, fd, events):
            pass

        def poll(self, milliseconds):
            waited.append(milliseconds)
            raise KeyboardInterrupt

    monkeypatch.setattr(select, "poll", Poll)
    stream = EndlessStream("recv")
    try:
        with pytest.raises(KeyboardInterrupt):
            open_websocket(stream, b"request", ResponseParser("key"), Deadline(1e9))
    finally:
        stream.close()
    assert waited[0] < 1 << 31
