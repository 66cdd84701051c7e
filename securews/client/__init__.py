"""Floor 5: the client. `securews.connect`."""
