"""Password hashes: Argon2id where `cryptography` gives the GIL up in it, else scrypt.

A hash is a small JSON object that names its function and its costs, so that hashes of both
kinds and of older costs stay valid side by side. Checking one is slow on purpose (OWASP Password
Storage cheat sheet), about 50 ms and 19 MiB for Argon2id, 300 ms and 32 MiB for scrypt: never on
an I/O thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import unicodedata
from typing import TypedDict

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm

__all__ = ["PasswordHash", "can_check", "cost_of", "hash_password", "password_fits"]

_ARGON2ID_COSTS = {"memory": 19 << 10, "passes": 3, "lanes": 1}  # memory in KiB
_SCRYPT_COSTS = {"n": 1 << 15, "r": 8, "p": 3}  # 32 MiB
_LENGTH = 32


class PasswordHash(TypedDict):
    """What is kept of a password."""

    function: str
    costs: dict[str, int]
    salt: str
    hash: str


def _derive(function: str, costs: dict[str, int], salt: bytes, secret: bytes) -> bytes:
    if function == "argon2id":
        # Imported late: cryptography has it since version 44, with OpenSSL 3.2 under it.
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        return Argon2id(
            salt=salt,
            length=_LENGTH,
            iterations=costs["passes"],
            lanes=costs["lanes"],
            memory_cost=costs["memory"],
        ).derive(secret)
    if function == "scrypt":
        # hashlib's, which gives the GIL up: that of cryptography does so since version 50 only.
        n, r, p = costs["n"], costs["r"], costs["p"]
        needed = 128 * r * (n + p + 2)  # bytes; OpenSSL refuses more than 32 MiB unless it is told
        return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=needed, dklen=_LENGTH)
    raise ValueError(f"unknown password hash function {function!r}")


def _have_argon2id() -> bool:
    try:
        _derive("argon2id", {"memory": 8, "passes": 1, "lanes": 1}, bytes(16), b"")
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


_HAVE_ARGON2ID = _have_argon2id()


def _preferred(version: str) -> tuple[str, dict[str, int]]:
    """The function and its costs for new hashes, with this version of cryptography."""
    # Before version 50 its Argon2id keeps the GIL: each hash stops every connection for 50 ms.
    # https://github.com/pyca/cryptography/pull/15163
    if _HAVE_ARGON2ID and int(version.partition(".")[0]) >= 50:
        return "argon2id", _ARGON2ID_COSTS
    return "scrypt", _SCRYPT_COSTS


_PREFERRED = _preferred(cryptography.__version__)


def _secret(password: str) -> bytes:
    # The same password typed on another system may come composed differently. A lone surrogate
    # can come from a form only by mischief; it must not end in an exception.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def hash_password(password: str) -> PasswordHash:
    """A hash of `password` with a fresh salt, by the best function there is."""
    function, costs = _PREFERRED
    salt = os.urandom(16)
    digest = _derive(function, costs, salt, _secret(password))
    return {
        "function": function,
        "costs": dict(costs),
        "salt": base64.b64encode(salt).decode(),
        "hash": base64.b64encode(digest).decode(),
    }


def password_fits(password: str, kept: PasswordHash) -> bool:
    """Whether `password` is the one that was hashed; compared in constant time."""
    salt, expected = base64.b64decode(kept["salt"]), base64.b64decode(kept["hash"])
    digest = _derive(kept["function"], kept["costs"], salt, _secret(password))
    return hmac.compare_digest(digest, expected)


def can_check(kept: PasswordHash) -> bool:
    """Whether its function is here: an older `cryptography` may not have Argon2id."""
    return kept["function"] == "scrypt" or (kept["function"] == "argon2id" and _HAVE_ARGON2ID)


def cost_of(kept: PasswordHash) -> tuple[object, ...]:
    """Equal for hashes that take equally long to check; a key for dictionaries."""
    return kept["function"], *sorted(kept["costs"].items())
