"""Floor 6: the command line. Parses, calls the library and turns its errors into one line."""
