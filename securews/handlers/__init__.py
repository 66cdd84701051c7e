"""Floor 3: what users subclass and hold. Handlers, Communicator, Request."""
