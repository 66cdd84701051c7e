"""The README's code, cut out and run over wss with a foreign client."""

import http.client
import os
import re
import shutil
import ssl
from pathlib import Path

import pytest
from support import for_threads
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

import securews
from securews.certificates.dev_certificates import ensure_certificates

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

BLOCK = re.compile(r"(?:<!-- run: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
BLOCKS: dict[str, str] = dict(BLOCK.findall(README))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which a reader tries things: certificates where the README has them."""
    certs = tmp_path / "certs"
    ensure_certificates(certs, clients=["pump-1", "pump-3"])
    for name in ("server.pem", "server-key.pem"):
        shutil.copy(certs / name, tmp_path)
    shutil.copy(certs / "ca.pem", tmp_path / "devices-ca.pem")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECUREWS_CERTS", raising=False)
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch):
    """Runs a block, on a free port and in the background; returns the server that it started."""
    servers: list[securews.WebSocketServer] = []
    monkeypatch.setattr(
        securews.WebSocketServer,
        "serve_forever",
        lambda self: servers.append(self.start_background()),
    )

    def run_block(name):
        code = compile(BLOCKS[name].replace("8443", "0"), f"README.md, {name}", "exec")
        exec(code, {"__name__": "readme"})
        return servers[-1]

    yield run_block
    for server in servers:
        server.stop()


@pytest.fixture
def dial(folder):
    """Connects the `websockets` library, which trusts the development CA."""

    def dialled(server, path="/", client=None, **arguments):
        context = trusting(folder)
        if client is not None:
            context.load_cert_chain(
                folder / f"certs/client-{client}.pem", folder / f"certs/client-{client}-key.pem"
            )
        else:
            for_threads(context)
        return connect(server.url.rstrip("/") + path, ssl=context, **arguments)

    return dialled


def trusting(folder):
    return ssl.create_default_context(cafile=folder / "certs/ca.pem")


def test_every_block_of_python_has_a_test_here():
    unnamed = [code for name, code in BLOCK.findall(README) if not name]
    assert not unnamed, "write <!-- run: name --> above it, and a test_the_name_block below"
    tested = {
        match[1] for name in globals() if (match := re.fullmatch(r"test_the_(\w+)_block", name))
    }
    assert set(BLOCKS) == tested


def test_it_opens_with_a_wss_server_in_under_15_lines():
    before_the_end_of_code = README.split("\n```\n")[0].splitlines()
    code = BLOCKS["echo"].splitlines()
    assert len(before_the_end_of_code) < 15
    assert before_the_end_of_code[-len(code) :] == code


def test_the_echo_block(run, dial):
    with dial(run("echo")) as ws:
        ws.send("text")
        assert ws.recv(timeout=5) == "text"
        ws.send(b"\x00binary")
        assert ws.recv(timeout=5) == b"\x00binary"


def test_the_mutual_block(run, dial, capsys):
    server = run("mutual")
    with dial(server, client="pump-1") as ws:
        ws.send("12 bar")
        assert ws.recv(timeout=5) == "thank you, pump-1"
    assert capsys.readouterr().out == "pump-1 12 bar\n"
    for stranger in (None, "pump-3"):
        with pytest.raises((OSError, WebSocketException)):  # TLS 1.3 refuses behind its handshake
            dial(server, client=stranger)
    assert server.stats()["accepted"] == 1


def test_the_accept_block(run, dial, monkeypatch):
    monkeypatch.setenv("CHAT_TOKEN", "s3cret")
    server = run("accept")
    with dial(server, additional_headers={"Authorization": "Bearer s3cret"}) as ws:
        assert ws.recv(timeout=5) == "hello ada"
    with pytest.raises(InvalidStatus) as nobody:
        dial(server)
    assert nobody.value.response.status_code == 401
    assert nobody.value.response.headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(InvalidStatus) as wrong:
        dial(server, additional_headers={"Authorization": "Bearer guess"})
    assert wrong.value.response.status_code == 403


def test_the_cookies_block(run, dial):
    server = run("cookies")
    with dial(server) as ws:
        visitor = ws.recv(timeout=5)
        cookie, *attributes = ws.response.headers["Set-Cookie"].split("; ")
    assert cookie == f"__Host-visitor={visitor}"
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=86400"} == set(attributes)
    with dial(server, additional_headers={"Cookie": cookie}) as ws:
        assert ws.recv(timeout=5) == visitor
        assert "Set-Cookie" not in ws.response.headers


def test_the_events_block(run, dial):
    server = run("events")
    with dial(server, "/ada") as ada:
        ada.send("I am here")
        assert ada.recv(timeout=5) == "ada: I am here"
        with dial(server, "/bob") as bob:
            bob.send("so am I")
            assert ada.recv(timeout=5) == bob.recv(timeout=5) == "bob: so am I"
        assert ada.recv(timeout=5) == "bob has left"


def test_the_pages_block(run, dial, folder):
    server = run("pages")

    def fetch(method, path, body=None, **headers):
        page = http.client.HTTPSConnection(
            "localhost", server.address[1], timeout=5, context=trusting(folder)
        )
        page.request(method, path, body, headers)
        response = page.getresponse()
        text = response.read().decode()
        page.close()
        return response, text

    home, html = fetch("GET", "/")
    assert home.status == 200
    assert home.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in home.headers["Content-Security-Policy"]
    assert "/clock.js" in html
    script, _ = fetch("GET", "/clock.js")
    assert script.headers["Content-Type"] == "text/javascript"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    greeting, text = fetch("POST", "/name", "name=<b>Ada</b>", **form)
    assert text == "hello <b>Ada</b>"
    assert greeting.headers["Content-Type"].startswith("text/plain")
    foreign, _ = fetch("POST", "/name", "name=Ada", **form, Origin="https://elsewhere.example")
    assert foreign.status == 403
    with dial(server) as ws:
        assert ws.recv(timeout=5) == "tick"


def test_the_client_block(run, capsys):
    server = run("echo")
    exec(BLOCKS["client"].replace("8443", str(server.address[1])), {})
    assert capsys.readouterr().out == "hello\n"


def test_the_testing_block():
    namespace: dict[str, object] = {}
    exec(BLOCKS["testing"], namespace)
    test_echo = namespace["test_echo"]
    assert callable(test_echo)
    test_echo()


@pytest.mark.parametrize("command", re.findall(r"^(scripts/[\w-]+)", README, re.MULTILINE))
def test_a_command_that_it_names_is_there(command):
    assert os.access(ROOT / command, os.X_OK)
