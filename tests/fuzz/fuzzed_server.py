"""The server that fuzz_connections.py talks to: a handler of each kind, and what it holds.

A program of served_programs.py. Its limits are short, so that peers come to all of them.
"""

from __future__ import annotations

import faulthandler
import gc
import signal
import socket
import sys
import time
from collections import Counter

import served_programs

import securews

KIB = 1 << 10
PUSHED = 20
"""Messages that `/push` sends to whoever comes."""


class Events(securews.EventWebSocketHandler):
    """An echo on the I/O thread; on `/push` more comes first than some can take."""

    def on_open(self, ws):
        if ws.request.path == "/push":
            for _ in range(PUSHED):
                ws.send(bytes(20 * KIB))

    def on_message(self, ws, message):
        ws.send(message)


class Blocking(securews.WebSocketHandler):
    """`/blocking`, `/accept`, `/fragments`, ...: echoes, each in a way of its own."""

    def accept(self, request, response_headers):
        if request.path == "/accept":
            time.sleep(0.1)
        return request.path != "/refused"

    def handle_communication(self, ws):
        try:
            getattr(self, f"do_{ws.request.path.strip('/')}")(ws)
        except TimeoutError:
            pass  # it does not read, or does not answer a ping

    def do_blocking(self, ws):
        for message in ws:
            ws.send(message)

    do_accept = do_blocking

    def do_slow(self, ws):
        """Now and then take so long that others are woken without it."""
        for message in ws:
            if len(message) % 3 == 0:
                time.sleep(0.003)
            ws.send(message)

    def do_fragments(self, ws):
        for message in ws:
            kind = securews.MessageType
            kind = kind.TEXT if isinstance(message, str) else kind.BINARY
            with ws.write_message(kind, max_frame_length=100 + len(message) % 1000) as stream:
                stream.write(message)

    def do_seed(self, ws):
        """The older way to receive."""
        while ws.receive_messages():
            for message in ws.get_unprocessed_messages():
                if not isinstance(message, securews.Pong):
                    ws.send(message)

    def do_pinged(self, ws):
        ws.ping(b"are you there").wait(2)
        self.do_blocking(ws)

    def do_busy(self, ws):
        """Be busy while the peer perhaps goes."""
        time.sleep(0.2)
        self.do_blocking(ws)

    def do_deaf(self, ws):
        """Never receive, for some time: a peer's FIN waits behind what is not read."""
        end = time.monotonic() + 2
        while ws.open and time.monotonic() < end:
            time.sleep(0.05)

    def do_goodbye(self, ws):
        """One message, and the end."""
        ws.send("goodbye")


class Threaded(securews.ThreadedWebSocketHandler):
    """An echo in a thread of its own."""

    def do_handle_communication(self, ws):
        for message in ws:
            try:
                ws.send(message)
            except TimeoutError:
                return


class Fuzzed(served_programs.Program):
    """All of these, and a few pages."""

    def __init__(self, **settings):
        # Accepted sockets inherit the buffer's size: without it the kernel takes megabytes, and no
        # peer would ever be slow.
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)
        super().__init__(port=None, sockets=[listener], **settings)

    def register(self):
        events, blocking = Events(), Blocking()
        for path in ("/event", "/push"):
            self.server.register_handler("*", path, events)
        for path in (
            *("/blocking", "/accept", "/refused", "/slow", "/fragments", "/busy", "/deaf"),
            "/goodbye",
        ):
            self.server.register_handler("*", path, blocking)
        for path in ("/seed", "/pinged"):
            self.server.register_handler("*", path, blocking, ping_interval=1)
        self.server.register_handler("*", "/threaded", Threaded())
        self.server.page("/page")(lambda request: "a page")
        self.server.page("/large")(lambda request: bytes(400 * KIB))
        self.server.page("/form", ("POST",))(self._form)

    def _form(self, request):
        time.sleep(0.005)
        return f"{len(request.form)} fields"

    def disturb(self):
        """What a program may do at any time."""
        self.server.reload_tls()
        return len(self.server.broadcast(bytes(10 * KIB), "/push"))

    def holders(self, kinds):
        """What refers to the newest object of each kind."""
        things = gc.get_objects()
        newest = {_kind(thing): thing for thing in things}
        lines = []
        for kind in kinds:
            referrers = [
                r for r in gc.get_referrers(newest[kind]) if r is not things and r is not newest
            ]
            lines.append(f"{kind}: held by {[repr(r)[:200] for r in referrers][:6]}")
        return lines

    def held(self):
        """What is held: stats(), objects of the package by their class, and blocks of memory."""
        gc.collect()
        self.trim()
        kinds = Counter(map(_kind, gc.get_objects()))
        objects = {kind: count for kind, count in kinds.items() if kind.startswith("securews.")}
        return {
            "stats": self.stats(),
            "objects": objects,
            "blocks": sys.getallocatedblocks(),
        }


def _kind(thing):
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where its threads are goes to its log
    served_programs.main({"Fuzzed": Fuzzed})
