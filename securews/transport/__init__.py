"""Floor 1b: sockets and TLS. Knows no WebSocket."""
