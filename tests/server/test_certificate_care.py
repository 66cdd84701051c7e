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
from types import SimpleNamespace

import pytest
import trustme
from support import Happened, thread_kind, tracebacks_in

import securews
from securews.common.options import ServerOptions
from securews.server import certificate_care
from securews.server.certificate_care import CertificateCare
from securews.server.core import Core
from securews.transport.renewal import AHEAD


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


@pytest.mark.parametrize(("days", "words"), [(20, "in 19 days"), (0.5, "in 12 h"), (40, None)])
def test_a_certificate_that_expires_soon_is_a_warning(authority, tmp_path, tls_log, days, words):
    with securews.serve(0, echo, tls=write(authority, tmp_path, days)) as server:
        served_certificate(authority, server.address[1])  # the loop has had its first turn
        if words is None:
            assert not tls_log.texts
        else:
            tls_log.wait_for("expires on")
            tls_log.wait_for(words)


class Handler(securews.PlainSocketHandler):
    """With certificates that a test makes up."""

    def __init__(self, *validities):
        super().__init__()
        self.lives = validities

    @property
    def validities(self):
        return self.lives


class OnlyExpires(securews.PlainSocketHandler):
    def __init__(self, expires):
        super().__init__()
        self._expires = expires

    @property
    def expires(self):
        return self._expires


def life(days, left):
    now = dt.datetime.now(dt.UTC)
    return now - dt.timedelta(days=days - left), now + dt.timedelta(days=left)


def care_for(handler):
    """CertificateCare with a loop that a test turns by hand."""
    return CertificateCare(Core(None, handler, ServerOptions()))


@pytest.mark.parametrize(
    ("days", "left", "warned"),
    [
        (6, 2.1, 0),
        (6, 1.9, 1),
        (6, 0.5, 1),
        (1, 0.34, 0),
        (1, 0.32, 1),
        (90, 31, 0),
        (90, 29, 1),
        (3650, 31, 0),
        (3650, 29, 1),
    ],
)
def test_the_warning_comes_when_a_third_of_the_lifetime_is_left(tls_log, days, left, warned):
    care_for(Handler(life(days, left)))._warn_of_expiry()
    assert len(tls_log.texts) == warned


def test_it_comes_once_and_again_when_a_tenth_is_left(tls_log, monkeypatch):
    begin, end = life(6, 6)
    care = care_for(Handler((begin, end), life(90, 60)))
    for left, warnings in ((2.1, 0), (1.9, 1), (1.0, 1), (0.61, 1), (0.59, 2), (0.1, 2)):
        moment = end - dt.timedelta(days=left)
        clock = SimpleNamespace(now=lambda _, moment=moment: moment)
        monkeypatch.setattr(certificate_care, "dt", SimpleNamespace(datetime=clock, UTC=dt.UTC))
        care._warn_of_expiry()
        care._warn_of_expiry()
        assert len(tls_log.texts) == warnings


def test_each_certificate_is_warned_of(tls_log):
    # One that is renewed all the time must not hide another one that is forgotten.
    care_for(Handler(life(6, 1.9), life(90, 20), life(90, 80)))._warn_of_expiry()
    assert ["in 46 h" in text or "in 19 days" in text for text in tls_log.texts] == [True, True]


@pytest.mark.parametrize(("left", "warned"), [(31, 0), (29, 1), (8, 1), (0.2, 1)])
def test_a_handler_that_says_only_when_it_expires_is_warned_of_too(tls_log, left, warned):
    care_for(OnlyExpires(life(0, left)[1]))._warn_of_expiry()
    assert len(tls_log.texts) == warned


class Renewing(securews.PlainSocketHandler):
    """Notes on which thread it is asked to renew; fails if it is told to."""

    def __init__(self, error=None):
        super().__init__()
        self.asked = Happened()
        self.error = error

    def renew_if_due(self):
        self.asked(thread_kind())
        if self.error is not None:
            raise self.error


@pytest.mark.promise(13)
@pytest.mark.parametrize("error", [None, ZeroDivisionError("a bug"), SystemExit(1)])
def test_renewal_is_asked_for_again_and_again_on_a_thread(monkeypatch, caplog, error):
    monkeypatch.setattr(certificate_care, "INTERVAL", 0.01)
    handler = Renewing(error)
    with securews.serve(0, echo, tls=handler) as server:
        assert set(handler.asked.wait(3)) == {"securews-thread"}
        with securews.connect(server.url) as ws:
            ws.send("still here")
            assert ws.recv(5) == "still here"
    assert (error is None) == (not tracebacks_in(caplog))


@pytest.mark.promise(13)
def test_the_server_asks_twice_before_an_hour_has_passed():
    assert 2 * certificate_care.INTERVAL <= AHEAD


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
