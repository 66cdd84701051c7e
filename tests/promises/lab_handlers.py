"""What the separate server of these tests serves, chosen by path, and what it saw of its peers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter

import securews

BLOCK = bytes(range(256)) * 64
"""16 KiB."""


class Lab(securews.WebSocketHandler):
    """Blocking: `/stream`, `/deaf`, `/flood`, ... ; `/report` tells what happened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: Counter[str] = Counter()
        self._ends: list[dict[str, object]] = []

    def handle_communication(self, ws):
        name = ws.request.path.strip("/")
        with self._lock:
            self._opened[name] += 1
        began = time.monotonic()
        error: Exception | None = None
        try:
            getattr(self, f"do_{name}")(ws)
        except securews.ConnectionClosed as closed:
            error = closed
        end = {
            "path": name,
            "code": ws.close_code,
            "error": type(error).__name__,
            "seconds": time.monotonic() - began,
            **vars(ws.state),
        }
        with self._lock:
            self._ends.append(end)

    def do_report(self, ws):
        with self._lock:
            seen = {"opened": dict(self._opened), "ends": list(self._ends)}
        ws.send_json({**seen, "stats": ws.server.stats()})

    def do_echo(self, ws):
        for message in ws:
            ws.send(message)

    def do_watch(self, ws):
        """Receive until the end, whatever it is."""
        while True:
            ws.recv()

    def do_stream(self, ws):
        """Blocks until the client says stop; then the SHA-256 of all of them."""
        digest, number = hashlib.sha256(), 0
        while not ws.has_messages:
            block = number.to_bytes(8) + BLOCK
            ws.send(block)
            digest.update(block)
            number += 1
        ws.send(digest.hexdigest())
        ws.wait_closed(10)

    def do_deaf(self, ws):
        """Never receive."""
        ws.state.pause = 0
        while ws.open:
            time.sleep(0.1)

    def do_flood(self, ws):
        """Two threads send until neither can; how long the last send of each was stuck."""
        stuck: list[float] = []

        def send_on():
            progress = time.monotonic()
            try:
                while True:
                    ws.send(BLOCK)
                    progress = time.monotonic()
            except (TimeoutError, securews.ConnectionClosed):
                stuck.append(time.monotonic() - progress)

        other = threading.Thread(target=send_on)
        other.start()
        send_on()
        other.join()
        ws.state.stuck = stuck

    def do_secret(self, ws):
        """The same text twice: compressed if that was agreed to, and left as it is."""
        ws.send("secret " * 100)
        ws.send("secret " * 100, compress=False)
        ws.wait_closed(10)

    def do_goodbye(self, ws):
        """Close, and note how long that took and how it ended."""
        ws.close(1000)
        ws.wait_closed(30)

    def do_raise(self, ws):
        raise RuntimeError("as the test wants it")

    def do_sleep(self, ws):
        """A handler that does not return."""
        while True:
            time.sleep(1)


class LabEvents(securews.EventWebSocketHandler):
    """On the I/O thread: echoes; `report` is answered with what was opened and closed."""

    def __init__(self) -> None:
        self._opened = 0
        self._closed: Counter[int] = Counter()
        self._twice = 0

    def on_open(self, ws):
        self._opened += 1
        ws.state.closed = False

    def on_message(self, ws, message):
        if message != "report":
            ws.send(message)
            return
        ws.send_json(
            {
                "opened": self._opened,
                "closed": sum(self._closed.values()),
                "codes": self._closed,
                "twice": self._twice,
                "stats": ws.server.stats(),
            }
        )

    def on_close(self, ws, code, reason):
        self._twice += ws.state.closed
        ws.state.closed = True
        self._closed[code] += 1


lab = Lab()
lab_events = LabEvents()
