"""After a HelloRetryRequest: a client whose second ClientHello asks for somebody else.

It may not (RFC 8446, section 4.1.2), so no client of OpenSSL's does, and this one makes its
handshake itself.
"""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from test_client_hello import hello, server_name

from securews.transport.tls import TLSSocketHandler
from securews.transport.tls_transform import TLSTransform

HANDSHAKE, DATA = 22, 23
SERVER_HELLO, CERTIFICATE = 2, 11
RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()


def asking(name, protocol, *shares):
    """A ClientHello that wants one ALPN protocol, as a message."""
    offered = len(protocol).to_bytes(1, "big") + protocol
    keys = b"".join(b"\x00\x1d\x00\x20" + share for share in shares)
    extensions = [
        (43, b"\x02\x03\x04"),  # TLS 1.3
        (10, b"\x00\x02\x00\x1d"),  # X25519
        (13, b"\x00\x02\x04\x03"),  # ECDSA, P-256, SHA-256
        (16, len(offered).to_bytes(2, "big") + offered),
        (51, len(keys).to_bytes(2, "big") + keys),
        server_name(name),
    ]
    return hello(extensions)[5:]


def record(kind, content):
    return bytes((kind, 3, 3)) + len(content).to_bytes(2, "big") + content


def records(data):
    while data:
        size = int.from_bytes(data[3:5], "big")
        yield data[0], data[:5], data[5 : 5 + size]
        data = data[5 + size :]


def messages(data):
    while data:
        size = 4 + int.from_bytes(data[1:4], "big")
        yield data[:size]
        data = data[size:]


def digest(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def expand(secret, label, context=b"", length=32):
    """HKDF-Expand-Label (RFC 8446, section 7.1)."""
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + bytes((len(context),)) + context
    return HKDFExpand(SHA256(), length, info).derive(secret)


def sealing(secret):
    return AESGCM(expand(secret, b"key", length=16)), expand(secret, b"iv", length=12)


def handshake(server, first, second, key):
    """Bring a handshake with both hellos to its end; the server's messages."""
    assert not server.handshake(record(HANDSHAKE, first))
    retry = next(content for kind, _, content in records(server.take_outgoing()) if kind == 22)
    assert retry[6:38] == RETRY_RANDOM
    assert not server.handshake(record(HANDSHAKE, second))
    answer = list(records(server.take_outgoing()))
    hello_back = next(content for kind, _, content in answer if kind == HANDSHAKE)
    assert hello_back[0] == SERVER_HELLO
    transcript = b"\xfe\x00\x00\x20" + digest(first) + retry + second + hello_back

    share = hello_back[hello_back.index(b"\x00\x1d\x00\x20") + 4 :][:32]
    shared = key.exchange(X25519PublicKey.from_public_bytes(share))
    early = hmac.digest(bytes(32), bytes(32), "sha256")
    secret = hmac.digest(expand(early, b"derived", digest()), shared, "sha256")
    cipher, iv = sealing(expand(secret, b"s hs traffic", digest(transcript)))
    ours = expand(secret, b"c hs traffic", digest(transcript))
    flight = b""
    for number, (_, header, content) in enumerate(part for part in answer if part[0] == DATA):
        nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
        flight += cipher.decrypt(nonce, content, header)[:-1]  # the last byte says HANDSHAKE
    finished = hmac.digest(expand(ours, b"finished"), digest(transcript, flight), "sha256")
    cipher, iv = sealing(ours)
    inner = b"\x14\x00\x00\x20" + finished + bytes((HANDSHAKE,))
    header = record(DATA, bytes(len(inner) + 16))[:5]
    assert server.handshake(header + cipher.encrypt(iv, inner, header))
    return list(messages(flight))


@pytest.mark.promise(72)
def test_a_second_hello_changes_nothing_of_what_the_first_one_asked_for(files):
    """Neither certificate nor name: so there is nothing in it that has to be judged here."""
    handler = TLSSocketHandler(
        *files.server(),
        certificates={name: files.server(name, file=name) for name in ("a.example", "b.example")},
        sni_unknown="alert",
    )
    server = TLSTransform.server(handler._contexts.current())
    key = X25519PrivateKey.generate()
    share = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shown = handshake(
        server,
        asking(b"a.example", b"http/1.1"),
        asking(b"b.example", b"h2", share),
        key,
    )
    (certificate,) = (message for message in shown if message[0] == CERTIFICATE)
    assert b"a.example" in certificate
    assert b"b.example" not in certificate
    assert server.info.server_name == "a.example"
    assert server.info.alpn is None
