"""Which TLS is spoken: Mozilla's "intermediate" configuration, version 6.0.

https://wiki.mozilla.org/Security/Server_Side_TLS. A context is complete when it leaves this
module's callers and is never changed afterwards: a connection that is being opened would see
half of the change, and resumed sessions none of it.
"""

from __future__ import annotations

import ssl

from securews.common.errors import ConfigurationError
from securews.transport.tls_errors import reason, reason_code
from securews.transport.tls_transform import HTTP_1_1

__all__ = [
    "CIPHERS",
    "GROUPS",
    "check_client_context",
    "check_minimum_version",
    "check_server_context",
    "client_context",
    "server_context",
    "try_handshake",
]

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""All suites for TLS 1.2. Python's own default offers CBC and DHE too. TLS 1.3 has its three."""

GROUPS = ("X25519MLKEM768", "X25519", "prime256v1", "secp384r1")
"""Key exchanges, where Python can set them (3.15); before that, OpenSSL's default."""


def server_context(minimum_version: ssl.TLSVersion) -> ssl.SSLContext:
    """A context for the server's end, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, minimum_version)
    # Python sets it. All suites are good ones: a phone without AES hardware picks ChaCha20.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context() -> ssl.SSLContext:
    """A context for the client's end that verifies, without anything to trust yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname
    _harden(context, ssl.TLSVersion.TLSv1_2)
    context.hostname_checks_common_name = False  # names stand in the SANs (RFC 9525, 6.3)
    # Python's own from 3.13 on. Partial chains: a CA file may hold just the intermediate.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _harden(context: ssl.SSLContext, minimum_version: ssl.TLSVersion) -> None:
    context.minimum_version = minimum_version
    context.set_ciphers(":".join(CIPHERS))
    context.set_alpn_protocols([HTTP_1_1])
    # A renegotiation costs us a handshake and the peer a few bytes (CVE-2011-1473).
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Compression before encryption leaks what is compressed (CRIME, CVE-2012-4929).
    context.options |= ssl.OP_NO_COMPRESSION
    # With it, a cut connection would look like an orderly end.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    set_groups(context)


def set_groups(context: ssl.SSLContext) -> None:
    """Set the key exchanges where Python and OpenSSL can; the newest one needs OpenSSL 3.5."""
    setter = getattr(context, "set_groups", None)
    if setter is None:
        return
    try:
        setter(":".join(GROUPS))
    except ssl.SSLError:
        setter(":".join(GROUPS[1:]))


SAFE_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def check_minimum_version(version: ssl.TLSVersion) -> None:
    """Raise ConfigurationError for a version below TLS 1.2 (RFC 8996)."""
    if version not in SAFE_VERSIONS:
        shown = version.name if isinstance(version, ssl.TLSVersion) else repr(version)
        raise ConfigurationError(
            f"minimum_version is ssl.TLSVersion.TLSv1_2 or TLSv1_3, not {shown}: "
            "older ones are broken (RFC 8996)"
        )


def check_server_context(context: ssl.SSLContext, minimum_version: ssl.TLSVersion) -> None:
    """Raise ConfigurationError if a user's context cannot serve, or not safely."""
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ConfigurationError(
            "the SSLContext is a client's; a server needs ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)"
        )
    if context.minimum_version not in SAFE_VERSIONS or context.minimum_version < minimum_version:
        raise _old_versions(minimum_version)


def check_client_context(context: ssl.SSLContext) -> None:
    """Raise ConfigurationError if a user's context does not verify. There is no way around it."""
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(
            "the SSLContext is a server's; a client needs ssl.create_default_context()"
        )
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError(
            "the SSLContext does not verify the server (verify_mode has to be CERT_REQUIRED and "
            "check_hostname True); to trust one server, give the path of its CA or certificate"
        )
    # Some systems' Pythons leave the lowest version to OpenSSL's configuration file, also in
    # ssl.create_default_context(): that is no choice of the program's, and no reason to refuse it.
    if context.minimum_version not in (*SAFE_VERSIONS, ssl.TLSVersion.MINIMUM_SUPPORTED):
        raise _old_versions(ssl.TLSVersion.TLSv1_2)


def _old_versions(minimum_version: ssl.TLSVersion) -> ConfigurationError:
    return ConfigurationError(
        "the SSLContext allows versions that are refused here; set "
        f"context.minimum_version = ssl.TLSVersion.{minimum_version.name}"
    )


def try_handshake(context: ssl.SSLContext) -> None:
    """Shake hands with ourselves in memory: better now than at the first peer.

    Raises:
        ConfigurationError: no peer could be served with this context.
    """
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The question is whether the server can speak, and the peer is this process.
    probe.check_hostname = False
    probe.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = probe.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            if reason_code(exc) == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
                return  # mutual TLS: our half was right, and the probe has no certificate
            raise ConfigurationError(
                f"a trial handshake failed: {reason(exc)} (is a certificate loaded? "
                "context.load_cert_chain(cert, key) does)"
            ) from exc
