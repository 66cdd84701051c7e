"""Bugs for the fuzzing to find: each is one change to a copy of the package.

What fuzzing does not find may be absent, or the fuzzing may be blind. `test_fuzzing.py` tells
the two apart.
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


# No seed finds one of these: test_seeds.py sees to it.
BUGS = [
    # Basic credentials that are not UTF-8 end in a traceback.
    Bug(
        "http_head",
        "handlers/authorization.py",
        "except (binascii.Error, ValueError):",
        "except binascii.Error:",
    ),
    # A message may be one byte too long.
    Bug("frames", "protocol/frames.py", "if size > max_size and", "if size > max_size + 1 and"),
    # Any byte may stand in a host name.
    Bug("client_hello", "transport/client_hello.py", r"[\x21-\x7e]", r"[\x21-\xfe]"),
    # What goes on behind a final block is looked for where there is nothing.
    Bug(
        "inflate",
        "protocol/deflate.py",
        "        if self._stream is None:\n            raise ProtocolError(_NOT_DEFLATE, 1007)",
        "        assert self._stream is not None",
    ),
    # A value that is missing at the end of a header is looked for behind it.
    Bug(
        "extensions",
        "protocol/extensions.py",
        "if self._text[self._at] != '\"':",
        "if self._text[self._at + 1] != '\"':",
    ),
]

CONNECTION_BUGS = {
    "a place is kept when the peer leaves while its request waits for a place": Bug(
        "connections",
        "server/opening.py",
        "        if self._task is not None:\n            self._task.cancel()",
        "        if self._task is not None and self._outgoing:\n            self._task.cancel()",
    ),
    "the parser raises where a header was cut before the last byte of its masking key": Bug(
        "connections", "protocol/frames.py", "if available < 6:", "if available < 5:"
    ),
    "a read is kept for ever when it has a pong inside of a message": Bug(
        "connections",
        "protocol/parser.py",
        "            events.append(Pong(payload))",
        "            events.append(Pong(payload))\n"
        "            if self._message.begun:\n"
        "                read_header.__dict__.setdefault('kept', []).append(data)",
    ),
    "a descriptor is kept when the peer resets during the TLS handshake": Bug(
        "connections",
        "server/opening.py",
        '        self._end(f"the handshake failed: {error}")',
        '        if "broke" not in str(error):\n'
        '            self._end(f"the handshake failed: {error}")',
    ),
    "the loop spins when a socket that was full has been emptied": Bug(
        "connections",
        "connection/channel.py",
        "            self._was_blocked = False\n            self._update_interest()",
        "            self._was_blocked = False",
    ),
    "threads are not woken when the one before them has taken long": Bug(
        "connections", "loop/relay.py", "        _wake_at_once(rest)\n", ""
    ),
}
"""Of whole connections: by what is wrong."""
