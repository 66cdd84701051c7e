"""Messages that say who sent them and which one it is, and the accounts of both ends."""

from __future__ import annotations

import hashlib
import random
import threading

LONGEST = 3000
"""Bytes of random payload; twice as many characters."""


class Account:
    """How many messages, and a hash over all of them in their order. One thread at a time."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def add(self, message: str | bytes) -> None:
        """One more message."""
        self.count += 1
        self._hash.update(message.encode() if isinstance(message, str) else message)

    @property
    def total(self) -> tuple[int, str]:
        """To be compared with the other end's."""
        return self.count, self._hash.hexdigest()


class Sent:
    """What one sender has sent, receiver by receiver. That sender's thread only, until it ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accounts: dict[str, Account] = {}
        self._random = random.Random(name)
        self._numbers: dict[str, int] = {}

    def next_message(self, receiver: str) -> str | bytes:
        """The next one for `receiver`: sender, number, SHA-256 of the payload, payload."""
        number = self._numbers.get(receiver, 0)
        self._numbers[receiver] = number + 1
        payload = self._random.randbytes(self._random.randrange(LONGEST)).hex()
        digest = hashlib.sha256(payload.encode()).hexdigest()
        message = f"{self.name} {number} {digest} {payload}"
        return message if number % 2 else message.encode()

    def note(self, receiver: str, message: str | bytes) -> None:
        """It was taken for `receiver`."""
        self.accounts.setdefault(receiver, Account()).add(message)


class Received:
    """What one receiver got. Its own thread adds, any thread asks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accounts: dict[str, Account] = {}
        self._next: dict[str, int] = {}
        self._changed = threading.Condition()

    def take(self, message: str | bytes) -> None:
        """Check one message: whole, the next of its sender, of the kind that it was sent as.

        Raises:
            AssertionError: it is not. A broadcast may skip a receiver; others may not.
        """
        text = message if isinstance(message, str) else message.decode()
        sender, number_text, digest, payload = text.split(" ", 3)
        number = int(number_text)
        where = f"message {number} from {sender} to {self.name}"
        assert hashlib.sha256(payload.encode()).hexdigest() == digest, f"{where} is not whole"
        assert isinstance(message, str) == bool(number % 2), f"{where} is of the wrong kind"
        expected = self._next.get(sender, 0)
        if sender.startswith("broadcast"):
            assert number >= expected, f"{where} comes late or twice: {expected} was expected"
        else:
            assert number == expected, f"{where} is out of order: {expected} was expected"
        with self._changed:
            self._next[sender] = number + 1
            self.accounts.setdefault(sender, Account()).add(message)
            self._changed.notify_all()

    def total(self, sender: str) -> tuple[int, str] | None:
        """The account of a sender; None where nothing came."""
        account = self.accounts.get(sender)
        return None if account is None else account.total

    def wait_for(self, sender: str, count: int, timeout: float) -> bool:
        """Wait until so many messages of a sender have come."""

        def there() -> bool:
            account = self.accounts.get(sender)
            return account is not None and account.count >= count

        with self._changed:
            return self._changed.wait_for(there, timeout)
