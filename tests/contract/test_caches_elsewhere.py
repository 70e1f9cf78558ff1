"""KVCache and EmbeddingCache on SQL databases, Redis, Upstash and MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from langchain_core.caches import BaseCache
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from elsewhere import TARGETS, running_target
from embedding_models import Model, vector_of
from langchain_kv import EmbeddingCache, KVByteStore, KVCache
from langchain_kv.runtime import clock


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with running_target(request.param) as arguments:
        yield arguments


@pytest.fixture
def where(target: dict[str, Any]) -> dict[str, Any]:
    """A collection that nobody used."""
    return {"collection": f"c{uuid4().hex[:16]}", **target}


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, where: dict[str, Any]) -> Iterator[BaseCache]:
        with KVCache(**where) as cache:
            yield cache


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, where: dict[str, Any]) -> AsyncIterator[BaseCache]:
        async with KVCache(**where) as cache:
            yield cache


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_cache_of_embeddings(where: dict[str, Any], colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was asked before it knows, bit by bit and through another store, too, until that expires."""
    texts = ["b", "a", "", "ä ☃", "x\x00y", "\ud800", *map(str, range(1_200))]
    right = [vector_of(text) for text in texts]
    model = Model()

    def opened() -> Callable[[str, Any], Any]:
        store = ends.enter_context(KVByteStore(**where, ttl_s=60))
        cache = EmbeddingCache(model, store)
        if colour == "sync":
            return lambda name, argument: getattr(cache, name)(argument)
        return lambda name, argument: runner.run(getattr(cache, f"a{name}")(argument))

    with asyncio.Runner() as runner, ExitStack() as ends:
        first, second = opened(), opened()
        assert first("embed_documents", texts) == right
        assert second("embed_documents", texts[::-1]) == right[::-1]
        assert np.array_equal(second("embed_documents_array", texts), np.array(right, "f4"))
        assert sorted(model.texts) == sorted(texts)
        assert first("embed_query", "a") == second("embed_query", "a") == vector_of("a", "query")
        assert model.queries == ["a"]

        now_ns = clock._now_ns()
        monkeypatch.setattr(clock, "_now_ns", lambda: now_ns + 61 * 10**9)
        assert second("embed_documents", ["a"]) == [vector_of("a")]
        assert model.texts.count("a") == 2
