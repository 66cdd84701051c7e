"""securews: the TLS-first WebSocket server for threaded Python.

import securews

def echo(ws):
    for message in ws:
        ws.send(message)

securews.serve(8443, echo, tls=("server.pem", "server-key.pem")).serve_forever()
"""

from securews.common import acceleration

acceleration.choose()  # before everything that may be compiled is imported

# ruff: noqa: E402 - what follows comes after the choice
from securews.client.connect import connect
from securews.common.errors import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    ProtocolError,
    Reject,
    Response,
    SecureWSError,
)
from securews.common.headers import Headers
from securews.common.options import AcceptingMethod, Compression, Limits
from securews.common.version import __version__
from securews.connection.message_stream import MessageStream, MessageType
from securews.connection.pings import PingWaiter
from securews.handlers.authorization import Authorization
from securews.handlers.communicator import Communicator
from securews.handlers.handler import (
    EventWebSocketHandler,
    ThreadedWebSocketHandler,
    WebSocketHandler,
)
from securews.handlers.origins import ANY
from securews.handlers.request import Request
from securews.protocol import codec
from securews.protocol.events import Pong
from securews.server.serve import serve
from securews.server.server import WebSocketServer
from securews.transport.mutual_tls import MutualTLSSocketHandler
from securews.transport.plain import PlainSocketHandler
from securews.transport.socket_handler import SocketHandler, SocketStream, Want
from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_client import TLSClientSocketHandler
from securews.transport.tls_info import ClientCertificate, TLSInfo
from securews.transport.wrapping import WrappingSocketHandler

ACCELERATED: bool = acceleration.is_compiled(codec)
"""Whether the compiled part is in use; SECUREWS_PURE=1 in the environment does without."""

__all__ = [
    "ACCELERATED",
    "ANY",
    "AcceptingMethod",
    "Authorization",
    "ClientCertificate",
    "Communicator",
    "Compression",
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "EventWebSocketHandler",
    "HandshakeError",
    "Headers",
    "Limits",
    "MessageStream",
    "MessageType",
    "MutualTLSSocketHandler",
    "PingWaiter",
    "PlainSocketHandler",
    "Pong",
    "ProtocolError",
    "Reject",
    "Request",
    "Response",
    "SecureWSError",
    "SocketHandler",
    "SocketStream",
    "TLSClientSocketHandler",
    "TLSInfo",
    "TLSSocketHandler",
    "ThreadedWebSocketHandler",
    "Want",
    "WebSocketHandler",
    "WebSocketServer",
    "WrappingSocketHandler",
    "__version__",
    "connect",
    "serve",
]
