"""Each SocketHandler x each accepting method x each kind of handler, with a foreign client too."""

import threading
from contextlib import ExitStack

import pytest
from support import TIMEOUT, ForeignClient, Happened, RawClient, errors_in, tracebacks_in
from websockets.exceptions import ConnectionClosed as ForeignClosed

import securews
from securews import AcceptingMethod, MessageType

MIB = 1 << 20
OPENED, CLOSED = "opened", "closed"


def answer(ws, message):
    """What every handler here does with a message."""
    if message == "fragments":
        with ws.write_message(MessageType.TEXT, max_frame_length=5) as stream:
            stream.write("in pieces")
            stream.write(" of five")
    elif message == "close":
        ws.close(4001, "as asked")
    elif message == "raise":
        raise ZeroDivisionError("as asked")
    else:
        ws.send(message)


def function(happened):
    def handler(ws):
        ws.on_close = lambda ws: happened((CLOSED, ws.close_code))
        happened((OPENED, None))
        for message in ws:
            answer(ws, message)

    return handler


class _Loop:
    def __init__(self, happened, **options):
        super().__init__(**options)
        self.happened = happened

    def prepare_communication(self, ws):
        ws.on_close = lambda ws: self.happened((CLOSED, ws.close_code))
        self.happened((OPENED, None))

    def loop(self, ws):
        for message in ws:
            answer(ws, message)


class Blocking(_Loop, securews.WebSocketHandler):
    def handle_communication(self, ws):
        self.loop(ws)


class Threaded(_Loop, securews.ThreadedWebSocketHandler):
    def do_handle_communication(self, ws):
        self.loop(ws)


class Events(securews.EventWebSocketHandler):
    def __init__(self, happened):
        self.happened = happened

    def accept(self, request, response_headers):
        return True

    def on_open(self, ws):
        self.happened((OPENED, None))

    def on_message(self, ws, message):
        answer(ws, message)

    def on_close(self, ws, code, reason):
        self.happened((CLOSED, code))


KINDS = {
    "function": function,
    "blocking": Blocking,
    "pooled": lambda happened: Threaded(happened, pooling=True),
    "threaded": lambda happened: Threaded(happened, pooling=False),
    "event": Events,
}


class Cell:
    """One combination: its server, and clients of three makes."""

    def __init__(self, certificates, transport, method, kind):
        self.happened = Happened()
        self.certificates = certificates
        self.secure = transport != "plain"
        self.client = certificates.client if transport == "mutual" else None
        tls = {
            "plain": False,
            "tls": certificates.server,
            "mutual": securews.MutualTLSSocketHandler(
                *certificates.server, client_ca=certificates.ca_file
            ),
        }[transport]
        self.one_by_one = method is AcceptingMethod.SERIAL and kind in ("function", "blocking")
        self.server = securews.serve(
            0, KINDS[kind](self.happened), tls=tls, accepting_method=method
        )

    def __enter__(self):
        self.server.start_background()
        return self

    def __exit__(self, *exc):
        self.server.stop()

    @property
    def context(self):
        return self.certificates.context(self.client) if self.secure else None

    def ours(self):
        return securews.connect(
            self.server.url,
            tls=self.certificates.ca_file if self.secure else None,
            client_cert=self.client,
        )

    def foreign(self):
        return ForeignClient(self.server.url, self.context)

    def raw(self):
        return RawClient(self.server.address, context=self.context)

    def closed(self, count):
        """The close codes of the first `count` connections."""
        return [code for what, code in self.happened.wait(2 * count) if what == CLOSED]


@pytest.fixture(autouse=True)
def a_loaded_machine_is_slow_not_wrong(monkeypatch):
    monkeypatch.setattr("securews.server.session.HOLDS_THE_LOOP", 5.0)


@pytest.fixture(params=["plain", "tls", "mutual"])
def transport(request):
    return request.param


@pytest.fixture(params=AcceptingMethod, ids=lambda method: method.value)
def method(request):
    return request.param


@pytest.fixture(params=KINDS)
def cell(request, certificates, transport, method):
    with Cell(certificates, transport, method, request.param) as cell:
        yield cell


@pytest.mark.d(11, 12, 34, 40)
def test_a_cell(cell, caplog):
    three_clients(cell)
    talk_with_ours(cell)
    talk_with_a_foreign_client(cell)
    assert cell.closed(5) == [1000] * 5
    assert errors_in(caplog) == []

    our_close(cell)
    assert cell.closed(6)[-1] == 4001
    assert errors_in(caplog) == []

    vanish(cell)
    assert cell.closed(7)[-1] == 1006
    assert errors_in(caplog) == []

    an_exception(cell)
    assert cell.closed(8)[-1] == 1011
    assert len(tracebacks_in(caplog)) == len(errors_in(caplog)) == 1


def three_clients(cell):
    if cell.one_by_one:
        one_after_another(cell)
        return
    with ExitStack() as opened:
        clients = [opened.enter_context(cell.ours())]
        clients += [opened.enter_context(cell.foreign()) for _ in range(2)]
        for ws in clients:
            ws.send("text ✓")
        for ws in reversed(clients):
            ws.send(b"\x00binary\xff")
        for ws in clients:
            assert ws.recv() == "text ✓"
            assert ws.recv() == b"\x00binary\xff"


def one_after_another(cell):
    """A blocking handler on the one accepting thread: the second client waits for the first."""
    order = Happened()

    def later(connect):
        with connect() as ws:
            order("second")
            ws.send("text ✓")
            assert ws.recv() == "text ✓"

    with cell.ours() as first:
        threads = [threading.Thread(target=later, args=(c,)) for c in (cell.foreign, cell.ours)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            first.send(b"\x00binary\xff")
            assert first.recv(timeout=TIMEOUT) == b"\x00binary\xff"
        order("first")
    for thread in threads:
        thread.join(TIMEOUT)
    assert order.items == ["first", "second", "second"]


def talk_with_ours(cell):
    """Fragments to the server, one mebibyte, and our end."""
    with cell.ours() as ws:
        with ws.write_message(MessageType.BINARY, max_frame_length=1000) as stream:
            stream.write(bytes(range(256)) * 20)
        assert ws.recv(timeout=TIMEOUT) == bytes(range(256)) * 20
        big = b"\xa5" * MIB
        ws.send(big)
        assert ws.recv(timeout=TIMEOUT) == big


def talk_with_a_foreign_client(cell):
    """Fragments both ways, seen as such, and one mebibyte of text."""
    with cell.foreign() as ws:
        ws.send(["many ", "small ", "pieces ✓"])
        assert ws.recv() == "many small pieces ✓"
        ws.send("fragments")
        assert ws.recv_fragments() == ["in pi", "eces ", "of fi", "ve"]
        big = "x" * MIB
        ws.send(big)
        assert ws.recv() == big


def our_close(cell):
    with cell.foreign() as ws:
        ws.send("close")
        with pytest.raises(ForeignClosed) as closed:
            ws.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")
    assert closed.value.rcvd_then_sent


def vanish(cell):
    with cell.raw() as client:
        assert client.status == 101
        client.reset()


def an_exception(cell):
    with cell.foreign() as ws:
        ws.send("raise")
        with pytest.raises(ForeignClosed) as closed:
            ws.recv()
    assert closed.value.rcvd.code == 1011
    assert "ZeroDivisionError" not in closed.value.rcvd.reason


@pytest.mark.promise(17)
@pytest.mark.d(53)
@pytest.mark.parametrize("which", [None, "client_of_other_ca", "expired_client"])
@pytest.mark.parametrize("kind", KINDS)
def test_under_mutual_tls_other_clients_are_refused(certificates, kind, which, caplog):
    with Cell(certificates, "mutual", AcceptingMethod.THREAD_POOL, kind) as cell:
        cell.client = None if which is None else getattr(certificates, which)
        with pytest.raises(securews.HandshakeError) as refused:
            # A context: our own client would not even show a certificate that has expired.
            securews.connect(cell.server.url, tls=cell.context)
        assert refused.value.status == 0
        cell.client = certificates.client
        with cell.ours() as ws:
            ws.send("hello")
            assert ws.recv(timeout=TIMEOUT) == "hello"
            identity = cell.server.connections[0].request.tls.client_certificate
            assert identity.common_name == "pump-1"
    assert errors_in(caplog) == []
    assert len([item for item in cell.happened.items if item[0] == OPENED]) == 1
