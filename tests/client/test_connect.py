"""`securews.connect` as a whole, with servers that mean harm."""

from __future__ import annotations

import zlib

import pytest
from hostile import Peer, scripted
from support import TIMEOUT
from wire import BINARY, TEXT, frame

import securews
from securews.transport.plain import PlainSocketHandler


@pytest.mark.promise(73)
def test_a_length_that_is_announced_is_judged_from_its_header():
    head = frame(BINARY, length=b"\x7f" + (1 << 40).to_bytes(8), masked=False)
    with (
        scripted(lambda peer: peer.switch(behind=head)) as url,
        securews.connect(url, timeout=TIMEOUT) as ws,
        pytest.raises(securews.ConnectionClosedError) as caught,
    ):
        ws.recv(TIMEOUT)
    assert (caught.value.code, caught.value.initiator) == (1009, "us")


@pytest.mark.promise(73)
def test_a_bomb_is_inflated_up_to_the_limit():
    deflate = zlib.compressobj(wbits=-10)
    bomb = deflate.compress(bytes(64 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    agreed = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n"
    message = frame(BINARY, bomb.removesuffix(b"\0\0\xff\xff"), rsv=4, masked=False)
    with (
        scripted(lambda peer: peer.switch(agreed, message)) as url,
        securews.connect(url, timeout=TIMEOUT, compression=True) as ws,
        pytest.raises(securews.ConnectionClosedError) as caught,
    ):
        ws.recv(TIMEOUT)
    assert (caught.value.code, caught.value.initiator) == (1009, "us")


@pytest.mark.promise(73)
def test_fragments_without_end_are_counted():
    def script(peer: Peer) -> None:
        peer.switch(behind=frame(TEXT, b"a", fin=False, masked=False))
        peer.send_for_ever(frame(0, b"a", fin=False, masked=False) * 100)

    with (
        scripted(script) as url,
        securews.connect(url, timeout=TIMEOUT) as ws,
        pytest.raises(securews.ConnectionClosedError) as caught,
    ):
        ws.recv(TIMEOUT)
    assert caught.value.code == 1008


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_a_socket_handler_raises_closes_the_socket(error):
    class Raising(PlainSocketHandler):
        def connect(self, sock, server_name):
            raise error

    with scripted(Peer.read_to_end) as url, pytest.raises(error):  # the script waits for our end
        securews.connect(url.replace("ws:", "wss:"), tls=Raising(), timeout=TIMEOUT)
