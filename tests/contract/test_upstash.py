"""The shipped contracts on a stand-in for Upstash, over a real Redis: with RESP2, and with base64 where that is all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis

from installed import need
from langchain_kv.backends.base import Backend
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.schemes import parse_url
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.testing import BackendContract, StoreContract
from redis_node import RedisNode, missing, running_redis
from upstash_server import TOKEN, UpstashServer, running_upstash


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing("redis"))
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module", params=["resp2", "base64"])
def server(request: pytest.FixtureRequest, node: RedisNode) -> Iterator[UpstashServer]:
    with running_upstash(node.port) as running:
        running.speaks_resp2 = request.param == "resp2"
        yield running


@pytest.fixture(autouse=True)
def on_the_server(request: pytest.FixtureRequest, node: RedisNode, server: UpstashServer) -> None:
    request.instance.node = node
    request.instance.server = server


class TestBackend(BackendContract):
    server: UpstashServer

    def open(self, collection: str) -> Backend:
        options = BackendOptions(collection, "default_keyspace", token=TOKEN)
        return parse_url(f"upstash+{self.server.url}").open(options)


class TestStore(StoreContract):
    node: RedisNode
    server: UpstashServer
    key_max_bytes = 8_000  # of the tests
    allows_empty_key = True

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        return kind(collection, f"upstash+{self.server.url}", token=TOKEN, **options)

    @pytest.mark.parametrize("key", ["", 5, None, b"a", "\ud800"])
    def test_a_bad_key_is_refused_before_anything_is_stored(self, face: Any, collection: str, key: Any) -> None:
        super().test_a_bad_key_is_refused_before_anything_is_stored(face, collection, key)

    def peek(self, collection: str) -> Iterable[str] | None:
        with redis.Redis(port=self.node.port) as client:
            prefix = f"{collection}/"
            return [key.decode()[len(prefix) :] for key in client.scan_iter(match=f"{prefix}*", count=1_000)]
