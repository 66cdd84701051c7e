"""Floor 1: sockets and TLS. Knows no WebSocket."""
