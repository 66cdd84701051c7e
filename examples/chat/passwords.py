"""Password hashes: Argon2id where this build of `cryptography` has it, else scrypt.

A hash is a small JSON object that names its function and its costs, so that hashes of both
kinds and of older costs stay valid side by side. Checking one takes about 50 ms and 20 MiB on
purpose (OWASP Password Storage cheat sheet): never on an I/O thread.
"""

from __future__ import annotations

import base64
import os
import unicodedata
from typing import Protocol, TypedDict

from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

__all__ = ["PasswordHash", "hash_password", "password_fits"]

_ARGON2ID_COSTS = {"memory": 19 << 10, "passes": 3, "lanes": 1}  # memory in KiB
_SCRYPT_COSTS = {"n": 1 << 15, "r": 8, "p": 3}  # 32 MiB


class PasswordHash(TypedDict):
    """What is kept of a password."""

    function: str
    costs: dict[str, int]
    salt: str
    hash: str


class _Derivation(Protocol):
    def derive(self, key_material: bytes) -> bytes: ...
    def verify(self, key_material: bytes, expected_key: bytes) -> None: ...


def _derivation(function: str, costs: dict[str, int], salt: bytes) -> _Derivation:
    if function == "argon2id":
        # Imported late: cryptography has it since version 44.
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        return Argon2id(
            salt=salt,
            length=32,
            iterations=costs["passes"],
            lanes=costs["lanes"],
            memory_cost=costs["memory"],
        )
    if function == "scrypt":
        return Scrypt(salt=salt, length=32, n=costs["n"], r=costs["r"], p=costs["p"])
    raise ValueError(f"unknown password hash function {function!r}")


def _have_argon2id() -> bool:
    try:
        _derivation("argon2id", _ARGON2ID_COSTS, os.urandom(16))
    except (ImportError, UnsupportedAlgorithm):  # it needs OpenSSL 3.2 under cryptography
        return False
    return True


_PREFERRED = ("argon2id", _ARGON2ID_COSTS) if _have_argon2id() else ("scrypt", _SCRYPT_COSTS)


def _secret(password: str) -> bytes:
    # The same password typed on another system may come composed differently. A lone surrogate
    # can come from a form only by mischief; it must not end in an exception.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def hash_password(password: str) -> PasswordHash:
    """A hash of `password` with a fresh salt, by the best function there is."""
    function, costs = _PREFERRED
    salt = os.urandom(16)
    digest = _derivation(function, costs, salt).derive(_secret(password))
    return {
        "function": function,
        "costs": dict(costs),
        "salt": base64.b64encode(salt).decode(),
        "hash": base64.b64encode(digest).decode(),
    }


def password_fits(password: str, kept: PasswordHash) -> bool:
    """Whether `password` is the one that was hashed; compared in constant time."""
    derivation = _derivation(kept["function"], kept["costs"], base64.b64decode(kept["salt"]))
    try:
        derivation.verify(_secret(password), base64.b64decode(kept["hash"]))
    except InvalidKey:
        return False
    return True
