r"""Devices that are known by their certificates: two may report, all others are refused.

    scripts/gen-dev-certs --client pump-1 --client pump-2 --client pump-9
    python examples/mutual_tls.py

    securews connect wss://localhost:8443/ --cert certs/client-pump-1.pem \
        --key certs/client-pump-1-key.pem

pump-9 has a certificate of the same CA and is refused all the same: that a CA has signed a
certificate says who it is, not what it may do. The refusal comes in the TLS handshake, before a
byte of HTTP is read.
"""

from pathlib import Path

import securews

PUMPS = {"pump-1", "pump-2"}


def report(ws: securews.Communicator) -> None:
    """Take what a pump reports, and thank it by its name."""
    pump = ws.identity
    assert isinstance(pump, securews.ClientCertificate)
    for message in ws:
        print(f"{pump.dns_names[0]}: {message!r}")
        ws.send(f"thank you, {pump.dns_names[0]}")


def only_pumps(certificates: Path) -> securews.MutualTLSSocketHandler:
    """TLS with the certificates in this directory, for `PUMPS` alone."""
    return securews.MutualTLSSocketHandler(
        certificates / "server.pem",
        certificates / "server-key.pem",
        client_ca=certificates / "ca.pem",
        authorize=PUMPS,
    )


if __name__ == "__main__":
    securews.serve(8443, report, tls=only_pumps(Path("certs"))).serve_forever()
