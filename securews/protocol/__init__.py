"""Floor 1a: HTTP opening and WebSocket without I/O. Bytes in, events out; messages in, bytes out.

Imports only the ground, and nothing that waits or does I/O (socket, ssl, threading, time).
"""
