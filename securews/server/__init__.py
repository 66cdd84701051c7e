"""Floor 5: the server. Listening, the opening, routing, threads, stopping."""
