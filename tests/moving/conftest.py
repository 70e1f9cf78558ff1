"""Backends that values are moved between, and values of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from langchain_kv import Backend, BackendOptions
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from moving_values import Open


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    numbers = itertools.count()
    with ExitStack() as stack:

        def open_one(kind: str = "memory", *, collection: str = "kv", path: Path | None = None) -> Backend:
            token = None
            if kind == "http":
                server = stack.enter_context(DataAPIServer())
                url, token = server.url, server.token
            elif kind == "sqlite":
                url = f"sqlite:{path or tmp_path / f'{next(numbers)}.db'}"
            elif kind == "sql":
                url = f"sqlite+sqlalchemy:{tmp_path / f'{next(numbers)}.sql'}"
            else:
                url = f"memory:{tmp_path.name}_{next(numbers)}"
            backend = parse_url(url).open(BackendOptions(collection, "default_keyspace", token))
            stack.callback(backend.close)
            backend.open()
            return backend

        yield open_one
