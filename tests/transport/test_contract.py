import socket
import ssl

import pytest

from examples.proxy_protocol import ProxyProtocolHandler
from securews.testing.socket_handler_contract import SocketHandlerContract
from securews.transport.mutual_tls import MutualTLSSocketHandler
from securews.transport.plain import PlainSocketHandler
from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_client import TLSClientSocketHandler
from securews.transport.wrapping import WrappingSocketHandler

PREFACE = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n"


class Contract(SocketHandlerContract):
    """Handlers are made once for each test, as a program makes them once for each listener."""

    def make(self, files):
        """The handlers of both sides."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def handlers(self, shared_files):
        self.server_side, self.client_side = self.make(shared_files)

    def server_handler(self):
        return self.server_side

    def client_handler(self):
        return self.client_side


class UnixSockets:
    def make_sockets(self):
        return socket.socketpair()


def tls(files):
    return TLSSocketHandler(*files.server())


class TestPlain(Contract):
    def make(self, _):
        return PlainSocketHandler(), PlainSocketHandler()


class TestPlainOverUnixSockets(UnixSockets, TestPlain):
    pass


class TestTLS13(Contract):
    version = ssl.TLSVersion.TLSv1_3

    def make(self, files):
        return tls(files), TLSClientSocketHandler(files.client_context(self.version))


class TestTLS12(TestTLS13):
    version = ssl.TLSVersion.TLSv1_2


class TestTLSOverUnixSockets(UnixSockets, TestTLS13):
    pass


class TestUsersOwnContext(Contract):
    def make(self, files):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Some Pythons set it: then TLS calls a cut connection an orderly end.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        context.load_cert_chain(*files.server())
        return TLSSocketHandler(context), TLSClientSocketHandler(files.ca)


class TestMutualTLS(Contract):
    def make(self, files):
        server = MutualTLSSocketHandler(*files.server(), client_ca=files.ca)
        return server, TLSClientSocketHandler(files.ca, client_cert=files.client())


class TestMutualTLS12(Contract):
    def make(self, files):
        server = MutualTLSSocketHandler(
            *files.server(), client_ca=files.ca, minimum_version=ssl.TLSVersion.TLSv1_2
        )
        context = files.client_context(ssl.TLSVersion.TLSv1_2, files.client())
        return server, TLSClientSocketHandler(context)


class TestProxyProtocolBeforeTLS(Contract):
    preface = PREFACE

    def make(self, files):
        return self.wrap(tls(files)), TLSClientSocketHandler(files.ca)

    def wrap(self, inner):
        return ProxyProtocolHandler(inner, proxies={"127.0.0.1"})


class TestProxyProtocolBeforePlain(Contract):
    preface = PREFACE

    def make(self, _):
        return ProxyProtocolHandler(PlainSocketHandler(), {"127.0.0.1"}), PlainSocketHandler()


class Wrapping(WrappingSocketHandler):
    def accept(self, sock, address):
        return self.inner.accept(sock, address)


class TestWrapping(Contract):
    def make(self, files):
        return self.wrap(tls(files)), TLSClientSocketHandler(files.ca)

    def wrap(self, inner):
        return Wrapping(inner)
