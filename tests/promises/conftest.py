"""Servers in processes of their own, at default numbers, and a place for what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from server_process import LAB, LAB_EVENTS, ServerProcess


@pytest.fixture
def measured(record_property) -> Callable[..., None]:
    """Note a figure for docs/promises.md: of the test's rows, or of one of them."""

    def note(text: str, row: int | None = None) -> None:
        record_property("measured" if row is None else f"measured {row}", text)

    return note


@pytest.fixture(scope="module")
def echo(certificates) -> Iterator[ServerProcess]:
    """`securews echo --handler event`."""
    with ServerProcess(certificates.server, "--handler", "event") as server:
        yield server


@pytest.fixture(scope="module")
def lab(certificates) -> Iterator[ServerProcess]:
    """The blocking handlers of lab_handlers."""
    with ServerProcess(certificates.server, serve=LAB) as server:
        yield server


@pytest.fixture(scope="module")
def lab_events(certificates) -> Iterator[ServerProcess]:
    """The event handler of lab_handlers."""
    with ServerProcess(certificates.server, serve=LAB_EVENTS) as server:
        yield server


@pytest.fixture(scope="session")
def context(certificates):
    """A client's that trusts the server."""
    return certificates.context()
