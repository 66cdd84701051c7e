"""The body of a page: parsed in slices, and nothing is read meanwhile."""

from __future__ import annotations

import pytest

from securews.common.errors import Reject
from securews.common.options import Limits
from securews.protocol.http_head import RequestParser
from securews.server.page_body import PageBody

HEAD = b"POST /form HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"


class Channel:
    """Counts the slices that were asked for."""

    def __init__(self):
        self.reading = True
        self.asked = 0

    def set_reading(self, reading):
        self.reading = reading

    def continue_later(self):
        self.asked += 1


@pytest.fixture
def channel():
    return Channel()


def body_behind(channel, leftover=b""):
    parser = RequestParser(Limits())
    assert parser.feed(HEAD + leftover) is not None
    complete = []
    return PageBody(channel, parser, complete.append), complete


def test_the_steps_use_up_what_a_read_brought_before_more_is_read(channel):
    body, complete = body_behind(channel)
    body.received(b"")
    assert (channel.asked, channel.reading) == (1, False)
    body.step()
    assert channel.reading  # nothing came with the head
    body.received(CHUNK * 200)
    steps = 0
    while not channel.reading:
        asked = channel.asked
        body.step()
        steps += 1
        assert channel.asked == asked + (not channel.reading)  # one slice for each step
    assert steps > 10
    assert not complete
    body.received(b"0\r\n\r\n")
    body.step()
    assert complete == [b"x" * 200]
    assert not channel.reading


def test_what_came_with_the_head_is_parsed_in_slices_too(channel):
    body, complete = body_behind(channel, CHUNK * 200 + b"0\r\n\r\n")
    body.received(b"")
    steps = 0
    while not complete:
        body.step()
        steps += 1
    assert steps > 10
    assert complete == [b"x" * 200]


def test_a_body_that_is_wrong_is_refused_by_the_step(channel):
    body, _ = body_behind(channel)
    body.received(b"no chunk\r\n")
    with pytest.raises(Reject):
        body.step()
