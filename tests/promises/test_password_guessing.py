"""Row 75: passwords guessed under many names, and what connected users notice of it."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from peers import PeerProcess, login, p50
from server_process import ServerProgram, p99
from wire import WireClient, client_context

from examples.chat.sessions import Sessions
from examples.chat.users import Users

PASSWORD = "correct horse"
NAMES = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat")
    Users(path / "users.json").set_password("alice", PASSWORD)
    return path


@pytest.fixture
def token(data):
    sessions = Sessions(data / "session-key", Users(data / "users.json"))
    return sessions.seal(sessions.begin("alice"), "token")


def tries_to_log_in(server, ca_file):
    """How often Alice tries, at the times that she is told, until she is in."""
    tries = 0
    while True:
        tries += 1
        with WireClient(server.address, client_context(ca_file)) as client:
            answer = client.ask(login("alice", PASSWORD))
        if answer.status == 303:
            return tries
        assert answer.status == 429
        time.sleep(int(answer.headers["retry-after"]))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(75)
@pytest.mark.parametrize("addresses", [1, 50])
def test_a_thousand_names_are_guessed_at(certificates, measured, data, token, addresses):
    """From one address; and from so many, each of which may try 20, that one hashes all the time."""
    bearer = {"Authorization": f"Bearer {token}"}
    with ServerProgram("Chat", tls=certificates.server, data=str(data)) as server:
        common = {"address": server.address, "ca_file": certificates.ca_file}
        with (
            PeerProcess("probe_by_pings", path="/chat", headers=bearer, **common) as users,
            PeerProcess("guess", names=NAMES, guessers=8, addresses=addresses, **common) as guess,
        ):
            assert users.read() == "ready"
            assert guess.read() == "ready"
            users.go()
            time.sleep(3)
            guess.go()
            tries = tries_to_log_in(server, certificates.ca_file)
            begin, end, answers, shortest = guess.read()
            users.go()
            trips = users.read()
        assert server.alive
    idle = [seconds for when, seconds in trips if when + seconds < begin]
    busy = [seconds for when, seconds in trips if when + seconds > begin and when < end]
    usual, median = p50(idle), p50(busy)
    statuses = Counter(answers)
    figures = (
        f"from {addresses} address{'es' * (addresses > 1)}: {statuses['403']} of {NAMES} looked at "
        f"in {end - begin:.0f} s, {statuses['429']} answered with 429; round trips p50 "
        f"{median * 1e3:.2f} ms (idle {usual * 1e3:.2f} ms), p99 {p99(busy) * 1e3:.0f} ms; "
        f"a right password from elsewhere: let in at try {tries}"
    )
    print(figures)
    minutes = (end - begin) / 60
    assert statuses["403"] + statuses["429"] == NAMES, figures
    assert statuses["403"] <= addresses * (20 + minutes), figures
    assert shortest >= 1, figures
    assert median < 5 * usual, figures
    measured(figures)
