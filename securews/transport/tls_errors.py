"""OpenSSL's errors in words that say what to do about them."""

from __future__ import annotations

import re
import ssl

__all__ = ["reason", "reason_code"]

_WORDS = {
    "CERTIFICATE_VERIFY_FAILED": "the peer's certificate is refused",
    "HTTP_REQUEST": "the peer speaks plain HTTP",
    "NO_SHARED_CIPHER": "no cipher suite in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate, and one is required",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer refused our certificate: it expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer does not trust our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer refused the handshake",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer requires a certificate of us",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer speaks no HTTP/1.1",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer speaks no TLS version that we do",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the CA of our certificate",
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not serve that name",
    "UNEXPECTED_EOF_WHILE_READING": "the peer cut the connection",
    "UNSUPPORTED_PROTOCOL": "the peer speaks only TLS versions that are refused",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
}
"""OpenSSL's reasons that people meet, in words. The others are put in lower case."""


# Such as: [SSL] tlsv1 alert no application protocol (_ssl.c:1006).
_TEXT = re.compile(r"(?:\[[^]]*\] )?(.*?)(?: \(_ssl\.c:\d+\))?$")


def reason_code(error: ssl.SSLError) -> str:
    """OpenSSL's name of the reason, such as "NO_SHARED_CIPHER".

    Python's table of them has gaps: `reason` is None or missing then, and the text has the words.
    """
    code: str | None = getattr(error, "reason", None)
    if code:
        return code
    found = _TEXT.match(str(error.args[-1])) if error.args else None
    return found[1].upper().replace(" ", "_") if found else ""


def reason(error: ssl.SSLError) -> str:
    """One clear line for an error of OpenSSL; it never holds a peer's own words."""
    code = reason_code(error)
    words = _WORDS.get(code) or code.lower().replace("_", " ") or "unknown reason"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{words}: {error.verify_message}"
    return words
