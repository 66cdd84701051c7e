"""Close codes and the payload of Close frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.errors import ProtocolError
from securews.protocol.close_codes import (
    MAX_REASON_BYTES,
    CloseCode,
    cut_reason,
    encode_close_payload,
    is_allowed_on_wire,
    parse_close_payload,
)

ALLOWED = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


@pytest.mark.promise(47)
def test_exactly_the_codes_of_the_promise_are_allowed():
    assert {code for code in range(-1, 70000) if is_allowed_on_wire(code)} == ALLOWED


def test_the_codes_that_stand_for_no_frame_are_not_allowed():
    refused = {code.name for code in CloseCode if not is_allowed_on_wire(code)}
    assert refused == {"NO_STATUS_RECEIVED", "ABNORMAL_CLOSURE", "TLS_HANDSHAKE"}


def test_an_empty_payload_is_code_1005():
    assert parse_close_payload(b"") == (1005, "")
    assert encode_close_payload(None) == b""


@pytest.mark.d(37)
@pytest.mark.promise(47)
@pytest.mark.parametrize(
    ("payload", "close_code"),
    [
        (b"\x03", 1002),
        (b"\x00\x00", 1002),
        (b"\x03\xe7", 1002),  # 999
        (b"\x03\xec", 1002),  # 1004
        (b"\x03\xed", 1002),  # 1005
        (b"\x03\xee", 1002),  # 1006
        (b"\x03\xf7", 1002),  # 1015
        (b"\x07\xd0", 1002),  # 2000
        (b"\xff\xff", 1002),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8\xe2\x82", 1007),  # a character cut short
        (b"\x03\xe8\xed\xa0\x80", 1007),  # a surrogate
    ],
)
def test_a_wrong_close_payload_names_the_code_to_answer_with(payload, close_code):
    with pytest.raises(ProtocolError) as caught:
        parse_close_payload(payload)
    assert caught.value.close_code == close_code


@given(st.sampled_from(sorted(ALLOWED)), st.text(max_size=MAX_REASON_BYTES))
def test_what_is_encoded_is_parsed_back(code, reason):
    reason = cut_reason(reason)
    assert parse_close_payload(encode_close_payload(code, reason)) == (code, reason)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000])
def test_our_own_wrong_code_is_a_value_error_that_names_it(code):
    with pytest.raises(ValueError, match=rf"close code {code} may not be sent"):
        encode_close_payload(code)


def test_a_reason_needs_a_code():
    with pytest.raises(ValueError, match="needs a close code"):
        encode_close_payload(None, "why")


def test_a_reason_is_measured_in_bytes_of_utf8():
    assert len(encode_close_payload(1000, "é" * 61 + "x")) == 125
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, not 124"):
        encode_close_payload(1000, "é" * 62)


def test_a_reason_with_a_lone_surrogate_is_a_value_error():
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode_close_payload(1000, "\ud800")


@given(st.text(alphabet=st.characters(), max_size=200))
def test_a_cut_reason_fits_and_loses_no_more_than_one_character(reason):
    cut = cut_reason(reason)
    size = len(cut.encode())
    assert size <= MAX_REASON_BYTES
    whole = reason.encode(errors="replace").decode()
    assert whole.startswith(cut)
    assert cut == whole or size > MAX_REASON_BYTES - 4
