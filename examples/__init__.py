"""Examples: one idea in one file. README.md lists them."""
