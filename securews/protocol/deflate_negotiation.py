"""What both ends agree on about permessage-deflate (RFC 7692, sections 5 and 7.1).

The client offers, the server chooses the first offer that it can keep, or none: then nothing is
compressed, and the handshake goes on. The client fails where the answer is not one to its offer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from securews.common.options import Compression
from securews.protocol.deflate import Deflate
from securews.protocol.extensions import Extension, format_extension, parse_extensions

__all__ = ["NAME", "DeflateOffer", "accept_offer"]

NAME = "permessage-deflate"

SMALLEST_ZLIB_WINDOW = 9
"""RFC 7692 has 8, too. zlib does not compress raw data with 8; what was, it inflates with 9."""
LARGEST_WINDOW = 15

_WINDOWS = {str(bits): bits for bits in range(8, 16)}
"""Section 7.1.2.1: a decimal number from 8 to 15 without leading zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    """The parameters of one offer or answer; None is one that is absent."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    @property
    def header(self) -> str:
        parameters: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            parameters.append(("server_no_context_takeover", None))
        if self.client_no_context_takeover:
            parameters.append(("client_no_context_takeover", None))
        if self.server_max_window_bits is not None:
            parameters.append(("server_max_window_bits", str(self.server_max_window_bits)))
        if self.client_max_window_bits is not None:
            parameters.append(("client_max_window_bits", str(self.client_max_window_bits)))
        return format_extension(NAME, parameters)


def _read(extension: Extension, *, offer: bool) -> _Parameters:
    """The parameters of an extension.

    Raises:
        ValueError: one is unknown, repeated, or has a value that it cannot have (section 7.1).
    """
    found: dict[str, int] = {}
    for name, value in extension.parameters:
        if name in found:
            raise ValueError(f"{name} is repeated")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{name} has a value")
            found[name] = True
        elif name == "client_max_window_bits" and value is None and offer:
            found[name] = LARGEST_WINDOW  # "I can be told" (section 7.1.2.2)
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value not in _WINDOWS:
                raise ValueError(f"{name} is not 8 to 15")
            found[name] = _WINDOWS[value]
        else:
            raise ValueError("a parameter is unknown")
    return _Parameters(**found)  # type: ignore[arg-type]  # names and kinds are judged above


def _keeps(setting: bool | None, *, confidential: bool) -> bool:
    """Whether context takeover is wanted. None: where nothing says that secrets are at stake."""
    return not confidential if setting is None else setting


def accept_offer(
    values: Iterable[str], compression: Compression, *, confidential: bool
) -> tuple[str, Deflate] | None:
    """The server's choice.

    Args:
        values: of the request's Sec-WebSocket-Extensions, which have passed no check.
        compression: what this server wants.
        confidential: whether the connection carries something that an onlooker could want to
            find out: see `Compression.server_context_takeover`.

    Returns:
        The value of the answer's header, and what it means for the server. None where no offer
        fits, or the header breaks the grammar (RFC 6455, section 9.1, would have the handshake
        fail; but a server without extensions does not read the header, and nor do we then).
    """
    try:
        offers = parse_extensions(values)
    except ValueError:
        return None
    for extension in offers:
        if extension.name != NAME:
            continue
        try:
            offer = _read(extension, offer=True)
        except ValueError:
            continue
        answer = _answer(offer, compression, confidential=confidential)
        if answer is not None:
            return answer.header, _deflate(compression, answer, confidential, server=True)
    return None


def _answer(
    offer: _Parameters, compression: Compression, *, confidential: bool
) -> _Parameters | None:
    server_bits = compression.server_window_bits
    if offer.server_max_window_bits is not None:
        if offer.server_max_window_bits < SMALLEST_ZLIB_WINDOW:
            return None
        server_bits = min(server_bits, offer.server_max_window_bits)
    elif server_bits == LARGEST_WINDOW:
        server_bits = 0  # needs no saying
    client_bits = None
    if offer.client_max_window_bits is not None:
        client_bits = min(compression.client_window_bits, offer.client_max_window_bits)
    keep_server = _keeps(compression.server_context_takeover, confidential=confidential)
    keep_client = _keeps(compression.client_context_takeover, confidential=confidential)
    return _Parameters(
        server_no_context_takeover=offer.server_no_context_takeover or not keep_server,
        client_no_context_takeover=offer.client_no_context_takeover or not keep_client,
        server_max_window_bits=server_bits or None,
        client_max_window_bits=client_bits,
    )


def _deflate(
    compression: Compression, answer: _Parameters, confidential: bool, *, server: bool
) -> Deflate:
    """What an answer means for one end."""
    takeover_by_server = not answer.server_no_context_takeover
    takeover_by_client = not answer.client_no_context_takeover
    server_bits = answer.server_max_window_bits or LARGEST_WINDOW
    client_bits = answer.client_max_window_bits or LARGEST_WINDOW
    if server:
        incoming, outgoing = takeover_by_client, takeover_by_server
        incoming_bits, outgoing_bits = client_bits, server_bits
    else:
        # We may do less than was agreed: refer to nothing earlier, use a smaller window.
        keep = _keeps(compression.client_context_takeover, confidential=confidential)
        incoming, outgoing = takeover_by_server, takeover_by_client and keep
        incoming_bits = server_bits
        outgoing_bits = min(client_bits, compression.client_window_bits)
    return Deflate(
        incoming_takeover=incoming,
        incoming_window_bits=max(incoming_bits, SMALLEST_ZLIB_WINDOW),
        outgoing_takeover=outgoing,
        outgoing_window_bits=outgoing_bits,
        level=compression.level,
        memory_level=compression.memory_level,
        min_size=compression.min_size,
    )


class DeflateOffer:
    """What a client offers.

    Args:
        compression: what it wants.
        confidential: as in `accept_offer`.
    """

    def __init__(self, compression: Compression, *, confidential: bool) -> None:
        self._compression = compression
        self._confidential = confidential
        server_bits = compression.server_window_bits
        self._offer = _Parameters(
            server_no_context_takeover=not _keeps(
                compression.server_context_takeover, confidential=confidential
            ),
            client_no_context_takeover=not _keeps(
                compression.client_context_takeover, confidential=confidential
            ),
            server_max_window_bits=None if server_bits == LARGEST_WINDOW else server_bits,
            client_max_window_bits=compression.client_window_bits,
        )

    @property
    def header(self) -> str:
        """The value of the request's Sec-WebSocket-Extensions."""
        return self._offer.header

    def check(self, values: Iterable[str]) -> Deflate | None:
        """What the server's answer means; None where it declined.

        Args:
            values: of the answer's Sec-WebSocket-Extensions.

        Raises:
            ValueError: it is no answer to this offer (sections 5.1 and 7.1).
        """
        chosen = parse_extensions(values)
        if not chosen:
            return None
        if len(chosen) > 1 or chosen[0].name != NAME:
            raise ValueError("it uses an extension that was not offered")
        answer, offer = _read(chosen[0], offer=False), self._offer
        if offer.server_no_context_takeover and not answer.server_no_context_takeover:
            raise ValueError("it leaves out server_no_context_takeover, which was asked for")
        if offer.server_max_window_bits is not None and (
            answer.server_max_window_bits is None
            or answer.server_max_window_bits > offer.server_max_window_bits
        ):
            raise ValueError("its server_max_window_bits is larger than was asked for")
        if answer.client_max_window_bits is not None:
            assert offer.client_max_window_bits is not None
            if answer.client_max_window_bits > offer.client_max_window_bits:
                raise ValueError("its client_max_window_bits is larger than was offered")
            if answer.client_max_window_bits < SMALLEST_ZLIB_WINDOW:
                raise ValueError("it wants client_max_window_bits=8, which zlib cannot do")
        return _deflate(self._compression, answer, self._confidential, server=False)
