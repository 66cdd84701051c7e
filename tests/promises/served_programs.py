"""Servers that make their own `serve()` call: `python served_programs.py CLASS SETTINGS`.

Each line on stdin is a question, `[method, arguments]` in JSON, and a line of JSON on stdout
answers it. The end of stdin ends the program. See `server_process.ServerProgram`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import securews
from examples.chat.app import chat_server

MIB = 1 << 20


class Program:
    """A server in the background, and what the tests ask it.

    Args:
        tls: certificate and key; None is plain.
        collector: whether the cyclic garbage collector runs.
        port: of `serve()`, as are the options.
    """

    def __init__(self, *, tls=None, collector=True, accepting_method="pool", port=0, **options):
        if not collector:
            gc.collect()
            gc.disable()
        self.server = securews.serve(
            port,
            tls=self.socket_handler(tls),
            accepting_method=securews.AcceptingMethod(accepting_method),
            **options,
        )
        self.register()
        self.server.start_background()

    def socket_handler(self, tls):
        return False if tls is None else tuple(tls)

    def register(self):
        """Add what is served."""
        raise NotImplementedError

    def stats(self):
        return self.server.stats()

    def trim(self):
        """Have malloc give back what nobody holds."""
        ctypes.CDLL(None).malloc_trim(0)


# -- handlers for peers of all kinds -------------------------------------------------------------


class Sink(securews.EventWebSocketHandler):
    """Takes what comes."""


class Echo(securews.EventWebSocketHandler):
    """Answers what has more than one byte; the rest is a flood."""

    def on_message(self, ws, message):
        if len(message) > 1:
            ws.send(message, compress=False)


class Gush(securews.EventWebSocketHandler):
    """Sends 3 MiB to everybody who comes: more than the kernel takes for one who reads nothing."""

    def on_open(self, ws):
        for _ in range(3):
            ws.send(bytes(MIB))


class Burst(securews.EventWebSocketHandler):
    """For a message "COUNT SIZE": so many messages of so many bytes, at once."""

    def on_message(self, ws, message):
        count, size = map(int, message.split())
        for _ in range(count):
            ws.send(bytes(size))


class Piecewise(securews.EventWebSocketHandler):
    """Writes a message that the peer does not take, piece by piece, and again at each message."""

    def __init__(self):
        self.pieces = []
        """What became of each: "written", or the name of the error."""
        self._stream = None

    def on_message(self, ws, message):
        if self._stream is None:
            self._stream = ws.write_message(securews.MessageType.BINARY)
            # Each of its words is another one, so that nothing can come twice unnoticed.
            self._write(b"".join(number.to_bytes(4) for number in range(8 * MIB // 4)))
        self._write(b"")

    def _write(self, data):
        try:
            self._stream.write(data)
        except Exception as error:
            self.pieces.append(type(error).__name__)
        else:
            self.pieces.append("written")


class Paths(Program):
    """A handler for each path.

    Args:
        seconds: that a handler of `/busy` is busy.
        settings: of every program.
    """

    def __init__(self, *, seconds=1.0, **settings):
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running = self._most = 0
        self._piecewise = Piecewise()
        super().__init__(**settings)

    def register(self):
        handlers = {
            "/sink": Sink(),
            "/echo": Echo(),
            "/gush": Gush(),
            "/burst": Burst(),
            "/piecewise": self._piecewise,
            "/deaf": self._deaf,
            "/busy": self._busy,
            "/stream": self._stream,
        }
        for path, handler in handlers.items():
            self.server.register_handler("*", path, handler)
        self.server.page("/form", ("POST",))(lambda request: f"{len(request.form)} fields")

    def _deaf(self, ws):
        """Never receive; end with the connection."""
        while ws.open:
            time.sleep(0.05)

    def _busy(self, ws):
        """Be busy for some time, whatever the peer does."""
        with self._lock:
            self._running += 1
            self._most = max(self._most, self._running)
        time.sleep(self._seconds)
        with self._lock:
            self._running -= 1

    def _stream(self, ws):
        """Send without end."""
        while True:
            ws.send(bytes(16 << 10))

    def busy(self):
        """Handlers that run, the most that ran at a time, and what the server says."""
        with self._lock:
            return {"running": self._running, "most": self._most, "stats": self.stats()}

    def pieces(self):
        return self._piecewise.pieces

    def broadcast(self, count, size, to=None):
        """So many messages in a row; how many receivers were skipped."""
        return sum(len(self.server.broadcast(bytes(size), to)) for _ in range(count))


# -- user code that raises -----------------------------------------------------------------------

RAISED = {
    "RuntimeError": RuntimeError,
    "SystemExit": SystemExit,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "KeyboardInterrupt": KeyboardInterrupt,
}


def raise_of(request):
    """Raise what the query names."""
    raise RAISED[request.query]("as the test wants it")


class RaisingEvents(securews.EventWebSocketHandler):
    """Echoes; raises in the callback that the path names."""

    def on_open(self, ws):
        if ws.request.path == "/on_open":
            raise_of(ws.request)

    def on_message(self, ws, message):
        if ws.request.path == "/on_message":
            raise_of(ws.request)
        if ws.request.path == "/predicate":
            ws.server.broadcast("to nobody", to=lambda _: raise_of(ws.request))
        ws.send(message)

    def on_close(self, ws, code, reason):
        if ws.request.path == "/on_close":
            raise_of(ws.request)


class RaisingHandler(securews.WebSocketHandler):
    """Echoes; raises where the path says."""

    def __init__(self, places):
        self._places = places

    def accept(self, request, response_headers):
        if request.path == "/accept":
            raise_of(request)
        if request.path == "/accept_together":
            self._places.wait(5)
        return True

    def create_communicator(self, connection, request):
        if request.path == "/create":
            raise_of(request)
        return super().create_communicator(connection, request)

    def prepare_communication(self, ws):
        path = ws.request.path
        if path == "/prepare":
            raise_of(ws.request)
        if path == "/ws.on_close":
            ws.on_close = lambda *_: raise_of(ws.request)
        if path == "/ws.on_receive_message":
            ws.on_receive_message = lambda *_: raise_of(ws.request)

    def handle_communication(self, ws):
        for message in ws:
            if ws.request.path == "/handler":
                raise_of(ws.request)
            ws.send(message)

    def finalize_communication(self, ws):
        if ws.request.path == "/finalize":
            raise_of(ws.request)


class Raising(Program):
    """Raises at the place that a path names what the query names, or what `arm` has armed.

    Args:
        client_ca: that issues the clients' certificates.
        settings: of every program.
    """

    def __init__(self, *, client_ca, **settings):
        self._client_ca = client_ca
        self._armed = Counter()
        self._places = threading.Barrier(8)  # request_threads
        super().__init__(**settings)

    def arm(self, place, error):
        """Have `authorize` or `on_connect_query` raise at the next peer."""
        self._armed[place, error] += 1

    def threads(self):
        """Idents of those that live as long as the server."""
        lasting = ("securews-io", "securews-handshake", "securews-serial")
        return [t.ident for t in threading.enumerate() if t.name.startswith(lasting)]

    def socket_handler(self, tls):
        program = self

        class Secured(securews.MutualTLSSocketHandler):
            def on_connect_query(self, address):
                program.fire("on_connect_query")
                return True

        def authorize(certificate):
            self.fire("authorize")
            return True

        return Secured(*tls, client_ca=self._client_ca, authorize=authorize)

    def fire(self, place):
        for (armed, error), count in self._armed.items():
            if armed == place and count:
                self._armed[armed, error] -= 1
                raise RAISED[error]("as the test wants it")

    def register(self):
        events, handler = RaisingEvents(), RaisingHandler(self._places)
        for path in ("/", "/on_open", "/on_message", "/predicate", "/on_close"):
            self.server.register_handler("*", path, events)
        for name in (
            *("blocking", "accept", "accept_together", "create", "prepare", "handler"),
            *("ws.on_close", "ws.on_receive_message", "finalize"),
        ):
            self.server.register_handler("*", f"/{name}", handler)
        self.server.page("/page")(raise_of)
        self.server.page("/page_together")(lambda request: str(self._places.wait(5)))


# -- the example chat ----------------------------------------------------------------------------


class Chat:
    """examples/chat, as `python -m examples.chat` serves it.

    Args:
        tls: certificate and key.
        data: the directory of its users.
    """

    def __init__(self, *, tls, data):
        self.server = chat_server(0, Path(data), tls=tuple(tls))
        self.server.start_background()


def main(programs=None) -> None:
    """Serve one of `programs` (by name; those of this file), and answer what stdin asks."""
    name, settings = sys.argv[1:]
    logging.basicConfig()
    program = (programs or globals())[name](**json.loads(settings))
    say = partial(print, flush=True)
    say(f"listening on {program.server.url}")
    for line in sys.stdin:
        method, arguments = json.loads(line)
        say(json.dumps(getattr(program, method)(**arguments)))
    program.server.stop(0)


if __name__ == "__main__":
    main()
