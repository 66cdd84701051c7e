"""What every test has: certificates of its own, a network cut off from all but loopback."""

from __future__ import annotations

import gc
import ipaddress
import socket
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from support import Certificates

import securews

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("securews", deadline=None)
hypothesis.settings.load_profile("securews")

DESCRIPTORS = Path("/proc/self/fd")
GOODBYE = 5.0
"""Seconds that threads have to end after their server or connection has."""


def pytest_report_header():
    """Which kind of the hot path is tested."""
    return f"securews.ACCELERATED: {securews.ACCELERATED}"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """One CA, a server's pair, and clients: good, of another CA, expired."""
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True, scope="session")
def only_loopback():
    """A test that wants to talk to the world fails."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect):
    def checked(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test connects to {host}; tests use loopback only")
        return connect(self, address)

    return checked


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember that a test failed: its traceback keeps alive what it had open."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """Threads and sockets of securews end with their test.

    While a server of a wider scope runs, they are its business.
    """
    threads = {t for t in threading.enumerate() if t.name.startswith("securews-")}
    sockets = _open_sockets()
    yield
    wider = any(t.name.startswith(("securews-io", "securews-client-io")) for t in threads)
    if wider or FAILED in request.node.stash:
        return
    deadline = time.monotonic() + GOODBYE
    for thread in threading.enumerate():
        if thread.name.startswith("securews-") and thread not in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} outlives its test"
    if _open_sockets() - sockets:
        gc.collect()
        left = _open_sockets() - sockets
        assert not left, f"{len(left)} sockets outlive their test"


def _open_sockets():
    """The kernel's names of this process' sockets (Linux; elsewhere nothing is checked)."""
    found = set()
    if DESCRIPTORS.exists():
        for link in DESCRIPTORS.iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:"):
                found.add(target)
    return found
