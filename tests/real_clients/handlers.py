"""What `securews serve handlers:NAME` serves in the tests of foreign clients."""

import itertools
import threading


def stream(ws):
    """Count until the client is gone; with pauses, for s_client reads no command in a flood."""
    pause = threading.Event()
    for number in itertools.count():
        ws.send(f"number {number}\n")
        pause.wait(0.001)


def closes(ws):
    """Close as the client asks: a code and a reason."""
    code, _, reason = ws.recv().partition(" ")
    ws.close(int(code), reason)


def pings(ws):
    """Ping the client, and say whether it answered."""
    seconds = ws.ping("from the server").wait(10)
    ws.send("answered" if seconds > 0 else "too fast to be true")
