"""Bugs for the fuzzing to find: each is one change to a copy of the package.

What fuzzing does not find may be absent, or the fuzzing may be blind. `test_planted_bugs.py`
tells the two apart.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent.parent / "securews"


class Bug(NamedTuple):
    """One change that a slip of the hand could make."""

    target: str
    """Which target has to find it."""
    module: str
    right: str
    """What stands in the module, exactly once."""
    wrong: str

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.target}-{Path(self.module).stem}"

    def plant(self, directory: Path) -> None:
        """Make a copy of the package with this bug in `directory`."""
        copy = directory / "securews"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / self.module
        source = path.read_text()
        found = source.count(self.right)
        if found != 1:
            raise LookupError(f"{self.module} has {self.right!r} {found} times; change the bug")
        path.write_text(source.replace(self.right, self.wrong))


BUGS = [
    # A path such as /%ff ends in a traceback.
    Bug(
        "http_head",
        "protocol/request_target.py",
        "    except UnicodeDecodeError:\n",
        "    except KeyError:\n",
    ),
    # The search for the end of a line skips a byte where two reads meet.
    Bug(
        "http_head",
        "protocol/head_lines.py",
        "self._scanned = len(self._buffer)\n",
        "self._scanned = len(self._buffer) + 1\n",
    ),
    # The masking key is not turned where a payload goes on in the next read.
    Bug("frames", "protocol/websocket.py", "turn = size & 3\n", "turn = 0\n"),
    # A message may be one byte too long.
    Bug("frames", "protocol/frames.py", "if size > max_size and", "if size > max_size + 1 and"),
    # A record without content ends in an IndexError.
    Bug(
        "client_hello",
        "transport/client_hello.py",
        "if not 0 < length <= MAX_RECORD:",
        "if not 0 <= length <= MAX_RECORD:",
    ),
    # Any byte may stand in a host name.
    Bug(
        "client_hello",
        "transport/client_hello.py",
        r"[\x21-\x7e]{1,255}",
        r"[\x21-\xfe]{1,255}",
    ),
]

BUGS_OF_COMPRESSION = [
    # A message that ended with a final block is taken for one that goes on.
    Bug(
        "inflate",
        "protocol/deflate.py",
        "        if self._stream is None:\n            raise ProtocolError(_NOT_DEFLATE, 1007)",
        "        if self._stream is None and not self._fed:\n"
        "            raise ProtocolError(_NOT_DEFLATE, 1007)",
    ),
    # A backslash at the end of a header runs past it.
    Bug(
        "extensions",
        "protocol/extensions.py",
        'if character not in _TOKEN:\n                raise ValueError("a value in quotes',
        'if character == "\\0x":\n                raise ValueError("a value in quotes',
    ),
]

if (PACKAGE / "protocol" / "deflate.py").exists():
    BUGS += BUGS_OF_COMPRESSION
