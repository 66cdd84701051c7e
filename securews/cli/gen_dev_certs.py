"""`securews gen-dev-certs`: development certificates, and how to trust them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from securews.cli.parsing import Subcommands, usage

if TYPE_CHECKING:
    from securews.certificates.dev_certificates import Entry

__all__ = ["add_command"]

_TRUST = """\
How to trust {ca_file}
  curl      curl --cacert {ca_path} https://localhost:8443/
  Python    ssl.create_default_context(cafile={ca_file!r})
  Node      NODE_EXTRA_CA_CERTS={ca_path} node client.js
  Firefox   Settings > Privacy & Security > View Certificates > Authorities > Import;
            tick "Trust this CA to identify websites"
  Chrome    chrome://certificate-manager > Custom > Installed by you > Trusted Certificates >
            Import. On macOS and Windows the system's store does too, on Linux
            certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n securews-dev -i {ca_path}
  macOS     security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db \\
              {ca_path}
  Windows   certutil -user -addstore Root ca.pem
  Debian    sudo cp {ca_path} /usr/local/share/ca-certificates/securews-dev.crt
            sudo update-ca-certificates
No trust store was touched. Who has ca-key.pem can pose as any site to whoever trusts ca.pem:
keep it on this machine, and take the trust back when you are done."""


def add_command(commands: Subcommands) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "gen-dev-certs",
        help="make or renew development certificates",
        description="Make a local CA, a server certificate (localhost, 127.0.0.1, ::1, this "
        "machine's name) and client certificates, or renew what no longer serves. What is good "
        "is left alone; no trust store is touched.",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the files are (default: $SECUREWS_CERTS, or certs)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="one more host name or IP address of the server (again for more)",
    )
    parser.add_argument(
        "--client",
        metavar="NAME",
        action="append",
        default=[],
        help="a client certificate: client-NAME.pem (again for more)",
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=int,
        default=90,
        help="days that new certificates live (default: %(default)s)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="renew good ones too; the CA is kept, because it is trusted somewhere "
        "(delete ca.pem and ca-key.pem for a new one)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Not at the top: `securews --help` need not wait for cryptography.
    from securews.certificates import dev_certificates
    from securews.certificates.directory import development_directory

    with usage():
        hosts = [dev_certificates.checked_host(host) for host in arguments.host]
        clients = [dev_certificates.checked_client(name) for name in arguments.client]
        days = dev_certificates.checked_days(arguments.days)
    report = dev_certificates.ensure_certificates(
        arguments.out or development_directory(), hosts, clients, days=days, force=arguments.force
    )
    for entry in report.entries:
        print(_line(entry))
    if not report.changed:
        print("Nothing to do: all of them are good.")
    elif report.new_authority and report.entries[0].reason:
        print("The CA is new: whoever trusted the old one has to trust this one.")
    ca_file = str(report.ca_file.resolve())
    print("\n" + _TRUST.format(ca_file=ca_file, ca_path=shlex.quote(ca_file)))
    return 0


def _line(entry: Entry) -> str:
    names = f" for {' '.join(entry.names)}" if entry.names else ""
    reason = f" ({entry.reason})" if entry.reason else ""
    return (
        f"{entry.action.value:<8} {entry.certificate} and {entry.key.name}{names}, "
        f"valid until {entry.expires:%Y-%m-%d}{reason}"
    )
