"""A cache of embeddings, on every target and in both colours: what the model is asked for, and what comes back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from embedding_models import Model, float32, vector_of
from langchain_kv import BadVectorError, EmbeddingCache, KVByteStore
from langchain_kv.runtime import clock
from places import Place

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Calls a method by its name: as it is, or its async twin."""
    if request.param == "sync":
        yield lambda cache, name, *args: getattr(cache, name)(*args)
        return
    with asyncio.Runner() as runner:
        yield lambda cache, name, *args: runner.run(getattr(cache, f"a{name}")(*args))


@pytest.fixture
def opened(place: Place) -> Callable[..., EmbeddingCache]:
    """Makes caches on one collection of the place, each with a store of its own."""
    collection = place.lend()

    def open_cache(model: Any = None, **arguments: Any) -> EmbeddingCache:
        settings = {name: arguments.pop(name) for name in ("ttl_s",) if name in arguments}
        return EmbeddingCache(model or Model(), place.store(KVByteStore, collection, **settings), **arguments)

    return open_cache


def test_vectors_come_back_in_order_and_equal(opened: Any, call: Call) -> None:
    model = Model()
    texts = ["b", "a", "", "ä ☃", "x\x00y", "b", "\ud800"]
    right = [vector_of(text) for text in texts]

    assert call(opened(model), "embed_documents", texts) == right
    assert call(opened(model), "embed_documents", texts[::-1]) == right[::-1]
    assert sorted(model.texts) == sorted(set(texts))


def test_numbers_that_float32_does_not_have_come_back_as_they_are(opened: Any, call: Call) -> None:
    model = Model()
    exact = [0.1, 1e39, -1e-320, -0.0]
    model.wrong = lambda vectors: [exact] * len(vectors)

    assert call(opened(model), "embed_documents", ["a"]) == [exact]
    (found,) = call(opened(model), "embed_documents", ["a"])
    assert found == exact
    assert math.copysign(1, found[3]) == -1
    assert len(model.batches) == 1


def test_a_querys_vector_is_never_served_for_a_document(opened: Any, call: Call) -> None:
    cache = opened()

    assert call(cache, "embed_query", "a") == vector_of("a", "query")
    assert call(cache, "embed_documents", ["a"]) == [vector_of("a", "document")]
    assert call(cache, "embed_query", "a") == vector_of("a", "query")
    assert cache.underlying_embeddings.queries == ["a"]


def test_queries_are_not_cached_where_that_is_said(opened: Any, call: Call) -> None:
    model = Model()
    cache = opened(model, cache_queries=False)

    assert [call(cache, "embed_query", "a") for _ in range(2)] == [vector_of("a", "query")] * 2
    assert model.queries == ["a", "a"]


def test_a_text_that_is_given_twice_is_embedded_once_and_comes_back_as_a_copy(opened: Any, call: Call) -> None:
    model = Model()
    vectors = call(opened(model, batch_size=2), "embed_documents", ["a", "b", "a", "c", "b"] * 20)

    assert vectors == [vector_of(text) for text in ["a", "b", "a", "c", "b"] * 20]
    assert model.batches == [["a", "b"], ["c"]]
    vectors[0][0] = 7.0
    assert vectors[2] == vector_of("a")


def test_the_model_is_asked_in_batches_each_written_before_the_next(opened: Any, call: Call, place: Place) -> None:
    model = Model()
    cache = opened(model, batch_size=3)
    kept_before: list[int] = []
    reading = opened()
    model.during = lambda texts: kept_before.append(reading.document_embedding_store.count())
    call(cache, "embed_documents", ["a", "b", "c", "d", "e", "f", "g"])

    assert [len(batch) for batch in model.batches] == [3, 3, 1]
    assert kept_before == [0, 3, 6]


def test_only_what_is_missing_is_embedded_and_batches_are_full(opened: Any, call: Call) -> None:
    texts = [f"t{number}" for number in range(2_500)]
    call(opened(batch_size=1_000), "embed_documents", texts[::2])
    model = Model()
    cache = opened(model, batch_size=500)

    assert call(cache, "embed_documents", texts) == [vector_of(text) for text in texts]
    assert [len(batch) for batch in model.batches] == [500, 500, 250]
    assert cache.stats()[:3] == (1_250, 1_250, 1_250)


def test_each_call_goes_to_the_models_method_of_its_colour(opened: Any, call: Call, request: Any) -> None:
    cache = opened()
    call(cache, "embed_documents", ["a"])
    call(cache, "embed_query", "a")
    prefix = "a" if "async" in request.node.callspec.id.split("-") else ""

    assert cache.underlying_embeddings.calls == [f"{prefix}embed_documents", f"{prefix}embed_query"]


def test_an_array_has_a_row_for_each_text(opened: Any, call: Call) -> None:
    texts = ["b", "a", "b", "c"]
    right = np.array([vector_of(text) for text in texts], "float32")
    for cache in (opened(), opened()):  # from the model, then from the cache
        array = call(cache, "embed_documents_array", texts)
        assert array.dtype == np.float32
        assert array.flags.owndata
        assert np.array_equal(array, right)
    assert call(opened(), "embed_documents_array", []).shape == (0, 0)


def test_models_of_other_names_or_dimensions_share_no_vectors(opened: Any, call: Call) -> None:
    for model in (Model(name="a"), Model(name="b"), Model(5, name="a"), Model(name="a:b")):
        cache = opened(model, dimensions=model.size)
        right = [vector_of("x", size=model.size)]
        assert [call(cache, "embed_documents", ["x"]) for _ in range(2)] == [right] * 2
        assert model.texts == ["x"]


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_number_of_vectors_is_an_error_and_nothing_is_cached(opened: Any, call: Call, count: int) -> None:
    model = Model()
    cache = opened(model)
    model.wrong = lambda vectors: (vectors * 2)[:count]
    with pytest.raises(BadVectorError, match=f"answered {count} vectors for 3 texts"):
        call(cache, "embed_documents", ["a", "b", "c"])

    assert list(cache.document_embedding_store.yield_keys()) == []
    model.wrong = None
    assert call(cache, "embed_documents", ["a", "b", "c"]) == [vector_of(text) for text in "abc"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_is_an_error_and_the_others_of_its_batch_are_cached(opened: Any, call: Call, number: float) -> None:
    model = Model()
    cache = opened(model)
    model.wrong = lambda vectors: [vectors[0], [number, *vectors[1][1:]], *vectors[2:]]
    with pytest.raises(BadVectorError, match=r"1 vector\(s\) .* text 1: it holds NaN or an infinity"):
        call(cache, "embed_documents", ["a", "b", "c"])
    model.wrong = None

    assert call(cache, "embed_documents", ["a", "b", "c"]) == [vector_of(text) for text in "abc"]
    assert model.batches == [["a", "b", "c"], ["b"]]


def damaged(value: bytes) -> dict[str, bytes]:
    longer = vector_of("a", size=5)
    return {
        "one number fewer": value[:-4],
        "cut within a number": value[:-1],
        "empty": b"",
        "text": b"[0.1, 0.2, 0.3, 0.4]",
        "another version": b"\xe2" + value[1:],
        "another kind": value[:1] + b"\x05" + value[2:],
        "another length": value[:4] + b"\x05\0\0\0" + np.array(longer, "<f4").tobytes(),
        "NaN": value[:8] + np.array([math.nan, 0, 0, 0], "<f4").tobytes(),
        "infinity": value[:8] + np.array([0, 0, 0, math.inf], "<f4").tobytes(),
    }


@pytest.mark.parametrize("how", damaged(bytes(24)))
def test_a_stored_vector_that_cannot_be_used_is_a_miss_and_one_warning(opened: Any, call: Call, how: str) -> None:
    store = opened().document_embedding_store
    call(opened(), "embed_documents", ["a", "b", "c"])
    for key, value in store.yield_items():
        if value[8:] == np.array(vector_of("a"), "<f4").tobytes():
            store.mset([(key, damaged(value)[how])])
    model = Model()
    cache = opened(model, dimensions=None)
    with pytest.warns(UserWarning, match=r"1 vector\(s\) in the cache 'the-model' cannot be used") as warned:
        assert call(cache, "embed_documents", ["c", "a", "b"]) == [vector_of(text) for text in "cab"]

    assert len(warned) == 1
    assert model.texts == ["a"]
    assert call(cache, "embed_documents", ["a"]) == [vector_of("a")]
    assert model.texts == ["a"]


def test_expired_vectors_are_embedded_again(opened: Any, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = clock._now_ns()
    monkeypatch.setattr(clock, "_now_ns", lambda: now_ns)
    model = Model()
    cache = opened(model, ttl_s=60)
    call(cache, "embed_documents", ["a", "b"])
    assert call(cache, "prune") == 0
    now_ns += int(61e9)

    assert call(cache, "prune") == 2
    assert call(cache, "embed_documents", ["a"]) == [vector_of("a")]
    assert model.texts == ["a", "b", "a"]


def test_statistics_count_texts_and_bytes(opened: Any, call: Call) -> None:
    cache = opened()
    call(cache, "embed_documents", ["a", "b", "a"])
    call(cache, "embed_documents", ["b", "c"])
    call(cache, "embed_query", "q")

    assert cache.stats()._asdict() == {
        "hits": 1,
        "misses": 4,
        "embedded": 4,
        "joined": 0,
        "read_through": 0,
        "store_failures": 0,
        "read_bytes": 24,
        "written_bytes": 96,
    }


def test_a_model_that_answers_arrays_gives_lists(opened: Any, call: Call) -> None:
    model = Model()
    model.wrong = lambda vectors: np.array(vectors, "float32")

    for cache in (opened(model), opened(model)):
        vectors = call(cache, "embed_documents", ["a", "b"])
        assert vectors == [vector_of("a"), vector_of("b")]
        assert {type(number) for vector in vectors for number in vector} == {float}


def test_float32_is_told_by_the_numbers(opened: Any, call: Call) -> None:
    cache = opened()
    call(cache, "embed_documents", ["a"])
    model = cache.underlying_embeddings
    model.wrong = lambda vectors: [[0.1, *vector[1:]] for vector in vectors]
    call(cache, "embed_documents", ["b"])

    sizes = sorted(len(value) for _, value in cache.document_embedding_store.yield_items())
    assert sizes == [8 + 4 * 4, 8 + 4 * 8]
    assert float32([0.1]) != [0.1]
