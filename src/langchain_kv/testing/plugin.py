"""The pytest plugin: fixtures that need no import. pytest loads it at every start, so it imports no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from langchain_kv.testing.server import DataAPIServer

__all__ = ["data_api", "data_api_session"]

# So that a failed assertion in a contract says what was there, also where the package is installed as a source tree.
pytest.register_assert_rewrite(
    *(f"langchain_kv.testing.{each}contract" for each in ("", "backend_", "extended_", "store_"))
)


@pytest.fixture(scope="session")
def data_api_session() -> Iterator[DataAPIServer]:
    """One Data API server in memory for the whole run. Override it in a ``conftest.py`` to keep a file instead."""
    from langchain_kv.testing import DataAPIServer

    with DataAPIServer() as server:
        yield server


@pytest.fixture
def data_api(data_api_session: DataAPIServer) -> Iterator[DataAPIServer]:
    """The run's Data API server, emptied after each test: no collections, no faults, no record of requests."""
    yield data_api_session
    data_api_session.reset()
