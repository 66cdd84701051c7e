import io
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from support import TIMEOUT, eventually

import securews
import securews.testing
from examples import broadcast, chat_client, echo, mutual_tls, threaded
from examples.chat.__main__ import DEMO_USERS
from examples.chat.__main__ import main as chat_command
from examples.chat.app import chat_server
from examples.chat.users import Users

ROOT = Path(__file__).parents[2]


def test_echo_sends_everything_back():
    with securews.testing.server(echo.echo) as server, server.connect() as ws:
        for message in ("text", b"\x00binary"):
            ws.send(message)
            assert ws.recv(timeout=TIMEOUT) == message


def test_echo_is_short_enough_to_be_the_first_example():
    assert len((ROOT / "examples" / "echo.py").read_text().splitlines()) < 15


def test_a_line_is_broadcast_to_all():
    handler = securews.EventWebSocketHandler()
    with (
        securews.testing.server(handler) as server,
        server.connect() as one,
        server.connect() as two,
    ):
        eventually(lambda: len(server.connections) == 2)
        broadcast.tell_all(server, io.StringIO("first\nsecond\n"))
        for ws in (one, two):
            assert [ws.recv(timeout=TIMEOUT) for _ in range(2)] == ["first", "second"]


def test_known_devices_report_and_another_one_of_the_same_ca_is_refused(tmp_path, capsys):
    from securews.certificates.dev_certificates import ensure_certificates

    ensure_certificates(tmp_path, clients=["pump-1", "pump-9"])
    tls = mutual_tls.only_pumps(tmp_path)
    with securews.serve(0, mutual_tls.report, tls=tls) as server:

        def connect(name):
            pair = (tmp_path / f"client-{name}.pem", tmp_path / f"client-{name}-key.pem")
            return securews.connect(
                server.url, tls=tmp_path / "ca.pem", client_cert=pair, timeout=TIMEOUT
            )

        with connect("pump-1") as ws:
            ws.send("42 bar")
            assert ws.recv(timeout=TIMEOUT) == "thank you, pump-1"
        with pytest.raises(securews.HandshakeError):
            connect("pump-9")
    assert "pump-1: '42 bar'" in capsys.readouterr().out


def test_the_threaded_chat_passes_on_what_is_said(capsys):
    with securews.testing.server(threaded.Chat()) as server, server.connect() as one:
        assert re.fullmatch(r"welcome, number \d+", one.recv(timeout=TIMEOUT))
        with server.connect() as two:
            number = two.recv(timeout=TIMEOUT).split()[-1]
            two.send("hello")
            assert one.recv(timeout=TIMEOUT) == f"{number}: hello"
            assert two.recv(timeout=TIMEOUT) == f"{number}: hello"
        eventually(lambda: len(server.connections) == 1)
    printed = capsys.readouterr().out
    assert re.search(rf"^{number} at \S+ says something$", printed, re.MULTILINE)
    assert len(re.findall(rf"^{number} at \S+ has gone \(1000\)$", printed, re.MULTILINE)) == 1


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def chat(certificates, data):
    Users(data / "users.json").set_password("alice", "correct horse")
    server = chat_server(0, data, tls=certificates.server)
    with server:
        yield server


@pytest.fixture
def client(chat, certificates, monkeypatch):
    """Runs the terminal client with these lines as its input."""

    def run(lines, *arguments, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        url = f"{chat.url}chat"
        monkeypatch.setattr(
            "sys.argv", ["chat_client", url, "--ca", certificates.ca_file, *arguments]
        )
        return chat_client.main()

    return run


def test_the_terminal_client_says_its_lines_and_ends(client, capsys):
    assert (
        client("hello\n\nsecond \x1b[31mline\n", "--user", "alice", CHAT_PASSWORD="correct horse")
        == 0
    )
    printed = capsys.readouterr().out
    assert "you are alice; online: alice" in printed
    assert re.findall(r"^\d\d:\d\d alice: (.*)$", printed, re.MULTILINE) == [
        "hello",
        "second [31mline",
    ]


def test_the_terminal_client_waits_when_it_is_told_to(client, capsys):
    lines = "".join(f"line {number}\n" for number in range(22))
    assert client(lines, "--user", "alice", CHAT_PASSWORD="correct horse") == 0
    said = re.findall(r"alice: (line \d+)$", capsys.readouterr().out, re.MULTILINE)
    assert said == lines.split("\n")[:-1]


def test_the_terminal_client_takes_a_token(client, command, capsys):
    assert command("token", "alice") == 0
    token = capsys.readouterr().out.strip()
    assert client("by token\n", CHAT_TOKEN=token) == 0
    assert "alice: by token" in capsys.readouterr().out


def test_the_terminal_client_says_why_it_was_not_let_in(client, capsys):
    for _ in range(4):
        assert client("", "--user", "alice", CHAT_PASSWORD="wrong wrong") == 1
    assert "not let in: that is not the right name" in capsys.readouterr().err
    assert client("", "--user", "alice", CHAT_PASSWORD="wrong wrong") == 1
    assert "too many attempts; try again in" in capsys.readouterr().err


def test_the_terminal_client_shows_no_control_characters(capsys):
    chat_client.show({"at": 0, "name": "bob", "text": "a\x1b]0;title\x07b\u202ec\nd"})
    shown = capsys.readouterr().out
    assert shown.endswith("bob: a\ufffd]0;title\ufffdb\ufffdc\nd\n")


@pytest.fixture
def command(data, monkeypatch):
    """Runs `python -m examples.chat` with this as its input."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return chat_command([*arguments, "--data", str(data)])

    return run


def test_add_user_takes_the_password_from_standard_input(command, data, capsys):
    assert command("add-user", "Ada", stdin="correct horse\n") == 0
    assert capsys.readouterr().out == "ada can log in\n"
    assert Users(data / "users.json").check_password("ada", "correct horse") == "ada"


def test_add_user_makes_a_password_where_none_is_given(command, data, capsys):
    assert command("add-user", "ada") == 0
    password = capsys.readouterr().out.split()[-1]
    assert re.fullmatch(r"([2-9a-km-np-z]{4}-){2}[2-9a-km-np-z]{4}", password)
    assert Users(data / "users.json").check_password("ada", password) == "ada"


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["add-user", "a b"], "correct horse\n", "a name is 1 to 32"),
        (["add-user", "ada"], "short\n", "a password is 10 to 256"),
        (["token", "nobody"], "", "there is no user 'nobody'"),
        (["serve", "--tls-cert", "x.pem"], "", "--tls-cert and --tls-key go together"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(command, capsys, arguments, stdin, words):
    assert command(*arguments, stdin=stdin) == 1
    error = capsys.readouterr().err
    assert error.startswith("chat: ")
    assert words in error
    assert error.count("\n") == 1


def test_the_demo_makes_two_users_once_and_serves(data, certificates):
    cert, key = certificates.server
    command = [sys.executable, "-m", "examples.chat", "demo", "--port", "0", "--data", str(data)]

    def start():
        process = subprocess.Popen(
            [*command, "--tls-cert", cert, "--tls-key", key],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "stop it with" in line:
                break
        url = re.search(r"https://\S+", "".join(printed))[0]
        with urlopen(f"{url}login", context=certificates.context(), timeout=TIMEOUT) as page:
            assert page.status == 200
        process.terminate()
        rest, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert "Traceback" not in errors
        return "".join(printed) + rest

    first = start()
    assert re.search(r"the chat is at https://localhost:\d+/", first)
    passwords = dict(re.findall(r"log in as (\w+) +with the password (\S+)", first))
    users = Users(data / "users.json")
    assert sorted(passwords) == sorted(DEMO_USERS)
    for name, password in passwords.items():
        assert users.check_password(name, password) == name
    assert "with the password printed at the first start" in start()
    for name, password in passwords.items():
        assert users.check_password(name, password) == name
