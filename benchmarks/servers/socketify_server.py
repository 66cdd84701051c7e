"""socketify, which is uWebSockets under Python; broadcasts by its publish and subscribe."""

from __future__ import annotations

from typing import Any

from socketify import App, AppListenOptions, AppOptions, CompressOptions

from benchmarks.servers.arguments import parse

ROOM = "everybody"
LARGEST = 1024 * 1024
"""Its defaults take messages of 16 KiB and keep 64 KiB for a slow client; one load needs more."""


def echo(ws: Any, message: str | bytes, opcode: int) -> None:
    """Send the message back."""
    ws.send(message, opcode)


def join(ws: Any) -> None:
    """Hear what is sent to all."""
    ws.subscribe(ROOM)


def main() -> None:
    """Serve until a signal comes."""
    arguments = parse()
    app = App(AppOptions(key_file_name=arguments.key, cert_file_name=arguments.cert))

    def send_to_all(_ws: Any, message: str | bytes, opcode: int) -> None:
        app.publish(ROOM, message, opcode)

    behaviour: dict[str, Any] = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": LARGEST,
        "max_backpressure": LARGEST,
        "message": echo,
    }
    if arguments.broadcast:
        behaviour |= {"open": join, "message": send_to_all}
    app.ws("/*", behaviour)
    app.listen(AppListenOptions(port=arguments.port, host="127.0.0.1"))
    app.run()


if __name__ == "__main__":
    main()
