"""A terminal client for examples/chat.

    scripts/demo
    python -m examples.chat_client wss://localhost:8443/chat --user alice

It asks for the password, or takes it from $CHAT_PASSWORD; a script uses a token instead:

    CHAT_TOKEN=$(python -m examples.chat token alice)
    echo "backup is done" | CHAT_TOKEN=$CHAT_TOKEN python -m examples.chat_client URL

The main thread prints what comes, another reads what is typed.
"""

import argparse
import base64
import datetime as dt
import getpass
import json
import os
import queue
import secrets
import sys
import threading
import time
from typing import Any, TypeAlias

import securews

Answers: TypeAlias = "queue.SimpleQueue[tuple[str, float]]"
"""What the server said to a message: its key, and the seconds to wait before it is sent again."""


def main() -> int:
    """Connect and talk; the exit code."""
    parser = argparse.ArgumentParser(description="Talk in the chat.")
    parser.add_argument("url", metavar="URL", help="such as wss://localhost:8443/chat")
    parser.add_argument("--user", metavar="NAME", help="who you are; not needed with $CHAT_TOKEN")
    parser.add_argument("--ca", metavar="F", help="trust the authorities in this file")
    given = parser.parse_args()
    token = os.environ.get("CHAT_TOKEN")
    if token is None and given.user is None:
        parser.error("say who you are: --user NAME, or a token in $CHAT_TOKEN")
    headers = {"Authorization": f"Bearer {token}" if token else basic(given.user)}
    try:
        with securews.connect(given.url, tls=given.ca, headers=headers) as ws:
            talk(ws)
    except securews.HandshakeError as error:
        print(f"not let in: {refusal(error)}", file=sys.stderr)
        return 1
    except (securews.SecureWSError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # the connection was closed in order on the way here
    return 0


def basic(user: str) -> str:
    """The Authorization header for a name and a password (RFC 7617)."""
    password = os.environ.get("CHAT_PASSWORD") or getpass.getpass(f"password of {user}: ")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def refusal(error: securews.HandshakeError) -> str:
    """What a refusal means to a person."""
    if error.status == 401:
        return "that is not the right name and password, or the token is too old"
    if error.status == 429:
        return f"too many attempts; try again in {error.headers['Retry-After']} seconds"
    return str(error)


def talk(ws: securews.Communicator) -> None:
    """Print what comes until the connection ends."""
    answers: Answers = queue.SimpleQueue()
    typist = threading.Thread(target=send_lines, args=(ws, answers), daemon=True)
    me = ""
    for message in ws:
        event: dict[str, Any] = json.loads(message)
        if event["type"] == "welcome":
            me = event["you"]
            print(f"you are {me}; online: {', '.join(event['online'])}")
            for said in event["history"]:
                show(said)
            typist.start()
        elif event["type"] == "said":
            show(event)
            if event["name"] == me:
                answers.put((event["key"], 0.0))
        elif event["type"] == "wait":
            answers.put((event["key"], event["seconds"]))
        elif event["name"] != me:
            print(f"{event['name']} has {event['type']}")


def show(said: dict[str, Any]) -> None:
    """One message: when, who, what. No control character reaches the terminal."""
    when = dt.datetime.fromtimestamp(said["at"] / 1000).astimezone()
    text = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in said["text"]
    )
    print(f"{when:%H:%M} {said['name']}: {text}", flush=True)


def send_lines(ws: securews.Communicator, answers: Answers) -> None:
    """Send each line that is typed; at the end of the input, close."""
    for line in sys.stdin:
        if text := line.strip():
            try:
                say(ws, text, answers)
            except securews.ConnectionClosed:
                return  # the main thread says why
    ws.close()


def say(ws: securews.Communicator, text: str, answers: Answers) -> None:
    """Send one message, and wait until everybody has heard it."""
    key = secrets.token_hex(8)
    while True:
        ws.send_json({"type": "say", "key": key, "text": text})
        answered = ("", 0.0)
        while answered[0] != key:
            answered = answers.get()
        if not answered[1]:
            return
        time.sleep(answered[1])


if __name__ == "__main__":
    sys.exit(main())
