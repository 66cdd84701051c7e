"""Who is ended when the interpreter exits, and in which order."""

import gc
import os
import subprocess
import sys

import pytest
from support import TIMEOUT

from securews.loop import at_exit
from securews.loop.at_exit import GRACE, end_at_exit


class Owner:
    def __init__(self, name, told):
        self.name, self.told = name, told

    def begin_exit(self):
        self.told.append(("begin", self.name))

    def finish_exit(self, deadline):
        self.told.append(("finish", self.name))
        assert 0 < deadline.remaining() <= GRACE


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch):
    monkeypatch.setattr(at_exit, "_running", type(at_exit._running)())
    monkeypatch.setattr(at_exit, "_registered", True)


def test_all_are_begun_before_the_first_is_waited_for():
    told = []
    owners = [Owner(name, told) for name in "ab"]
    for owner in owners:
        end_at_exit(owner)
    at_exit._end_all()
    assert [step for step, _ in told] == ["begin", "begin", "finish", "finish"]
    assert {name for _, name in told} == {"a", "b"}


def test_what_another_process_has_started_is_not_ended(monkeypatch):
    told = []
    owner = Owner("parent's", told)
    end_at_exit(owner)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    child_s = Owner("child's", told)
    end_at_exit(child_s)
    at_exit._end_all()
    assert told == [("begin", "child's"), ("finish", "child's")]


def test_what_nobody_refers_to_any_more_is_forgotten():
    told = []
    end_at_exit(Owner("gone", told))
    gc.collect()
    at_exit._end_all()
    assert told == []


def test_whatever_is_raised_says_nothing():
    class Failing(Owner):
        def begin_exit(self):
            raise KeyboardInterrupt

    owner = Failing("a", [])
    end_at_exit(owner)
    at_exit._end_all()


def test_it_comes_before_what_the_program_had_registered_and_after_what_it_registers_later():
    program = """
import atexit
from securews.loop.at_exit import end_at_exit
class Owner:
    def begin_exit(self): print("begin")
    def finish_exit(self, deadline): print("finish")
atexit.register(print, "earlier")
owner = Owner()
end_at_exit(owner)
end_at_exit(owner)
atexit.register(print, "later")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    assert done.stdout.split() == ["later", "begin", "finish", "earlier"]
    assert done.stderr == ""
