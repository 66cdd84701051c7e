"""The bytes of HTTP answers: their date, and what a user has put into them."""

from __future__ import annotations

import logging
from email.utils import formatdate

import pytest

from securews import Headers, Reject, Response
from securews.server import answers
from securews.server.answers import encode_answer, http_date


@pytest.mark.parametrize("second", [0, 784111777, 951782399, 1_700_000_000, 4_102_444_799])
def test_the_date_is_that_of_rfc_9110(second, monkeypatch):
    monkeypatch.setattr(answers.time, "time", lambda: second + 0.9)
    assert http_date() == formatdate(second, usegmt=True)


def test_the_date_is_formatted_once_a_second(monkeypatch):
    formatted = []
    now = [1_000_000_000.0]
    gmtime = answers.time.gmtime
    monkeypatch.setattr(answers.time, "time", lambda: now[0])
    monkeypatch.setattr(answers.time, "gmtime", lambda at: formatted.append(at) or gmtime(at))
    for _ in range(10):
        http_date()
        now[0] += 0.25
    assert formatted == [1_000_000_000, 1_000_000_001, 1_000_000_002]


def test_an_answer_has_a_date_and_a_users_own_date_stays():
    assert encode_answer(Reject(403)).data.count(b"\r\nDate: ") == 1
    own = encode_answer(Response(200, {"date": "Thu, 01 Jan 1970 00:00:00 GMT"})).data
    assert own.lower().count(b"\r\ndate: ") == 1
    assert b"1970" in own


def test_defaults_do_not_change_the_response_that_a_page_returns_again_and_again():
    response = Response(200, {"X-A": "own"}, "x")
    for _ in range(2):
        data = encode_answer(response, {"X-A": "default", "X-B": "default"}).data
        assert b"X-A: own\r\n" in data
        assert b"X-B: default\r\n" in data
    assert response.headers == Headers(
        {"X-A": "own", "Content-Type": response.headers["Content-Type"]}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("headers", None), ("body", object()), ("status", "200"), ("status", 42)],
)
def test_a_response_that_cannot_be_sent_is_500_and_one_error(name, value, caplog):
    response = Response(200, None, "secret detail")
    setattr(response, name, value)
    with caplog.at_level(logging.ERROR, "securews"):
        answer = encode_answer(response)
    assert answer.status == 500
    assert answer.data.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer.data
    (record,) = caplog.records
    assert "answered with 500" in record.getMessage()
