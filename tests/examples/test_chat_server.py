"""The chat over HTTPS and WSS, as curl and a script would use it."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import threading
import time
from urllib.parse import urlencode

import pytest
from support import TIMEOUT, eventually

import securews
from examples.chat.app import chat_server
from examples.chat.gate import TryLaterError
from examples.chat.room import LONGEST_TEXT
from examples.chat.sessions import COOKIE, Sessions
from examples.chat.users import Users

PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}


class Chat:
    """A running chat, and what a client of it needs."""

    def __init__(self, certificates, data):
        self.data = data
        self.users = Users(data / "users.json")
        self.server = chat_server(0, data, tls=certificates.server)
        self.certificates = certificates
        self.port = self.server.address[1]

    def request(self, method, path, *, form=None, cookie=None, headers=None):
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.certificates.context(), timeout=TIMEOUT
        )
        headers = dict(headers or {})
        if cookie is not None:
            headers["Cookie"] = f"{COOKIE}={cookie}"
        body = None
        if form is not None:
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response, response.read().decode()

    def log_in(self, name, password=None):
        form = {"name": name, "password": password or PASSWORDS[name]}
        return self.request("POST", "/login", form=form)[0]

    def cookie_of(self, name):
        return cookie_in(self.log_in(name).headers)

    def connect(self, *, cookie=None, authorization=None, **options):
        headers = {}
        if cookie is not None:
            headers["Cookie"] = f"{COOKIE}={cookie}"
        if authorization is not None:
            headers["Authorization"] = authorization
        return securews.connect(
            f"wss://localhost:{self.port}/chat",
            tls=self.certificates.ca_file,
            headers=headers,
            timeout=TIMEOUT,
            **options,
        )


def cookie_in(headers):
    """The session cookie that a response sets; "" deletes it, None is left as it was."""
    for value in headers.get_all("Set-Cookie") or []:
        if found := re.match(rf"{COOKIE}=([^;]*);", value):
            return found[1]
    return None


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def event(ws, kind):
    """The next event of this kind."""
    while True:
        found = json.loads(ws.recv(timeout=TIMEOUT))
        if found["type"] == kind:
            return found


def gate_of(chat):
    return chat.server._core.router.handlers[0]._gate


def say(ws, text, key="k1"):
    ws.send_json({"type": "say", "key": key, "text": text})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Made once: hashing takes its time."""
    path = tmp_path_factory.mktemp("chat")
    for name, password in PASSWORDS.items():
        Users(path / "users.json").set_password(name, password)
    return path


@pytest.fixture
def chat(certificates, data):
    chat = Chat(certificates, data)
    with chat.server:
        yield chat


def test_who_is_not_logged_in_is_sent_to_the_login_page(chat):
    response, _ = chat.request("GET", "/")
    assert (response.status, response.headers["Location"]) == (303, "/login")
    response, page = chat.request("GET", "/login")
    assert response.status == 200
    assert '<form method="post" action="/login">' in page


def test_a_right_password_gives_a_cookie_that_opens_the_chat_page(chat):
    response = chat.log_in("alice")
    assert (response.status, response.headers["Location"]) == (303, "/")
    attributes = response.headers["Set-Cookie"].split("; ")[1:]
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} < set(attributes)
    cookie = cookie_in(response.headers)
    response, page = chat.request("GET", "/", cookie=cookie)
    assert response.status == 200
    assert 'id="messages"' in page
    assert cookie_in(response.headers) not in (None, "", cookie)  # renewed
    assert chat.request("GET", "/login", cookie=cookie)[0].headers["Location"] == "/"


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "wrong wrong"), ("nobody", "correct horse"), ("", "")]
)
def test_a_wrong_password_is_a_readable_403_that_does_not_say_what_was_wrong(chat, name, password):
    response, page = chat.request("POST", "/login", form={"name": name, "password": password})
    assert response.status == 403
    assert "That is not the right name and password." in page
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Set-Cookie" not in response.headers


def test_what_was_typed_comes_back_as_text_and_never_as_html(chat):
    name = '"><script>alert(1)</script>'
    _, page = chat.request("POST", "/login", form={"name": name, "password": "x"})
    assert "<script>" not in page
    assert "&quot;&gt;&lt;script&gt;" in page
    _, page = chat.request("GET", "/login?%3Cscript%3E")
    assert "script" not in page


def test_from_the_fifth_failure_on_it_is_429_with_the_time_to_wait_and_no_thread_held(chat):
    statuses = [chat.log_in("alice", "wrong wrong").status for _ in range(4)]
    assert statuses == [403] * 4
    form = {"name": "alice", "password": "wrong wrong"}
    response, page = chat.request("POST", "/login", form=form)
    assert response.status == 429
    assert 25 <= int(response.headers["Retry-After"]) <= 30
    assert re.search(r"try again in (2\d|30) seconds", page)
    assert chat.log_in("alice").status == 429  # the right one has to wait, too
    with pytest.raises(securews.HandshakeError) as refused:
        chat.connect(authorization=basic("alice", PASSWORDS["alice"]))
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) <= 30
    # More of them at once than there are threads for pages, each told to wait 30 s: were one
    # thread held, the others would come too late.
    with concurrent.futures.ThreadPoolExecutor(20) as guessers:
        answers = guessers.map(lambda _: chat.log_in("alice", "wrong wrong").status, range(20))
        assert set(answers) == {429}
    assert chat.log_in("bob").status == 303


@pytest.fixture
def hashes(monkeypatch):
    """Counts hashes, and makes each of them a cheap wrong one."""
    counted = []

    def count(password, kept):
        counted.append(kept)
        return False

    monkeypatch.setattr("examples.chat.users.password_fits", count)
    return counted


def test_made_up_names_are_429_from_the_twenty_first_attempt_on_and_cost_no_hash(chat, hashes):
    answers = [chat.log_in(f"user-{number}", "wrong wrong") for number in range(22)]
    assert [answer.status for answer in answers] == [403] * 20 + [429] * 2
    response, page = chat.request("POST", "/login", form={"name": "user-22", "password": "x"})
    assert response.status == 429
    assert 30 <= int(response.headers["Retry-After"]) <= 60
    assert re.search(r"Too many attempts from your address. Please try again in \d\d sec", page)
    with pytest.raises(securews.HandshakeError) as refused:
        chat.connect(authorization=basic("user-23", "wrong wrong"))
    assert refused.value.status == 429
    assert 30 <= int(refused.value.headers["Retry-After"]) <= 60
    assert refused.value.body.startswith(b"Too many attempts from your address. Please try again")
    assert len(hashes) == 20


def test_at_another_address_a_right_password_comes_in_meanwhile(chat):
    gate = gate_of(chat)
    for _ in range(20):
        gate.address_limit.begin("192.0.2.1")
    with pytest.raises(TryLaterError):
        gate.log_in("alice", PASSWORDS["alice"], "192.0.2.1")
    assert chat.log_in("alice").status == 303


def test_two_wait_for_the_hash_that_runs_and_more_are_429_at_once(chat, monkeypatch):
    running, most, lock = 0, 0, threading.Lock()
    go_on = threading.Event()

    def hash_slowly(password, kept):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go_on.wait(TIMEOUT)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr("examples.chat.users.password_fits", hash_slowly)
    with concurrent.futures.ThreadPoolExecutor(3) as people:
        served = [people.submit(chat.log_in, "alice") for _ in range(3)]
        eventually(lambda: gate_of(chat).hashing._places._value == 0)
        form = {"name": "bob", "password": PASSWORDS["bob"]}
        for _ in range(50):
            response, page = chat.request("POST", "/login", form=form)
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert "Many people are logging in just now. Please try again in a second." in page
        go_on.set()
        assert [answer.result().status for answer in served] == [303] * 3
    assert most == 1
    assert chat.log_in("bob").status == 303  # what was not looked at did not count


def test_what_an_address_may_still_try_does_not_tell_that_a_guess_was_right(chat, monkeypatch):
    """A right password among many at once is answered like a wrong one, and counts like one."""
    gate = gate_of(chat)
    monkeypatch.setattr("examples.chat.users.password_fits", lambda *_: True)
    monkeypatch.setattr(gate.throttle, "succeeded", lambda *_: 30)
    for number in range(21):
        with pytest.raises(TryLaterError) as later:
            gate.log_in("alice", PASSWORDS["alice"], "192.0.2.1")
        assert ("your address" in str(later.value)) == (number == 20)


def test_a_session_that_stands_is_not_locked_out_by_failures(chat):
    cookie = chat.cookie_of("alice")
    for _ in range(5):
        chat.log_in("alice", "wrong wrong")
    with chat.connect(cookie=cookie) as ws:
        assert event(ws, "welcome")["you"] == "alice"


def test_a_websocket_without_credentials_is_a_401_that_says_how(chat):
    for authorization in (None, "Bearer nonsense", "Bearer ", "Basic !", "Digest x", "Basic"):
        with pytest.raises(securews.HandshakeError) as refused:
            chat.connect(authorization=authorization)
        assert refused.value.status == 401
        assert refused.value.headers.get_all("WWW-Authenticate") == [
            'Bearer realm="chat"',
            'Basic realm="chat", charset="UTF-8"',
        ]


def test_a_browser_is_not_asked_for_basic_for_it_would_open_a_dialog(chat):
    with pytest.raises(securews.HandshakeError) as refused:
        chat.connect(origin=f"https://localhost:{chat.port}")
    assert refused.value.headers.get_all("WWW-Authenticate") == ['Bearer realm="chat"']


@pytest.mark.promise(34)
def test_a_page_of_another_origin_gets_neither_websocket_nor_logout(chat):
    cookie = chat.cookie_of("alice")
    with pytest.raises(securews.HandshakeError) as refused:
        chat.connect(cookie=cookie, origin="https://evil.example")
    assert refused.value.status == 403
    headers = {"Origin": "https://evil.example"}
    assert chat.request("POST", "/logout", form={}, cookie=cookie, headers=headers)[0].status == 403
    assert json.loads(chat.request("GET", "/me", cookie=cookie)[1]) == {"name": "alice"}


def test_the_cookie_is_renewed_in_the_answer_to_the_websocket(chat):
    cookie = chat.cookie_of("alice")
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }
    response, _ = chat.request("GET", "/chat", cookie=cookie, headers=headers)
    assert response.status == 101
    renewed = cookie_in(response.headers)
    assert renewed not in (None, cookie)
    with chat.connect(cookie=renewed) as ws:
        assert event(ws, "welcome")["you"] == "alice"


def test_cookie_password_and_token_each_say_who_speaks(chat):
    sessions = Sessions(chat.data / "session-key", chat.users)
    token = sessions.seal(sessions.begin("alice"), "token")
    ways = [
        {"cookie": chat.cookie_of("alice")},
        {"authorization": basic("Alice", PASSWORDS["alice"])},
        {"authorization": f"Bearer {token}"},
    ]
    for way in ways:
        with chat.connect(**way) as ws:
            assert event(ws, "welcome")["you"] == "alice"
            assert {ws.identity.name for ws in chat.server.connections} == {"alice"}
        eventually(lambda: not chat.server.connections)


def test_two_users_hear_each_other_and_see_who_comes_and_goes(chat):
    with chat.connect(cookie=chat.cookie_of("alice")) as alice:
        assert event(alice, "welcome")["online"] == ["alice"]
        with chat.connect(cookie=chat.cookie_of("bob")) as bob:
            assert event(bob, "welcome")["online"] == ["alice", "bob"]
            assert event(alice, "joined")["name"] in ("alice", "bob")
            say(bob, "hello <b>all</b>  ")
            heard = [event(alice, "said"), event(bob, "said")]
            assert heard[0] == heard[1]
            assert (heard[0]["name"], heard[0]["text"]) == ("bob", "hello <b>all</b>")
        assert event(alice, "left")["name"] == "bob"
        say(alice, "alone again", key="k2")
        assert event(alice, "said")["text"] == "alone again"


def test_who_has_two_connections_leaves_with_the_last(chat):
    cookie = chat.cookie_of("bob")
    with chat.connect(cookie=chat.cookie_of("alice")) as alice:
        with chat.connect(cookie=cookie) as second:
            with chat.connect(cookie=cookie) as first:
                event(first, "welcome")
            event(second, "welcome")
            say(second, "still here")
            kinds = []
            while "said" not in kinds:
                kinds.append(json.loads(alice.recv(timeout=TIMEOUT))["type"])
            assert "left" not in kinds
        assert event(alice, "left")["name"] == "bob"


def test_a_newcomer_is_told_what_was_said_before(chat):
    with chat.connect(cookie=chat.cookie_of("alice")) as alice:
        for number in range(3):
            say(alice, f"message {number}", key=f"k{number}")
            event(alice, "said")
    with chat.connect(cookie=chat.cookie_of("bob")) as bob:
        history = event(bob, "welcome")["history"]
    assert [said["text"] for said in history] == ["message 0", "message 1", "message 2"]
    assert len({said["id"] for said in history}) == 3


def test_a_message_sent_again_after_a_lost_connection_is_heard_once(chat):
    with chat.connect(cookie=chat.cookie_of("bob")) as bob:
        event(bob, "welcome")
        for _ in range(2):
            with chat.connect(cookie=chat.cookie_of("alice")) as alice:
                event(alice, "welcome")
                say(alice, "once", key="same")
                assert event(alice, "said")["text"] == "once"
        say(bob, "end")
        heard = [event(bob, "said")["text"] for _ in range(2)]
        assert heard == ["once", "end"]


@pytest.mark.promise(20)
def test_logging_out_closes_all_connections_of_that_user_and_of_nobody_else(chat):
    cookie = chat.cookie_of("alice")
    with (
        chat.connect(cookie=cookie) as first,
        chat.connect(authorization=basic("alice", PASSWORDS["alice"])) as second,
        chat.connect(cookie=chat.cookie_of("bob")) as bob,
    ):
        for ws in (first, second, bob):
            event(ws, "welcome")
        response, _ = chat.request("POST", "/logout", form={}, cookie=cookie)
        assert (response.status, response.headers["Location"]) == (303, "/login?out")
        assert cookie_in(response.headers) == ""
        for ws in (first, second):
            with pytest.raises(securews.ConnectionClosedError) as ended:
                while True:
                    ws.recv(timeout=TIMEOUT)
            assert (ended.value.code, ended.value.reason) == (1008, "logged out")
        say(bob, "still here")
        assert event(bob, "said")["text"] == "still here"
    with pytest.raises(securews.HandshakeError) as refused:
        chat.connect(cookie=cookie)
    assert refused.value.status == 401
    assert json.loads(chat.request("GET", "/me", cookie=cookie)[1]) == {"name": None}


def test_who_logs_out_while_a_connection_opens_finds_it_closed(chat, monkeypatch):
    cookie = chat.cookie_of("alice")
    gate = gate_of(chat)
    admit = gate.admit

    def admit_and_log_out(request, response_headers):
        session = admit(request, response_headers)
        chat.users.end_sessions("alice")
        return session

    monkeypatch.setattr(gate, "admit", admit_and_log_out)
    with chat.connect(cookie=cookie) as ws:
        with pytest.raises(securews.ConnectionClosedError) as ended:
            ws.recv(timeout=TIMEOUT)
        assert (ended.value.code, ended.value.reason) == (1008, "logged out")


def ended(ws):
    """How the server ends this connection."""
    with pytest.raises(securews.ConnectionClosedError) as error:
        while True:
            ws.recv(timeout=TIMEOUT)
    return error.value.code, error.value.reason


@pytest.mark.promise(20)
def test_a_new_password_closes_the_connections_of_its_user_within_two_seconds(chat):
    """As `add-user` gives it beside the server, of which nobody tells the server."""
    sessions = Sessions(chat.data / "session-key", chat.users)
    token = sessions.seal(sessions.begin("alice"), "token")
    with (
        chat.connect(cookie=chat.cookie_of("alice")) as first,
        chat.connect(authorization=basic("alice", PASSWORDS["alice"])) as second,
        chat.connect(authorization=f"Bearer {token}") as third,
        chat.connect(cookie=chat.cookie_of("bob")) as bob,
    ):
        for ws in (first, second, third, bob):
            event(ws, "welcome")
        Users(chat.data / "users.json").set_password("alice", PASSWORDS["alice"])
        began = time.monotonic()
        for ws in (first, second, third):
            assert ended(ws) == (1008, "logged out")
        assert time.monotonic() - began < 2
        say(bob, "still here")
        assert event(bob, "said")["text"] == "still here"


def test_who_is_no_user_any_more_is_out(chat):
    Users(chat.data / "users.json").set_password("carol", "correct horse")
    with chat.connect(authorization=basic("carol", "correct horse")) as ws:
        event(ws, "welcome")
        with chat.users._change() as users:
            del users["carol"]
        assert ended(ws) == (1008, "logged out")


def test_a_password_that_was_changed_while_it_was_checked_begins_no_session(chat, monkeypatch):
    def fits_an_old_one(password, kept):
        chat.users.set_password("alice", PASSWORDS["alice"])
        return True

    monkeypatch.setattr("examples.chat.users.password_fits", fits_an_old_one)
    with chat.connect(authorization=basic("alice", "known to a thief")) as ws:
        assert ended(ws) == (1008, "logged out")
    cookie = cookie_in(chat.log_in("alice", "known to a thief").headers)
    assert json.loads(chat.request("GET", "/me", cookie=cookie)[1]) == {"name": None}


def test_while_the_users_cannot_be_read_nobody_is_closed_and_the_log_says_so_once(chat, caplog):
    cookie = chat.cookie_of("alice")
    path = chat.data / "users.json"
    with chat.connect(cookie=cookie) as alice, chat.connect(cookie=chat.cookie_of("bob")) as bob:
        for ws in (alice, bob):
            event(ws, "welcome")
        path.chmod(0o644)
        os.utime(path)
        told = "whose session has ended is not known"
        eventually(lambda: told in caplog.text)
        say(alice, "still here")
        assert event(bob, "said")["text"] == "still here"
        path.chmod(0o600)
        chat.users.set_password("alice", PASSWORDS["alice"])
        assert ended(alice) == (1008, "logged out")
    assert caplog.text.count(told) == 1
    assert f"chmod 600 {path}" in caplog.text


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"{}", "this chat speaks JSON in text messages"),
        ("{", "that is not JSON"),
        ("[" * 20_000, "that is not JSON"),
        ("[]", 'the one message to send is {"type": "say"}'),
        ('{"type": "shout"}', 'the one message to send is {"type": "say"}'),
        ('{"type": "say", "text": "x"}', '"key" is 1 to 64 letters and digits'),
        ('{"type": "say", "key": "<", "text": "x"}', '"key" is 1 to 64 letters and digits'),
        ('{"type": "say", "key": "k", "text": 5}', f'"text" is 1 to {LONGEST_TEXT} characters'),
        ('{"type": "say", "key": "k", "text": ""}', f'"text" is 1 to {LONGEST_TEXT} characters'),
        ('{"type": "say", "key": "k", "text": " \\u0007\\n"}', '"text" is empty'),
        (
            json.dumps({"type": "say", "key": "k", "text": "x" * (LONGEST_TEXT + 1)}),
            f'"text" is 1 to {LONGEST_TEXT} characters',
        ),
    ],
)
def test_who_does_not_speak_the_language_is_closed_with_what_was_wrong(
    chat, caplog, message, reason
):
    with chat.connect(cookie=chat.cookie_of("alice")) as ws:
        event(ws, "welcome")
        ws.send(message)
        with pytest.raises(securews.ConnectionClosedError) as ended:
            while True:
                ws.recv(timeout=TIMEOUT)
    assert (ended.value.code, ended.value.reason) == (1008, reason)
    assert not [record for record in caplog.records if record.exc_info]


def test_the_longest_message_of_the_widest_characters_is_heard(chat):
    with chat.connect(cookie=chat.cookie_of("alice")) as ws:
        event(ws, "welcome")
        text = "\N{GRINNING FACE}" * LONGEST_TEXT
        ws.send(json.dumps({"type": "say", "key": "k", "text": text}))  # each as \uXXXX\uXXXX
        assert event(ws, "said")["text"] == text


def test_control_characters_and_half_characters_reach_nobody(chat):
    with chat.connect(cookie=chat.cookie_of("alice")) as ws:
        event(ws, "welcome")
        ws.send('{"type": "say", "key": "k", "text": "a\\u001b[31mb\\ud800c\\nd\\u0085"}')
        assert event(ws, "said")["text"] == "a[31mb\N{REPLACEMENT CHARACTER}c\nd"


def test_a_message_larger_than_any_of_the_chat_is_too_big(chat):
    with chat.connect(cookie=chat.cookie_of("alice")) as ws:
        event(ws, "welcome")
        with pytest.raises(securews.ConnectionClosed) as ended:
            ws.send("x" * 40_000)
            while True:
                ws.recv(timeout=TIMEOUT)
        assert ended.value.code == 1009


def test_who_talks_too_fast_is_told_to_wait_and_then_closed(chat):
    with chat.connect(cookie=chat.cookie_of("alice"), outbox_bytes=1 << 20) as ws:
        event(ws, "welcome")
        for number in range(21):
            say(ws, "again", key=f"k{number}")
        wait = event(ws, "wait")
        assert wait["key"] == "k20"
        assert 0 < wait["seconds"] <= 0.2
        with pytest.raises(securews.ConnectionClosedError) as ended:
            for number in range(200):
                say(ws, "again and again", key=f"x{number}")
            while True:
                ws.recv(timeout=TIMEOUT)
        assert (ended.value.code, ended.value.reason) == (1008, "too many messages")


@pytest.mark.promise(38)
def test_no_password_cookie_or_token_is_logged(chat, caplog):
    caplog.set_level(0)
    cookie = chat.cookie_of("alice")
    chat.log_in("alice", "wrong wrong")
    with chat.connect(cookie=cookie) as ws:
        event(ws, "welcome")
    with pytest.raises(securews.HandshakeError):
        chat.connect(authorization=basic("alice", "wrong wrong"))
    secrets = (PASSWORDS["alice"], "wrong wrong", cookie, basic("alice", "wrong wrong")[6:])
    assert caplog.records
    assert not [s for s in secrets if s in caplog.text]


@pytest.mark.parametrize("path", ["/chat.css", "/chat.js", "/icon.svg", "/favicon.ico"])
def test_what_the_pages_load_is_here(chat, path):
    response, content = chat.request("GET", path)
    assert response.status == 200
    assert content
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_pages_name_nothing_outside_and_nothing_inline(chat):
    _, login = chat.request("GET", "/login")
    response, page = chat.request("GET", "/", cookie=chat.cookie_of("alice"))
    for html in (login, page):
        loaded = re.findall(r'(?:src|href|action)="([^"]*)"', html)
        assert loaded
        assert all(chat.request("HEAD", path)[0].status != 404 for path in loaded)
        assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", html)
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
