"""A server for the tests of this directory, each kind in turn; skipped with the reason where none can run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from installed import need
from mongodb_servers import SERVERS, missing, running_server


@pytest.fixture(scope="session", params=SERVERS)
def server_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need(missing(request.param))
    with running_server(request.param, tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    """A database of pymongo, as another program has it."""
    from pymongo import MongoClient

    with MongoClient(server_url, timeoutMS=30_000) as client:  # a server that hangs fails a test, and holds up no run
        yield client["default_keyspace"]
