"""Floor 1: HTTP opening and WebSocket without I/O. Bytes in, events out; messages in, bytes out.

Imports only `common`, and nothing that waits or does I/O (socket, ssl, threading, time).
"""
