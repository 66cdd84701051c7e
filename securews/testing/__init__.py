"""For the tests of programs that use securews.

`securews.testing.server` is a real wss server with a CA of its own;
`securews.testing.socket_handler_contract` is what every SocketHandler has to do, as tests.
`import securews` does not import this package.
"""

from securews.testing.local_server import LocalServer, server

__all__ = ["LocalServer", "server"]
