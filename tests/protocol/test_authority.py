from __future__ import annotations

import pytest

from securews.protocol.authority import split_authority


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("a", "a", None),
        ("A_b-c.Example", "a_b-c.example", None),
        ("a.", "a", None),
        ("a:", "a", None),
        ("a:0", "a", 0),
        ("a.:65535", "a", 65535),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("[::1]", "::1", None),
        ("[0:0::1]:443", "::1", 443),
        ("x" * 255, "x" * 255, None),
    ],
)
def test_host_and_port_are_split(authority: str, host: str, port: int | None):
    assert split_authority(authority) == (host, port)


@pytest.mark.parametrize(
    "authority",
    [
        "", ".", "a..", "a..b", ".a", ":80", "a:b", "a:65536", "a:123456", "a:80:80", "a b", " a",
        "a\n", "a/b", "a?b", "a#b", "u@a", "a,b", "a\\b", "a%41", "caf\xe9", "\u0661:80", "a:\u0661",
        "[", "[]", "[a]", "[::1", "::1", "[1.2.3.4]", "[:::]", "[::1%eth0]", "[::1]80", "x" * 256,
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused_without_being_repeated(authority: str):
    with pytest.raises(
        ValueError, match=r"^not a host name or address, with at most a port up to 65535 behind it$"
    ):
        split_authority(authority)
