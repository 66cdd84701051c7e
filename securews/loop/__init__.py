"""Floor 1: the I/O loop. Poller, timers, wake-ups; knows no WebSocket."""
