"""Floor 5: what a server is run with but not made of. Development certificates."""
