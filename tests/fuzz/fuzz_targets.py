"""The fuzz targets by name: each takes one input, and raises where a promise is broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fuzz_client_hello import check_client_hello
from fuzz_frames import check_frames
from fuzz_http_head import check_http_head
from fuzz_inflate import check_extensions, check_inflate
from fuzz_input import check_in_time

CHECKS: dict[str, Callable[[bytes], None]] = {
    "http_head": check_http_head,
    "frames": check_frames,
    "client_hello": check_client_hello,
    "inflate": check_inflate,
    "extensions": check_extensions,
}
"""Without the limit of time."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    name: partial(check_in_time, check) for name, check in CHECKS.items()
}
