"""`revalidate_interval`: the certificates of open connections are judged again."""

from __future__ import annotations

import threading
import time

import pytest
from support import TIMEOUT, Happened, thread_kind, tracebacks_in

import securews


class Judge:
    """Lets everybody in, until it is told not to; notes which threads it was asked on."""

    def __init__(self):
        self.refused: set[str] = set()
        self.threads, self.waits = Happened(), Happened()
        self.is_slow, self.go_on = threading.Event(), threading.Event()

    def __call__(self, certificate):
        self.threads(thread_kind())
        if self.is_slow.is_set():
            self.waits()
            self.go_on.wait(TIMEOUT)
        return certificate.common_name not in self.refused


@pytest.fixture
def judge():
    judge = Judge()
    yield judge
    judge.go_on.set()  # also after a test that failed


@pytest.fixture
def mutual(certificates, judge):
    return securews.MutualTLSSocketHandler(
        *certificates.server, client_ca=certificates.ca_file, authorize=judge
    )


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


def connect(server, certificates):
    return securews.connect(server.url, tls=certificates.ca_file, client_cert=certificates.client)


@pytest.mark.promise(20)
def test_who_is_refused_now_is_closed_with_1008(certificates, mutual, judge):
    with (
        securews.serve(0, Echo(), tls=mutual, revalidate_interval=0.02) as server,
        connect(server, certificates) as ws,
    ):
        judge.threads.wait(5)
        ws.send("still in")
        assert ws.recv(timeout=TIMEOUT) == "still in"
        judge.refused.add("pump-1")
        ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1008
        assert ws.close_reason == "the certificate is not accepted any more"


def test_a_judge_that_waits_holds_up_nobody_and_is_not_asked_twice(certificates, mutual, judge):
    with (
        securews.serve(0, Echo(), tls=mutual, revalidate_interval=0.02) as server,
        connect(server, certificates) as ws,
    ):
        judge.threads.wait(3)
        judge.is_slow.set()
        judge.waits.wait()
        asked = len(judge.threads.items)
        began = time.monotonic()
        while time.monotonic() < began + 0.2:  # ten intervals
            ws.send("tick")
            assert ws.recv(timeout=TIMEOUT) == "tick"
        assert len(judge.threads.items) == asked
        judge.is_slow.clear()
        judge.go_on.set()
        judge.threads.wait(asked + 2)
    kinds = judge.threads.items
    assert kinds[0] == "securews-handshake"
    assert set(kinds[1:]) == {"securews-thread"}


def test_a_handler_that_raises_closes_and_is_logged(certificates, caplog):
    class Broken(securews.MutualTLSSocketHandler):
        def still_admitted(self, info):
            raise LookupError("the database is down")

    tls = Broken(*certificates.server, client_ca=certificates.ca_file)
    with (
        securews.serve(0, Echo(), tls=tls, revalidate_interval=0.02) as server,
        connect(server, certificates) as ws,
    ):
        ws.wait_closed(TIMEOUT)
        assert ws.close_code == 1008
    assert "still_admitted raised" in tracebacks_in(caplog)[0]


@pytest.mark.parametrize("tls", ["pair", False])
def test_where_no_certificate_of_a_client_is_judged_it_is_an_error(certificates, tls):
    with pytest.raises(securews.ConfigurationError, match="use MutualTLSSocketHandler"):
        securews.serve(0, Echo(), tls=certificates.server if tls else False, revalidate_interval=60)


class Wrapping(securews.WrappingSocketHandler):
    def accept(self, sock, address):
        return self.inner.accept(sock, address)


def test_a_handler_that_wraps_another_one_has_its_rules(certificates, mutual):
    judging = Wrapping(Wrapping(mutual))
    with securews.serve(0, Echo(), tls=judging, revalidate_interval=60):
        pass
    silent = Wrapping(Wrapping(securews.TLSSocketHandler(*certificates.server)))
    with pytest.raises(securews.ConfigurationError, match="TLSSocketHandler has no rules for them"):
        securews.serve(0, Echo(), tls=silent, revalidate_interval=60)
