"""Floor 7: the command line. Parses, calls the library and turns its errors into one line."""
