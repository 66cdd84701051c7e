"""The way of a message into the send queue: encoded, compressed, and by which thread.

A message is taken when the queue is below its bound before it, so one message of any size fits into
an empty queue. A thread waits for room before its message is taken: a TimeoutError means that
nothing of it was sent. On an I/O thread nothing may wait: there a full queue is offered to the
socket first, and four times its bound are kept. A broadcast waits for at most one turn of the loop.
Who is over that is slow, for its socket was offered what waits and is full: `slow_client` decides.
"""

from __future__ import annotations

import logging
import os

from securews.common.options import ConnectionOptions
from securews.connection.channel import Channel
from securews.connection.compressing import Compressing, SharedMessage
from securews.connection.link import HARD_BOUND, Link
from securews.protocol.close_codes import encode_close_payload
from securews.protocol.deflate import Deflate, Deflater
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role

__all__ = ["Sender"]

log = logging.getLogger("securews.server")

EARLY_BYTES = 64 << 10
EARLY_SECONDS = 0.001
"""A callback that sends more, or takes longer, does not keep the peer waiting for its end."""
SLOW = "too slow"


class Sender:
    """Messages of one connection. Any thread, except where said.

    Args:
        link: takes the frames.
        channel: sends them.
        role: which end we are: a client masks (RFC 6455, section 5.3).
        options: of the connection.
        deflate: what was agreed on about compression; None where nothing was.
        name: what log lines call the connection.
    """

    __slots__ = (
        "_bound",
        "_channel",
        "_drop",
        "_hard_bound",
        "_link",
        "_loop",
        "_masked",
        "_name",
        "_unoffered_bound",
        "compressing",
    )

    def __init__(
        self,
        link: Link,
        channel: Channel,
        options: ConnectionOptions,
        *,
        role: Role,
        deflate: Deflate | None,
        name: str,
    ) -> None:
        self._link = link
        self._channel = channel
        self._loop = channel.loop
        self._masked = role is Role.CLIENT
        self._bound = options.outbox_bytes
        self._hard_bound = HARD_BOUND * options.outbox_bytes
        """Bytes that may wait where no thread may wait."""
        self._unoffered_bound = HARD_BOUND * self._hard_bound
        """The same while the socket was not offered them yet: that is no fault of the peer."""
        self._drop = options.slow_client == "drop"
        self._name = name
        self.compressing = None if deflate is None else Compressing(deflate)
        """None where no compression was agreed on."""

    def frame(
        self,
        opcode: Opcode,
        payload: bytes | bytearray | memoryview,
        fin: bool = True,
        compressed: bool = False,
    ) -> bytes:
        """Encode a frame, masked if we are the client."""
        key = os.urandom(4) if self._masked else None
        return encode_frame(opcode, payload, fin=fin, masking_key=key, compressed=compressed)

    def close(self, code: int | None, reason: str = "", *, discard: bool = False) -> bool:
        """Queue our Close frame; as `Link.close`. ValueError for what may not be sent."""
        frame = self.frame(Opcode.CLOSE, encode_close_payload(code, reason))
        return self._link.close(frame, code, reason, discard=discard)

    # -- whole messages --------------------------------------------------------------------

    def send_message(
        self,
        opcode: Opcode,
        payload: bytes | bytearray | memoryview,
        timeout: float | None = None,
        compress: bool = True,
    ) -> None:
        """Send a message, compressed where that was agreed on.

        Raises:
            TimeoutError: no room within `timeout` seconds, or the peer took nothing within
                `write_timeout`; nothing was sent.
            ConnectionClosed: the connection is closing or closed.
        """
        if compress and self.compressing is not None:
            if isinstance(payload, memoryview):
                payload = payload.tobytes()  # of any item size and any stride
            if len(payload) >= self.compressing.min_size:
                self.compressing.send(self, opcode, payload, timeout)
                return
        self.send(self.frame(opcode, payload), timeout)

    def send(self, frame: bytes, timeout: float | None = None) -> None:
        """Send an encoded message; raises as `send_message`."""
        if self._loop.on_loop_thread():
            if self.offer(frame):
                self._flush_early()
        elif self._loop.on_io_thread():
            self.offer(frame)
        else:
            self._link.send(frame, timeout)

    def offer(self, frame: bytes) -> bool:
        """Send an encoded message without waiting for the peer. False if it was dropped.

        It leaves at the end of the turn: one that goes to many would be sent by a flush of its own
        to each, and then the turn would look at each once more.

        Raises:
            ConnectionClosed: the connection is closing or closed; also when this peer has just
                been found too slow, and `slow_client` is "close".
        """
        self.make_room()
        if self.put(frame):
            return True
        self.refused()
        return False

    def make_room(self) -> None:
        """Own loop: offer the socket what waits, if that is more than the bound."""
        if self._link.sending.size >= self._bound and self._loop.on_loop_thread():
            self._flush_now()

    def put(self, frame: bytes) -> bool:
        """Queue an encoded message; False where so much waits that the peer is slow."""
        return self._link.offer(frame, self._hard_bound_here())

    def sent(self) -> None:
        """Own loop: send at once what is much, or comes late in a callback."""
        if self._loop.on_loop_thread():
            self._flush_early()

    def refused(self) -> None:
        """A message was not put: drop it, or close; then ConnectionClosed is raised."""
        if not self._drop:
            self._close_slow()
            raise self._link.closed_error()

    def offer_shared(self, message: SharedMessage) -> bool:
        """As `offer`, for a message that others get, too."""
        compressing = self.compressing
        if compressing is None or not message.compress or message.size < compressing.min_size:
            return self.offer(message.plain)
        return compressing.offer_shared(self, message)

    @property
    def needs_turn(self) -> bool:
        """Whether the loop must have had a turn before it can be said that the peer is slow."""
        return self._link.sending.size >= self._hard_bound

    @property
    def waits(self) -> bool:
        """Whether the calling thread may wait for room."""
        return not self._loop.on_io_thread()

    @property
    def has_room(self) -> bool:
        """Whether a message may be taken now."""
        return self._link.sending.size < self._bound

    def wait_for_room(self, timeout: float | None) -> None:
        """Wait until a message may be taken; raises as `send`."""
        self._link.wait_for_room(timeout)

    # -- message streams -------------------------------------------------------------------

    def begin_message_stream(self, *, compress: bool) -> Deflater | None:
        """Let other messages queue behind the one that begins; what compresses it, or None.

        Raises:
            TimeoutError: another stream stayed open for `write_timeout`.
            ConnectionClosed: the connection is closing or closed.
        """
        if compress and self.compressing is not None:
            return self.compressing.begin_stream(self)
        self.begin_stream()
        return None

    def begin_stream(self) -> None:
        """As `begin_message_stream`, without compression."""
        self._link.begin_stream(wait=True)

    def begin_stream_now(self) -> bool:
        """Begin a message stream; False if another one is open."""
        return self._link.begin_stream(wait=False)

    def wait_for_streams(self) -> None:
        """Wait until no message stream is open; raises as `begin_stream`."""
        self._link.wait_for_streams()

    def send_fragment(self, frame: bytes, *, last: bool) -> None:
        """Send the next frame of the stream that is open.

        Raises:
            TimeoutError: the peer does not take it.
            ConnectionClosed: the connection is closing or closed.
        """
        link = self._link
        if not self._loop.on_io_thread():
            link.send_fragment(frame, last=last, bound=None)
            return
        self.make_room()
        if not link.send_fragment(frame, last=last, bound=self._hard_bound_here()):
            raise TimeoutError("the peer is too slow for it")
        self.sent()

    # -- internal --------------------------------------------------------------------------

    def _hard_bound_here(self) -> int:
        return self._hard_bound if self._link.blocked else self._unoffered_bound

    def _flush_early(self) -> None:
        """Own loop: see `EARLY_BYTES` and `EARLY_SECONDS`."""
        now = self._loop.clock()
        if (
            self._link.sending.size > EARLY_BYTES or now - self._loop.now > EARLY_SECONDS
        ) and not self._channel._blocked:
            self._flush_now()

    def _flush_now(self) -> None:
        """Own loop: offer the socket what waits, also if it was full a moment ago."""
        error = self._channel.flush_in_callback()
        self._link.blocked = self._channel.blocked
        if error is not None:
            self._link.abort(error)

    def _close_slow(self) -> None:
        """Close with 1013, and say who is the cause."""
        if not self.close(1013, SLOW, discard=True):
            return
        callback = self._loop.callback_name() if self._loop.on_loop_thread() else ""
        if callback and self._channel.blocked_at >= self._loop.now:
            log.warning(
                "%s: closed with 1013: %s has sent more than %d times outbox_bytes without "
                "returning, faster than the peer could take it; send less at a time, or from a "
                "thread, where send() waits",
                self._name,
                callback,
                HARD_BOUND,
            )
        else:
            log.info("%s: closed with 1013: it does not take what is sent", self._name)
