"""permessage-deflate: which offer is taken, what is answered, which answers a client believes."""

from __future__ import annotations

import itertools

import pytest

from securews.common.options import Compression
from securews.protocol.deflate_negotiation import DeflateOffer, accept_offer

LARGE = Compression(server_window_bits=15, client_window_bits=15)
NAME = "permessage-deflate"


def accepted(value, compression=LARGE, *, confidential=False):
    return accept_offer([value], compression, confidential=confidential)


def answer_to(parameters, compression=LARGE, **options):
    """The answer's parameters; None where the offer was declined."""
    taken = accepted(NAME + parameters, compression, **options)
    return None if taken is None else taken[0].removeprefix(NAME)


# -- the server --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("", ""),
        ("; server_no_context_takeover", "; server_no_context_takeover"),
        ("; client_no_context_takeover", "; client_no_context_takeover"),
        ("; server_max_window_bits=15", "; server_max_window_bits=15"),
        ("; server_max_window_bits=9", "; server_max_window_bits=9"),
        ('; server_max_window_bits="10"', "; server_max_window_bits=10"),
        ("; client_max_window_bits", "; client_max_window_bits=15"),
        ("; client_max_window_bits=8", "; client_max_window_bits=8"),
        ("; client_max_window_bits=12", "; client_max_window_bits=12"),
    ],
)
def test_an_offer_is_answered_with_what_it_asks_for(offer, answer):
    assert answer_to(offer) == answer


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("", "; server_max_window_bits=10"),
        ("; server_max_window_bits=15", "; server_max_window_bits=10"),
        ("; server_max_window_bits=9", "; server_max_window_bits=9"),
        (
            "; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=11",
        ),
        (
            "; client_max_window_bits=9",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
    ],
)
def test_the_smaller_window_wins_and_a_client_that_cannot_be_told_is_not(offer, answer):
    compression = Compression(server_window_bits=10, client_window_bits=11)
    assert answer_to(offer, compression) == answer
    _, deflate = accepted(NAME + offer, compression)
    assert deflate.incoming_window_bits == (
        15 if "client_max" not in offer else 9 if "client_max_window_bits=9" in offer else 11
    )


@pytest.mark.promise(44)
@pytest.mark.parametrize(
    "parameters",
    [
        "; server_max_window_bits",
        "; server_max_window_bits=7",
        "; server_max_window_bits=8",  # legal, but zlib cannot
        "; server_max_window_bits=16",
        "; server_max_window_bits=09",
        "; server_max_window_bits=-9",
        "; server_max_window_bits=1_0",
        "; server_max_window_bits=99999999999999999999",
        "; client_max_window_bits=7",
        "; client_max_window_bits=16",
        "; client_max_window_bits=x",
        "; server_no_context_takeover=1",
        "; client_no_context_takeover=true",
        "; server_no_context_takeover; server_no_context_takeover",
        "; server_max_window_bits=10; server_max_window_bits=10",
        "; client_max_window_bits; client_max_window_bits=10",
        "; unknown",
        "; Server_No_Context_Takeover",
    ],
)
def test_a_bad_offer_is_declined_and_the_next_one_is_tried(parameters):
    assert answer_to(parameters) is None
    bad = NAME + parameters
    assert accepted(f"{bad}, {NAME}; server_max_window_bits=11")[0] == (
        f"{NAME}; server_max_window_bits=11"
    )
    assert accept_offer([bad, NAME], LARGE, confidential=False)[0] == NAME


@pytest.mark.promise(44)
@pytest.mark.parametrize(
    "value",
    ["", "other", "x-webkit-deflate-frame", f"{NAME};", f'{NAME}; a="', "Permessage-Deflate"],
)
def test_what_is_no_offer_of_ours_is_declined(value):
    assert accepted(value) is None


@pytest.mark.promise(43)
@pytest.mark.parametrize("setting", [None, False, True])
@pytest.mark.parametrize("confidential", [False, True])
def test_without_a_word_a_confidential_connection_keeps_no_context(setting, confidential):
    compression = Compression(server_context_takeover=setting, client_context_takeover=setting)
    header, deflate = accepted(NAME, compression, confidential=confidential)
    kept = setting if setting is not None else not confidential
    assert deflate.outgoing_takeover is deflate.incoming_takeover is kept
    assert ("server_no_context_takeover" not in header) is kept
    assert ("client_no_context_takeover" not in header) is kept


# -- the client --------------------------------------------------------------------------------


def offer_of(**options):
    return DeflateOffer(Compression(**options), confidential=False)


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({}, "; server_max_window_bits=12; client_max_window_bits=12"),
        (
            {"server_window_bits": 15, "client_window_bits": 15},
            "; client_max_window_bits=15",
        ),
        (
            {"server_context_takeover": False, "client_context_takeover": False},
            (
                "; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=12; client_max_window_bits=12"
            ),
        ),
    ],
)
def test_what_a_client_offers(options, header):
    assert offer_of(**options).header == NAME + header


@pytest.mark.promise(43)
def test_a_client_with_something_confidential_asks_for_no_context():
    header = DeflateOffer(Compression(), confidential=True).header
    assert "; server_no_context_takeover; client_no_context_takeover" in header


def test_a_server_that_declines_is_believed():
    assert offer_of().check([]) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("other", "was not offered"),
        (f"{NAME}; server_max_window_bits=12, {NAME}", "was not offered"),
        (f"{NAME}; server_max_window_bits=12; unknown", "unknown"),
        (f"{NAME}; server_max_window_bits=12; server_max_window_bits=12", "repeated"),
        (NAME, "larger than was asked for"),
        (f"{NAME}; server_max_window_bits=13", "larger than was asked for"),
        (f"{NAME}; server_max_window_bits=12; client_max_window_bits", "not 8 to 15"),
        (f"{NAME}; server_max_window_bits=12; client_max_window_bits=13", "than was offered"),
        (f"{NAME}; server_max_window_bits=12; client_max_window_bits=8", "zlib"),
        (f"{NAME};", "token"),
    ],
)
def test_an_answer_to_something_else_is_refused(answer, words):
    with pytest.raises(ValueError, match=words):
        offer_of().check([answer])


def test_an_answer_that_leaves_out_what_was_asked_for_is_refused():
    with pytest.raises(ValueError, match="leaves out server_no_context_takeover"):
        offer_of(server_context_takeover=False, server_window_bits=15).check([NAME])


def test_a_server_may_ask_for_less_than_was_offered():
    deflate = offer_of().check(
        [
            (
                f"{NAME}; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=8; client_max_window_bits=9"
            )
        ]
    )
    assert not deflate.incoming_takeover
    assert not deflate.outgoing_takeover
    assert deflate.incoming_window_bits == 9  # zlib inflates with 9 what was compressed with 8
    assert deflate.outgoing_window_bits == 9


def test_a_client_does_less_than_it_may():
    deflate = offer_of(
        client_context_takeover=False, client_window_bits=10, server_window_bits=15
    ).check([NAME])
    assert not deflate.outgoing_takeover
    assert deflate.outgoing_window_bits == 10
    assert deflate.incoming_takeover
    assert deflate.incoming_window_bits == 15


def test_both_ends_understand_every_agreement_alike():
    kept, bits = (None, False, True), (9, 12, 15)
    for server_keeps, client_keeps in itertools.product(kept, kept):
        for server_bits, client_bits in itertools.product(bits, bits):
            ours = Compression(server_context_takeover=server_keeps, server_window_bits=server_bits)
            theirs = Compression(
                client_context_takeover=client_keeps, client_window_bits=client_bits
            )
            offer = DeflateOffer(theirs, confidential=False)
            header, server = accept_offer([offer.header], ours, confidential=False)
            client = offer.check([header])
            # Whoever sends may do less than the other reckons with, never more.
            assert server.outgoing_takeover <= client.incoming_takeover
            assert client.outgoing_takeover <= server.incoming_takeover
            assert server.outgoing_window_bits <= client.incoming_window_bits
            assert client.outgoing_window_bits <= server.incoming_window_bits
