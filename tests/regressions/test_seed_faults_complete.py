"""Every fault of LazWebsocketsServer that was found has a test that carries its number."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS = {
    1: "refusals without length, type or Connection: close, and one 400 for everything",
    2: "Sec-WebSocket-Version never checked",
    3: "a bad key accepted; 'not-an-upgrade' taken for an upgrade",
    4: "no Host accepted; of two the last wins",
    5: "HTTP/21.1 accepted as 1.1",
    6: "bare CR and LF end a line; names not validated; duplicates overwrite",
    7: "long paths and headers cut, and the rest read as frames",
    8: "a request without headers hangs",
    9: "one recv per byte",
    10: "no timeout anywhere",
    11: "one silent client blocks all others",
    12: "one silent TLS client blocks all accepts",
    13: "hosts compared with case and port",
    14: "paths compared with their query",
    15: "CRLF in a response header written out",
    16: "no Origin check",
    17: "the request's headers used after they were freed",
    18: "an error reply to a dead peer kills the process",
    19: "running out of descriptors ends accepting",
    20: "no SO_REUSEADDR",
    21: "backlog of 5, IPv4 only, every interface by default",
    22: "the pool doubles without a cap",
    23: "an exception kills a thread that is still in the pool's list",
    24: "polling: 99 messages a second, and load when idle",
    25: "an end taken for 'nothing yet'",
    26: "a reset swallowed",
    27: "a writer to a slow reader cut in the middle of a frame",
    28: "a race of two loops sends bytes twice",
    29: "memory allocated from the announced length",
    30: "a length with its top bit set not rejected",
    31: "fragments, queue and pongs unbounded",
    32: "reserved bits, reserved opcodes and non-minimal lengths accepted",
    33: "long and fragmented control frames accepted",
    34: "a ping inside a message cuts it",
    35: "a message inside a message glued on",
    36: "text not validated",
    37: "close code and reason ignored",
    38: "a second Close frame, and data behind it",
    39: "20 ms for the closing handshake",
    40: "fragments sent as text, text, text",
    41: "fragments of two writers interleave",
    42: "header and payload in two sends, 44 ms on loopback",
    43: "messages lost while one kind is waited for",
    44: "ports in the wrong byte order",
    45: "handlers freed under live threads at the stop",
    46: "a communicator freed under its receiver",
    47: "handlers freed although they were not to be",
    48: "no ping, so dead peers stay",
    49: "violations end without a Close frame",
    50: "predictable masks",
    51: "no subprotocols, no extensions",
    52: "the socket handler's settings lost for each connection",
    53: "clients without a certificate served; files read for each connection",
    59: "the bind address overwritten by the peer's",
}
"""The numbers are those of the list that was made when the seed was studied."""


def marks_in(source: str) -> set[int]:
    """The numbers of every `@pytest.mark.d(...)` that stands on a test."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.d":
                assert node.name.startswith(("test_", "Test")), node.name
                found |= {ast.literal_eval(argument) for argument in decorator.args}
    return found


def all_marks() -> dict[int, set[str]]:
    marks = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for number in marks_in(path.read_text()):
            marks[number].add(path.name)
    return marks


def test_the_list_is_whole():
    assert list(FAULTS) == [*range(1, 54), 59]


def test_every_seed_fault_has_a_test():
    marks = all_marks()
    missing = {f"D{number}": FAULTS[number] for number in FAULTS if number not in marks}
    assert not missing


def test_no_mark_names_a_fault_that_there_is_not():
    assert all_marks().keys() <= FAULTS.keys()


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ("@pytest.mark.d(1, 22)\ndef test_a():\n    pass", {1, 22}),
        (
            "class TestA:\n    @pytest.mark.d(3)\n    @pytest.mark.slow\n    def test_a(self): pass",
            {3},
        ),
        ("# @pytest.mark.d(4)\ndef test_a():\n    '@pytest.mark.d(5)'", set()),
        ("@pytest.mark.promise(6)\ndef test_a():\n    pass", set()),
    ],
)
def test_marks_are_read_from_the_code_not_from_the_text(source, numbers):
    assert marks_in(source) == numbers
