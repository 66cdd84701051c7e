"""The servers that are measured: each a program with the arguments of `arguments.py`."""
