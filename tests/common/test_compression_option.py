"""`compression=`: what it takes, and what is said about anything else."""

from __future__ import annotations

import pytest

from securews import Compression, ConfigurationError
from securews.common.options import ConnectionOptions, split_options


def test_false_true_and_parameters():
    assert ConnectionOptions().wanted_compression is None
    assert ConnectionOptions(compression=True).wanted_compression == Compression()
    fast = Compression(level=1)
    assert ConnectionOptions(compression=fast).wanted_compression is fast


@pytest.mark.parametrize("value", [None, "deflate", 1, 0, Compression])
def test_anything_else_is_refused_with_what_to_write(value):
    with pytest.raises(ConfigurationError, match=r"True, False or a securews\.Compression"):
        ConnectionOptions(compression=value)


@pytest.mark.promise(44)
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("level", 1, 9),
        ("memory_level", 1, 9),
        ("server_window_bits", 9, 15),
        ("client_window_bits", 9, 15),
    ],
)
def test_parameters_have_two_ends(name, least, most):
    for value in (least, most):
        assert getattr(Compression(**{name: value}), name) == value
    with pytest.raises(ConfigurationError, match=f"'{name}' is at least {least}"):
        Compression(**{name: least - 1})
    with pytest.raises(ConfigurationError, match=f"'{name}' is at most {most}"):
        Compression(**{name: most + 1})


@pytest.mark.parametrize("name", ["server_context_takeover", "client_context_takeover"])
def test_takeover_is_true_false_or_for_us_to_decide(name):
    for value in (None, False, True):
        assert getattr(Compression(**{name: value}), name) is value
    with pytest.raises(ConfigurationError, match="True or False"):
        Compression(**{name: 1})


@pytest.mark.parametrize("name", ["permessage_deflate", "compress", "compresion"])
def test_other_names_for_it_are_understood_as_a_question(name):
    with pytest.raises(ConfigurationError, match="did you mean 'compression'"):
        split_options({name: True})
