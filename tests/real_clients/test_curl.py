"""curl: the WebSocket port meets ordinary requests, and pages are ordinary pages."""

import re
import subprocess
from typing import NamedTuple

import pytest

import securews
from securews import testing


class Answer(NamedTuple):
    code: int
    status: int
    headers: dict[str, str]
    body: str


def curl(url, *arguments, ca_file=None):
    """Run `curl -i`; its exit code, and the last answer that it printed."""
    trust = () if ca_file is None else ("--cacert", ca_file)
    done = subprocess.run(
        ["curl", "--silent", "--include", "--max-time", "20", *trust, *arguments, url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    lines = head.split("\n")
    status = re.match(r"HTTP/1\.1 (\d+) ", lines[0])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(done.returncode, int(status[1]) if status else 0, headers, body)


@pytest.fixture
def ask(echo, certificates):
    url = echo.url.replace("wss:", "https:")
    return lambda *arguments: curl(url, *arguments, ca_file=certificates.ca_file)


def test_a_plain_get_is_told_to_upgrade(ask):
    answer = ask()
    assert (answer.code, answer.status) == (0, 426)
    assert answer.headers["upgrade"] == "websocket"
    assert "close" in answer.headers["connection"]
    assert int(answer.headers["content-length"]) == len(answer.body) > 0
    assert "websocket" in answer.body.lower()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_told_which_is_allowed(ask, method):
    answer = ask("--request", method)
    assert (answer.code, answer.status) == (0, 405)
    assert answer.headers["allow"] == "GET"


def test_a_head_of_the_websocket_has_no_body(ask):
    answer = ask("--head")
    assert (answer.code, answer.status, answer.body) == (0, 405, "")


def test_http_2_is_not_spoken_and_http_1_1_is(ask):
    assert ask("--http2").status == 426
    assert ask("--no-alpn", "--http1.0").status == 505


def test_plain_http_on_the_tls_port_is_told_in_plain_words(echo):
    answer = curl(f"http://localhost:{echo.port}/")
    assert (answer.code, answer.status) == (0, 400)
    assert "https://" in answer.body
    assert "wss://" in answer.body
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_a_server_that_it_does_not_trust_is_not_talked_to(echo):
    answer = curl(echo.url.replace("wss:", "https:"))
    assert (answer.code, answer.status) == (60, 0)  # CURLE_PEER_FAILED_VERIFICATION


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_of_tls_are_spoken(ask, version):
    assert ask(f"--tlsv{version}", "--tls-max", version).status == 426


def test_a_handshake_by_hand_is_a_101(ask):
    answer = ask(
        *("--max-time", "1"),  # the connection stays open, and curl waits for its end
        *("--header", "Connection: Upgrade", "--header", "Upgrade: websocket"),
        *("--header", "Sec-WebSocket-Version: 13"),
        *("--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    )
    # The key and its answer are those of RFC 6455, section 1.3.
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# -- pages: these need a program, so the server is one of the test's own -----------------------


@pytest.fixture(scope="module")
def pages():
    server = testing.server()

    @server.route("/ws")
    def echo(ws):
        for message in ws:
            ws.send(message)

    @server.page("/")
    def index(request):
        return "<h1>hello</h1>"

    @server.page("/form", methods=("GET", "POST"))
    def form(request):
        if request.method == "GET":
            return b"\0\1"
        name = request.form.get("name", "")
        if not name:
            raise securews.Reject(400, None, "a name is missing\n")
        return securews.Response(201, {"X-Name": name}, f"hello {name}\n")

    with server:
        yield server


@pytest.fixture
def get(pages):
    url = pages.url.replace("wss:", "https:").rstrip("/")
    return lambda path, *arguments: curl(url + path, *arguments, ca_file=pages.ca_file)


def test_a_page_has_the_headers_of_a_careful_one(get):
    answer = get("/")
    assert (answer.code, answer.status, answer.body) == (0, 200, "<h1>hello</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-length"] == "14"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


def test_a_head_of_a_page_is_its_get_without_the_body(get):
    answer = get("/", "--head")
    assert (answer.code, answer.status, answer.body) == (0, 200, "")
    assert answer.headers["content-length"] == "14"


def test_a_form_is_read(get):
    answer = get("/form", "--data-urlencode", "name=Ada & Co")
    assert (answer.status, answer.body) == (201, "hello Ada & Co\n")
    assert answer.headers["x-name"] == "Ada & Co"
    assert get("/form", "--data", "name=").status == 400
    assert get("/form").body == "\0\1"


def test_a_form_that_is_too_long_or_of_another_kind_is_refused(get, tmp_path):
    big = tmp_path / "big"
    big.write_text("name=" + "x" * (64 << 10))
    assert get("/form", "--data", f"@{big}").status == 413
    assert get("/form", "--data", "{}", "--header", "Content-Type: application/json").status == 415


def test_a_form_sent_in_chunks_is_read(get):
    answer = get("/form", "--data", "name=Ada", "--header", "Transfer-Encoding: chunked")
    assert (answer.status, answer.body) == (201, "hello Ada\n")


def test_a_form_of_another_site_is_refused(get):
    answer = get("/form", "--data", "name=Ada", "--header", "Origin: https://evil.example")
    assert answer.status == 403


def test_another_method_and_another_path_are_refused(get):
    answer = get("/", "--request", "DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert get("/nowhere").status == 404
    assert get("/ws").status == 426
