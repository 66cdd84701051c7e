"""A loop whose clock a test turns, and a stream whose bytes, room and end it scripts.

Around them the real loop, channel and connection. The test's own thread is the loop's: what "other
threads" call goes through `elsewhere`. So every schedule can be played, and nothing waits.
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from securews.common.options import ConnectionOptions, Limits
from securews.connection import channel as channel_module
from securews.connection.budget import Budget
from securews.connection.channel import Channel, Phase
from securews.connection.connection import Connection
from securews.loop.loop import Loop
from securews.loop.poller import HANGUP, READABLE, WRITABLE
from securews.protocol.events import Failure
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser
from securews.transport.socket_handler import SocketStream, Want

KEY = b"\x01\x80\xfe\x37"
END = object()
"""The peer's end, in order."""

_descriptors = itertools.count(1_000_000)
_elsewhere = ThreadPoolExecutor(8, "elsewhere")
_streams: dict[int, ScriptedStream] = {}


def elsewhere(function, *args, **options):
    """Call on a thread that is no loop's; its result, or what it raises."""
    return start_elsewhere(function, *args, **options).result(10)


def start_elsewhere(function, *args, **options):
    """Begin a call on a thread that is no loop's; its future."""
    return _elsewhere.submit(function, *args, **options)


def frame(opcode, payload=b"", *, fin=True):
    """A frame as a client sends it."""
    return encode_frame(opcode, payload, fin=fin, masking_key=KEY)


class Clock:
    """Seconds that pass when the test says so, and a little whenever somebody looks."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 20e-6
        return self.now


class ScriptedStream(SocketStream):
    """A stream without a socket. `room`: bytes that the socket takes; None is any number."""

    last_error = None
    info = None
    remote_address = ("192.0.2.1", 4711)
    local_address = ("192.0.2.2", 8443)
    bytes_available = 0

    def __init__(self):
        self._fd = next(_descriptors)
        _streams[self._fd] = self
        self.incoming = deque()
        self.room = None
        self.in_kernel = 0
        self.sent = bytearray()
        self.reads = 0
        self._pending = b""
        self.broken = None
        self.shut = self.closed = False

    def fileno(self):
        return self._fd

    @property
    def bytes_pending(self):
        return len(self._pending)

    @property
    def readable(self):
        return bool(self.incoming)

    @property
    def writable(self):
        return self.broken is not None or self.room is None or self.room > 0

    @property
    def ended(self):
        return self.broken is not None or END in self.incoming

    def handshake(self):
        return Want.NOTHING

    def recv(self):
        assert not self.closed, "read after close"
        self.reads += 1
        if not self.incoming:
            if self.broken is not None:
                raise self.broken
            return Want.READ
        item = self.incoming[0]
        if item is END:
            return b""  # an end stays readable
        self.incoming.popleft()
        return item

    def send(self, data):
        assert not self.closed, "sent after close"
        assert not self.shut, "sent after shutdown"
        assert not self._pending, "sent while bytes are pending"
        self._pending = bytes(data)
        return self.flush()

    def flush(self):
        if self.broken is not None:
            raise self.broken
        count = len(self._pending) if self.room is None else min(self.room, len(self._pending))
        self.sent += self._pending[:count]
        self.in_kernel += count
        self._pending = self._pending[count:]
        if self.room is not None:
            self.room -= count
        return Want.WRITE if self._pending else Want.NOTHING

    def shutdown(self):
        if self._pending and self.flush() is Want.WRITE:
            return Want.WRITE
        self.shut = True
        return Want.NOTHING

    def close(self):
        assert not self.closed, "closed twice"
        self.closed = True
        _streams.pop(self._fd, None)


channel_module.bytes_in_kernel = lambda fd: _streams[fd].in_kernel if fd in _streams else 0


class ScriptedPoller:
    """What is ready follows from the streams."""

    def __init__(self):
        self.watched = {}
        self._told = set()

    def watch(self, fd, *, read, write):
        self.watched[fd] = (read, write)
        self._told.discard(fd)

    def unwatch(self, fd):
        self.watched.pop(fd, None)

    def poll(self, timeout):
        ready = self.ready()
        self._told |= {fd for fd, mask in ready if mask & HANGUP}
        return ready

    def ready(self):
        """What `poll` would report."""
        ready = []
        for fd, (read, write) in self.watched.items():
            stream = _streams.get(fd)
            if stream is None:
                continue  # the loop's own wake-up
            mask = 0
            if read and (stream.readable or stream.broken is not None):
                mask |= READABLE
            if write and stream.writable:
                mask |= WRITABLE
            if stream.ended and (read or fd not in self._told):  # edge-triggered while not read
                mask |= HANGUP
            if mask:
                ready.append((fd, mask))
        return ready

    def close(self):
        pass


class Recorder:
    """An observer that notes what it is told. `on_open` and `on_message` are of the "user"."""

    def __init__(self, connection, *, event_driven, on_message=None, on_open=None):
        self.connection = connection
        self.event_driven = event_driven
        self.on_message = on_message
        self.on_open = on_open
        self.messages = []
        self.queued = 0
        self.closed = 0
        self.end = None

    def connection_opened(self):
        assert not self.messages, "a message before the beginning"
        assert not self.closed, "the end before the beginning"
        if self.on_open is not None:
            self.on_open(self.connection)

    def message_received(self, message):
        assert not self.closed, "a message after the end"
        self.messages.append(message)
        if self.on_message is not None:
            self.on_message(message)

    def messages_queued(self):
        assert not self.closed, "a notice after the end"
        self.queued += 1

    def dispatched(self, began):
        pass

    def connection_closed(self):
        self.closed += 1
        closing = self.connection.link.closing
        self.end = (closing.code, closing.initiator)

    def callback_name(self):
        return "Recorder.on_message"


class Bench:
    """A loop and its connections."""

    def __init__(self, *, max_buffered=None):
        self.clock = Clock()
        self.poller = ScriptedPoller()
        self.loop = Loop(self.poller, self.clock)
        self.loop.enter()
        self.budget = Budget(max_buffered)
        self.released = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.loop.leave()

    def open(
        self,
        *,
        event_driven=True,
        on_message=None,
        on_open=None,
        leftover=b"",
        deflate=None,
        **options,
    ):
        user = {"event_driven": event_driven, "on_message": on_message, "on_open": on_open}
        return Peer(self, user, leftover, ConnectionOptions(**options), deflate)

    def turn(self, count=1):
        for _ in range(count):
            self.loop.turn()

    def settle(self, most=200):
        """Turn until nothing happens any more; a loop that spins never comes to that."""
        for _ in range(most):
            self.loop.turn()
            loop = self.loop
            if not (self.poller.ready() or loop._scheduled or loop._calls or loop._left_over):
                return
        raise AssertionError("the loop spins")

    def advance(self, seconds, step=1.0):
        """Let time pass; timers run when they are due."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + step)
            self.settle()


class Peer:
    """One connection on a bench, and what its peer does."""

    def __init__(self, bench, user, leftover, options, deflate):
        self.bench = bench
        self.deflate = deflate
        self.stream = ScriptedStream()
        self.channel = Channel(
            self.stream,
            bench.loop,
            write_timeout=options.write_timeout,
            released=bench.released.append,
        )
        self.connection = Connection(
            self.channel,
            Role.SERVER,
            options,
            limits=Limits(),
            budget=bench.budget,
            name="peer",
            deflate=deflate,
        )
        self.link = self.connection.link
        self.user = Recorder(self.connection, **user)
        self.connection.start(self.user, leftover)

    # -- the peer --------------------------------------------------------------------------

    def says(self, *pieces):
        """Bytes, END or an error come from the peer, each with a read of its own."""
        for piece in pieces:
            if isinstance(piece, Exception):
                self.stream.broken = piece
            else:
                self.stream.incoming.append(piece)
        return self

    def takes(self, room):
        """The socket takes so many bytes more; None is any number."""
        self.stream.room = room
        return self

    @property
    def frames(self):
        """What the peer was sent, as events; a Failure is one of ours."""
        parser = WebSocketParser(Role.CLIENT, max_size=1 << 30, deflate=self.deflate)
        return parser.receive(bytes(self.stream.sent))

    @property
    def data(self):
        return [event for event in self.frames if isinstance(event, str | bytes)]

    # -- what must always be so ------------------------------------------------------------

    @property
    def over(self):
        return self.user.closed > 0

    def check(self):
        """The invariants of one connection between two turns."""
        fd, channel = self.stream.fileno(), self.channel
        assert self.user.closed <= 1
        assert self.link.ended == self.over
        assert not any(isinstance(event, Failure) for event in self.frames)
        if self.over:
            closing = self.link.closing
            assert closing.state.is_closed
            assert (closing.code, closing.initiator) == self.user.end, "the end has changed"
            assert self.link.sending.size == 0
            assert self.connection.parser.unfinished == 0
            assert not self.connection._events
        if channel.phase is Phase.CLOSED:
            assert fd not in self.bench.poller.watched
        elif fd in self.bench.poller.watched:
            read, write = self.bench.poller.watched[fd]
            assert read == channel.reading, "watched, and will not be read"
            # A callback may find room again: the turn that it has asked for stops the watching.
            assert write == channel.blocked or (write and self.link._scheduled)


def message(payload=b"x", *, text=False):
    """A message of the peer in one frame."""
    return frame(Opcode.TEXT if text else Opcode.BINARY, payload)


def close(code=1000):
    """A Close of the peer."""
    return frame(Opcode.CLOSE, code.to_bytes(2))
