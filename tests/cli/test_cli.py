"""The command line: a server and a client of it, flags of every option, errors as one line."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trustme
from support import for_threads
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, WebSocketException
from websockets.sync.client import connect as websockets_connect

import securews
from securews.cli import option_flags
from securews.cli.main import main
from securews.cli.parsing import OneLineParser, UsageError
from securews.common.options import AcceptingMethod, ConnectionOptions, ServerOptions

ROOT = Path(securews.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

ROOM = """
import time
import securews

def room(ws):
    for message in ws:
        if message == "binary":
            ws.send(bytes([0, 1, 255]))
        elif message == "header":
            ws.send(ws.request.headers["X-Test"])
        elif message == "escape":
            ws.send("a\\x1b[31mb")
        elif message == "refuse":
            ws.close(1008, "not you")
        else:
            ws.send(f"room: {message}")

class Chat(securews.WebSocketHandler):
    def handle_communication(self, ws):
        room(ws)

chat = Chat()
number = 5
"""


class Running:
    """A server in a process of its own."""

    def __init__(self, process, url):
        self.process = process
        self.url = url

    def stop(self, number=signal.SIGTERM):
        """Send a signal; (exit code, stderr)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err


@contextlib.contextmanager
def running(*arguments, cwd=ROOT, logs=""):
    """Run a server command on a free port until the block ends; `logs` is all that it may log."""
    command = [sys.executable, "-m", "securews", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        line = process.stdout.readline()
        found = re.match(r"listening on (wss?://localhost:\d+/?) \(Ctrl-C stops\)\n", line)
        if not found:
            process.kill()
            raise AssertionError(f"{line!r}, {process.communicate()[1]}")
        server = Running(process, found[1])
        try:
            yield server
        except BaseException:
            process.kill()
            raise
        code, err = server.stop()
        assert code == 0
        assert re.fullmatch(logs, err), err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificates: ca.pem, server.pem, server-key.pem, pump.pem (both), other-ca.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    pump = authority.issue_cert("pump-1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server-key.pem")
    pump.private_key_and_cert_chain_pem.write_to_path(folder / "pump.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    for key in ("server-key.pem", "pump.pem"):
        (folder / key).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def tls(files):
    return ["--tls-cert", files / "server.pem", "--tls-key", files / "server-key.pem"]


@pytest.fixture
def client(files):
    """Connect with the websockets library: `client(url)`."""

    def connect(url, cert=None, **options):
        context = ssl.create_default_context(cafile=files / "ca.pem")
        if cert is not None:
            context.load_cert_chain(cert)  # mutual TLS is TLS 1.3, without tickets
        else:
            for_threads(context)
        context = context if url.startswith("wss:") else None
        return websockets_connect(url, ssl=context, compression=None, proxy=None, **options)

    return connect


@pytest.fixture
def cli(capsys):
    """Run a command that ends by itself, here; (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def module(tmp_path):
    """A directory with room.py and broken.py."""
    (tmp_path / "room.py").write_text(ROOM)
    (tmp_path / "broken.py").write_text("import json\n\nundefined\n")
    (tmp_path / "needs.py").write_text("import no_such_package\n")
    return tmp_path


def assert_one_line(result, code, says):
    assert result[0] == code
    assert result[1] == ""
    assert result[2].startswith("securews: ")
    assert says in result[2]
    assert result[2].count("\n") == 1


class TestEcho:
    @pytest.mark.parametrize("handler", ["event", "blocking", "threaded"])
    def test_sends_every_message_back_over_wss(self, tls, client, handler):
        with running("echo", *tls, "--handler", handler) as server, client(server.url) as ws:
            for message in ("hello", "", "gr\xfc\xdfe \U0001f600", b"\x00\xff", "x" * 100_000):
                ws.send(message)
                assert ws.recv(10) == message

    @pytest.mark.parametrize("handler", ["event", "blocking", "threaded"])
    def test_broadcast_sends_it_to_everybody(self, tls, client, handler):
        with (
            running("echo", *tls, "--handler", handler, "--broadcast") as server,
            client(server.url) as first,
            client(server.url) as second,
        ):
            first.send("to all")
            assert first.recv(10) == second.recv(10) == "to all"

    @pytest.mark.parametrize("accepting", ["threaded", "pool"])
    def test_accepting_several_at_once(self, tls, client, accepting):
        arguments = ("echo", *tls, "--accepting", accepting, "--handler", "blocking")
        with (
            running(*arguments) as server,
            client(server.url) as first,
            client(server.url) as second,
        ):
            for ws in (first, second):
                ws.send("here")
                assert ws.recv(10) == "here"

    def test_accepting_one_after_the_other(self, tls, client):
        arguments = ("echo", *tls, "--accepting", "serial", "--handler", "blocking")
        opened = threading.Event()

        def second():
            with client(server.url):
                opened.set()

        with running(*arguments) as server:
            waiting = threading.Thread(target=second)
            with client(server.url) as first:
                waiting.start()
                first.send("one")
                assert first.recv(10) == "one"
                assert not opened.wait(0.3)
            assert opened.wait(10)
            waiting.join(10)

    def test_mutual_tls_with_client_ca(self, tls, client, files):
        with running("echo", *tls, "--client-ca", files / "ca.pem") as server:
            with client(server.url, cert=files / "pump.pem") as ws:
                ws.send("known")
                assert ws.recv(10) == "known"
            with pytest.raises((OSError, EOFError, WebSocketException)):
                client(server.url)

    def test_one_file_may_hold_certificate_and_key(self, files, client, tmp_path):
        both = tmp_path / "both.pem"
        both.touch(0o600)
        both.write_bytes(
            (files / "server-key.pem").read_bytes() + (files / "server.pem").read_bytes()
        )
        with running("echo", "--tls-cert", both) as server, client(server.url) as ws:
            ws.send("one file")
            assert ws.recv(10) == "one file"

    def test_plain_is_for_this_machine(self, client):
        with running("echo", "--plain") as server:
            assert server.url.startswith("ws:")
            with client(server.url) as ws:
                ws.send("plain")
                assert ws.recv(10) == "plain"

    def test_an_option_arrives_at_the_server(self, tls, client):
        with running("echo", *tls, "--max-size", "10") as server, client(server.url) as ws:
            ws.send("x" * 10)
            assert ws.recv(10) == "x" * 10
            ws.send("x" * 11)
            with pytest.raises(ConnectionClosedError) as error:
                ws.recv(10)
            assert error.value.rcvd.code == 1009

    def test_the_development_certificate_is_found(self, tmp_path, cli):
        assert cli("gen-dev-certs", "--out", tmp_path / "certs")[0] == 0
        with running("echo", cwd=tmp_path) as server:
            context = ssl.create_default_context(cafile=tmp_path / "certs" / "ca.pem")
            for_threads(context)
            with websockets_connect(server.url, ssl=context, proxy=None) as ws:
                ws.send("found")
                assert ws.recv(10) == "found"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_it_in_order(self, tls, client, number):
        with running("echo", *tls) as server, client(server.url) as ws:
            ws.send("here")
            ws.recv(10)
            server.process.send_signal(number)
            with pytest.raises(ConnectionClosedOK) as error:
                ws.recv(10)
            assert error.value.rcvd.code == 1001
            assert server.process.wait(20) == 0


class TestServe:
    @pytest.mark.parametrize("attribute", ["room", "chat", "chat.handle_communication"])
    def test_serves_a_function_or_an_instance_of_a_module_here(
        self, tls, client, module, attribute
    ):
        arguments = ("serve", f"room:{attribute}", *tls)
        with running(*arguments, cwd=module) as server, client(server.url) as ws:
            ws.send("hello")
            assert ws.recv(10) == "room: hello"

    def test_finds_modules_here_also_as_an_installed_command(self, module, monkeypatch, cli):
        # A console script has its own folder at the front of the path, not the current one.
        monkeypatch.chdir(module)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
        monkeypatch.delitem(sys.modules, "room", raising=False)
        assert_one_line(cli("serve", "room:number", "--plain"), 1, "not 5")
        sys.modules.pop("room", None)

    @pytest.mark.parametrize(
        ("target", "code", "says"),
        [
            ("room", 2, "'room' is not of the form MODULE:ATTRIBUTE"),
            (":room", 2, "not of the form"),
            ("room:", 2, "not of the form"),
            ("nowhere:room", 1, "there is no module 'nowhere'"),
            ("room.deeper:room", 1, "there is no module 'room.deeper'"),
            ("room:lobby", 1, "room has no attribute 'lobby'"),
            ("room:Chat", 1, "room:Chat is a class; write chat = Chat() in room"),
            ("room:number", 1, "not 5"),
            ("broken:room", 1, "NameError: name 'undefined' is not defined ("),
            ("needs:room", 1, "importing needs failed: ModuleNotFoundError"),
        ],
    )
    def test_a_handler_that_is_none_is_one_line(self, module, target, code, says):
        result = subprocess.run(
            [sys.executable, "-m", "securews", "serve", target, "--plain", "--port", "0"],
            cwd=module, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert_one_line((result.returncode, result.stdout, result.stderr), code, says)


class TestStartFailures:
    def test_a_port_in_use(self, tls, cli):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert_one_line(cli("echo", *tls, "--port", port), 1, str(port))

    def test_a_missing_certificate(self, cli, tmp_path):
        result = cli("echo", "--port", 0, "--tls-cert", tmp_path / "none.pem")
        assert_one_line(result, 1, "none.pem")

    def test_a_key_that_does_not_match(self, cli, files):
        arguments = ("--tls-cert", files / "server.pem", "--tls-key", files / "pump.pem")
        assert_one_line(
            cli("echo", "--port", 0, *arguments), 1, "does not belong to the certificate"
        )

    @pytest.mark.promise(22)
    def test_a_key_that_others_may_read(self, cli, files, tmp_path):
        key = tmp_path / "open-key.pem"
        key.write_bytes((files / "server-key.pem").read_bytes())
        key.chmod(0o644)
        result = cli("echo", "--port", 0, "--tls-cert", files / "server.pem", "--tls-key", key)
        assert_one_line(result, 1, "chmod")

    @pytest.mark.promise(23)
    def test_no_certificate_at_all_says_how_to_make_one(self, cli, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("SECUREWS_CERTS", raising=False)
        assert_one_line(cli("echo", "--port", 0), 1, "gen-dev-certs")

    def test_more_io_threads_than_a_gil_lets_run(self, cli, monkeypatch):
        monkeypatch.setattr("securews.server.io_threads.gil_enabled", lambda: True)
        assert_one_line(cli("echo", "--port", 0, "--plain", "--io-threads", 2), 1, "io_threads=2")

    def test_plain_beyond_this_machine(self, cli):
        assert_one_line(cli("echo", "--port", 0, "--plain", "--host", "0.0.0.0"), 1, "insecure")


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "COMMAND"),
            (("ecko",), "ecko"),
            (("echo", "--port", "70000"), "'70000' is no port"),
            (("echo", "--port", "-1"), "is no port"),
            (("echo", "--handler", "fast"), "invalid choice: 'fast'"),
            (("echo", "--max-size", "big"), "--max-size: 'big' is not a whole number"),
            (("echo", "--max-size", "none"), "--max-size: 'none' is not a whole number"),
            (("echo", "--max-size", "0"), "option 'max_size' is at least 1, not 0"),
            (("echo", "--ping-interval", "soon"), "--ping-interval: 'soon' is not a number"),
            (("echo", "--ping-interval", "nan"), "'ping_interval' is a finite number"),
            (("echo", "--accepting", "fork"), "'fork' is none of serial, threaded, pool"),
            (("echo", "--slow-client", "wait"), "'wait' is none of close, drop"),
            (("echo", "--plain", "--tls-cert", "x"), "--plain means no TLS"),
            (("echo", "--tls-key", "x"), "--tls-key needs --tls-cert"),
            (("echo", "--client-ca", "x"), "--client-ca needs --tls-cert"),
            (("echo", "--workers", "0"), "'0' is no number of processes: 1 or more"),
            (("echo", "--workers", "-2"), "'-2' is no number of processes"),
            (("serve", "room:room", "--workers", "two"), "'two' is no number of processes"),
            (("echo", "--switch-interval", "0"), "'0' is no switch interval: 0.000001 to 1 s"),
            (("echo", "--switch-interval", "nan"), "'nan' is no switch interval"),
            (("echo", "--switch-interval", "soon"), "'soon' is no switch interval"),
            (("serve",), "MODULE:ATTRIBUTE"),
            (("serve", "room:room", "--broadcast"), "unrecognized arguments: --broadcast"),
            (("connect",), "URL"),
            (("connect", "wss://localhost/", "--header", "X"), "'X' is no header"),
            (("connect", "wss://localhost/", "--header", "a b: c"), "a b"),
            (("connect", "wss://localhost/", "--key", "x"), "--key needs --cert"),
        ],
    )
    def test_one_line_and_exit_code_2(self, cli, arguments, says):
        assert_one_line(cli(*arguments), 2, says)

    @pytest.mark.parametrize("command", ["echo", "serve", "connect", "gen-dev-certs"])
    def test_every_command_has_help(self, command, capsys):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"usage: securews {command}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("accelerated", "words"), [(True, "with its compiled part"), (False, "in pure Python")]
    )
    def test_version(self, capsys, monkeypatch, accelerated, words):
        monkeypatch.setattr(securews, "ACCELERATED", accelerated)
        with pytest.raises(SystemExit):
            main(["--version"])
        assert capsys.readouterr().out == f"securews {securews.__version__} {words}\n"


WITHOUT_FLAG = {"limits", "free_handlers"}
FIELDS = [
    (field, kind)
    for kind in (ConnectionOptions, ServerOptions)
    for field in dataclasses.fields(kind)
    if field.name not in WITHOUT_FLAG
]


class TestOptionFlags:
    @staticmethod
    def parse(*arguments):
        parser = OneLineParser(prog="test")
        option_flags.add_option_flags(parser)
        return option_flags.given_options(parser.parse_args(arguments))

    @pytest.mark.parametrize(
        ("field", "kind"), FIELDS, ids=lambda value: getattr(value, "name", "")
    )
    def test_every_option_has_a_flag_with_its_type(self, field, kind):
        flag = {"accepting_method": "--accepting"}.get(
            field.name, "--" + field.name.replace("_", "-")
        )
        if field.name == "compression":  # its parameters are for programs
            assert self.parse(flag) == {"compression": True}
            return
        if field.name == "accepting_method":
            text, value = "serial", AcceptingMethod.SERIAL
        elif field.name == "slow_client":
            text, value = "drop", "drop"
        elif field.name == "allowed_hosts":
            text, value = "chat.example.org,::1", ["chat.example.org", "::1"]
        else:
            text, value = "7", 7
        assert self.parse(flag, text) == {field.name: value}
        kind(**{field.name: value})
        if "None" in field.type:
            assert self.parse(flag, "none") == {field.name: None}

    @pytest.mark.parametrize("name", sorted(WITHOUT_FLAG))
    def test_two_options_have_none(self, name):
        with pytest.raises(UsageError, match="unrecognized"):
            self.parse("--" + name.replace("_", "-"), "x")

    def test_what_is_not_given_is_left_to_the_library(self):
        assert self.parse() == {}

    def test_the_help_gives_reason_and_default(self):
        parser = OneLineParser(prog="test")
        option_flags.add_option_flags(parser)
        text = " ".join(parser.format_help().split())
        assert "--max-size N the largest message that is received (default: 1048576 bytes)" in text
        assert "--accepting serial|threaded|pool" in text
        assert "(default: none)" in text


@pytest.fixture(scope="module")
def room(tls, tmp_path_factory):
    """A server of ROOM."""
    folder = tmp_path_factory.mktemp("room")
    (folder / "room.py").write_text(ROOM)
    with running("serve", "room:room", *tls, cwd=folder) as server:
        yield server


class TestConnect:
    @staticmethod
    def start(url, files, *arguments):
        command = [sys.executable, "-m", "securews", "connect", url, "--ca", files / "ca.pem"]
        return subprocess.Popen(
            [*command, *arguments],
            env=ENVIRONMENT, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def test_sends_lines_and_prints_what_comes_until_the_input_ends(self, room, files):
        with self.start(room.url, files) as process:
            out, err = process.communicate("hello\n\nlast", timeout=30)
        assert out == "room: hello\nroom: \nroom: last\n"
        assert (process.returncode, err) == (0, "")

    def test_answers_come_while_the_input_is_open(self, room, files):
        with self.start(room.url, files) as process:
            for word in ("one", "two"):
                process.stdin.write(f"{word}\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"room: {word}\n"
            process.communicate(timeout=30)
            assert process.returncode == 0

    def test_binary_is_shown_as_hex(self, room, files):
        with self.start(room.url, files) as process:
            assert process.communicate("binary\n", timeout=30)[0] == "binary: 00 01 ff\n"

    def test_a_header_is_sent(self, room, files):
        with self.start(room.url, files, "--header", "X-Test: yes: it is") as process:
            assert process.communicate("header\n", timeout=30)[0] == "yes: it is\n"

    def test_a_header_of_the_handshake_itself_is_refused(self, room, files, cli):
        arguments = ("connect", room.url, "--ca", files / "ca.pem", "--header", "Upgrade: h2c")
        assert_one_line(cli(*arguments), 2, "header 'Upgrade' is written by securews")

    def test_the_origin_is_a_header_like_any_other(self, tls, files, cli):
        with running("echo", *tls, logs=r"\S+ \S+ WARNING .*elsewhere\.test.*\n") as server:
            arguments = ("connect", server.url, "--ca", files / "ca.pem")
            result = cli(*arguments, "--header", "Origin: https://elsewhere.test")
            assert_one_line(result, 1, "403 Forbidden")

    def test_a_refusal_of_the_server_is_one_line_and_exit_code_1(self, room, files):
        with self.start(room.url, files) as process:
            process.stdin.write("refuse\n")
            process.stdin.flush()
            assert process.wait(30) == 1
            err = process.stderr.read()
            process.communicate()
        assert err.startswith("securews: the peer closed the connection (code 1008)")
        assert "not you" in err
        assert err.count("\n") == 1

    def test_ctrl_d_closes_in_order(self, room, files):
        parent, child = os.openpty()
        command = [sys.executable, "-m", "securews", "connect", room.url]
        try:
            with subprocess.Popen(
                [*command, "--ca", files / "ca.pem"],
                env=ENVIRONMENT, cwd=ROOT, text=True,
                stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as process:  # fmt: skip
                os.write(parent, b"hello\n")
                assert process.stdout.readline() == "room: hello\n"
                os.write(parent, b"\x04")
                out, err = process.communicate(timeout=30)
        finally:
            os.close(parent)
            os.close(child)
        assert (process.returncode, out) == (0, "")
        assert err == f"connected to {room.url}; Ctrl-D closes\n"

    def test_ctrl_c_closes_in_order(self, room, files):
        with self.start(room.url, files) as process:
            process.stdin.write("hello\n")
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
            process.communicate()

    def test_the_end_of_the_server_is_exit_code_0(self, tls, files):
        with running("echo", *tls) as server, self.start(server.url, files) as process:
            process.stdin.write("hello\n")
            process.stdin.flush()
            process.stdout.readline()
            server.process.send_signal(signal.SIGTERM)  # 1001
            assert process.wait(30) == 0
            server.process.wait(30)  # a second signal, at the end of the block, would force it
            assert process.stderr.read() == ""
            process.communicate()

    def test_mutual_tls(self, tls, files):
        with running("echo", *tls, "--client-ca", files / "ca.pem") as server:
            with self.start(server.url, files, "--cert", files / "pump.pem") as process:
                assert process.communicate("hello\n", timeout=30) == ("hello\n", "")
                assert process.returncode == 0
            with self.start(server.url, files) as process:
                err = process.communicate("hello\n", timeout=30)[1]
                assert process.returncode == 1
                assert err.startswith("securews: ")
                assert err.count("\n") == 1

    def test_a_server_of_another_authority_is_not_trusted(self, room, files, cli):
        result = cli("connect", room.url, "--ca", files / "other-ca.pem")
        assert_one_line(result, 1, "certificate")

    def test_no_server(self, cli, files):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            result = cli("connect", f"wss://127.0.0.1:{port}/", "--ca", files / "ca.pem")
        assert_one_line(result, 1, f"wss://127.0.0.1:{port}/ cannot be reached: Connection refused")

    @pytest.mark.parametrize("url", ["localhost:8443", "https://localhost/", "wss:///x", ""])
    def test_a_url_that_is_none(self, cli, url):
        assert_one_line(cli("connect", url), 1, "wss://")

    def test_control_characters_do_not_reach_a_terminal(self, room, files):
        parent, child = os.openpty()
        try:
            command = [sys.executable, "-m", "securews", "connect", room.url]
            with subprocess.Popen(
                [*command, "--ca", files / "ca.pem"],
                env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.PIPE, stdout=child,
            ) as process:  # fmt: skip
                process.communicate(b"escape\n", timeout=30)
            assert os.read(parent, 1000) == b"a\\x1b[31mb\r\n"
        finally:
            os.close(parent)
            os.close(child)

    def test_a_closed_standard_input_is_one_line(self, room, files):
        result = subprocess.run(
            ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "securews", "connect",
             room.url, "--ca", files / "ca.pem"],
            env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert_one_line((result.returncode, result.stdout, result.stderr), 2, "standard input")

    def test_a_reader_that_goes_away_is_no_traceback(self, room, files):
        with self.start(room.url, files) as process:
            process.stdout.close()
            process.stdin.write("hello\n")
            process.stdin.flush()
            assert process.wait(30) == 1
            assert process.stderr.read() == ""
            process.stdin.close()
            process.stderr.close()
