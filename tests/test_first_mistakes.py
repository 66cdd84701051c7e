"""The first mistakes that people make, and the words they meet.

Each of them is one clear line that says what to write instead, as early as it can be known.
"""

import logging
import os
import re
import shlex
import ssl
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest
import trustme
from wire import WireClient, client_context, request_head

import securews
from securews import testing
from securews.cli.main import main as command_line

HERE = Path(__file__).parent


def echo(ws):
    for message in ws:
        ws.send(message)


class Echo(securews.WebSocketHandler):
    def handle_communication(self, ws):
        echo(ws)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with server.pem, server-key.pem and the key of somebody else."""
    directory = tmp_path_factory.mktemp("files")
    leaf = trustme.CA().issue_cert("localhost", "127.0.0.1", "::1")
    (directory / "server.pem").write_bytes(b"".join(p.bytes() for p in leaf.cert_chain_pems))
    (directory / "server.pem").chmod(0o600)
    other = trustme.CA().issue_cert("localhost")
    for name, blob in (("server-key.pem", leaf), ("other-key.pem", other)):
        (directory / name).write_bytes(blob.private_key_pem.bytes())
        (directory / name).chmod(0o600)
    return directory


@pytest.fixture
def pair(files):
    return files / "server.pem", files / "server-key.pem"


@pytest.fixture
def make(pair):
    """`serve` with a certificate on a free port; what was made is stopped at the end."""
    made = []

    def make(handler=None, port=0, **options):
        server = securews.serve(port, handler, **{"tls": pair, **options})
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop(0)


def refusal(call):
    """The text of the ConfigurationError that `call` meets: one line, and no traceback's worth."""
    with pytest.raises(securews.ConfigurationError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


# -- the handler -------------------------------------------------------------------------------


async def async_handler(ws):
    pass


async def async_generator(ws):
    yield ws


class AsyncCallable:
    async def __call__(self, ws):
        pass


class AsyncMethod(securews.EventWebSocketHandler):
    async def on_message(self, ws, message):  # type: ignore[override]  # the mistake
        pass


class AsyncAccept(Echo):
    async def accept(self, request, response_headers):  # type: ignore[override]  # the mistake
        return True


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (async_handler, "async_handler"),
        (async_generator, "async_generator"),
        (partial(async_handler), "partial"),
        (AsyncCallable(), "AsyncCallable"),
        (AsyncMethod(), "AsyncMethod.on_message"),
        (AsyncAccept(), "AsyncAccept.accept"),
    ],
)
def test_an_async_handler_is_told_to_be_a_plain_one(make, handler, name):
    text = refusal(lambda: make(handler))
    assert text.startswith(f"{name} is an 'async def'")
    assert "write 'def'" in text
    assert "without await" in text


def test_an_async_accept_function_is_told_the_same(make):
    async def accept(request, response_headers):
        return True

    assert "accept is an 'async def'" in refusal(lambda: make(echo, accept=accept))


def test_an_async_page_is_told_the_same(make):
    server = make(echo)

    async def index(request):
        return "hello"

    assert "index is an 'async def'" in refusal(lambda: server.page("/")(index))


@pytest.mark.parametrize("name", ["on_close", "on_receive_message"])
def test_an_async_callback_is_told_the_same(name):
    with testing.server(echo) as server, server.connect() as ws:
        assert "async_handler is an 'async def'" in refusal(
            lambda: setattr(ws, name, async_handler)
        )
        assert f"{name} is a function f(ws), or None" in refusal(lambda: setattr(ws, name, "gone"))
        setattr(ws, name, None)


class Chat(Echo):
    pass


def test_a_class_is_told_to_be_an_instance(make):
    assert "pass Chat()" in refusal(lambda: make(Chat))
    server = make()
    assert "pass Chat()" in refusal(lambda: server.register_handler("*", "*", Chat))


def test_a_class_for_a_socket_handler_is_told_to_be_an_instance(make):
    text = refusal(lambda: make(echo, tls=securews.TLSSocketHandler))
    assert "an instance, not the class" in text


def test_a_handler_that_wants_the_path_is_told_where_it_is(make):
    def handler(ws, path):
        pass

    text = refusal(lambda: make(handler))
    assert "handler(ws, path) does not fit" in text
    assert "the path is ws.request.path" in text


def test_a_handler_without_parameters_is_told_to_take_one(make):
    def handler():
        pass

    assert "def handler(ws)" in refusal(lambda: make(handler))


def test_a_string_is_no_handler(make):
    assert "the second argument is the handler" in refusal(lambda: make("echo"))


def test_an_object_that_cannot_be_called_is_no_handler(make):
    text = refusal(lambda: make(object()))
    assert "a function f(ws) or an instance of WebSocketHandler" in text


class Lonely(securews.WebSocketHandler):
    pass


class OnMessageInTheWrongClass(securews.WebSocketHandler):
    def on_message(self, ws, message):
        pass


class ForgottenInit(securews.ThreadedWebSocketHandler):
    def __init__(self):
        pass

    def do_handle_communication(self, ws):
        pass


class LoopInAnEventHandler(securews.EventWebSocketHandler):
    def handle_communication(self, ws):
        pass


class LongFinalize(Echo):
    def finalize_communication(self, ws, error):  # type: ignore[override]  # the mistake
        pass


class ShortOnMessage(securews.EventWebSocketHandler):
    def on_message(self, message):  # type: ignore[override]  # the mistake
        pass


class ShortAccept(Echo):
    def accept(self, request):  # type: ignore[override]  # the mistake
        return True


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (Lonely(), "Lonely has no handle_communication(self, ws); write it"),
        (OnMessageInTheWrongClass(), "derive from EventWebSocketHandler"),
        (ForgottenInit(), "ForgottenInit.__init__ does not call super().__init__()"),
        (LoopInAnEventHandler(), "would never run; derive from WebSocketHandler"),
        (ShortOnMessage(), "def on_message(self, ws, message)"),
        (LongFinalize(), "def finalize_communication(self, ws)"),
        (ShortAccept(), "def accept(self, request, response_headers)"),
    ],
)
def test_a_handler_class_that_could_never_serve_is_told_why(make, handler, words):
    assert words in refusal(lambda: make(handler))


def test_an_accept_function_with_one_parameter_is_told_of_the_second(make):
    text = refusal(lambda: make(echo, accept=lambda request: True))
    assert "(request, response_headers)" in text


# -- serve() and its arguments -----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (echo, "localhost", 8443),
        (echo, 8443),
        ("localhost", 8443, echo),
        (8443, "localhost"),
        (8443, echo, "localhost"),
        (Echo(), 8443),
        (Echo, 8443),
    ],
)
def test_arguments_in_the_order_of_another_library_are_told_the_right_one(arguments):
    text = refusal(lambda: securews.serve(*arguments))
    assert "serve(8443, handler, host='localhost')" in text
    if arguments[0] != 8443:
        assert "the port comes first" in text


def test_the_class_has_its_own_order(pair):
    text = refusal(lambda: securews.WebSocketServer(8443, "localhost"))
    assert "the address comes first: WebSocketServer('localhost', 8443)" in text
    for misplaced in (echo, Echo(), Echo):
        text = refusal(partial(securews.WebSocketServer, "localhost", 0, misplaced))
        assert "register_handler" in text
        text = refusal(partial(securews.WebSocketServer, 8443, misplaced))
        assert "register_handler" in text
    text = refusal(lambda: securews.WebSocketServer("localhost", 0, pair))
    assert "TLSSocketHandler(cert, key)" in text


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("ssl", "tls"),
        ("ssl_context", "tls"),
        ("certfile", "tls"),
        ("keyfile", "tls"),
        ("ping_intervall", "ping_interval"),
        ("max_clients", "max_connections"),
        ("origin", "origins"),
        ("subprotocol", "subprotocols"),
        ("max_message_size", "max_size"),
    ],
)
def test_an_option_of_another_name_is_told_ours(make, option, meant):
    text = refusal(lambda: make(echo, **{option: 1}))
    assert text == f"unknown option {option!r}; did you mean {meant!r}?"


def test_an_option_that_resembles_nothing_is_told_where_the_list_is(make):
    assert "docs/options.md" in refusal(lambda: make(echo, zzz=1))


def test_an_option_in_the_wrong_place_is_told_the_right_one(make, pair):
    text = refusal(lambda: securews.WebSocketServer("localhost", 0, tls=pair))
    assert "write serve(..., tls=...)" in text
    text = refusal(lambda: securews.WebSocketServer("localhost", 0, origins=securews.ANY))
    assert "write register_handler(..., origins=...)" in text
    server = make()
    text = refusal(lambda: server.register_handler("*", "*", echo, max_connections=5))
    assert "'max_connections' is an option of the server" in text
    text = refusal(lambda: server.register_handler("*", "*", echo, tls=pair))
    assert "'tls' is an option of the server" in text
    text = refusal(lambda: securews.connect("wss://localhost:1/", max_connections=5))
    assert "'max_connections' is an option of the server" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_size": "1MB"}, "option 'max_size' is a whole number, not '1MB'"),
        ({"max_size": None}, "option 'max_size' cannot be None"),
        ({"ping_interval": 0}, "option 'ping_interval' is at least 0.01"),
        ({"ping_interval": "20"}, "a finite number of seconds, or None"),
        ({"accepting_method": "pool"}, "AcceptingMethod.THREAD_POOL"),
        ({"slow_client": "wait"}, "'close' or 'drop'"),
        ({"limits": {"max_headers": 5}}, "a securews.Limits"),
        ({"free_handlers": 1}, "is True or False"),
        ({"subprotocols": "chat"}, "write subprotocols=['chat']"),
        ({"origins": "https://example.com"}, "write origins=['https://example.com']"),
        ({"origins": ["*"]}, "write origins=securews.ANY"),
        ({"path": "/chat"}, "@server.route"),
    ],
)
def test_a_value_that_does_not_fit_is_told_what_does(make, options, words):
    assert words in refusal(lambda: make(echo, **options))


@pytest.mark.parametrize("port", ["8443", 70000, -1, 8443.0, True, None])
def test_a_port_is_a_number(make, port):
    assert "a port is a number from 0 to 65535" in refusal(lambda: make(echo, port))


@pytest.mark.parametrize(
    "host", ["localhost:8443", "https://localhost", "no such host", "a..b", "a" * 70]
)
def test_a_host_that_is_none_is_told_so(make, host):
    text = refusal(lambda: make(echo, host=host))
    assert f"host {host!r}" in text


def test_accept_and_its_kin_belong_to_a_handler(make):
    text = refusal(lambda: make(accept=lambda request, headers: True))
    assert "accept= belongs to a handler" in text


# -- what is registered ------------------------------------------------------------------------


def test_no_handler_at_start_is_told_the_ways_to_give_one(make):
    for begin in (
        securews.WebSocketServer.start,
        securews.WebSocketServer.serve_forever,
        securews.WebSocketServer.start_background,
        securews.WebSocketServer.__enter__,
    ):
        text = refusal(partial(begin, make()))
        assert "nothing is served" in text
        assert "register_handler()" in text
        assert "@server.route()" in text


def test_the_same_host_and_path_twice_is_told_so(make):
    server = make(echo)
    text = refusal(lambda: server.register_handler("*", "*", echo))
    assert "host '*' and path '*' is registered already" in text
    server.register_handler("Example.com:8443", "/chat", echo)
    text = refusal(lambda: server.register_handler("example.com", "/chat", echo))
    assert "host 'example.com' and path '/chat' is registered already" in text
    server.page("/")(lambda request: "hello")
    text = refusal(lambda: server.page("/")(lambda request: "hello"))
    assert "a page for path '/' is registered already" in text


def test_a_decorator_without_its_path_is_told_to_have_one(make):
    server = make()
    assert "@server.route('/path')" in refusal(lambda: server.route(echo))
    assert "@server.page('/path')" in refusal(lambda: server.page(lambda request: "hello"))


def test_a_path_without_its_slash_is_told_to_have_one(make):
    server = make()
    assert "'chat' is no path" in refusal(lambda: server.route("chat"))
    assert "handlers see the query" in refusal(lambda: server.route("/chat?room=1"))
    assert "no host name" in refusal(lambda: server.register_handler("https://x/", "*", echo))


# -- certificates ------------------------------------------------------------------------------


def test_certificate_and_key_in_the_wrong_order_are_told_so(make, pair):
    text = refusal(lambda: make(echo, tls=(pair[1], pair[0])))
    assert "certificate and key are swapped" in text
    assert "tls=(cert, key)" in text


def test_a_missing_file_is_named(make, pair, tmp_path):
    missing = tmp_path / "missing.pem"
    for tls in ((missing, pair[1]), (pair[0], missing), str(missing)):
        text = refusal(partial(make, echo, tls=tls))
        assert f"{missing} does not exist" in text
        assert "securews gen-dev-certs" in text


def test_an_unreadable_file_is_named(make, pair, tmp_path):
    key = tmp_path / "key.pem"
    key.write_bytes(pair[1].read_bytes())
    key.chmod(0o000)
    # Root may read everything, so as root the test becomes somebody else for a moment.
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        text = refusal(lambda: make(echo, tls=(pair[0], key)))
    finally:
        os.seteuid(me)
    assert "may not be read by this user" in text


def test_a_directory_is_no_file(make, pair, tmp_path):
    assert f"{tmp_path} cannot be read" in refusal(lambda: make(echo, tls=(tmp_path, pair[1])))


def test_a_key_of_another_certificate_is_told_so(make, pair, files):
    other = files / "other-key.pem"
    text = refusal(lambda: make(echo, tls=(pair[0], other)))
    assert f"the key in {other} does not belong to the certificate in {pair[0]}" in text


def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(make, pair, tmp_path):
    key = tmp_path / "key.pem"
    key.write_bytes(pair[1].read_bytes())
    key.chmod(0o644)
    text = refusal(lambda: make(echo, tls=(pair[0], key)))
    assert "mode 0644" in text
    subprocess.run(text.partition("mend it with: ")[2], shell=True, check=True)
    make(echo, tls=(pair[0], key))


def test_a_certificate_alone_is_told_to_bring_its_key(make, pair):
    assert "give both: tls=(cert, key)" in refusal(lambda: make(echo, tls=pair[0]))


@pytest.mark.parametrize("tls", [True, None, [], ("cert.pem",), 8443, {"cert": "a", "key": "b"}])
def test_a_tls_that_is_none_of_its_forms_is_told_all_of_them(make, tls):
    text = refusal(lambda: make(echo, tls=tls))
    assert "tls is (cert, key), (cert, key, password)" in text
    assert "or False for plain TCP" in text


def test_a_context_without_a_certificate_or_for_clients_is_refused(make):
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bare.minimum_version = ssl.TLSVersion.TLSv1_2  # some Pythons leave it open
    assert "load_cert_chain" in refusal(lambda: make(echo, tls=bare))
    text = refusal(lambda: make(echo, tls=ssl.create_default_context()))
    assert "a server needs ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None])
def test_plain_tcp_off_loopback_has_to_be_written_out(make, host):
    text = refusal(lambda: make(echo, tls=False, host=host))
    assert "write insecure=True" in text
    make(echo, tls=False, host=host, insecure=True)


def test_the_class_does_not_serve_plain_tcp_everywhere_either():
    handler = securews.PlainSocketHandler()
    for address in ("", None, "0.0.0.0"):
        text = refusal(partial(securews.WebSocketServer, address, 0, handler))
        assert "write insecure=True" in text


def test_insecure_without_plain_tcp_is_told_so(make):
    assert "goes with tls=False" in refusal(lambda: make(echo, insecure=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None])
def test_a_certificate_that_was_merely_found_is_served_on_loopback_only(files, monkeypatch, host):
    monkeypatch.setenv("SECUREWS_CERTS", str(files))
    text = refusal(lambda: securews.serve(0, echo, host=host))
    assert "can be reached from other machines" in text
    assert "pass tls=(cert, key)" in text
    securews.serve(0, echo, host="127.0.0.1").stop()


@pytest.mark.parametrize("directory", [None, "my certs"])
def test_no_certificate_at_all_is_told_the_command_that_makes_one(
    tmp_path, monkeypatch, capsys, directory
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECUREWS_CERTS", raising=False)
    if directory is not None:
        monkeypatch.setenv("SECUREWS_CERTS", directory)
    text = refusal(lambda: securews.serve(0, echo))
    command = re.search(r"make one for development with: (.*), or pass", text)
    assert command is not None, text
    program, *arguments = shlex.split(command[1])
    assert program == "securews"
    assert command_line(arguments) == 0
    securews.serve(0, echo).stop()


# -- the port, and starting --------------------------------------------------------------------


def test_a_port_that_this_process_uses_is_told_so(make):
    port = make(echo).address[1]
    text = refusal(lambda: make(echo, port))
    assert f"port {port} on localhost is in use" in text
    assert "choose another port" in text


def test_a_port_that_another_process_uses_is_told_so(make):
    program = (
        "import socket, sys\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "print(sock.getsockname()[1], flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        port = int(other.stdout.readline())
        text = refusal(lambda: make(echo, port))
        other.stdin.close()
    assert f"port {port} on localhost is in use, by another process" in text
    make(echo, port)


def test_a_server_is_started_once(make):
    server = make(echo)
    with server:
        for begin in (server.start_background, server.start, server.serve_forever):
            with pytest.raises(RuntimeError, match="the server is running; make a new one"):
                begin()
    with pytest.raises(RuntimeError, match="the server is stopped; make a new one"):
        server.start_background()


def run_program(source, *arguments):
    program = textwrap.dedent(source)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


NEVER_STARTED = "was never started: call serve_forever(), start_background(), or use 'with server:'"


def test_a_server_never_started_is_told_of_once_when_it_is_collected(pair):
    done = run_program(
        """
        import gc, sys, securews
        server = securews.serve(0, print, tls=(sys.argv[1], sys.argv[2]))
        url = server.url
        del server
        gc.collect()
        print(url)
        print("collected", file=sys.stderr)
        """,
        *pair,
    )
    assert done.returncode == 0
    assert done.stderr == f"the server on {done.stdout.strip()} {NEVER_STARTED}\ncollected\n"


def test_a_server_never_started_is_told_of_once_when_the_program_ends(pair):
    done = run_program(
        """
        import sys, securews
        server = securews.serve(0, print, tls=(sys.argv[1], sys.argv[2]))
        print(server.url)
        """,
        *pair,
    )
    assert done.returncode == 0
    assert done.stderr == f"the server on {done.stdout.strip()} {NEVER_STARTED}\n"


def test_a_server_that_was_stopped_or_failed_to_start_is_not_told_of(pair):
    done = run_program(
        """
        import gc, sys, securews
        securews.serve(0, print, tls=(sys.argv[1], sys.argv[2])).stop()
        with securews.serve(0, print, tls=(sys.argv[1], sys.argv[2])):
            pass
        try:
            securews.serve(0, 5, tls=(sys.argv[1], sys.argv[2]))
        except securews.ConfigurationError:
            pass
        gc.collect()
        """,
        *pair,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_made_before_a_fork_is_not_run_behind_it(pair):
    done = run_program(
        """
        import os, sys, securews
        server = securews.serve(0, print, tls=(sys.argv[1], sys.argv[2]))
        if os.fork() == 0:
            try:
                server.start_background()
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
        server.stop()
        """,
        *pair,
    )
    assert "this process was forked after the server was made" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


# -- while it runs -----------------------------------------------------------------------------


class Meets:
    """Runs calls inside a handler, and keeps for the test what they met there."""

    def __init__(self):
        self._done = threading.Event()
        self._met = None

    def __call__(self, function, *arguments, **options):
        try:
            function(*arguments, **options)
        except Exception as error:
            self._met = error
        finally:
            self._done.set()

    @property
    def error(self):
        assert self._done.wait(10)
        return self._met


def records(caplog, level=logging.WARNING):
    """What the library has logged, from `level` on."""
    return [
        record
        for record in caplog.records
        if record.levelno >= level and record.name.startswith("securews")
    ]


def test_accept_without_return_true_is_500_and_a_line_that_asks_for_it(caplog):
    class Forgets(Echo):
        def accept(self, request, response_headers):
            request.identity = "Ada"

    with testing.server(Forgets()) as server:
        with pytest.raises(securews.HandshakeError) as caught:
            server.connect()
        assert caught.value.status == 500
        assert b"return" not in caught.value.body  # the log is for us, the answer for anybody
    [record] = records(caplog)
    assert record.levelno == logging.ERROR
    assert "accept() of Forgets returned None" in record.getMessage()
    assert "is a 'return True' missing?" in record.getMessage()


@pytest.mark.parametrize("returned", [401, "no", {"user": "Ada"}, 1])
def test_accept_that_returns_no_bool_is_500_too(caplog, returned):
    with testing.server(echo, accept=lambda request, headers: returned) as server:
        with pytest.raises(securews.HandshakeError) as caught:
            server.connect()
        assert caught.value.status == 500
    [record] = records(caplog)
    assert "must return True or False" in record.getMessage()


def test_an_exception_in_accept_is_500_and_one_traceback(caplog):
    def accept(request, response_headers):
        raise KeyError("no such user")

    with testing.server(echo, accept=accept) as server:
        with pytest.raises(securews.HandshakeError) as caught:
            server.connect()
        assert caught.value.status == 500
        assert b"no such user" not in caught.value.body
    [record] = records(caplog)
    assert record.exc_info is not None


def test_a_page_that_returns_nothing_of_use_is_500_and_a_line(caplog):
    with testing.server(echo) as server:
        server.page("/")(lambda request: {"hello": "world"})
        with WireClient(server.address, client_context(server.ca_file)) as client:
            assert client.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 500
    [record] = records(caplog)
    assert "returned dict; return a Response, str or bytes" in record.getMessage()


@pytest.mark.parametrize("message", [{"a": 1}, ["a"], 5, None, 1.5, True])
def test_sending_what_is_no_message_is_told_of_send_json(message):
    with testing.server(echo) as server, server.connect() as ws:
        with pytest.raises(TypeError, match=r"a message is str or bytes, not .*send_json\(\)"):
            ws.send(message)
        with pytest.raises(TypeError, match=r"json\.dumps\(\)"):
            server.broadcast(message)
        ws.send_json(message)
        assert ws.recv_json(5) == message


def test_recv_inside_on_message_is_told_what_to_use_instead():
    meets = Meets()

    class Asks(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            meets(ws.recv, timeout=1)

    with testing.server(Asks()) as server, server.connect() as ws:
        ws.send("hello")
        assert isinstance(meets.error, RuntimeError)
        assert "recv() would block the I/O thread" in str(meets.error)
        assert "WebSocketHandler, which has a thread of its own" in str(meets.error)


@pytest.mark.parametrize(
    "wait",
    [
        lambda ws: next(iter(ws)),
        lambda ws: ws.recv_json(),
        lambda ws: ws.receive_messages(),
        lambda ws: ws.wait_for_message(),
        lambda ws: ws.wait_closed(),
        lambda ws: ws.ping().wait(),
    ],
)
def test_every_other_way_to_wait_inside_on_open_is_refused_at_once(wait):
    meets = Meets()

    class Waits(securews.EventWebSocketHandler):
        def on_open(self, ws):
            meets(wait, ws)

    with testing.server(Waits()) as server, server.connect():
        assert isinstance(meets.error, RuntimeError)
        assert "would block the I/O thread" in str(meets.error)


def test_an_exception_in_on_message_is_1011_and_one_traceback(caplog):
    class Fails(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            raise KeyError("nothing the peer should see")

    with testing.server(Fails()) as server, server.connect() as ws:
        ws.send("hello")
        with pytest.raises(securews.ConnectionClosedError) as caught:
            ws.recv(10)
        assert (caught.value.code, caught.value.reason) == (1011, "internal error")
    [record] = records(caplog)
    assert "Fails raised; closed with 1011" in record.getMessage()
    assert record.exc_info is not None


def test_a_second_thread_in_recv_is_told_that_there_is_a_first():
    two = [Meets(), Meets()]
    refused = threading.Event()
    got = []

    def receive(ws):
        try:
            got.append(ws.recv(10))
        except RuntimeError:
            refused.set()
            raise

    def handler(ws):
        threads = [threading.Thread(target=meets, args=(receive, ws)) for meets in two]
        for thread in threads:
            thread.start()
        # Nothing was sent: whichever came second has its error, and the first one waits.
        if refused.wait(10):
            ws.send("told")
        for thread in threads:
            thread.join(10)

    with testing.server(handler) as server, server.connect() as ws:
        assert ws.recv(10) == "told"
        ws.send("for the first")
        [error] = [meets.error for meets in two if meets.error is not None]
        assert got == ["for the first"]
    assert isinstance(error, RuntimeError)
    assert "another thread is receiving on this connection already" in str(error)
    assert "let one thread receive" in str(error)


def test_on_message_that_holds_the_loop_is_named_once(caplog):
    class Slow(securews.EventWebSocketHandler):
        def on_message(self, ws, message):
            threading.Event().wait(0.12)
            ws.send(message)

    with testing.server(Slow()) as server, server.connect() as ws:
        for _ in range(3):
            ws.send("hello")
            assert ws.recv(10) == "hello"
    [record] = records(caplog)
    assert record.levelno == logging.WARNING
    assert re.search(r"Slow\.on_message held the I/O thread for \d{3} ms", record.getMessage())
    assert "WebSocketHandler, which has a thread of its own" in record.getMessage()


@pytest.mark.parametrize("name", ["on_open", "on_close"])
def test_the_other_callbacks_that_hold_the_loop_are_named_too(caplog, name):
    class Slow(securews.EventWebSocketHandler):
        pass

    setattr(Slow, name, lambda self, *arguments: threading.Event().wait(0.12))
    with testing.server(Slow()) as server, server.connect():
        pass
    [record] = records(caplog)
    assert f"Slow.{name} held the I/O thread" in record.getMessage()


def test_on_receive_message_that_holds_the_loop_is_named_too(caplog):
    def handler(ws):
        ws.on_receive_message = lambda ws: threading.Event().wait(0.12)
        ws.send("ready")
        for _ in ws:
            pass

    with testing.server(handler) as server, server.connect() as ws:
        assert ws.recv(10) == "ready"
        ws.send("hello")
        assert ws.ping().wait(10) > 0
    [record] = records(caplog)
    assert "on_receive_message held the I/O thread" in record.getMessage()


def test_an_attribute_of_ones_own_is_told_where_to_go():
    with testing.server(echo) as server, server.connect() as ws:
        with pytest.raises(AttributeError, match=r"use ws\.state\.name"):
            ws.name = "Ada"
        ws.state.name = "Ada"
        assert ws.state.name == "Ada"
        for fact in ("request", "open", "id", "close_code", "identity"):
            with pytest.raises(AttributeError, match=f"ws.{fact} is read-only"):
                setattr(ws, fact, None)


def test_a_page_on_another_port_is_403_and_a_warning_with_the_line_to_paste(caplog):
    with testing.server(echo) as server:
        for origin in ("https://localhost:3000", "https://localhost:3000", "http://evil.example"):
            with pytest.raises(securews.HandshakeError) as caught:
                server.connect(origin=origin)
            assert caught.value.status == 403
    first, second = (record.getMessage() for record in records(caplog))
    assert "https://localhost:3000" in first
    assert "http://evil.example" in second
    pasted = re.search(r"origins=\[.*\]", first)[0]
    with (
        eval(f"testing.server(echo, {pasted})", globals()) as server,
        server.connect(origin="https://localhost:3000") as ws,
    ):
        ws.send("hello")
        assert ws.recv(10) == "hello"


def test_a_handler_that_returns_at_once_closes_in_order_without_a_word(caplog):
    with testing.server(lambda ws: None) as server, server.connect() as ws:
        assert list(ws) == []
        assert ws.close_code == 1000
    assert not records(caplog)


def test_sending_to_a_client_that_left_is_no_traceback(caplog):
    ended = threading.Event()

    class Pushes(securews.WebSocketHandler):
        def handle_communication(self, ws):
            while True:
                ws.send("tick")

        def finalize_communication(self, ws):
            ended.set()

    with testing.server(Pushes()) as server:
        with server.connect() as ws:
            assert ws.recv(10) == "tick"
        assert ended.wait(10)
    assert not records(caplog)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000, "bye", 1000.0])
def test_a_close_code_that_may_not_be_sent_is_told_which_may(code):
    with testing.server(echo) as server, server.connect() as ws:
        with pytest.raises((ValueError, TypeError), match="use 1000-1003, 1007-1014 or 3000-4999"):
            ws.close(code)
        assert ws.open


def test_without_any_logging_set_up_a_traceback_still_reaches_stderr(pair):
    done = run_program(
        """
        import securews
        from securews import testing
        def handler(ws):
            raise KeyError("a bug of mine")
        with testing.server(handler) as server, server.connect() as ws:
            ws.wait_closed(10)
        """
    )
    assert done.returncode == 0
    assert done.stderr.count("Traceback") == 1
    assert "KeyError: 'a bug of mine'" in done.stderr


# -- the client --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://localhost:8443/", "localhost:8443", "localhost", "wss://", "wss:/x", ""]
)
def test_a_url_that_is_none_of_a_websocket_is_told_the_form(url):
    assert "write wss://host:port/path" in refusal(lambda: securews.connect(url))


@pytest.mark.parametrize("tls", [False, True])
def test_verification_cannot_be_turned_off(tls):
    text = refusal(lambda: securews.connect("wss://localhost:1/", tls=tls))
    assert "verification cannot be turned off" in text
    assert "tls='ca.pem'" in text


def test_a_context_that_does_not_verify_is_refused():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    text = refusal(lambda: securews.connect("wss://localhost:1/", tls=context))
    assert "does not verify the server" in text


def test_a_server_that_is_not_trusted_is_told_how_to_trust_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECUREWS_CERTS", raising=False)
    with testing.server(echo) as server, pytest.raises(securews.HandshakeError) as caught:
        securews.connect(server.url)
    assert caught.value.status == 0
    assert "pass tls='ca.pem'" in str(caught.value)


def test_ws_to_a_tls_port_is_told_to_use_wss():
    with testing.server(echo) as server, pytest.raises(securews.HandshakeError) as caught:
        securews.connect(server.url.replace("wss:", "ws:"))
    assert caught.value.status == 400
    assert b"wss://" in caught.value.body
    assert "wss://" in str(caught.value)


def test_wss_to_a_plain_port_is_told_that_no_tls_is_spoken_there(make):
    with make(echo, tls=False) as server, pytest.raises(securews.HandshakeError) as caught:
        securews.connect(server.url.replace("ws:", "wss:"))
    assert "the peer does not speak TLS" in str(caught.value)


def test_a_path_that_is_not_served_is_404_and_named():
    server = testing.server()
    server.route("/chat")(echo)
    with server, pytest.raises(securews.HandshakeError) as caught:
        server.connect("/caht")
    assert caught.value.status == 404
    assert b"'/caht'" in caught.value.body


def test_a_client_has_no_server():
    with (
        testing.server(echo) as server,
        server.connect() as ws,
        pytest.raises(RuntimeError, match="a client's Communicator has no server"),
    ):
        ws.server.broadcast("hello")


def test_an_ordinary_request_for_the_websocket_is_told_to_upgrade():
    with (
        testing.server(echo) as server,
        WireClient(server.address, client_context(server.ca_file)) as client,
    ):
        answer = client.ask(request_head(without=("Upgrade", "Connection")))
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"
    assert b"WebSocket" in answer.body
