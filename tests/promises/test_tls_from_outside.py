"""Rows 9 to 21 and 38 from outside: what scanners, resuming clients and revoked ones are given."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from server_process import ROOT, ServerProcess, Stopwatch
from support import eventually
from wire import TEXT, WireClient, frame, request_head

import securews
from securews import testing

# Suites that need a certificate of the ECDSA kind; the server's own is one.
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
}


def tool(name):
    """A scanner. `scripts/promises` installs what is missing."""
    command = shutil.which(name, path=f"{ROOT}/.tools/{name}/bin:{os.environ['PATH']}")
    if command is None:
        pytest.skip(f"{name} is not installed")
    return command


def s_client(server, *flags, said=""):
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed"
    seen = subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{server.address[1]}",
         "-servername", "localhost", *flags],
        input=said, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return seen.stdout + seen.stderr


# -- rows 9, 10 and 12 ---------------------------------------------------------------------------


def old_client(certificates, version):
    """A client that would speak anything."""
    context = certificates.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.promise(9)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_an_old_version_is_refused_by_its_name(echo, certificates, version):
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
        WireClient(echo.address, old_client(certificates, version))


@pytest.mark.promise(10)
def test_of_all_suites_of_tls_1_2_three_are_spoken_with_this_certificate(
    echo, certificates, measured
):
    offered = {
        cipher["name"]
        for cipher in old_client(certificates, ssl.TLSVersion.TLSv1_2).get_ciphers()
        if not cipher["name"].startswith("TLS_")
    }
    assert len(offered) > 50
    spoken = set()
    for name in offered:
        context = old_client(certificates, ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(f"{name}:@SECLEVEL=0")
        with contextlib.suppress(ssl.SSLError), WireClient(echo.address, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            spoken.add(client.socket.cipher()[0])
    assert spoken == SUITES
    measured(f"{len(offered)} suites offered one by one, {len(spoken)} accepted")


@pytest.mark.promise(12)
def test_no_renegotiation_no_compression_and_no_early_data(echo):
    seen = s_client(echo, "-tls1_2", said="R\n")
    assert "RENEGOTIATING" in seen
    assert "no renegotiation" in seen
    assert "Compression: NONE" in seen
    seen = s_client(echo, "-tls1_3", "-ign_eof", said="GET / HTTP/1.0\r\n\r\n")
    assert set(re.findall(r"Max Early Data: (\d+)", seen)) == {"0"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.promise(9, 10, 12)
def test_testssl_finds_nothing(echo, certificates, tmp_path, measured):
    command = tool("testssl")
    found = tmp_path / "found.json"
    subprocess.run(
        [command, "--quiet", "--warnings", "off", "--jsonfile", found, "--add-ca",
         certificates.ca_file, "-p", "-s", "-f", "-P", "-E", "-U", "--ip", "127.0.0.1",
         f"localhost:{echo.address[1]}"],
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    findings = json.loads(found.read_text())
    assert len(findings) > 40
    remarks = {f["id"] for f in findings if f["severity"] not in {"OK", "INFO"}}
    remarks.discard("engine_problem")  # of the openssl that testssl itself runs
    # It is the client that chooses, as Mozilla recommends; testssl would rather have it otherwise.
    remarks.discard("cipher_order")
    assert remarks == set()
    measured(f"testssl: {len(findings)} findings, none against us but the client's order")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(9, 10, 11, 12)
def test_sslyze_finds_mozillas_intermediate_configuration(tmp_path, measured):
    command = tool("sslyze")
    subprocess.run(
        [sys.executable, "-m", "securews", "gen-dev-certs", "--out", tmp_path, "--days", "90"],
        capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    pair = (str(tmp_path / "server.pem"), str(tmp_path / "server-key.pem"))
    with ServerProcess(pair) as server:
        seen = subprocess.run(
            [command, "--mozilla_config=intermediate", "--certinfo",
             "--certinfo_ca_file", tmp_path / "ca.pem", f"localhost:{server.address[1]}"],
            capture_output=True, text=True, timeout=100, check=False,
        ).stdout  # fmt: skip
    remarks = re.findall(
        r"^ +\* (\w+): (.*)$", seen.partition("COMPLIANCE AGAINST")[2], re.MULTILINE
    )
    # The system's own stores do not know a development CA; groups can be set from Python 3.15 on.
    assert {name for name, _ in remarks} <= {"certificate_path_validation", "tls_curves"}, remarks
    groups = ", ".join(sorted(re.findall(r"'(\w+)'", dict(remarks).get("tls_curves", ""))))
    measured("sslyze: as Mozilla's intermediate configuration, but for groups", 10)
    measured(f"beyond Mozilla's four: {groups or 'none'}", 11)


# -- rows 13, 15, 16, 20, 21 -----------------------------------------------------------------------


def resumed(server, context, session=None):
    """Whether this connection resumed, and the session that it was given."""
    raw = socket.create_connection(server.address, 10)
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
        tls.sendall(request_head())
        assert tls.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        return tls.session_reused, tls.session


@pytest.mark.promise(13)
def test_a_session_resumes_until_the_certificates_are_read_again(certificates, context):
    with ServerProcess(certificates.server) as server:
        again, session = resumed(server, context)
        assert not again
        assert resumed(server, context, session)[0]
        server.signal(signal.SIGHUP)
        eventually(lambda: not resumed(server, context, session)[0], "a full handshake")


@pytest.mark.promise(15)
@pytest.mark.parametrize(
    ("server_name", "host", "expected"),
    [
        ("localhost", "localhost", 101),
        ("localhost", "LOCALHOST.:1", 101),
        ("localhost", "127.0.0.1", 421),
        ("localhost", "other.example", 421),
    ],
)
def test_under_mutual_tls_the_host_is_the_one_of_the_certificate(server_name, host, expected):
    with testing.server(lambda ws: ws.wait_closed(), mutual=True) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        context.load_cert_chain(*server.client_cert("pump-1"))
        with WireClient(server.address, context, server_name=server_name) as client:
            assert client.ask(request_head(host=host)).status == expected


@pytest.mark.promise(16)
def test_an_unknown_name_is_told_so_where_that_was_asked_for(certificates):
    handler = securews.TLSSocketHandler(*certificates.server, sni_unknown="alert")
    with securews.serve(0, lambda ws: ws.wait_closed(), tls=handler) as server:
        with WireClient(server.address, certificates.context()) as client:
            client.upgrade()
        anybody = certificates.context()
        anybody.check_hostname = False
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            WireClient(server.address, anybody, server_name="other.example")


A_HELLO_OF_18_KIB = [f"{number:0255}" for number in range(72)]
"""What makes one: protocols that nobody speaks."""


@pytest.mark.promise(72)
@pytest.mark.parametrize(
    ("mutual", "server_name", "protocol"),
    [
        (False, "other.example", "http/1.1"),
        (False, "localhost", "h2"),
        (True, "other.example", "http/1.1"),  # mutual TLS: no Host of another name
    ],
)
def test_a_hello_of_18_kib_gets_past_no_check(
    certificates, measured, mutual, server_name, protocol
):
    pair, ca = certificates.server, certificates.ca_file
    handler = (
        securews.MutualTLSSocketHandler(*pair, client_ca=ca)
        if mutual
        else securews.TLSSocketHandler(*pair, sni_unknown="alert")
    )
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    context.load_cert_chain(*certificates.client)
    context.set_alpn_protocols([protocol, *A_HELLO_OF_18_KIB])
    with securews.serve(0, lambda ws: ws.wait_closed(), tls=handler) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)alert.illegal.parameter"):
            WireClient(server.address, context, server_name=server_name)
        with WireClient(server.address, certificates.context(certificates.client)) as client:
            client.upgrade()
    who = f"{server_name} and {protocol}{' under mutual TLS' if mutual else ''}"
    measured(f"18 KiB for {who}: illegal_parameter")


class Works:
    """A CA with the clients bob and eve, and a list of whom it has revoked."""

    def __init__(self, directory: Path) -> None:
        from securews.cli.main import main

        arguments = ["gen-dev-certs", "--out", str(directory), "--client", "bob", "--client", "eve"]
        assert main(arguments) == 0
        self._directory = directory
        self.ca = str(directory / "ca.pem")
        self.revoke()

    def handler(self):
        return securews.MutualTLSSocketHandler(
            self._directory / "server.pem",
            self._directory / "server-key.pem",
            client_ca=self.ca,
            crl=self._directory / "crl.pem",
        )

    def connect(self, server, name):
        pair = tuple(str(self._directory / f"client-{name}{end}.pem") for end in ("", "-key"))
        return securews.connect(server.url, tls=self.ca, client_cert=pair)

    def serial_of(self, name):
        text = (self._directory / f"client-{name}.pem").read_bytes()
        return x509.load_pem_x509_certificate(text).serial_number

    def revoke(self, *names):
        """Put a list in the place of the one before it."""
        issuer = x509.load_pem_x509_certificate(Path(self.ca).read_bytes())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(now - dt.timedelta(minutes=1))
            .next_update(now + dt.timedelta(days=3))
        )
        for name in names:
            revoked = x509.RevokedCertificateBuilder().serial_number(self.serial_of(name))
            builder = builder.add_revoked_certificate(revoked.revocation_date(now).build())
        key = load_pem_private_key((self._directory / "ca-key.pem").read_bytes(), None)
        fresh = self._directory / "crl.new"
        fresh.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        fresh.replace(self._directory / "crl.pem")


@pytest.fixture
def works(tmp_path):
    return Works(tmp_path)


@pytest.mark.promise(18)
def test_accept_may_refuse_by_the_certificate(works):
    def accept(request, response_headers):
        return request.tls.client_certificate.common_name != "eve"

    def hello(ws):
        ws.send(ws.identity.common_name)

    options = {"tls": works.handler(), "accept": accept}
    with securews.serve(0, hello, **options) as server:
        with works.connect(server, "bob") as bob:
            assert bob.recv(timeout=5) == "bob"
        with pytest.raises(securews.HandshakeError) as refused:
            works.connect(server, "eve")
        assert refused.value.status == 403


@pytest.mark.promise(19, 20)
def test_who_was_revoked_is_out_within_two_seconds_and_stays_out(works, measured):
    with (
        securews.serve(0, lambda ws: ws.wait_closed(), tls=works.handler()) as server,
        works.connect(server, "bob") as bob,
        works.connect(server, "eve") as eve,
    ):
        eventually(lambda: len(server.connections) == 2, "both")
        watch = Stopwatch()
        works.revoke("eve")
        server.reload_tls()
        serial = works.serial_of("eve")
        revoked = server.close_where(
            lambda ws: ws.request.tls.client_certificate.serial_number == serial, 1008
        )
        assert revoked == 1
        eve.wait_closed(5)
        seconds = watch.seconds
        assert eve.close_code == 1008
        bob.ping().wait(5)
        with pytest.raises(securews.SecureWSError):
            works.connect(server, "eve").recv(timeout=5)
        works.connect(server, "bob").close()
    assert seconds < 2
    measured(f"`close_where`: 1008 {seconds * 1000:.0f} ms after the list was written", 20)


@pytest.mark.promise(20)
def test_who_was_revoked_is_closed_by_itself_where_that_was_asked_for(works, measured):
    """Nothing is called: the list is written, and the server finds it, and who is on it."""
    intervals = {"reload_interval": 0.1, "revalidate_interval": 0.1}
    with (
        securews.serve(0, lambda ws: ws.wait_closed(), tls=works.handler(), **intervals) as server,
        works.connect(server, "bob") as bob,
        works.connect(server, "eve") as eve,
    ):
        eve.ping().wait(5)
        watch = Stopwatch()
        works.revoke("eve")
        eve.wait_closed(5)
        seconds = watch.seconds
        assert eve.close_code == 1008
        bob.ping().wait(5)
    assert seconds < 2
    measured(f"by itself, looking each 0.1 s: after {seconds * 1000:.0f} ms")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.promise(21)
def test_a_thousand_handshakes_during_a_hundred_reloads(certificates, context, measured):
    with ServerProcess(certificates.server) as server, WireClient(server.address, context) as old:
        old.upgrade()

        def connect(number):
            if number % 10 == 0:
                server.signal(signal.SIGHUP)
            with WireClient(server.address, context) as client:
                return client.ask(request_head()).status

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(connect, range(1000)))
        assert answers == [101] * 1000
        old.send(frame(TEXT, b"still here"))
        assert old.read_frame().payload == b"still here"
        assert server.log == ""
    measured("1000 handshakes while SIGHUP came 100 times: none refused, nothing in the log")


# -- row 38 ----------------------------------------------------------------------------------------

SECRET = "s3cret-token"


@pytest.mark.promise(38)
def test_what_a_peer_says_is_escaped_cut_and_holds_no_secret(caplog, certificates):
    caplog.set_level(logging.DEBUG)
    handler = securews.TLSSocketHandler(*certificates.server)
    with securews.serve(0, lambda ws: ws.wait_closed(), tls=handler) as server:

        def ask(data):
            with (
                WireClient(server.address, certificates.context()) as client,
                contextlib.suppress(OSError, EOFError),
            ):
                client.ask(data)

        with WireClient(server.address, certificates.context()) as client:
            client.upgrade(
                f"/%E2%80%A8ERROR%C2%A0{'a' * 1000}?token={SECRET}",
                headers={"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}"},
            )
            client.send(frame(TEXT, b"\xff" + SECRET.encode()))
            client.read_close()
        ask(request_head(host=f"evil{chr(0x1B)}[31m"))
        ask(request_head(headers={"Origin": "https://evil.example/" + "\x80" * 5000}))
        ask(request_head(headers={"X": "a\x1b[31m"}))
        ask(request_head("/" + "a" * (1 << 20)))
        ask(request_head(f"/?{SECRET}\0"))
        ask(f"GET /?{SECRET} HTTP/1.1\r\n X{SECRET}: a\r\n\r\n".encode())
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert not any(SECRET in line for line in lines)
    assert not any(re.search(r"[^ -~]", line) for line in lines)
    assert max(map(len, lines)) < 2000  # two fields of 200 characters, escaped
    assert "Traceback" not in caplog.text
