"""A running server's certificates: reload, file watch, and a warning before they expire."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme

import securews


@pytest.fixture
def authority():
    return trustme.CA()


def write(authority, folder, days=365):
    """A fresh certificate in place of the one that was there; its serial number."""
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    blob = authority.issue_cert("localhost", not_after=expires)
    key, cert = folder / "key.pem", folder / "cert.pem"
    chain = b"".join(part.bytes() for part in blob.cert_chain_pems)
    for path, text in ((key, blob.private_key_pem.bytes()), (cert, chain)):
        fresh = path.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_bytes(text)
        fresh.replace(path)
    return str(cert), str(key)


def served_certificate(authority, port):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True)


def echo(ws):
    for message in ws:
        ws.send(message)


class Records(logging.Handler):
    """Log records, to be waited for."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record):
        with self._changed:
            self.texts.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, words, times=1):
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(words in text for text in self.texts) >= times, 10
            ), f"{words!r} is not in {self.texts}"


@pytest.fixture
def tls_log():
    records, log = Records(), logging.getLogger("securews.tls")
    level = log.level
    log.addHandler(records)
    log.setLevel(logging.INFO)
    yield records
    log.removeHandler(records)
    log.setLevel(level)


@pytest.mark.promise(21)
def test_reload_tls_serves_the_new_certificate_and_leaves_open_connections(authority, tmp_path):
    with securews.serve(0, echo, tls=write(authority, tmp_path)) as server:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with securews.connect(server.url, tls=context) as ws:
            before = served_certificate(authority, server.address[1])
            write(authority, tmp_path)
            assert served_certificate(authority, server.address[1]) == before
            server.reload_tls()
            assert served_certificate(authority, server.address[1]) != before
            ws.send("still here")
            assert ws.recv(5) == "still here"


@pytest.mark.promise(21)
def test_a_reload_that_fails_keeps_the_old_certificate_and_says_so(authority, tmp_path):
    with securews.serve(0, echo, tls=write(authority, tmp_path)) as server:
        before = served_certificate(authority, server.address[1])
        (tmp_path / "cert.pem").write_text("nonsense")
        with pytest.raises(securews.ConfigurationError, match="the old certificate stays"):
            server.reload_tls()
        assert served_certificate(authority, server.address[1]) == before


@pytest.mark.promise(21)
def test_changed_files_are_loaded_by_themselves_where_reload_interval_asks_for_it(
    authority, tmp_path, tls_log
):
    files = write(authority, tmp_path)
    with securews.serve(0, echo, tls=files, reload_interval=0.02) as server:
        before = served_certificate(authority, server.address[1])
        write(authority, tmp_path)
        deadline = time.monotonic() + 10
        while served_certificate(authority, server.address[1]) == before:
            assert time.monotonic() < deadline
        tls_log.wait_for("were loaded")
        (tmp_path / "key.pem").write_text("nonsense")
        tls_log.wait_for("holds no private key")
        write(authority, tmp_path)
        tls_log.wait_for("were loaded", times=2)
        assert served_certificate(authority, server.address[1]) != before
        faults = [text for text in tls_log.texts if "holds no private key" in text]
        assert len(faults) == 1  # however often it was looked at meanwhile


@pytest.mark.parametrize(("days", "words"), [(10, "in 9 days"), (0.5, "in 12 h"), (40, None)])
def test_a_certificate_that_expires_soon_is_a_warning(authority, tmp_path, tls_log, days, words):
    with securews.serve(0, echo, tls=write(authority, tmp_path, days)) as server:
        served_certificate(authority, server.address[1])  # the loop has had its first turn
        if words is None:
            assert not tls_log.texts
        else:
            tls_log.wait_for("expires on")
            tls_log.wait_for(words)


def test_a_renewed_certificate_is_judged_at_once(authority, tmp_path, tls_log):
    with securews.serve(0, echo, tls=write(authority, tmp_path), reload_interval=0.02):
        write(authority, tmp_path, days=0.5)
        tls_log.wait_for("in 12 h")


PROGRAM = """
import logging, sys
import securews
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
server = securews.serve(0, lambda ws: None, tls=(sys.argv[1], sys.argv[2]))
print(server.url, flush=True)
server.serve_forever()
print("ended", flush=True)
"""


def test_sighup_loads_the_certificate_files(authority, tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, *write(authority, tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        assert program.stdout is not None
        port = int(program.stdout.readline().rstrip("/\n").rpartition(":")[2])
        served_certificate(authority, port)  # it runs, so it minds signals
        write(authority, tmp_path)
        program.send_signal(signal.SIGHUP)
        assert "were loaded" in program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        assert "stopping" in program.stdout.readline()
        assert program.stdout.readline() == "ended\n"
        assert program.wait(10) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
