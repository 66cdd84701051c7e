"""Pages: what is answered, with which headers, and to whom a form is refused."""

from __future__ import annotations

import http.client
import logging

import pytest

import securews


@pytest.fixture
def server():
    made = securews.serve(0, lambda ws: None, tls=False)

    @made.page("/text")
    def text(request):
        return "<p>hello"

    @made.page("/bytes")
    def data(request):
        return b"\x00\x01"

    @made.page("/response")
    def response(request):
        return securews.Response(201, {"Cache-Control": "max-age=60", "X-Own": "yes"}, "made")

    @made.page("/reject")
    def reject(request):
        raise securews.Reject(429, {"Retry-After": "7"}, "slower")

    @made.page("/raises")
    def raises(request):
        raise ZeroDivisionError("secret detail")

    @made.page("/nothing")
    def nothing(request):
        return None

    @made.page("/form", methods=("GET", "POST"))
    def form(request):
        return ",".join(f"{name}={value}" for name, value in request.form.items())

    with made:
        yield made


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.address[1], timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_str_is_html_and_bytes_are_bytes(server):
    status, headers, body = ask(server, "GET", "/text")
    assert (status, body) == (200, b"<p>hello")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    status, headers, body = ask(server, "GET", "/bytes")
    assert (status, body) == (200, b"\x00\x01")
    assert headers["Content-Type"] == "application/octet-stream"


def test_every_page_has_the_protecting_headers_unless_it_sets_them_itself(server):
    _, headers, _ = ask(server, "GET", "/text")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "default-src 'self'; frame-ancestors 'none'"
    assert headers["Connection"] == "close"
    status, headers, body = ask(server, "GET", "/response")
    assert (status, body) == (201, b"made")
    assert headers["Cache-Control"] == "max-age=60"
    assert headers["X-Own"] == "yes"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_head_is_get_without_the_body(server):
    status, headers, body = ask(server, "HEAD", "/text")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == "8"


@pytest.mark.promise(33)
def test_another_method_is_405_with_allow(server):
    status, headers, _ = ask(server, "PUT", "/form", b"")
    assert status == 405
    assert headers["Allow"] == "GET, HEAD, POST"


def test_a_reject_is_the_answer(server):
    status, headers, body = ask(server, "GET", "/reject")
    assert (status, headers["Retry-After"], body) == (429, "7", b"slower")


def test_what_raises_or_returns_nothing_is_500_and_one_line_in_the_log(server, caplog):
    with caplog.at_level(logging.ERROR, "securews"):
        status, _, body = ask(server, "GET", "/raises")
        assert status == 500
        assert b"secret" not in body
        (record,) = caplog.records
        assert record.exc_info
        caplog.clear()
        assert ask(server, "GET", "/nothing")[0] == 500
        (record,) = caplog.records
        assert "return a Response, str or bytes" in record.getMessage()


def test_a_form_is_taken_apart(server):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(server, "POST", "/form", b"a=1&b=%C3%A9+x", headers)[2] == "a=1,b=é x".encode()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=" + b"x" * (64 << 10), "application/x-www-form-urlencoded", 413),
        (b"a=%FF", "application/x-www-form-urlencoded", 400),
    ],
)
def test_what_is_no_form_or_too_long_is_refused(server, body, kind, status):
    assert ask(server, "POST", "/form", body, {"Content-Type": kind})[0] == status


@pytest.mark.promise(34)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program, no browser
        ({"Origin": "http://{host}"}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "same-site"}, 403),
        # What a browser sends for a form of a page with our own Referrer-Policy.
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
def test_a_form_of_another_sites_page_is_403(server, headers, status):
    host = f"127.0.0.1:{server.address[1]}"
    sent = {name: value.format(host=host) for name, value in headers.items()}
    sent["Content-Type"] = "application/x-www-form-urlencoded"
    assert ask(server, "POST", "/form", b"a=1", sent)[0] == status
