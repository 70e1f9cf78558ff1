"""The shipped contracts on a real Redis, a cluster and a Valkey, by a URL and by clients of redis-py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from installed import need
from langchain_kv import KVStore
from langchain_kv.backends.base import Backend
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.redis import RedisClientPlace
from langchain_kv.places.schemes import parse_url
from langchain_kv.runtime import loop_thread
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.testing import BackendContract, StoreContract
from langchain_kv.testing.contract import StoreFace
from redis_node import KINDS, RedisNode, missing, running_redis


@pytest.fixture(scope="module", params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing(request.param))
    with running_redis(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def on_the_node(request: pytest.FixtureRequest, node: RedisNode) -> None:
    if request.instance is not None:
        request.instance.node = node


class TestBackend(BackendContract):
    node: RedisNode

    def open(self, collection: str) -> Backend:
        return parse_url(self.node.url).open(BackendOptions(collection, "default_keyspace"))


class TestBackendOfAnAsynchronousClient(BackendContract):
    """Its first call is plain, which makes the loop thread the client's home."""

    node: RedisNode
    clients: list[Any]

    @pytest.fixture(autouse=True)
    def closed_clients(self, on_the_node: None) -> Iterator[None]:
        self.clients = []
        yield
        for client in self.clients:
            loop_thread.run(client.aclose())

    def open(self, collection: str) -> Backend:
        kind = redis.asyncio.RedisCluster if self.node.is_cluster else redis.asyncio.Redis
        client = kind(host="127.0.0.1", port=self.node.port)
        self.clients.append(client)
        backend = RedisClientPlace(client).open(BackendOptions(collection, "default_keyspace"))
        backend.count("")
        return backend


class TestStore(StoreContract):
    node: RedisNode
    key_max_bytes = 8_000  # of the tests: Redis takes 512 MB
    allows_empty_key = True

    @pytest.mark.parametrize("key", ["", 5, None, b"a", "\ud800"])
    def test_a_bad_key_is_refused_before_anything_is_stored(self, face: StoreFace, collection: str, key: Any) -> None:
        super().test_a_bad_key_is_refused_before_anything_is_stored(face, collection, key)

    def place(self) -> Any:
        return self.node.url

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        return kind(collection, self.place(), **options)

    def peek(self, collection: str) -> Iterable[str] | None:
        with redis.Redis(port=self.node.port) as client:
            prefix = f"{collection}/"
            return [key.decode()[len(prefix) :] for key in client.scan_iter(match=f"{prefix}*", count=1_000)]


def test_a_closed_store_has_no_connection(node: RedisNode) -> None:
    with redis.Redis(port=node.port) as client:
        before = len(client.client_list())
        with KVStore("kv", node.url) as store:
            store.mset([("a", 1)])
            assert asyncio.run(store.amget(["a"])) == [1]
            assert len(client.client_list()) > before
        end = time.monotonic() + 10
        while len(client.client_list()) != before:  # the server sees the end of a connection a moment later
            assert time.monotonic() < end
