"""`python -m securews` is the command `securews`."""

import sys

from securews.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
