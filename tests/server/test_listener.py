"""Listening sockets that are shared, and those that somebody else has opened."""

import socket

import pytest
from support import RawClient

import securews
from securews import ConfigurationError
from securews.server import listener
from securews.server.listener import open_shared_listeners


class Echo(securews.EventWebSocketHandler):
    def on_message(self, ws, message):
        ws.send(message)


@pytest.fixture
def ready():
    """A socket that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


# -- ready-made sockets ----------------------------------------------------------------------------


def test_ready_made_sockets_are_served(ready):
    address = ready.getsockname()
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
        securews.serve(None, Echo(), tls=False, sockets=[ready, other]) as server,
    ):
        assert server.address == address
        assert [a[:2] for a in server.addresses] == [address, other.getsockname()[:2]]
        assert server.url == f"ws://localhost:{address[1]}/"
        for a in server.addresses:
            with RawClient(a) as client:
                assert client.status == 101
    assert ready.fileno() == -1  # the server has closed it
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_what_was_said_to_the_kernel_before_the_start_is_served(ready):
    server = securews.serve(None, Echo(), tls=False, sockets=[ready])
    with RawClient(ready.getsockname(), upgrade=False) as early:
        early.send_upgrade()
        with server:
            early.head = early.read_head()
            assert early.status == 101


def test_a_ready_made_unix_socket_stays_for_who_made_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the kernel's limit of 108 bytes
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("ready.sock")
        sock.listen()
        with securews.serve(None, Echo(), tls=False, sockets=[sock]) as server:
            assert server.url == "ws+unix://ready.sock"
    assert (tmp_path / "ready.sock").is_socket()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sockets": []}, "nothing to listen on"),
        ({"sockets": [5]}, "socket.socket, not of int"),
        ({"sockets": "ready", "port": 5}, "leave port and path out"),
        ({"sockets": "ready", "path": "x.sock"}, "leave port and path out"),
    ],
)
def test_sockets_that_cannot_be_served(ready, arguments, says):
    given = {"port": None} | arguments
    if given["sockets"] == "ready":
        given["sockets"] = [ready]
    with pytest.raises(ConfigurationError, match=says):
        securews.serve(given.pop("port"), Echo(), tls=False, **given)


def test_a_socket_that_does_not_listen_is_refused():
    with socket.socket() as idle, pytest.raises(ConfigurationError, match="call its listen"):
        securews.serve(None, Echo(), tls=False, sockets=[idle])


@pytest.mark.parametrize("says", ["insecure", "can be reached from other machines"])
def test_the_address_of_a_socket_decides_what_may_be_served(ready, says, tmp_path, monkeypatch):
    given = {"tls": False} if says == "insecure" else {}
    if not given:
        for name in ("server.pem", "server-key.pem"):
            (tmp_path / name).touch(0o600)
        monkeypatch.setenv("SECUREWS_CERTS", str(tmp_path))
    with (
        socket.create_server(("0.0.0.0", 0)) as exposed,
        pytest.raises(ConfigurationError, match=says),
    ):
        securews.serve(None, Echo(), host="localhost", sockets=[ready, exposed], **given)


# -- sockets for several processes -----------------------------------------------------------------


@pytest.fixture
def shared():
    """Sockets of localhost for three processes."""
    sets = open_shared_listeners("localhost", 0, 100, 3)
    yield sets
    for sockets in sets:
        for sock in sockets:
            sock.close()


def test_each_process_has_a_socket_per_family_on_one_port(shared):
    assert len(shared) == 3
    (first, *others) = [[sock.getsockname()[:2] for sock in sockets] for sockets in shared]
    assert [host for host, _ in first] == ["127.0.0.1", "::1"]
    assert len({port for _, port in first}) == 1
    assert others == [first, first]


def test_a_shared_port_is_in_use_for_everybody_else(shared):
    port = shared[0][0].getsockname()[1]
    for open_again in (
        lambda: open_shared_listeners("localhost", port, 16, 2),
        lambda: listener.open_listeners("localhost", port, None, 16),
    ):
        with pytest.raises(ConfigurationError, match=f"port {port} on localhost is in use"):
            open_again()


def test_the_kernel_deals_connections_out_to_all_of_them(shared):
    address = shared[0][0].getsockname()
    clients = [socket.create_connection(address) for _ in range(64)]
    taken = []
    for sockets in shared:
        taken.append(0)
        while True:
            try:
                sockets[0].accept()[0].close()
            except BlockingIOError:
                break
            taken[-1] += 1
    for client in clients:
        client.close()
    assert sum(taken) == 64
    assert min(taken) > 0 or not listener.SPREADS


def test_without_such_a_kernel_all_share_one_socket(monkeypatch):
    monkeypatch.setattr(listener, "SPREADS", False)
    first, second = open_shared_listeners("127.0.0.1", 0, 16, 2)
    assert first == second
    for sock in first:
        sock.close()
