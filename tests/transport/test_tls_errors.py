import ssl

import pytest

from securews.transport.tls_errors import reason, reason_code


def error(code, text):
    made = ssl.SSLError(1, text)
    made.reason = code
    return made


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (
            error("NO_SHARED_CIPHER", "[SSL: NO_SHARED_CIPHER] no shared cipher (_ssl.c:1006)"),
            "NO_SHARED_CIPHER",
            "no cipher suite in common",
        ),
        (
            error(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"),
            "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
            "the peer speaks no HTTP/1.1",
        ),
        (error("BAD_THING", "x"), "BAD_THING", "bad thing"),
        (ssl.SSLError(), "", "unknown reason"),
    ],
)
def test_reasons_in_words(made, code, words):
    assert reason_code(made) == code
    assert reason(made) == words
