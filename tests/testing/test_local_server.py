import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from support import ForeignClient

import securews
import securews.testing


def echo(ws):
    for message in ws:
        ws.send(message)


def name_of_the_client(ws):
    ws.send(ws.identity.common_name)


def test_it_is_a_wss_server_that_the_given_client_trusts():
    with securews.testing.server(echo) as server, server.connect("/any?x=1") as ws:
        assert server.url.startswith("wss://localhost:")
        ws.send("hello")
        assert ws.recv(timeout=5) == "hello"
        assert server.connections[0].request.query == "x=1"
        assert ws.socket_stream.info.version == "TLSv1.3"


def test_a_foreign_client_trusts_it_by_ca_file():
    with securews.testing.server(echo) as server:
        trust = ssl.create_default_context(cafile=server.ca_file)
        with ForeignClient(server.url, trust) as ws:
            ws.send(b"\x00\xff")
            assert ws.recv() == b"\x00\xff"


def test_nobody_else_trusts_its_ca():
    with (
        securews.testing.server(echo) as server,
        securews.testing.server(echo) as other,
        pytest.raises(securews.HandshakeError, match="certificate is refused"),
    ):
        server.connect(tls=other.ca_file)


def test_under_mutual_tls_each_client_has_a_certificate_of_its_name():
    with securews.testing.server(name_of_the_client, mutual=True) as server:
        for name in ("pump-1", "pump-2", "pump-1"):
            with server.connect(client=name) as ws:
                assert ws.recv(timeout=5) == name


def test_under_mutual_tls_a_client_without_a_certificate_is_refused():
    with (
        securews.testing.server(name_of_the_client, mutual=True) as server,
        pytest.raises(securews.HandshakeError, match="requires a certificate"),
    ):
        server.connect(client=None)


def test_options_headers_and_accept_go_through():
    def accept(request, response_headers):
        return request.headers.get("X-Key") == "open"

    with securews.testing.server(echo, accept=accept, max_size=10) as server:
        with pytest.raises(securews.HandshakeError) as refused:
            server.connect()
        assert refused.value.status == 403
        with server.connect(headers={"X-Key": "open"}) as ws:
            ws.send("x" * 11)
            with pytest.raises(securews.ConnectionClosedError) as closed:
                ws.recv(timeout=5)
        assert closed.value.code == 1009


def test_it_is_a_websocket_server_with_routes_and_pages():
    server = securews.testing.server()

    @server.route("/echo")
    def echo_route(ws):
        echo(ws)

    with server:
        assert isinstance(server, securews.WebSocketServer)
        with server.connect("/echo") as ws:
            ws.send("hello")
            assert ws.recv(timeout=5) == "hello"
            assert server.broadcast("all") == []
            assert ws.recv(timeout=5) == "all"


def test_its_keys_go_with_it():
    with securews.testing.server(echo, mutual=True) as server:
        directory = Path(server.ca_file).parent
        with server.connect():
            assert (directory / "client-pump-1-key.pem").stat().st_mode & 0o777 == 0o600
    assert not directory.exists()


@pytest.mark.parametrize("options", [{"max_sise": 5}, {"accept": 5}])
def test_what_cannot_work_leaves_nothing_behind(options, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(securews.ConfigurationError):
        securews.testing.server(echo, **options)
    assert list(tmp_path.iterdir()) == []


def test_importing_securews_does_not_import_it():
    program = "import sys, securews; sys.exit('securews.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
