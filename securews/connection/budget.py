"""What one server holds for all its peers together: queues, outboxes, unfinished messages.

Each connection has bounds of its own; a thousand of them filled at once would still be more than
a machine has. While the sum is over its limit, connections that hold more than their even share
are not read from; of those whose peers take nothing the one with the fullest outbox is closed,
and so is one whose unfinished message alone is more than its share. Who holds little notices
nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from securews.common.errors import ProtocolError

if TYPE_CHECKING:
    from securews.connection.connection import Connection

__all__ = ["Budget"]

log = logging.getLogger("securews.server")

SLOW = "and of the peers that take nothing it has the fullest outbox"
LONG = "and its unfinished message is longer than its share"

RELIEF = 0.9
"""Of the limit: below this share those that were not read from are read from again."""


class Budget:
    """Bytes that the connections of one loop hold. Loop thread only.

    Args:
        limit: bytes; None is no limit.
    """

    __slots__ = ("_curbed", "_held", "_limit", "total")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._held: dict[Connection, int] = {}
        self._curbed: set[Connection] = set()
        self.total = 0

    def account(self, connection: Connection, held: int) -> None:
        """`connection` holds so much now; 0 at its end."""
        if self._limit is None:
            return
        self.total += held - self._held.get(connection, 0)
        if held:
            self._held[connection] = held
        else:
            self._held.pop(connection, None)
            if connection in self._curbed:  # it holds nothing: whatever the sum, read from it
                self._curbed.remove(connection)
                connection.channel.mark()
        if self.total > self._limit:
            self._curb(connection, held)
        elif self._curbed and self.total < RELIEF * self._limit:
            relieved, self._curbed = self._curbed, set()
            for each in relieved:
                each.channel.mark()

    @property
    def short(self) -> bool:
        """Whether somebody is not read from, so that every message that is taken matters."""
        return bool(self._curbed)

    def curbs(self, connection: Connection) -> bool:
        """Whether this connection is not to be read from at present."""
        return connection in self._curbed

    def _ask_everybody(self) -> None:
        """What handlers took since their connection's last turn was not accounted yet."""
        for each in self._held:
            each.receiving.curbed = True
            each.channel.mark()

    def _curb(self, connection: Connection, held: int) -> None:
        """Over the limit: stop who holds more than its share, and close one if that frees any."""
        assert self._limit is not None
        share = self._limit / len(self._held)
        if held > share:
            if not self._curbed:
                self._ask_everybody()
            self._curbed.add(connection)
            connection.channel.mark()
        slow = [c for c in self._held if c.channel.blocked and not c.closing]
        if slow:
            fullest = max(slow, key=lambda c: c.channel.outbox.size)
            log.warning("%s: closed with 1013: max_buffered is reached, %s", fullest.name, SLOW)
            fullest.start_close(1013, "too slow", discard=True)
        elif connection.protocol.unfinished > share and not connection.closing:
            # It is not read from, so its message would never be complete, nor its memory free.
            log.warning("%s: closed with 1013: max_buffered is reached, %s", connection.name, LONG)
            connection.fail(ProtocolError("the server is full; try again later", 1013))
