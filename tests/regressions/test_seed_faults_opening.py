"""What LazWebsocketsServer gets wrong before a connection is open, over wss, byte by byte."""

import socket
import struct
import threading
from contextlib import ExitStack

import pytest
from wire import TEXT, WireClient, client_context, request_head

import securews
from securews import testing


def echo(ws):
    for message in ws:
        ws.send(message)


def tell(ws):
    """What the handler knows of its request, as JSON."""
    request = ws.request
    ws.send_json({"path": request.path, "query": request.query, "host": request.host})


@pytest.fixture(scope="module")
def server():
    made = testing.server()
    made.register_handler("localhost", "/", echo)
    made.register_handler("localhost", "/tell", tell)
    made.register_handler("localhost", "/never", echo, accept=lambda request, headers: False)
    made.register_handler("example.com", "/", tell)
    with made:
        yield made


@pytest.fixture
def dial(server):
    """Makes TLS connections to the server; they are closed at the end."""
    with ExitStack() as stack:
        yield lambda to=server: stack.enter_context(
            WireClient(to.address, client_context(to.ca_file))
        )


def check_refusal(client, answer, status):
    """Every refusal is a whole answer that says its length, its type and that it is the last."""
    assert answer.status == status
    assert "close" in answer.headers["connection"].split(", ")
    assert len(answer.body) == int(answer.headers["content-length"]) > 0
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.read_to_end() == b""  # in order: an end without close_notify would raise


@pytest.mark.d(1)
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (request_head(headers={"Sec-WebSocket-Key": "x"}), 400),
        (request_head("/never"), 403),
        (request_head("/nowhere"), 404),
        (request_head(method="DELETE"), 405),
        (request_head("/" + "x" * 9000), 414),
        (request_head(host="elsewhere.example"), 421),
        (request_head(without=("Upgrade",)), 426),
        (request_head(headers={"X-Long": "x" * 9000}), 431),
        (request_head(version="HTTP/1.0"), 505),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_each_refusal_has_its_own_status_and_is_complete(dial, request_bytes, status):
    client = dial()
    check_refusal(client, client.ask(request_bytes), status)


@pytest.mark.d(1, 10)
def test_a_request_that_is_never_finished_is_408(dial):
    with testing.server(echo, open_timeout=0.3) as slow:
        client = dial(slow)
        client.send(request_head()[:-2])
        check_refusal(client, client.answer(), 408)


@pytest.mark.d(1, 22)
def test_a_pool_without_a_free_thread_is_503_with_retry_after(dial):
    with testing.server(echo, pool_size=1) as small, small.connect() as first:
        client = dial(small)
        answer = client.ask(request_head())
        check_refusal(client, answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        first.send("still here")
        assert first.recv(10) == "still here"


@pytest.mark.d(2)
@pytest.mark.parametrize("version", ["8", "0", "", "13, 8", "12", "013", "1 3"])
def test_another_version_is_told_ours(dial, version):
    client = dial()
    answer = client.ask(request_head(headers={"Sec-WebSocket-Version": version}))
    check_refusal(client, answer, 426)
    assert answer.headers["sec-websocket-version"] == "13"


@pytest.mark.d(2)
def test_no_version_is_told_ours(dial):
    answer = dial().ask(request_head(without=("Sec-WebSocket-Version",)))
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.d(3)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Key": "x"}, 400),
        ({"Sec-WebSocket-Key": "A" * 24}, 400),
        ({"Sec-WebSocket-Key": "c2l4dGVlbiBieXRlcyA6"}, 400),
        ({"Connection": "not-an-upgrade"}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"Upgrade": "not-a-websocket"}, 426),
    ],
)
def test_a_bad_key_or_a_header_that_only_contains_the_word_is_refused(dial, headers, status):
    client = dial()
    check_refusal(client, client.ask(request_head(headers=headers)), status)


@pytest.mark.d(3)
def test_the_words_are_tokens_of_a_list_without_case(dial):
    dial().upgrade(headers={"Connection": "keep-alive, UPGRADE", "Upgrade": "WebSocket"})


@pytest.mark.d(4)
@pytest.mark.parametrize(
    "request_bytes",
    [request_head(host=None), request_head(headers={"host": "localhost"})],
    ids=["none", "two"],
)
def test_a_request_has_one_host(dial, request_bytes):
    client = dial()
    check_refusal(client, client.ask(request_bytes), 400)


@pytest.mark.d(5)
@pytest.mark.parametrize("version", ["HTTP/21.1", "HTTP/1.10", "HTTP/2.0", "HTTP/1.0", "HTTP/01.1"])
def test_only_http_1_1_is_spoken(dial, version):
    client = dial()
    check_refusal(client, client.ask(request_head(version=version)), 505)


@pytest.mark.d(6)
@pytest.mark.parametrize(
    "line",
    [
        b"X-A: 1\rX-B: 2",
        b"X-A: 1\nX-B: 2",
        b"no colon here",
        b"X A: 1",
        b"X-A : 1",
        b": 1",
        b"X-\xc3\xa4: 1",
        b" folded",
        b"X-A: a\x00b",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Sec-WebSocket-Version: 13",
    ],
)
def test_a_header_line_that_is_none_is_refused(dial, line):
    client = dial()
    head = request_head()[:-2] + line + b"\r\n\r\n"
    answer = client.ask(head)
    # Two version lines are "13, 13", which is not ours.
    assert answer.status == (426 if b"Version" in line else 400)
    check_refusal(client, answer, answer.status)


@pytest.mark.d(6, 17)
def test_repeated_headers_are_kept_and_live_as_long_as_the_connection():
    met = []
    done = threading.Event()

    class Own(securews.Communicator):
        pass

    class Keeps(securews.WebSocketHandler):
        def create_communicator(self, connection, request):
            met.append(request.headers.get_all("X-Tag"))
            return Own(connection, request)

        def prepare_communication(self, ws):
            ws.on_close = lambda ws: (met.append(ws.request.headers.get_all("X-Tag")), done.set())

        def handle_communication(self, ws):
            met.append(type(ws))
            ws.wait_closed()

    with testing.server(Keeps()) as server:
        with server.connect(headers=[("X-Tag", "one"), ("X-Tag", "two")]):
            pass
        assert done.wait(10)
    assert met == [["one", "two"], Own, ["one", "two"]]


@pytest.mark.d(7)
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (request_head("/" + "p" * 8200), 414),
        (request_head(headers={f"X-{i}": "v" * 1000 for i in range(20)}), 431),
        (request_head(headers={f"X-{i}": "v" for i in range(101)}), 431),
    ],
    ids=["path", "bytes", "lines"],
)
def test_what_is_too_long_is_refused_and_its_rest_is_read_as_nothing(dial, request_bytes, status):
    client = dial()
    # A text frame behind the head: the seed read the rest of the head as frames after its 101.
    client.send(request_bytes + b"\x81\x80\x00\x00\x00\x00")
    check_refusal(client, client.answer(), status)


@pytest.mark.d(7)
def test_what_is_long_and_allowed_is_read_whole(dial):
    client = dial()
    client.upgrade("/tell?" + "q" * 8000, headers={f"X-{i}": "v" * 1000 for i in range(14)})
    assert client.read_frame().payload.count(b"q") > 8000


@pytest.mark.d(8)
def test_a_request_without_headers_is_answered_at_its_first_blank_line(dial):
    client = dial()
    check_refusal(client, client.ask(b"GET / HTTP/1.1\r\n\r\n"), 400)


@pytest.mark.d(8)
def test_a_request_may_come_byte_by_byte(dial):
    client = dial()
    head = request_head()
    for i in range(len(head) - 1):
        client.send(head[i : i + 1])
    assert client.ask(head[-1:]).status == 101


@pytest.mark.d(13)
@pytest.mark.parametrize("host", ["example.com", "example.com:9", "EXAMPLE.com", "Example.Com.:80"])
def test_a_host_is_compared_without_case_port_and_trailing_dot(dial, host):
    client = dial()
    client.upgrade(host=host)
    assert b'"host":"example.com"' in client.read_frame().payload


@pytest.mark.d(14)
def test_a_path_is_compared_without_its_query(dial):
    client = dial()
    client.upgrade("/tell?x=1&y=%20")
    assert client.read_frame().payload == (
        b'{"path":"/tell","query":"x=1&y=%20","host":"localhost"}'
    )


@pytest.mark.d(14)
@pytest.mark.parametrize(
    "target",
    ["/a%00b", "/../tell", "/a/%2e%2e/tell", "/./tell", "wss://elsewhere.example/", "/#x", "tell"],
)
def test_a_target_that_means_two_things_is_refused(dial, target):
    client = dial()
    check_refusal(client, client.ask(request_head(target)), 400)


@pytest.mark.d(14)
def test_an_absolute_target_of_this_host_is_served(dial):
    dial().upgrade("wss://localhost/tell")


@pytest.mark.d(15)
def test_a_line_break_in_a_response_header_is_500_and_never_on_the_wire(dial, caplog):
    def accept(request, response_headers):
        response_headers["X-Echo"] = "a\r\nSet-Cookie: admin=1"
        return True

    with testing.server(echo, accept=accept) as careless:
        client = dial(careless)
        answer = client.ask(request_head())
        check_refusal(client, answer, 500)
        assert "set-cookie" not in answer.headers
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "ValueError" in str(record.exc_info)


@pytest.mark.d(16)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://localhost:1", "http://localhost", "null", "https://localhos"],
)
def test_a_page_of_another_origin_is_refused_by_default(dial, origin):
    client = dial()
    check_refusal(client, client.ask(request_head(headers={"Origin": origin})), 403)


@pytest.mark.d(16)
def test_a_page_of_this_origin_is_accepted_by_default(dial):
    dial().upgrade(headers={"Origin": "https://localhost"})


@pytest.mark.d(18)
def test_peers_that_reset_before_their_answer_harm_nobody(server, dial):
    for _ in range(20):
        client = dial()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(request_head("/nowhere"))
        client.socket.close()  # a reset: SO_LINGER with 0 seconds
    client = dial()
    client.upgrade()
    client.send_frame(TEXT, b"alive")
    assert client.read_frame().payload == b"alive"


@pytest.mark.d(51)
def test_the_subprotocol_that_we_prefer_is_chosen_from_those_offered():
    with testing.server(echo, subprotocols=["v2", "v1"]) as versions:
        for offered, chosen in (("v1, v2", "v2"), ("v0, v1", "v1"), ("v0", None)):
            with WireClient(versions.address, client_context(versions.ca_file)) as client:
                answer = client.upgrade(headers={"Sec-WebSocket-Protocol": offered})
                assert answer.headers.get("sec-websocket-protocol") == chosen
        with versions.connect(subprotocols=["v1"]) as ws:
            assert ws.subprotocol == "v1"


@pytest.mark.d(51)
def test_an_extension_that_is_not_spoken_is_declined_not_ignored(dial):
    client = dial()
    offer = "permessage-deflate; client_max_window_bits, x-unknown"
    answer = client.upgrade(headers={"Sec-WebSocket-Extensions": offer})
    assert "sec-websocket-extensions" not in answer.headers
    client.send_frame(TEXT, b"plain")
    assert client.read_frame() == (0x81, b"plain")
