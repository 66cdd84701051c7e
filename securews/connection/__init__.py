"""Floor 2: the only place where protocol and transport meet."""
