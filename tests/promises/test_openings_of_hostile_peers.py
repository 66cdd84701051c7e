"""Rows 24 to 33 through the port: what comes before the 101, in every wrong shape."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import ssl
import subprocess
import time

import h11
import pytest
from server_process import Stopwatch
from support import eventually
from wire import TEXT, WireClient, frame, request_head

from securews import Limits
from securews.protocol.http_head import RequestParser


def answered(server, context, data):
    """The answer to `data`; then the server has to end the connection."""
    with WireClient(server.address, context) as client:
        answer = client.ask(data)
        if answer.status != 101:
            assert answer.headers["connection"].startswith("close")
            assert client.read_to_end() == b""
        return answer


def status(server, context, data):
    return answered(server, context, data).status


@pytest.fixture(autouse=True)
def no_traceback(echo):
    """Whatever a peer says is the peer's business."""
    yield
    assert echo.alive
    assert "Traceback" not in echo.log
    assert "ERROR" not in echo.log


# -- rows 24 to 27: TLS ------------------------------------------------------------------------


@pytest.mark.promise(24)
@pytest.mark.parametrize(
    "request_line", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "OPTIONS * HTTP/1.1"]
)
def test_http_in_the_clear_gets_a_readable_400(echo, request_line):
    with WireClient(echo.address) as client:
        answer = client.ask(f"{request_line}\r\nHost: localhost\r\n\r\n".encode())
        assert answer.status == 400
        assert b"TLS" in answer.body
        assert client.read_to_end() == b""


def scans(number):
    """What scanners send, as they please: nothing, noise, half a hello, other protocols."""
    noise = random.Random(number)
    return [
        b"",
        noise.randbytes(noise.randrange(1, 600)),
        b"\x16\x03\x01" + noise.randbytes(200),
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-scan\r\n",
        b"\x80\x2e\x01\x03\x01" + noise.randbytes(30),
        b"\0" * 50,
    ]


@pytest.mark.promise(25)
def test_scans_leave_no_trace_but_counters(lab, context, measured):
    before = report(lab, context)["stats"]["handshake_failures"]
    number = 0
    for round_ in range(30):
        for data in scans(round_):
            with contextlib.suppress(OSError), socket.create_connection(lab.address, 10) as raw:
                raw.sendall(data)
            number += 1
    eventually(lambda: report(lab, context)["stats"]["sockets"] == 1, "the end of the scans")
    counted = report(lab, context)["stats"]["handshake_failures"] - before
    assert lab.log == ""
    assert counted >= number / 2
    measured(f"{number} scans: 0 lines of log at level WARNING, {counted} counted")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.promise(25)
def test_nmap_finds_nothing_to_complain_of(lab, context, measured):
    nmap = shutil.which("nmap")
    if nmap is None:
        pytest.skip("nmap is not installed")
    subprocess.run(
        [nmap, "-Pn", "-n", "-sV", "-p", str(lab.address[1]), lab.address[0]],
        check=True, capture_output=True, timeout=170,
    )  # fmt: skip
    assert lab.log == ""
    with WireClient(lab.address, context) as client:
        client.upgrade("/echo")
    measured("`nmap -sV`: 0 lines of log")


@pytest.mark.promise(26)
@pytest.mark.parametrize("closing", ["FIN", "close_notify"])
def test_an_end_without_a_close_frame_is_1006(lab, context, closing):
    path = f"/watch?{closing}"
    before = len(report(lab, context)["ends"])
    client = WireClient(lab.address, context)
    client.upgrade(path)
    if closing == "close_notify":
        assert isinstance(client.socket, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            client.socket.unwrap()
        client.socket.close()
    else:
        raw = socket.socket(fileno=client.socket.detach())
        raw.shutdown(socket.SHUT_WR)
        raw.close()
    eventually(lambda: len(report(lab, context)["ends"]) >= before + 2, "the end")
    ends = [end for end in report(lab, context)["ends"][before:] if end["path"] == "watch"]
    assert [end["code"] for end in ends] == [1006]


@pytest.mark.promise(27)
def test_another_protocol_is_refused_in_the_handshake(echo, certificates):
    other = certificates.context()
    other.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        WireClient(echo.address, other)
    both = certificates.context()
    both.set_alpn_protocols(["h2", "http/1.1"])
    with WireClient(echo.address, both) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "http/1.1"


# -- row 28: sizes -------------------------------------------------------------------------------


def line_of(size):
    """A request whose first line has `size` bytes."""
    return request_head("/" + "a" * (size - len("GET / HTTP/1.1")))


def header_of(size):
    """A request with a header line of `size` bytes."""
    return request_head(headers={"X-A": "a" * (size - len("X-A: "))})


def headers_of(count):
    return request_head(headers={f"X-{number}": "" for number in range(count - 5)})


def total_of(size):
    """A request whose header lines have `size` bytes together, none over 8192."""
    left = size - (
        len(request_head(headers={"X-A": "", "X-B": ""})) - len("GET / HTTP/1.1\r\n\r\n")
    )
    return request_head(headers={"X-A": "a" * (left // 2), "X-B": "b" * (left - left // 2)})


@pytest.mark.promise(28)
@pytest.mark.parametrize(
    ("make", "limit", "refusal"),
    [
        (line_of, 8192, 414),
        (header_of, 8192, 431),
        (headers_of, 100, 431),
        (total_of, 16 << 10, 431),
    ],
)
def test_sizes_at_and_over_their_limit(echo, context, make, limit, refusal):
    assert status(echo, context, make(limit)) == 101
    assert status(echo, context, make(limit + 1)) == refusal


@pytest.mark.promise(28)
def test_a_head_in_single_bytes_costs_little(certificates, echo, context, measured):
    head = total_of(16 << 10)[:-1]
    with WireClient(echo.address, context) as client:
        client.send(head[:1])
        before = echo.cpu
        for byte in head[1:]:
            client.socket.send(bytes([byte]))
        assert client.ask(b"\n").status == 101
        used = echo.cpu - before
    measured(f"{len(head)} records of one byte: {used * 1000:.0f} ms of CPU, TLS included")
    assert used < 1.5  # TLS and system calls: one of each for every byte, if they come apart
    parsing = min(seconds_to_parse(head) for _ in range(5))
    measured(f"parsing them {parsing * 1000:.0f} ms")
    assert parsing < 0.05


def seconds_to_parse(data):
    """CPU that the parser needs for a head, a byte at a time."""
    parser, began = RequestParser(Limits()), time.process_time()
    for start in range(len(data)):
        parser.feed(data[start : start + 1])
    return time.process_time() - began


# -- rows 29 to 33: requests ---------------------------------------------------------------------

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcyA6KQ==\r\n"
)


def raw(lines, first="GET / HTTP/1.1", host="Host: localhost\r\n"):
    return f"{first}\r\n{host}{UPGRADE}{lines}\r\n".encode("latin-1")


@pytest.mark.promise(29)
@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: \u00b2\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding : chunked\r\n",
    ],
)
def test_an_upgrade_with_a_body_is_400(echo, context, lines):
    assert status(echo, context, raw(lines) + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n") == 400


@pytest.mark.promise(30)
@pytest.mark.parametrize(
    "data",
    [
        raw("").replace(b"\r\n", b"\n"),
        raw("X: a\nY: b\r\n"),
        raw("X: a\rY: b\r\n"),
        raw("X: a\0b\r\n"),
        raw("X: a\x0bb\r\n"),
        raw("X: a\x7fb\r\n"),
        raw("X: a\r\n folded\r\n"),
        raw("X : a\r\n"),
        raw(" X: a\r\n"),
        raw(": a\r\n"),
        raw("X\r\n"),
        raw("X\u00e9: a\r\n"),
        raw("Sec-WebSocket-\u212aey: a\r\n".replace("\u212a", "\u00c5")),
    ],
)
def test_a_head_that_readers_could_disagree_on_is_400(echo, context, data):
    assert status(echo, context, data) == 400


@pytest.mark.promise(30)
def test_what_is_served_h11_reads_alike(echo, context, measured):
    """Heads at random: one that gets its 101 is one that a strict reader accepts, too."""
    chance = random.Random(30)
    served = refused = 0
    for _ in range(150):
        name = "".join(chance.choices("X-a_! \t\0\x80", k=3))
        value = "".join(chance.choices("ab \t\r\n\0\x7f\x80\xff", k=3))
        data = raw(f"{name}: {value}\r\n")
        answer = status(echo, context, data)
        assert answer in (101, 400)
        if answer == 101:
            served += 1
            reader = h11.Connection(h11.SERVER)
            reader.receive_data(data)
            headers = dict(reader.next_event().headers)
            assert headers[name.strip().lower().encode("latin-1")] == value.strip(" \t").encode(
                "latin-1"
            )
        else:
            refused += 1
    assert served > 2
    assert refused > 100
    measured(f"{served} served as h11 reads them, {refused} refused")


@pytest.mark.promise(31)
@pytest.mark.parametrize(
    ("host", "first", "expected"),
    [
        ("Host: localhost\r\n", "GET / HTTP/1.1", 101),
        ("Host: LOCALHOST.:8443\r\n", "GET / HTTP/1.1", 101),
        ("Host: [::1]:8443\r\n", "GET / HTTP/1.1", 101),
        ("", "GET / HTTP/1.1", 400),
        ("Host: a\r\nHost: a\r\n", "GET / HTTP/1.1", 400),
        ("Host: a, b\r\n", "GET / HTTP/1.1", 400),
        ("Host: a@b\r\n", "GET / HTTP/1.1", 400),
        ("Host: a:99999\r\n", "GET / HTTP/1.1", 400),
        ("Host: localhost\r\n", "GET https://localhost/ HTTP/1.1", 101),
        ("Host: localhost\r\n", "GET https://evil/ HTTP/1.1", 400),
    ],
)
def test_hosts(echo, context, host, first, expected):
    assert status(echo, context, raw("", first=first, host=host)) == expected


@pytest.mark.promise(32)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a//b", 101),
        ("/a?b=../..&c=%00", 101),
        ("/%61", 101),
        ("/..", 400),
        ("/a/../b", 400),
        ("/a/%2e%2e/b", 400),
        ("/a/%2E./b", 400),
        ("/./a", 400),
        ("/a%00b", 400),
        ("/a#b", 400),
        ("/a\x01b", 400),
        ("a", 400),
    ],
)
def test_paths(echo, context, target, expected):
    assert status(echo, context, raw("", first=f"GET {target} HTTP/1.1")) == expected


@pytest.mark.promise(33)
@pytest.mark.parametrize(
    ("data", "expected", "header"),
    [
        (request_head(method="POST"), 405, ("allow", "GET")),
        (request_head(version="HTTP/1.0"), 505, None),
        (request_head(version="HTTP/2.0"), 505, None),
        (request_head(without=("Upgrade",)), 426, ("upgrade", "websocket")),
        (request_head(headers={"Upgrade": "h2c"}), 426, ("upgrade", "websocket")),
        (request_head(without=("Connection",)), 400, None),
        (request_head(without=("Sec-WebSocket-Version",)), 426, ("sec-websocket-version", "13")),
        (
            request_head(headers={"Sec-WebSocket-Version": "8"}),
            426,
            ("sec-websocket-version", "13"),
        ),
        (request_head(without=("Sec-WebSocket-Key",)), 400, None),
        (request_head(headers={"Sec-WebSocket-Key": "short"}), 400, None),
    ],
)
def test_a_wrong_opening_is_told_what_is_right(echo, context, data, expected, header):
    answer = answered(echo, context, data)
    assert answer.status == expected
    if header is not None:
        assert answer.headers[header[0]] == header[1]


@pytest.mark.promise(44)
def test_an_adversarial_extension_header_takes_no_time(echo, context, measured):
    offers = ["a;" * 4000, "permessage-deflate;" * 400, '"\\' * 4000, "a=" + "," * 8000]
    slowest = 0.0
    for offer in offers:
        with WireClient(echo.address, context) as client:
            before, watch = echo.cpu, Stopwatch()
            client.upgrade(headers={"Sec-WebSocket-Extensions": offer})
            slowest = max(slowest, watch.seconds)
            client.send(frame(TEXT, b"on"))
            assert client.read_frame().payload == b"on"
            assert echo.cpu - before < 0.05
    measured(f"8 KiB of noise: the opening took {slowest * 1000:.1f} ms")


def report(server, context):
    with WireClient(server.address, context) as client:
        client.upgrade("/report")
        return json.loads(client.read_frame().payload)


def test_no_connection_is_left(echo):
    eventually(lambda: echo.sockets("established") == 0, "the end of all connections")
    assert echo.sockets("close-wait") == 0
