"""The places where values live, each with an oracle that does not use the code under test."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emptied_collections import EmptiedCollections
from langchain_kv import AstraDBBaseStore, KVStore
from langchain_kv.backends.collections import PLAIN, CollectionForm
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.rows import document_of, row_of
from langchain_kv.errors import UnknownKeyspaceError
from langchain_kv.places.embedded import EmbeddedPlace, release_engine
from langchain_kv.places.schemes import parse_url

TOKEN = "a-token-of-the-tests"
PLACES = ["memory", "sqlite", "http+memory", "http+sqlite", "cassandra"]

HOW_TO_SET_UP = {
    *("keyspace", "namespace", "setup_mode", "pre_delete_collection", "collection_indexing_policy"),
    *("atomic", "namespaced"),
}
"""Arguments of stores that are given a new collection; others may be given an emptied one where making one is slow."""

_numbers = itertools.count()

OF_ITEMS = CollectionForm(namespaced=True, atomic=True)
"""The form of a LangGraphStore's collection."""


class Place:
    """A place where values live. ``peek`` and ``plant`` go straight to the engine below, never through a store.

    Attributes:
        name: one of PLACES.
        url: what a user would give.
        arguments: what a user would have to give beside it.
    """

    def __init__(self, name: str, url: str, engine_url: str) -> None:
        self.name = name
        self.url = url
        self.arguments: dict[str, Any] = {"token": TOKEN} if name.startswith("http") else {}
        self.engine = acquire_engine(engine_url)
        self._stores: list[Any] = []

    @property
    def is_http(self) -> bool:
        return self.name.startswith("http")

    def new_name(self) -> str:
        return f"c{os.getpid()}_{next(_numbers)}"

    def lend(self, form: CollectionForm = PLAIN) -> str:
        """Return the name of a new collection, or of an emptied one of this form where making one is slow."""
        return self.new_name()

    def open(self, kind: Any = KVStore, collection: str | None = None, **arguments: Any) -> Any:
        """Return a store that the caller closes."""
        where = {"api_endpoint" if issubclass(kind, AstraDBBaseStore) else "url": self.url}
        return kind(collection or self.new_name(), **{**where, **self.arguments, **arguments})

    def store(self, kind: Any = KVStore, collection: str | None = None, **arguments: Any) -> Any:
        """Return a store that is closed at the end of the test."""
        store = self.open(kind, collection, **arguments)
        self._stores.append(store)
        return store

    def peek(self, collection: str, key: str, keyspace: str = "default_keyspace") -> Any:
        """Return the stored document, or None."""
        (row,) = self.engine.read(CollectionName(keyspace, collection), [key])
        return None if row is None else json.loads(document_of(row))

    def plant(self, collection: str, key: str | bytes, body: str, keyspace: str = "default_keyspace") -> None:
        """Store a body as it is, as another program or a fault might leave it."""
        row = row_of(key, body.encode("utf-8", "surrogatepass"))
        self.engine.write(CollectionName(keyspace, collection), [row])

    def create(self, collection: str, settings: dict[str, Any]) -> None:
        """Create a collection as another program might."""
        self.engine.create_collection(CollectionName("default_keyspace", collection), settings)

    def fill(self, collection: str, keys: list[str]) -> None:
        """Store the value 1 under many new keys, by the shortest way there is."""
        name = CollectionName("default_keyspace", collection)
        self.engine.write(name, [row_of(key, b'{"_id":"%b","value":1}' % key.encode()) for key in keys])

    def keys(self, collection: str, keyspace: str = "default_keyspace") -> list[Any]:
        return self.engine.scan_ids(CollectionName(keyspace, collection), limit=1_000_000)

    def tidy(self) -> None:
        """Close the stores of a test."""
        while self._stores:
            self._stores.pop().close()

    def close(self) -> None:
        self.tidy()
        release_engine(self.engine)


class ClusterPlace(Place):
    """A place on Apache Cassandra, where not everything can be planted through the engine."""

    def plant(self, collection: str, key: str | bytes, body: str, keyspace: str = "default_keyspace") -> None:
        session = self.engine._connected()._session
        statement = session.prepare(
            f'UPDATE "{keyspace}"."{collection}" SET tx_id = now(), doc_json = ? WHERE key = ? IF tx_id != '
            "00000000-0000-1000-8000-000000000000"
        )
        session.execute(statement, (body, (1, key) if isinstance(key, str) else (key[0], key[1:].decode())))

    def __init__(self, name: str, url: str, engine_url: str) -> None:
        super().__init__(name, url, engine_url)
        self._emptied = EmptiedCollections(self.engine)
        self._lent: dict[CollectionName, CollectionForm] = {}

    def lend(self, form: CollectionForm = PLAIN) -> str:
        collection = self._emptied.lend(form)
        self._lent[collection] = form
        return collection.name

    def store(self, kind: Any = KVStore, collection: str | None = None, **arguments: Any) -> Any:
        if collection is None and not arguments.keys() & HOW_TO_SET_UP:
            collection = self.lend()
        return super().store(kind, collection, **arguments)

    def tidy(self) -> None:
        # Hundreds of collections, with their indexes, are more than the heap of the node holds.
        own = {CollectionName(store.collection.keyspace, store.collection.name) for store in self._stores}
        super().tidy()
        for name in own.difference(self._lent):
            with suppress(UnknownKeyspaceError):
                self.engine.drop_collection(name)
        for name, form in self._lent.items():
            self._emptied.take_back(name, form)
        self._lent.clear()

    def create(self, collection: str, settings: dict[str, Any]) -> None:
        super().create(collection, {"indexing": {"deny": ["*"]}})
        told = {"collection": {"name": collection, "schema_version": 2, "options": settings}}
        self.engine._connected()._session.execute(
            f"ALTER TABLE default_keyspace.\"{collection}\" WITH comment = '{json.dumps(told)}'"
        )

    def fill(self, collection: str, keys: list[str]) -> None:
        from cassandra.concurrent import execute_concurrent_with_args

        session = self.engine._connected()._session
        insert = session.prepare(
            f'INSERT INTO default_keyspace."{collection}" (key, tx_id, doc_json) VALUES (?, now(), ?)'
        )
        rows = [((1, key), f'{{"_id":"{key}","value":1}}') for key in keys]
        patient = session.execution_profile_clone_update("write", request_timeout=120)  # others keep the node busy
        execute_concurrent_with_args(session, insert, rows, concurrency=100, execution_profile=patient)


def acquire_engine(url: str) -> Any:
    """Return the engine that the stores of a URL share; it is released by ``release_engine``."""
    place = parse_url(url)
    assert isinstance(place, EmbeddedPlace)
    return place.acquire_engine()


@contextmanager
def _open_cluster_place() -> Iterator[Place]:
    from cassandra_node import missing, running_node
    from installed import need

    need(missing())
    with running_node() as node:
        place = ClusterPlace("cassandra", node.url(), node.url())
        place.engine.create_keyspace("default_keyspace")
        yield place
        place.close()


@contextmanager
def open_place(name: str, directory: Path) -> Iterator[Place]:
    if name == "cassandra":
        with _open_cluster_place() as place:
            yield place
        return
    engine_url = f"memory:{name}-{next(_numbers)}" if name.endswith("memory") else f"sqlite:{directory / 'kv.db'}"
    if not name.startswith("http"):
        place = Place(name, engine_url, engine_url)
        yield place
        place.close()
        return
    from langchain_kv.server.http.running import run_in_thread

    engine = acquire_engine(engine_url)
    with run_in_thread(engine, TOKEN) as url:
        place = Place(name, url, engine_url)
        yield place
        place.close()
    release_engine(engine)
