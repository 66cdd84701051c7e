"""Send everything back. First `scripts/gen-dev-certs`, then `python examples/echo.py`."""

import securews


def echo(ws: securews.Communicator) -> None:
    """Serve one client, on a thread of its own, until it goes."""
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    tls = ("certs/server.pem", "certs/server-key.pem")
    securews.serve(8443, echo, tls=tls).serve_forever()
