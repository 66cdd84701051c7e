"""What LazWebsocketsServer gets wrong as a server: accepting, threads, TLS, stopping."""

import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import Happened, eventually
from wire import WireClient, client_context, close_frame, request_head

import securews
from securews import testing

ROOT = Path(__file__).parents[2]


def echo(ws):
    for message in ws:
        ws.send(message)


def dial(server, **options):
    return WireClient(server.address, client_context(server.ca_file), **options)


def is_served(server):
    with server.connect() as ws:
        ws.send("hello")
        return ws.recv(10) == "hello"


def client_hello(context):
    """The first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.d(10)
def test_a_silent_client_is_let_go_and_held_no_thread():
    with testing.server(echo, open_timeout=0.5) as server:
        before = threading.active_count()
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(server.address)) for _ in range(20)
            ]
            eventually(lambda: server.stats()["sockets"] == 20)
            assert threading.active_count() == before
            for sock in silent:
                sock.settimeout(10)
                assert sock.recv(1) == b""


@pytest.mark.d(11, 12)
@pytest.mark.parametrize("method", securews.AcceptingMethod)
@pytest.mark.parametrize("words", ["nothing", "half a hello", "a hello", "half a request"])
def test_clients_that_say_little_keep_nobody_waiting(method, words):
    with testing.server(echo, accepting_method=method) as server, ExitStack() as stack:
        context = client_context(server.ca_file)
        hello = client_hello(context)
        for _ in range(20):
            if words == "half a request":
                client = stack.enter_context(WireClient(server.address, context))
                client.send(request_head()[:40])
                continue
            sock = stack.enter_context(socket.create_connection(server.address))
            sock.sendall({"nothing": b"", "half a hello": hello[:50], "a hello": hello}[words])
        eventually(lambda: server.stats()["sockets"] == 20)
        assert is_served(server)


@pytest.mark.d(19)
def test_running_out_of_descriptors_is_survived(certificates, tmp_path):
    cert, key = certificates.server
    # bash's own limit, so that the test's process keeps its descriptors.
    command = ["bash", "-c", 'ulimit -n 40; exec "$@"', "server", sys.executable, "-m", "securews"]
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*command, "echo", "--port", "0", "--tls-cert", cert, "--tls-key", key],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            url = re.search(r"wss://\S+", process.stdout.readline())[0]
            port = int(re.search(r":(\d+)/", url)[1])
            with ExitStack() as stack:
                for _ in range(100):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                eventually(lambda: "no connection can be accepted" in log.read_text())
            with securews.connect(url, tls=certificates.ca_file) as ws:
                ws.send("alive")
                assert ws.recv(10) == "alive"
        finally:
            process.terminate()
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.d(20)
def test_a_restart_does_not_wait_for_old_connections(certificates):
    port = 0
    for _ in range(3):
        with securews.serve(port, echo, tls=certificates.server) as server:
            port = server.address[1]
            with WireClient(server.address, certificates.context()) as client:
                client.upgrade()
                server.stop(0)  # the server ends first: TIME_WAIT, if anywhere, is on its side


@pytest.mark.d(21)
def test_it_listens_on_both_loopbacks_and_nowhere_else_by_default():
    with testing.server(echo) as server:
        hosts = {address[0] for address in server.addresses}
        ports = {address[1] for address in server.addresses}
    assert hosts == {"127.0.0.1", "::1"}
    assert len(ports) == 1


@pytest.mark.d(21)
def test_a_crowd_waits_in_the_backlog(certificates):
    server = securews.serve(0, echo, tls=certificates.server)
    with ExitStack() as stack:
        # Nobody accepts yet; the seed's backlog of 5 let the sixth wait for a second.
        crowd = [
            stack.enter_context(socket.create_connection(server.address, timeout=0.9))
            for _ in range(200)
        ]
        with server:
            eventually(lambda: server.stats()["sockets"] == len(crowd))


@pytest.mark.d(22)
def test_the_pool_never_passes_its_size():
    names = Happened()

    def handler(ws):
        names(threading.current_thread().name)
        ws.wait_closed()

    with testing.server(handler, pool_size=3) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect())
        assert len(set(names.wait(3))) == 3
        for _ in range(5):
            with pytest.raises(securews.HandshakeError) as caught:
                server.connect()
            assert caught.value.status == 503
        pool = [t for t in threading.enumerate() if t.name.startswith("securews-pool")]
        assert len(pool) == 3


@pytest.mark.d(23)
def test_a_handler_that_raises_costs_the_pool_nothing(caplog):
    threads = Happened()

    def handler(ws):
        threads(threading.get_ident())
        if ws.recv(10) == "fail":
            raise KeyError("a bug")
        ws.send("served")

    with testing.server(handler, pool_size=1) as server:
        for _ in range(5):
            with server.connect() as ws:
                ws.send("fail")
                with pytest.raises(securews.ConnectionClosedError) as caught:
                    ws.recv(10)
                assert caught.value.code == 1011
        with server.connect() as ws:
            ws.send("work")
            assert ws.recv(10) == "served"
        assert len(set(threads.wait(6))) == 1
    assert len([record for record in caplog.records if record.exc_info]) == 5


@pytest.mark.d(24)
def test_nothing_polls():
    with testing.server(echo) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        pause = threading.Event()
        began = time.process_time()
        pause.wait(1.0)
        idle = time.process_time() - began
        # The seed took 12 % of a core for 50; client and server are both in this process.
        assert idle < 0.02
        ws = clients[0]
        began = time.monotonic()
        for _ in range(200):
            ws.send("hello")
            assert ws.recv(10) == "hello"
        # The seed managed 99 messages in a second.
        assert time.monotonic() - began < 1.0


class Orderly(securews.WebSocketHandler):
    """Notes what happens to it, in order."""

    def __init__(self):
        self.told = Happened()

    def handle_communication(self, ws):
        self.told("begins")
        try:
            for message in ws:
                ws.send(message)
            self.told(ws.close_code)
        finally:
            self.told("ends")

    def finalize_communication(self, ws):
        self.told("is finalized")

    def close(self):
        self.told("is closed")


@pytest.mark.d(45, 46)
@pytest.mark.parametrize("method", securews.AcceptingMethod)
def test_stopping_closes_the_connections_then_ends_the_handlers_then_closes_them(method):
    handler = Orderly()
    server = testing.server(handler, accepting_method=method)
    with server, dial(server) as client:
        client.upgrade()
        handler.told.wait()
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert client.read_close()[0] == 1001
        assert "is closed" not in handler.told.items
        client.send(close_frame(1001))
        assert client.read_to_end() == b""
        client.socket.close()
        stopper.join(10)
        assert not stopper.is_alive()
    assert handler.told.items == ["begins", 1001, "ends", "is finalized", "is closed"]
    assert not [t for t in threading.enumerate() if t.name.startswith("securews-io")]


@pytest.mark.d(45)
def test_stopping_waits_for_no_peer_longer_than_the_grace():
    handler = Orderly()
    with testing.server(handler) as server, dial(server) as client:
        client.upgrade()
        handler.told.wait()
        began = time.monotonic()
        server.stop(0.3)  # this client never answers the Close
        assert 0.2 < time.monotonic() - began < 4
    assert handler.told.items[-1] == "is closed"


@pytest.mark.d(47)
@pytest.mark.parametrize(("free", "last"), [(True, ["is closed"]), (False, [])])
def test_handlers_are_closed_once_or_not_at_all_as_asked(free, last):
    handler = Orderly()
    server = testing.server(handler, free_handlers=free)
    server.register_handler("localhost", "/again", handler)
    with server:
        assert is_served(server)
    assert handler.told.items == ["begins", 1000, "ends", "is finalized", *last]


@pytest.mark.d(47)
def test_a_second_handler_for_the_same_path_leaves_the_first_alone():
    first, second = Orderly(), Orderly()
    with testing.server(first) as server:
        with pytest.raises(securews.ConfigurationError, match="registered already"):
            server.register_handler("*", "*", second)
        assert not first.told.items
        assert is_served(server)
    assert not second.told.items


class Counting(securews.TLSSocketHandler):
    """A SocketHandler with settings of its own."""

    def __init__(self, *files):
        super().__init__(*files)
        self.accepted = []

    def accept(self, sock, address):
        self.accepted.append(id(self))
        return super().accept(sock, address)


@pytest.mark.d(52, 53)
def test_one_socket_handler_serves_every_connection_and_keeps_its_settings(certificates, tmp_path):
    cert, key = tmp_path / "server.pem", tmp_path / "server-key.pem"
    for path, source in ((cert, certificates.server[0]), (key, certificates.server[1])):
        path.touch(mode=0o600)
        path.write_bytes(Path(source).read_bytes())
    handler = Counting(cert, key)
    leaf = ssl.PEM_cert_to_DER_cert(cert.read_text().partition("-----END")[0] + PEM_END)
    with securews.serve(0, echo, tls=handler) as server:
        key.unlink()  # the seed read the files for each connection
        cert.unlink()
        for _ in range(3):
            with WireClient(server.address, certificates.context()) as client:
                assert client.socket.getpeercert(binary_form=True) == leaf  # type: ignore[attr-defined]  # TLS
                client.upgrade()
    assert handler.accepted == [id(handler)] * 3


PEM_END = "-----END CERTIFICATE-----\n"


@pytest.mark.d(53)
def test_a_client_without_a_certificate_is_served_nothing_where_one_is_required():
    with testing.server(echo, mutual=True) as server:
        with pytest.raises((securews.HandshakeError, OSError), match="certificate"):
            server.connect(client=None)
        assert server.stats()["accepted"] == 0
        with server.connect(client="pump-1") as ws:
            ws.send("hello")
            assert ws.recv(10) == "hello"


@pytest.mark.d(53)
def test_versions_before_tls_1_2_are_refused():
    with testing.server(echo) as server:
        context = client_context(server.ca_file)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or the client itself would refuse
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the version is the point
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            WireClient(server.address, context)
        assert is_served(server)


@pytest.mark.d(59)
def test_the_address_of_the_server_stays_when_clients_come():
    with testing.server(echo) as server:
        before = (server.address, server.addresses, server.url)
        assert is_served(server)
        with server.connect():
            assert (server.address, server.addresses, server.url) == before
