"""The seven rules of a cache of embeddings, each with a rival that breaks it: LangChain's CacheBackedEmbeddings."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.stores import InMemoryByteStore

from embedding_models import Model, float32, vector_of
from langchain_kv import BadVectorError, EmbeddingCache
from langchain_kv.testing import DataAPIServer

TEXTS = [f"text {number}" for number in range(3_000)]

Make = Callable[..., Any]


class Store(InMemoryByteStore):
    """Notes how many keys it was asked for, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.fails = False

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked.append(len(keys))
        if self.fails:
            raise ConnectionError
        return super().mget(keys)


def keys_tell_documents_from_queries(make: Make) -> bool:
    cache = make(Model(), Store(), queries=True)
    cache.embed_documents(["a"])
    return bool(cache.embed_query("a") == vector_of("a", "query"))


def vectors_are_kept_packed_and_without_nan(make: Make) -> bool:
    model, store = Model(1_536), Store()
    cache = make(model, store)
    cache.embed_documents(["a"])
    model.wrong = lambda right: [[math.nan] * 1_536]
    with suppress(BadVectorError):
        cache.embed_documents(["b"])
    return [len(value) < 7_000 for value in store.store.values()] == [True]


def distinct_texts_go_to_the_model_and_a_wrong_number_of_vectors_is_an_error(make: Make) -> bool:
    model = Model()
    cache = make(model, Store())
    cache.embed_documents(["a"] * 100)
    model.wrong = lambda right: right[:-1]
    try:
        answer = cache.embed_documents(["b", "c", "d"])
    except BadVectorError:
        answer = None
    return model.texts.count("a") == 1 and answer is None


def a_text_is_in_one_flight_at_a_time(make: Make) -> bool:
    model = Model()
    cache = make(model, Store())
    barrier = threading.Barrier(4)
    model.during = lambda texts: _broken(barrier)  # all four would be in here together
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache.embed_documents, [["a"]] * 4))
    return model.texts == ["a"]


def _broken(barrier: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):
        barrier.wait(0.2)


def texts_are_looked_up_in_pages(make: Make) -> bool:
    store = Store()
    make(Model(), store).embed_documents(TEXTS)
    return max(store.asked) <= 1_000


def a_failing_store_can_be_done_without(make: Make) -> bool:
    store = Store()
    cache = make(Model(), store)
    store.fails = True
    try:
        return bool(cache.embed_documents(["a"]) == [vector_of("a")])
    except ConnectionError:
        return False


def what_was_done_is_counted(make: Make) -> bool:
    cache = make(Model(), Store())
    cache.embed_documents(["a", "b"])
    cache.embed_documents(["b", "c"])
    return hasattr(cache, "stats") and cache.stats()[:3] == (1, 3, 3)


RULES = [
    keys_tell_documents_from_queries,
    vectors_are_kept_packed_and_without_nan,
    distinct_texts_go_to_the_model_and_a_wrong_number_of_vectors_is_an_error,
    a_text_is_in_one_flight_at_a_time,
    texts_are_looked_up_in_pages,
    a_failing_store_can_be_done_without,
    what_was_done_is_counted,
]


def ours(model: Model, store: Store, queries: bool = False) -> EmbeddingCache:
    return EmbeddingCache(model, store, cache_queries=queries, on_store_error="ignore")


def theirs(model: Model, store: Store, queries: bool = False) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(model, store, namespace=model.model, query_embedding_cache=queries)


def test_over_http_a_quarter_of_the_bytes_is_sent(data_api: DataAPIServer) -> None:
    texts = [f"text {number}" for number in range(20)]
    model = Model(1_536)
    model.wrong = lambda vectors: [_of_length_1(vector) for vector in vectors]
    ours = EmbeddingCache(model, data_api.byte_store("ours"))
    theirs = CacheBackedEmbeddings.from_bytes_store(
        model, data_api.byte_store("theirs"), namespace="m", key_encoder="sha256"
    )
    sent_bytes = []
    for cache in (ours, theirs):
        before = len(data_api.requests)
        cache.embed_documents(texts)
        sent_bytes.append(sum(len(json.dumps(received.fields)) for received in data_api.requests[before:]))

    assert sent_bytes[0] < 20 * 8_500
    assert sent_bytes[0] * 4 < sent_bytes[1]


def _of_length_1(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(number * number for number in vector))
    return float32([number / length for number in vector])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_ours_keeps_each_rule_and_the_rival_breaks_it(rule: Callable[[Make], bool]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert rule(ours)
        assert not rule(theirs)
