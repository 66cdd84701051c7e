"""What `securews serve handlers:NAME` serves in the tests of foreign clients."""


def stream(ws):
    """Count, without a pause, until the client is gone."""
    number = 0
    while True:
        ws.send(f"number {number}\n")
        number += 1


def closes(ws):
    """Close as the client asks: a code and a reason."""
    code, _, reason = ws.recv().partition(" ")
    ws.close(int(code), reason)


def pings(ws):
    """Ping the client, and say whether it answered."""
    seconds = ws.ping("from the server").wait(10)
    ws.send("answered" if seconds > 0 else "too fast to be true")
