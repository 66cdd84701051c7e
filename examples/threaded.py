"""A chat with a thread for each client that receives while another callback is told of it.

    scripts/gen-dev-certs
    python examples/threaded.py

    securews connect wss://localhost:8443/       (in two terminals)

This is the older way to write a handler, method by method: `do_handle_communication` has a thread
of its own, `receive_messages` waits until something is queued, `get_unprocessed_messages` takes
it, and `on_receive_message` and `on_close` are notices. `for message in ws` does the same in one
line.
"""

import securews


class Chat(securews.ThreadedWebSocketHandler):
    """What one says goes to all."""

    def prepare_communication(self, ws: securews.Communicator) -> None:
        """Before the thread begins, so that no notice is missed."""
        ws.on_receive_message = self.something_came
        ws.on_close = self.gone

    def do_handle_communication(self, ws: securews.Communicator) -> None:
        """Pass on what comes, until the client goes."""
        ws.send(f"welcome, number {ws.id}")
        while ws.receive_messages():
            for message in ws.get_unprocessed_messages():
                if isinstance(message, str):
                    ws.server.broadcast(f"{ws.id}: {message}")

    def something_came(self, ws: securews.Communicator) -> None:
        """On the I/O thread: a notice, not the message, and no place to wait."""
        print(f"{ws.id} at {ws.remote_address[0]} says something")

    def gone(self, ws: securews.Communicator) -> None:
        """On the I/O thread, exactly once; the address is still known."""
        print(f"{ws.id} at {ws.remote_address[0]} has gone ({ws.close_code})")


if __name__ == "__main__":
    securews.serve(8443, Chat()).serve_forever()
