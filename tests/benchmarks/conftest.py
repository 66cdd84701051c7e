"""scripts/bench is for Linux, and so are its tests."""

import sys

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
