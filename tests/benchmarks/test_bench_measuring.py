import os
import socket
import subprocess
import sys
import threading

import pytest

from benchmarks import measuring
from benchmarks.processes import BenchError, parse_output


@pytest.fixture
def child():
    """A process that is there until its input ends."""
    program = [sys.executable, "-c", "input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process
        process.stdin.close()


def test_the_processes_of_a_server_include_its_children(child):
    assert child.pid in measuring.processes(os.getpid())
    assert measuring.processes(child.pid) == [child.pid]


def test_memory_is_the_sum_of_the_processes(child):
    alone = measuring.memory([os.getpid()])
    assert measuring.memory([os.getpid(), child.pid]) > alone > 1024 * 1024


def test_threads_are_counted():
    before = measuring.threads([os.getpid()])
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert measuring.threads([os.getpid()]) == before + 1
    over.set()
    thread.join()


def test_a_listener_is_seen_without_connecting_to_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        assert measuring.is_listening(port)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not measuring.is_listening(port)


def test_the_last_line_of_the_load_generator_is_what_it_measured():
    out = '{"event": "open"}\n{"event": "measured", "per_second": 2.5}\n'
    assert parse_output(out, "", 0) == {"event": "measured", "per_second": 2.5}


def test_a_failed_load_generator_is_an_error_with_its_words():
    with pytest.raises(BenchError, match=r"^load: the opening was refused: HTTP/1\.1 503$"):
        parse_output("", "load: the opening was refused: HTTP/1.1 503\n", 1)
