"""A TLS 1.3 client that makes its records itself, once the handshake is over.

OpenSSL sends no empty record and no KeyUpdate that nobody asked for by the thousand. What it
negotiated is taken from its key log, and from then on our own records go out (RFC 8446, sections
5.2 and 7); OpenSSL still reads.
"""

from __future__ import annotations

import select
import socket
import ssl
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE, APPLICATION_DATA = 22, 23

# The key length of each suite, its cipher and its hash.
_SUITES: dict[str, tuple[int, type[AESGCM | ChaCha20Poly1305], hashes.HashAlgorithm]] = {
    "TLS_AES_256_GCM_SHA384": (32, AESGCM, hashes.SHA384()),
    "TLS_AES_128_GCM_SHA256": (16, AESGCM, hashes.SHA256()),
    "TLS_CHACHA20_POLY1305_SHA256": (32, ChaCha20Poly1305, hashes.SHA256()),
}


class OwnRecords:
    """Reads what the server sends; writes records of our own making."""

    def __init__(self, address: tuple[str, int], ca_file: str, keys: Path) -> None:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(keys)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.socket = socket.create_connection(address, 10)
        self._unread = b""
        try:
            self._shake_hands()
        except BaseException:
            self.socket.close()
            raise
        cipher = self._tls.cipher()
        assert cipher
        self._key_length, self._cipher, self._hash = _SUITES[cipher[0]]
        lines = keys.read_text().splitlines()
        (secret,) = (line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET"))
        self._take_secret(bytes.fromhex(secret))

    # -- our records -----------------------------------------------------------------------

    def record(self, data: bytes, kind: int = APPLICATION_DATA) -> bytes:
        """The next record (RFC 8446, section 5.2)."""
        inner = data + bytes([kind])
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        nonce = (int.from_bytes(self._iv) ^ self._sequence).to_bytes(12)
        self._sequence += 1
        return head + self._aead.encrypt(nonce, inner, head)

    def key_update(self, *, requested: bool) -> bytes:
        """A KeyUpdate; what follows is under the next key (RFC 8446, section 7.2)."""
        data = self.record(b"\x18\x00\x00\x01" + bytes([requested]), HANDSHAKE)
        self._take_secret(self._expand(self._secret, "traffic upd", self._hash.digest_size))
        return data

    def send(self, data: bytes) -> None:
        """Application data in one record."""
        self.socket.sendall(self.record(data))

    # -- what the server sends -------------------------------------------------------------

    def readable(self) -> bool:
        """Whether something came that was not read."""
        return bool(self._unread or select.select([self.socket], [], [], 0)[0])

    def read(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._fill()
        data, self._unread = self._unread[:count], self._unread[count:]
        return data

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._unread:
            self._fill()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head

    def read_message(self) -> bytes:
        """The payload of the next frame."""
        length = self.read(2)[1]
        if length == 126:
            length = int.from_bytes(self.read(2))
        elif length == 127:
            length = int.from_bytes(self.read(8))
        return self.read(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    # -- internal --------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        over = False
        while not over:
            try:
                self._tls.do_handshake()
                over = True
            except ssl.SSLWantReadError:
                pass
            self.socket.sendall(self._outgoing.read())
            if not over:
                self._receive()

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError("the server ended the connection")
        self._incoming.write(data)

    def _fill(self) -> None:
        while True:
            try:
                self._unread += self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._receive()
            else:
                return

    def _take_secret(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = self._cipher(self._expand(secret, "key", self._key_length))
        self._iv = self._expand(secret, "iv", 12)
        self._sequence = 0

    def _expand(self, secret: bytes, label: str, length: int) -> bytes:
        """HKDF-Expand-Label with an empty context (RFC 8446, section 7.1)."""
        name = b"tls13 " + label.encode()
        info = length.to_bytes(2) + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(self._hash, length, info).derive(secret)
