"""A real Apache Cassandra for the tests of this directory, skipped with the reason where none can run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from bodies import Bodies
from cassandra_node import Node, missing, running_node
from emptied_collections import ID_ONLY, EmptiedCollections
from installed import need
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.places.clusters import read_cluster_url

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cassandra_node() -> Iterator[Node]:
    need(missing())
    with running_node() as node:
        yield node


@pytest.fixture(scope="session")
def cluster(cassandra_node: Node) -> ClusterSettings:
    return read_cluster_url(cassandra_node.url().removeprefix("cassandra:"))[0]


@contextmanager
def ready(engine: Engine) -> Iterator[Engine]:
    """Give the engine the keyspace that the tests use; close it at the end."""
    with closing(engine):
        engine.create_keyspace("default_keyspace")
        yield engine


@pytest.fixture(scope="session")
def shared_engine(cluster: ClusterSettings) -> Iterator[Bodies]:
    from langchain_kv.engines.cassandra.engine import CassandraEngine

    with ready(CassandraEngine(cluster)) as engine:
        yield Bodies(engine)


@pytest.fixture
def cql(shared_engine: Any) -> Any:
    """Runs CQL as another program would: ``cql("SELECT ... WHERE a = ?", values)`` returns rows as tuples."""

    def run(text: str, values: Any = None) -> list[Any]:
        session = shared_engine._connected()._session
        rows: list[Any] = session.execute(session.prepare(text) if values else text, values, timeout=60).all()
        return rows

    return run


@pytest.fixture(scope="session")
def emptied(shared_engine: Engine) -> EmptiedCollections:
    return EmptiedCollections(shared_engine)


@pytest.fixture
def kv(emptied: EmptiedCollections) -> Iterator[CollectionName]:
    """An empty collection that indexes ``_id``."""
    collection = emptied.lend()
    yield collection
    emptied.take_back(collection)


def new_collection(engine: Engine, settings: Any = None) -> CollectionName:
    collection = CollectionName("default_keyspace", f"kv_{os.getpid()}_{next(_numbers)}")
    engine.create_collection(collection, ID_ONLY if settings is None else settings)
    return collection
