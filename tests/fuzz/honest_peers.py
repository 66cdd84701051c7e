"""Honest clients beside the fuzzing, in a process of their own: `python honest_peers.py SETTINGS`.

One for each address and path. Each sends a message, waits for its echo, and compares. A line on
stdin is a question, and a line of JSON answers it: "report" is what was seen since the last one,
"rest" ends the sending until "go".
"""

from __future__ import annotations

import json
import random
import select
import statistics
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS)]

from wire import BINARY, CLOSE, PING, PONG, WireClient, client_context, frame  # noqa: E402

PAUSE = 0.01
"""Seconds between two messages of a client."""
PATIENCE = 20.0
"""Seconds after which an echo is given up."""


class Honest(threading.Thread):
    """One client."""

    def __init__(self, address, ca_file, path, go) -> None:
        super().__init__(daemon=True)
        self._name = f"{path} over {'TLS' if ca_file else 'TCP'}"
        context = None if ca_file is None else client_context(ca_file)
        self._client = WireClient(tuple(address), context)
        self._client.socket.settimeout(PATIENCE)
        self._client.upgrade(path)
        self._go = go
        self._random = random.Random(path)
        self.trips: list[float] = []
        self.fault: str | None = None

    def run(self) -> None:
        try:
            while True:
                self._control()
                if self._go.is_set():
                    self._round_trip()
        except (OSError, EOFError, AssertionError) as error:
            self.fault = f"{self._name}: {type(error).__name__}: {error}"

    def _control(self) -> None:
        """Answer pings for a moment."""
        if select.select([self._client.socket], [], [], PAUSE)[0]:
            assert self._read(self._client.read_frame()) is None, "a message that nobody sent"

    def _read(self, received) -> bytes | None:
        if received.opcode == PING:
            self._client.send(frame(PONG, received.payload))
            return None
        assert received.opcode != CLOSE, f"it was closed: {received.close}"
        return received.payload

    def _round_trip(self) -> None:
        # Mostly small; some take several reads.
        size = self._random.choice([0, 10, 100, 1000, 1000, 20_000])
        message = self._random.randbytes(size)
        data = frame(BINARY, message)
        began = time.monotonic()
        self._client.send(data)
        while (echo := self._read(self._client.read_frame())) is None:
            pass
        self.trips.append(time.monotonic() - began)
        assert echo == message, f"{len(message)} bytes came back as other {len(echo)}"


def main() -> None:
    settings = json.loads(sys.argv[1])
    go = threading.Event()
    go.set()
    clients = [
        Honest(address, ca_file, path, go)
        for address, ca_file in settings["servers"]
        for path in settings["paths"]
    ]
    for client in clients:
        client.start()
    for line in sys.stdin:
        if line.strip() == "rest":
            go.clear()
        elif line.strip() == "go":
            go.set()
        trips = []
        for client in clients:
            trips += client.trips
            client.trips = []
        report = {
            "clients": len(clients) // len(settings["servers"]),
            "trips": len(trips),
            "median": statistics.median(trips) if trips else 0.0,
            "worst": max(trips, default=0.0),
            "faults": [client.fault for client in clients if client.fault],
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
