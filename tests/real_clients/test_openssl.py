"""`openssl s_client`: which TLS is spoken, and that it keeps being spoken.

In its interactive mode a line "R" asks for a renegotiation, and "K" or "k" updates the keys.
"""

import os
import re
import selectors
import subprocess
import time
from contextlib import contextmanager

import pytest
from wire import CONTINUATION, PING, TEXT, WireClient, frame, request_head


def s_client_command(server, certificates, *arguments):
    return [
        *("openssl", "s_client", "-connect", f"localhost:{server.port}"),
        *("-servername", "localhost", "-verify_hostname", "localhost"),
        *("-CAfile", certificates.ca_file, "-verify_return_error", *arguments),
    ]


@pytest.fixture
def handshake(echo, certificates):
    """Shake hands and leave; the exit code, and what openssl says of it."""

    def run(*arguments):
        done = subprocess.run(
            s_client_command(echo, certificates, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def alive(echo, certificates):
    """Whether another client is served as before."""

    def check():
        with WireClient(("127.0.0.1", echo.port), certificates.context()) as client:
            client.upgrade()
            client.send_frame(TEXT, b"alive")
            return client.read_frame() == (0x81, b"alive")

    return check


class Session:
    """A running `openssl s_client` whose input is typed, and whose output is waited for."""

    def __init__(self, process):
        self.process = process
        self.output = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(process.stdout, selectors.EVENT_READ)
        os.set_blocking(process.stdout.fileno(), False)

    def type(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait_for(self, pattern):
        """Everything up to the match, which goes; AssertionError if it does not come."""
        deadline = time.monotonic() + 20
        while (match := re.search(pattern, self.output, re.DOTALL)) is None:
            left = deadline - time.monotonic()
            ready = left > 0 and self._selector.select(left)
            chunk = self.process.stdout.read() if ready else None
            assert chunk, f"no {pattern!r} in {self.output[-2000:]!r}"
            self.output += chunk
        before, self.output = self.output[: match.end()], self.output[match.end() :]
        return before

    def close(self):
        self._selector.close()


@contextmanager
def session(server, certificates, *arguments):
    with subprocess.Popen(
        s_client_command(server, certificates, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        typed = Session(process)
        try:
            typed.wait_for(rb"\n---\n.*?Verify return code: 0 \(ok\).*?\n---\n")
            yield typed
        finally:
            process.kill()
            typed.close()


@pytest.mark.parametrize(("flag", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_tls_1_2_and_1_3_are_spoken_with_a_good_certificate(handshake, flag, version):
    code, text = handshake(flag)
    assert code == 0
    assert f"New, {version}" in text
    assert "Verify return code: 0 (ok)" in text


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_older_versions_are_refused_with_an_alert(handshake, alive, flag):
    # At security level 0, or openssl itself would refuse.
    code, text = handshake(flag, "-cipher", "DEFAULT:@SECLEVEL=0")
    assert code != 0
    assert "alert protocol version" in text
    assert alive()


@pytest.mark.parametrize(
    "cipher", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-SHA"]
)
def test_suites_without_forward_secrecy_or_aead_are_refused(handshake, cipher):
    code, text = handshake("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert code != 0
    assert "alert handshake failure" in text


def test_alpn_is_http_1_1_and_nothing_else(handshake):
    code, text = handshake("-alpn", "h2,http/1.1")
    assert code == 0
    assert "ALPN protocol: http/1.1" in text
    code, text = handshake("-alpn", "h2")
    assert code != 0
    assert "alert no application protocol" in text


def test_tls_compression_is_off(handshake):
    code, text = handshake("-tls1_2", "-comp")
    assert code == 0
    assert "Compression: NONE" in text


def test_a_renegotiation_is_refused(echo, certificates, alive):
    with session(echo, certificates, "-tls1_2") as typed:
        typed.type(b"R\n")
        typed.wait_for(rb"RENEGOTIATING.*no renegotiation")
        typed.process.wait(10)
    assert alive()


@pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["both sides", "its own side"])
def test_keys_are_updated_while_the_server_streams(run, certificates, command):
    with (
        run("serve", "handlers:stream") as server,
        session(server, certificates, "-tls1_3") as typed,
    ):
        typed.type(request_head())
        typed.wait_for(rb"101 Switching Protocols.*?\r\n\r\n")
        first = 0
        for _ in range(5):
            typed.type(command)
            before = typed.wait_for(rb"KEYUPDATE\n")
            # The stream goes on, and loses nothing: every number follows its predecessor.
            last = first + 200
            text = typed.wait_for(rb"number %d\n" % last)
            numbers = [int(n) for n in re.findall(rb"number (\d+)\n", before + text)]
            assert numbers == list(range(first, last + 1))
            first = last + 1


def test_keys_are_updated_in_the_middle_of_a_message(echo, certificates):
    with session(echo, certificates, "-tls1_3") as typed:
        typed.type(request_head())
        typed.wait_for(rb"101 Switching Protocols.*?\r\n\r\n")
        for _ in range(3):
            # The pong shows that the server has read the first part.
            typed.type(frame(TEXT, b"hello ", fin=False) + frame(PING, b"so far"))
            typed.wait_for(rb"so far")
            typed.type(b"K\n")
            typed.wait_for(rb"KEYUPDATE\n")
            typed.type(frame(CONTINUATION, b"world"))
            typed.wait_for(rb"hello world")
