"""The shipped contracts on MongoDB: by a URL, by a client of the program's, and by an asynchronous one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from langchain_kv import AsyncBackend, Backend, BackendOptions, KVBaseStore, MongoDBClientPlace
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import BackendContract, StoreContract

pytestmark = pytest.mark.slow


class TestBackend(BackendContract):
    @pytest.fixture(autouse=True)
    def _lives_on(self, server_url: str) -> None:
        self.url = server_url

    def open(self, collection: str) -> Backend:
        return parse_url(self.url).open(BackendOptions(collection, "default_keyspace"))


class TestBackendOfAnAsyncClient(TestBackend):
    @pytest.fixture(autouse=True)
    def _has_clients(self) -> Iterator[None]:
        self.made: list[tuple[Any, Any]] = []
        yield
        from langchain_kv.runtime import loop_thread

        for client, _ in self.made:
            loop_thread.run(client.close())

    def open(self, collection: str) -> Backend:
        from pymongo import AsyncMongoClient

        client: Any = AsyncMongoClient(self.url)
        backend = MongoDBClientPlace(client).open(BackendOptions(collection, "default_keyspace"))
        assert isinstance(backend, AsyncBackend)
        backend.open()  # so that the client belongs to our own loop, which outlives those of the tests
        self.made.append((client, backend))
        return backend


class TestStore(StoreContract):
    key_max_bytes = 1_000_000
    allows_empty_key = True

    @pytest.fixture(autouse=True)
    def _lives_on(self, server_url: str, raw: Any) -> None:
        self.url, self.raw = server_url, raw

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        store: KVBaseStore[Any] = kind(collection, self.url, **options)
        return store

    def peek(self, collection: str) -> list[str]:
        return [document["_id"] for document in self.raw[collection].find(projection=["_id"])]


class TestStoreOnAClient(TestStore):
    @pytest.fixture(autouse=True)
    def _has_a_client(self, server_url: str) -> Iterator[None]:
        from pymongo import MongoClient

        with MongoClient(server_url) as self.client:
            yield

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        store: KVBaseStore[Any] = kind(collection, MongoDBClientPlace(self.client), **options)
        return store
