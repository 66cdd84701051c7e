"""The body of a page's request, parsed in slices of the loop's turns."""

from __future__ import annotations

from collections.abc import Callable

from securews.connection.channel import Channel
from securews.handlers.request import FORM_LIMIT
from securews.protocol.http_head import RequestParser

__all__ = ["PageBody"]


class PageBody:
    """Parses what a channel receives behind a head. Loop thread only.

    What a read brought is kept, and the channel reads nothing before it is used up, so a peer
    whose chunks cost much work makes its own request slow and not those of others.

    Args:
        channel: whose `continue_work` is passed on to `step`.
        parser: has returned the head.
        complete: called once, with the body.
    """

    __slots__ = ("_channel", "_complete", "_parser", "_received")

    def __init__(
        self, channel: Channel, parser: RequestParser, complete: Callable[[bytes], None]
    ) -> None:
        self._channel = channel
        self._parser = parser
        self._complete = complete
        self._received = b""

    def received(self, data: bytes) -> None:
        """Parse `data` soon; b"" is what came with the head."""
        self._received = data
        self._channel.set_reading(False)
        self._channel.continue_later()

    def step(self) -> None:
        """Take one step.

        Raises:
            Reject: as `RequestParser.feed_body`.
        """
        data, self._received = self._received, b""
        body = self._parser.feed_body(data, FORM_LIMIT)
        if body is not None:
            self._complete(body)
        elif self._parser.body_unread:
            self._channel.continue_later()
        else:
            self._channel.set_reading(True)
