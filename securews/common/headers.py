"""HTTP header fields: a case-insensitive multi-map that cannot carry an injection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Literal

__all__ = ["HeaderSource", "Headers", "SameSite"]

SameSite = Literal["Strict", "Lax", "None"]

HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]
"""What a `Headers` can be made from."""

# RFC 9110, section 5.6.2: token.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, section 5.5: visible characters, space and tab; obs-text is allowed as latin-1.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# RFC 6265, section 4.1.1: cookie-octet.
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_COOKIE_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")


class Headers(MutableMapping[str, str]):
    """Header fields in order, compared without case, several values to a name allowed.

    `headers[name]` is the only value of that name, or all of them joined with ", ";
    `get_all(name)` gives them apart. Setting replaces, `add` appends. Not locked: one
    thread at a time may change it.

    Raises:
        ValueError: a name that is no token, or a value with CR, LF, NUL, another control
            character or one outside latin-1 (RFC 9110, sections 5.1 and 5.5).
    """

    __slots__ = ("_fields",)

    def __init__(self, source: HeaderSource | None = None) -> None:
        self._fields: list[tuple[str, str, str]] = []
        if source is not None:
            pairs = source.items() if isinstance(source, Mapping) else source
            for name, value in pairs:
                self.add(name, value)

    @classmethod
    def of_checked(cls, fields: Iterable[tuple[str, str]]) -> Headers:
        """Of fields that have passed the same checks as bytes; to check again costs a parser."""
        headers = cls()
        headers._fields = [(name.lower(), name, value.strip(" \t")) for name, value in fields]
        return headers

    def add(self, name: str, value: str) -> None:
        """Append a field and keep those of the same name."""
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"a header is a pair of str, not {type(name).__name__}: {type(value).__name__}; "
                "write str(value)"
            )
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"header name {name[:80]!r} is not a token (RFC 9110, section 5.1)")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of header {name!r} has a control character or one outside latin-1; "
                "encode it first, for example with urllib.parse.quote()"
            )
        self._fields.append((name.lower(), name, value.strip(" \t")))

    def get_all(self, name: str) -> list[str]:
        """All values of `name`, in order; an empty list where there is none."""
        key = name.lower()
        return [value for folded, _, value in self._fields if folded == key]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated members of all fields `name`, lower case, empty ones left out."""
        return [
            member.lower()
            for value in self.get_all(name)
            for part in value.split(",")
            if (member := part.strip(" \t"))
        ]

    def raw(self) -> list[tuple[str, str]]:
        """Every field as (name, value), in order, repeated names apart."""
        return [(name, value) for _, name, value in self._fields]

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite = "Lax",
    ) -> None:
        """Add a Set-Cookie field; every protection is on unless it is switched off.

        Args:
            name: the cookie's name, a token. `__Host-` names are bound to this host:
                no domain, path "/", secure. `__Secure-` names must be secure.
            value: characters of RFC 6265, section 4.1.1 (no space, comma, semicolon, quote).
            max_age: seconds to keep it; None is until the browser closes, 0 deletes it.
            path: the path prefix that it is sent to.
            domain: None is this host alone.
            secure: sent over TLS only.
            http_only: hidden from scripts.
            same_site: "Strict", "Lax" or "None" (which must be secure).

        Raises:
            ValueError: a character that does not fit, or a rule above broken.
        """
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"cookie name {name[:80]!r} is not a token (RFC 6265, section 4.1.1)")
        if not _COOKIE_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of cookie {name!r} has a character that cookies cannot carry; "
                "encode it first, for example with base64.urlsafe_b64encode()"
            )
        for attribute in (path, domain or ""):
            if not _COOKIE_ATTRIBUTE.fullmatch(attribute):
                raise ValueError(f"cookie {name!r}: {attribute[:80]!r} is no path or domain")
        lowered = name.lower()
        if lowered.startswith("__host-") and (domain is not None or path != "/" or not secure):
            raise ValueError(f"cookie {name!r}: __Host- needs secure, path='/' and no domain")
        if lowered.startswith("__secure-") and not secure:
            raise ValueError(f"cookie {name!r}: __Secure- needs secure")
        if same_site not in ("Strict", "Lax", "None"):
            raise ValueError(f"same_site is 'Strict', 'Lax' or 'None', not {same_site!r}")
        if same_site == "None" and not secure:
            raise ValueError(f"cookie {name!r}: same_site='None' needs secure (RFC 6265bis)")
        parts = [f"{name}={value}", f"Path={path}"]
        if max_age is not None:
            parts.append(f"Max-Age={int(max_age)}")
        if domain is not None:
            parts.append(f"Domain={domain}")
        if secure:
            parts.append("Secure")
        if http_only:
            parts.append("HttpOnly")
        parts.append(f"SameSite={same_site}")
        self.add("Set-Cookie", "; ".join(parts))

    def delete_cookie(self, name: str, *, path: str = "/", domain: str | None = None) -> None:
        """Add the Set-Cookie field that makes a browser forget `name`."""
        self.set_cookie(name, "", max_age=0, path=path, domain=domain)

    def copy(self) -> Headers:
        """A copy that can be changed without changing this one."""
        clone = Headers()
        clone._fields = list(self._fields)
        return clone

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        fresh = Headers()
        fresh.add(name, value)  # checked before the old value goes
        self.pop(name, None)
        self._fields += fresh._fields

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        kept = [field for field in self._fields if field[0] != key]
        if len(kept) == len(self._fields):
            raise KeyError(name)
        self._fields = kept

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(f[0] == name.lower() for f in self._fields)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(field[0] for field in self._fields))

    def __len__(self) -> int:
        return len({field[0] for field in self._fields})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(f[0], f[2]) for f in self._fields] == [(f[0], f[2]) for f in other._fields]

    __hash__ = None  # type: ignore[assignment]  # mutable, as dict

    def __repr__(self) -> str:
        # Names only: values carry cookies and credentials, and reprs end in logs.
        return f"<Headers {[name for _, name, _ in self._fields]}>"
