"""A cache of embeddings: one flight a text, failing stores and models, settings, copies, an older cache."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from embedding_models import Model, vector_of
from langchain_kv import (
    BadVectorError,
    ConfigError,
    EmbeddingCache,
    Encryption,
    KVByteStore,
    KVStore,
    OlderCache,
    StoreClosedError,
    UnsupportedError,
    UsageError,
)
from langchain_kv.embeddings import call, vectors
from langchain_kv.testing import DataAPIServer
from loop_turns import counted_turns

TEXTS = [f"text {number}" for number in range(1_000)]
RIGHT = [vector_of(text) for text in TEXTS]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'kv.db'}"


class Failing(InMemoryByteStore):
    """A byte store of somebody else's, which fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: set[str] = set()
        self.asked: list[int] = []

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked.append(len(keys))
        if "mget" in self.fails:
            raise ConnectionError("mget")
        return super().mget(keys)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        if "mset" in self.fails:
            raise ConnectionError("mset")
        super().mset(key_value_pairs)


# -- one flight a text ------------------------------------------------------------------------------------------------


async def test_32_tasks_that_ask_for_the_same_new_texts_embed_each_once(url: str) -> None:
    model = Model()
    model.during = lambda texts: asyncio.sleep(0)
    async with EmbeddingCache(model, url, batch_size=100) as cache:
        answers = await asyncio.gather(*(cache.aembed_documents(TEXTS[start:] + TEXTS[:start]) for start in range(32)))

        assert all(answer == RIGHT[start:] + RIGHT[:start] for start, answer in enumerate(answers))
        assert sorted(model.texts) == sorted(TEXTS)
        stats = cache.stats()
        assert stats.embedded == stats.misses == 1_000
        assert stats.hits + stats.joined == 31_000


@pytest.mark.parametrize("loops", [0, 2])
def test_threads_embed_each_text_once_together_and_each_event_loop_at_most_once_more(url: str, loops: int) -> None:
    model = Model()
    barrier = threading.Barrier(8)

    async def together(cache: EmbeddingCache) -> list[list[float]]:
        first, second = await asyncio.gather(*[cache.aembed_documents(TEXTS[::-1]) for _ in range(2)])
        assert first == second
        return first[::-1]

    def work(number: int) -> list[list[float]]:
        with EmbeddingCache(model, url, batch_size=50) as cache:  # each has a cache of its own
            barrier.wait()
            return cache.embed_documents(TEXTS) if number >= loops else asyncio.run(together(cache))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [RIGHT] * 8
    assert set(model.texts) == set(TEXTS)
    assert max(Counter(model.texts).values()) <= 1 + loops


@pytest.mark.slow
def test_several_processes_end_with_the_same_vectors(url: str) -> None:
    script = (
        "import sys\nsys.path.insert(0, sys.argv[2])\n"
        "from embedding_models import Model, vector_of\nfrom langchain_kv import EmbeddingCache\n"
        "texts = [f'text {number}' for number in range(200)]\n"
        "with EmbeddingCache(Model(), sys.argv[1], batch_size=20) as cache:\n"
        "    assert cache.embed_documents(texts) == [vector_of(text) for text in texts]\n"
    )
    command = [sys.executable, "-c", script, url, str(Path(__file__).parents[1])]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]

    model = Model()
    with EmbeddingCache(model, url) as cache:
        assert cache.embed_documents(TEXTS[:200]) == RIGHT[:200]
    assert model.texts == []


async def test_a_cancelled_waiter_does_not_cancel_the_others(url: str) -> None:
    model, begun, go_on = Model(), asyncio.Event(), asyncio.Event()

    async def during(texts: list[str]) -> None:
        begun.set()
        await go_on.wait()

    model.during = during
    async with EmbeddingCache(model, url) as cache:
        tasks = [asyncio.create_task(cache.aembed_documents(["a"])) for _ in range(3)]
        await begun.wait()
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        go_on.set()
        assert await tasks[0] == await tasks[2] == [vector_of("a")]
    assert model.texts == ["a"]


async def test_where_the_first_is_cancelled_another_takes_over(url: str) -> None:
    model, begun = Model(), asyncio.Event()

    async def never(texts: list[str]) -> None:
        begun.set()
        await asyncio.Event().wait()

    model.during = never
    async with EmbeddingCache(model, url) as cache:
        first = asyncio.create_task(cache.aembed_documents(["a", "b"]))
        await begun.wait()
        second = asyncio.create_task(cache.aembed_documents(["b", "c"]))
        model.during = lambda texts: None
        while cache.stats().misses < 3:
            await asyncio.sleep(0)
        first.cancel()
        assert await second == [vector_of("b"), vector_of("c")]
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_an_error_of_the_model_is_told_to_all_who_asked_for_the_same(url: str) -> None:
    model, begun, go_on = Model(), asyncio.Event(), asyncio.Event()

    async def during(texts: list[str]) -> None:
        begun.set()
        await go_on.wait()
        raise TimeoutError("the model is away")

    model.during = during
    async with EmbeddingCache(model, url) as cache:
        tasks = [asyncio.create_task(cache.aembed_documents(["a", "b"])) for _ in range(3)]
        await begun.wait()
        go_on.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the model is away"] * 3
        assert len(model.batches) == 1
        model.during = lambda texts: None
        assert await cache.aembed_documents(["a"]) == [vector_of("a")]


async def test_the_error_of_anothers_text_is_not_raised_to_who_did_not_ask_for_it(url: str) -> None:
    model, begun, go_on = Model(), asyncio.Event(), asyncio.Event()

    async def during(texts: list[str]) -> None:
        if "too long" in texts:
            begun.set()
            await go_on.wait()
            raise ValueError("a text is too long")

    model.during = during
    async with EmbeddingCache(model, url) as cache:
        first = asyncio.create_task(cache.aembed_documents(["a", "too long"]))
        await begun.wait()
        second = asyncio.create_task(cache.aembed_documents(["a"]))
        await asyncio.sleep(0)
        go_on.set()
        assert await second == [vector_of("a")]
        with pytest.raises(ValueError, match="too long"):
            await first


async def test_a_plain_call_in_a_coroutine_does_not_wait_for_its_own_loop(url: str) -> None:
    model, begun = Model(), asyncio.Event()

    async def during(texts: list[str]) -> None:
        begun.set()
        await asyncio.sleep(0)

    model.during = during
    with EmbeddingCache(model, url) as cache:
        task = asyncio.create_task(cache.aembed_documents(["a"]))
        await begun.wait()
        model.during = lambda texts: None
        assert cache.embed_documents(["a"]) == [vector_of("a")]
        assert await task == [vector_of("a")]


def test_plain_calls_that_fill_a_loops_executor_do_not_wait_for_a_coroutine_that_needs_it(url: str) -> None:
    class Plain(Model):
        aembed_query = Embeddings.aembed_query  # on a thread of the loop's executor

    async def ask(cache: EmbeddingCache) -> list[list[float]]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        first = asyncio.create_task(cache.aembed_query("a"))
        await asyncio.sleep(0)  # it has claimed the text, and had no thread yet
        others = [loop.run_in_executor(None, cache.embed_query, "a") for _ in range(4)]
        return await asyncio.wait_for(asyncio.gather(first, *others), 30)

    with EmbeddingCache(Plain(), url) as cache:
        assert asyncio.run(ask(cache)) == [vector_of("a", "query")] * 5


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_nobody_waits_for_a_task_of_a_loop_that_was_stopped(url: str, colour: str) -> None:
    model, begun = Model(), threading.Event()

    async def never(texts: list[str]) -> None:
        begun.set()
        await asyncio.Event().wait()

    model.during = never
    with EmbeddingCache(model, url) as cache, asyncio.Runner() as stopped:

        async def give_up() -> asyncio.Task[Any]:
            task = asyncio.create_task(cache.aembed_documents(["a"]))
            while not begun.is_set():
                await asyncio.sleep(0)
            return task

        task = stopped.run(give_up())
        model.during = lambda texts: None

        def again() -> list[list[float]]:
            return cache.embed_documents(["a"]) if colour == "sync" else asyncio.run(cache.aembed_documents(["a"]))

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(again)
            try:
                assert asked.result(30) == [vector_of("a")]
            finally:
                task.cancel()
                stopped.run(asyncio.sleep(0))  # whoever waits for it after all goes on


def test_a_cache_over_a_cache_of_the_same_place_does_not_wait_for_itself(url: str) -> None:
    model = Model()
    with EmbeddingCache(model, url) as inner, EmbeddingCache(inner, url, name=inner.name) as outer:
        assert outer.embed_documents(["a", "b"]) == [vector_of("a"), vector_of("b")]
        assert asyncio.run(outer.aembed_documents(["c"])) == [vector_of("c")]
        assert asyncio.run(outer.aembed_query("c")) == vector_of("c", "query")
    assert model.texts == ["a", "b", "c"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # 3.12 warns of forks beside threads
def test_a_forked_child_waits_for_no_thread_of_its_parent(url: str) -> None:
    model, begun, go_on, parent = Model(), threading.Event(), threading.Event(), os.getpid()

    def during(texts: list[str]) -> None:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(60)

    model.during = during
    with EmbeddingCache(model, url) as cache, ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.embed_documents, ["a"])
        begun.wait(60)
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(30)
                os._exit(0 if cache.embed_documents(["a"]) == [vector_of("a")] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        assert first.result() == [vector_of("a")]


# -- a store that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["mget", "mset"])
def test_a_failing_store_is_an_error(verb: str) -> None:
    store = Failing()
    cache = EmbeddingCache(Model(), store)
    store.fails = {verb}
    with pytest.raises(ConnectionError, match=verb):
        cache.embed_documents(["a"])
    store.fails = set()
    assert cache.embed_documents(["a"]) == [vector_of("a")]


def test_a_failing_store_may_be_done_without_and_is_counted() -> None:
    store, model = Failing(), Model()
    cache = EmbeddingCache(model, store, on_store_error="ignore", batch_size=400)
    store.fails = {"mget", "mset"}
    with pytest.warns(UserWarning, match=r"The store of .* failed \(ConnectionError\)") as warned:
        assert cache.embed_documents(TEXTS + TEXTS) == RIGHT + RIGHT

    assert len(warned) == 1
    assert asyncio.run(cache.aembed_query("a")) == vector_of("a", "query")  # and no further warning
    assert sorted(model.texts) == sorted(TEXTS)
    assert cache.stats().store_failures == 2 + 3 + 2
    store.fails = set()
    assert cache.embed_documents(["a"]) == [vector_of("a")]
    assert cache.stats().written_bytes == 24


def test_a_wrong_call_is_no_failure_to_do_without(url: str) -> None:
    closed = EmbeddingCache(Model(), url, on_store_error="ignore")
    closed.close()
    with pytest.raises(StoreClosedError):
        closed.embed_documents(["a"])
    of_json = EmbeddingCache(Model(), KVStore("kv", "memory:"), on_store_error="ignore")
    with pytest.raises(UsageError, match="bytes"):
        of_json.embed_documents(["a"])


async def test_a_store_that_is_not_there_may_be_done_without() -> None:
    url = "http://127.0.0.1:9"  # discard: nobody listens
    cache = EmbeddingCache(Model(), url, token="t", setup_mode="ASYNC", on_store_error="ignore", deadline_s=0.01)
    with pytest.warns(UserWarning, match="failed"):
        assert await cache.aembed_documents(["a"]) == [vector_of("a")]
    assert cache.stats().store_failures == 2
    await cache.aclose()


# -- what a model answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, 7, [None, None], ["ab", "cd"], [[], []], [["x"], [1.0]]], ids=repr)
def test_an_answer_that_is_no_vectors_is_an_error(answer: Any) -> None:
    model = Model()
    model.wrong = lambda right: answer
    cache = EmbeddingCache(model, InMemoryByteStore())
    with pytest.raises(BadVectorError, match="The model 'the-model' answered"):
        cache.embed_documents(["a", "b"])


def test_vectors_of_several_lengths_at_once_are_an_error_and_not_cached() -> None:
    model, store = Model(), InMemoryByteStore()
    model.wrong = lambda right: [right[0], right[1][:3]]
    with pytest.raises(BadVectorError, match="vectors of 3 and 4 numbers at once"):
        EmbeddingCache(model, store).embed_documents(["a", "b"])
    assert store.store == {}


def test_a_vector_of_another_length_than_the_caches_is_an_error_and_its_neighbours_are_cached() -> None:
    model, store = Model(), InMemoryByteStore()
    cache = EmbeddingCache(model, store)
    cache.embed_documents(["x"])
    model.wrong = lambda right: [right[0], right[1][:3]]
    with pytest.raises(BadVectorError, match="text 1: it has 3 numbers, and the cache's vectors have 4: give a model"):
        cache.embed_documents(["a", "b"])
    assert len(store.store) == 2


def test_a_model_with_other_settings_under_the_same_name_is_told() -> None:
    store = InMemoryByteStore()
    EmbeddingCache(Model(), store).embed_documents(["a"])
    with pytest.raises(BadVectorError, match="it has 5 numbers, and the cache's vectors have 4"):
        EmbeddingCache(Model(5), store).embed_documents(["a", "b"])
    other = EmbeddingCache(Model(5), store, dimensions=5)
    assert other.embed_documents(["a", "b"]) == [vector_of(text, size=5) for text in "ab"]
    with pytest.raises(BadVectorError, match="it has 5 numbers, and the cache's vectors have 6"):
        EmbeddingCache(Model(5), InMemoryByteStore(), dimensions=6).embed_documents(["a"])


# -- arguments --------------------------------------------------------------------------------------------------------


def test_a_model_without_a_name_needs_one() -> None:
    model = DeterministicFakeEmbedding(size=3)
    for wrong in ({}, {"name": ""}):
        with pytest.raises(ConfigError, match="name"):
            EmbeddingCache(model, "memory:", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="namespace='the-model'"):
        EmbeddingCache.from_bytes_store(model, InMemoryByteStore())
    assert EmbeddingCache(model, InMemoryByteStore(), name="fake").name == "fake"


@pytest.mark.parametrize("attribute", ["model", "model_name", "model_id"])
def test_a_models_name_is_found(attribute: str) -> None:
    model = Model()
    del model.model
    setattr(model, attribute, "found")
    assert EmbeddingCache(model, InMemoryByteStore()).name == "found"


def test_a_models_dimensions_are_found() -> None:
    store = InMemoryByteStore()
    for size in (4, 5):
        model = Model(size)
        model.dimensions = size  # type: ignore[attr-defined]
        EmbeddingCache(model, store).embed_documents(["a"])
        assert model.texts == ["a"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"dimensions": "3"}, "dimensions must be a whole number"),
        ({"on_store_error": "go on"}, "on_store_error must be 'raise' or 'ignore'"),
        ({"read_through": "older"}, "read_through must be an OlderCache"),
        ({"cache_queries": "no"}, "cache_queries must be"),
        ({"name": 7}, "name is text"),
        ({"ttl_s": 5, "token": "secret"}, "its own token and ttl_s"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as failed:
        EmbeddingCache(Model(), InMemoryByteStore(), **arguments)
    assert "secret" not in str(failed.value)


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(ConfigError, match="model must be an Embeddings"):
        EmbeddingCache("text-embedding-3-small", "memory:")  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", ["one text", b"one", 7, ["a", None], ["a", b"b"]], ids=repr)
def test_what_is_no_list_of_texts_is_told(texts: Any) -> None:
    cache = EmbeddingCache(Model(), InMemoryByteStore())
    for method in (cache.embed_documents, cache.embed_documents_array):
        with pytest.raises(UsageError, match="text"):
            method(texts)
    with pytest.raises(UsageError, match="text"):
        asyncio.run(cache.aembed_documents(texts))


def test_a_store_that_is_given_stays_open_and_one_of_its_own_is_closed(url: str) -> None:
    with KVByteStore("mine", url) as store:
        with EmbeddingCache(Model(), store) as cache:
            cache.embed_documents(["a"])
        assert store.count() == 1
    with EmbeddingCache(Model(), url, collection="mine") as cache:
        assert cache.embed_documents(["a"]) == [vector_of("a")]
        assert cache.underlying_embeddings.texts == []  # type: ignore[attr-defined]
    with pytest.raises(StoreClosedError):
        cache.embed_documents(["a"])


async def test_a_url_of_a_data_api_is_taken_with_its_token(data_api: DataAPIServer) -> None:
    for _ in range(2):
        model = Model()
        async with EmbeddingCache(model, data_api.url, token=data_api.token, setup_mode="ASYNC") as cache:
            assert await cache.aembed_documents(["a", "b"]) == [vector_of("a"), vector_of("b")]
            assert await cache.aembed_query("a") == vector_of("a", "query")
    assert model.calls == []


def test_a_vector_store_takes_it(url: str) -> None:
    with EmbeddingCache(Model(), url) as cache:
        store = InMemoryVectorStore(cache)
        store.add_texts(["a", "b"])
        assert len(store.similarity_search("a", k=1)) == 1
        assert cache.stats().embedded == 3


def test_vectors_may_be_encrypted(url: str) -> None:
    with EmbeddingCache(Model(), url, encryption=Encryption({"k": bytes(32)})) as cache:
        assert [cache.embed_documents(["a"]) for _ in range(2)] == [[vector_of("a")]] * 2
        assert len(cache.underlying_embeddings.batches) == 1  # type: ignore[attr-defined]
    (value,) = (value for _, value in KVByteStore("embeddings", url).yield_items())
    assert vectors.count_of(value) == 0


def test_only_stores_of_this_package_are_pruned() -> None:
    with pytest.raises(UnsupportedError, match="use a KVByteStore"):
        EmbeddingCache(Model(), InMemoryByteStore()).prune()


def test_without_numpy_an_array_is_refused_and_lists_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    vectors.imported_numpy.cache_clear()
    try:
        cache = EmbeddingCache(Model(), InMemoryByteStore())
        assert [cache.embed_documents(["a"]) for _ in range(2)] == [[vector_of("a")]] * 2
        with pytest.raises(UnsupportedError, match=r"pip install 'langchain-kv\[vector\]'"):
            cache.embed_documents_array(["a"])
    finally:
        vectors.imported_numpy.cache_clear()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_works_by_itself(url: str, copied: Callable[[Any], Any]) -> None:
    with EmbeddingCache(DeterministicFakeEmbedding(size=3), url, name="fake") as cache:
        right = cache.embed_documents(["a"])
        with copied(cache) as other:
            assert other.embed_documents(["a"]) == right
            assert other.stats()[:3] == (1, 0, 0)
            assert other.embed_query("q") == cache.embed_query("q")
        assert cache.stats()[:3] == (1, 1, 1)
        assert cache.embed_documents(["b"])  # closing the copy did not close this one


def test_no_token_is_shown() -> None:
    cache = EmbeddingCache(Model(), "http://127.0.0.1:9", token="AstraCS:secret", setup_mode="OFF")
    assert "secret" not in repr(cache)
    assert "secret" not in repr(vars(cache))
    cache.close()


# -- memory -----------------------------------------------------------------------------------------------------------


def test_lookups_go_in_pages() -> None:
    store = Failing()
    cache = EmbeddingCache(Model(), store, batch_size=3_000)
    texts = [f"t{number}" for number in range(3_500)]
    cache.embed_documents(texts)

    assert store.asked == [500] * 7
    assert [len(batch) for batch in cache.underlying_embeddings.batches] == [3_000, 500]  # type: ignore[attr-defined]


def test_a_long_list_takes_little_memory_beside_its_vectors() -> None:
    class Known:
        """Has every vector, and keeps none."""

        def __init__(self) -> None:
            (self.value,) = vectors.pack([vector_of("a")])

        def mget(self, keys: Sequence[str]) -> list[Any]:
            return [self.value] * len(keys)

    class Store(InMemoryByteStore):
        mget = Known().mget  # type: ignore[assignment]

    texts = [f"t{number}" for number in range(50_000)]
    cache = EmbeddingCache(Model(), Store())
    cache.embed_documents_array(texts[:10])
    tracemalloc.start()
    try:
        array = cache.embed_documents_array(texts)
        peak = tracemalloc.get_traced_memory()[1] - array.nbytes
    finally:
        tracemalloc.stop()
    assert array.shape == (50_000, 4)
    assert peak < 5_000_000  # a twentieth of what a million may take


# -- an older cache ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sha1", "blake2b", "sha256", "sha512", "a function"])
def encoder(request: pytest.FixtureRequest) -> Any:
    return (lambda text: f"own-{text}") if request.param == "a function" else request.param


def older(store: Any, encoder: Any, model: Model, texts: list[str], **arguments: Any) -> CacheBackedEmbeddings:
    named = {} if callable(encoder) else {"namespace": "the-model"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of SHA-1
        cache = CacheBackedEmbeddings.from_bytes_store(model, store, key_encoder=encoder, **named, **arguments)
    cache.embed_documents(texts)
    return cache


def test_an_older_cache_is_read_and_packed_as_it_goes(encoder: Any, url: str) -> None:
    store, model = InMemoryByteStore(), Model()
    older(store, encoder, Model(), ["a", "b", "ä ☃"])
    namespace = "" if callable(encoder) else "the-model"
    through = OlderCache(store, namespace, encoder)
    with EmbeddingCache(model, url, read_through=through) as cache:
        right = [vector_of(text) for text in ["a", "c", "ä ☃", "a"]]
        assert cache.embed_documents(["a", "c", "ä ☃", "a"]) == right
        assert model.texts == ["c"]
        assert cache.stats().read_through == 2
        store.store.clear()
        assert asyncio.run(cache.aembed_documents(["a", "c", "ä ☃", "a"])) == right
        assert model.texts == ["c"]


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_a_program_moves_over_by_its_import(encoder: Any, whose: str, url: str) -> None:
    store = KVByteStore("older", url) if whose == "ours" else InMemoryByteStore()
    model = Model()
    before = older(store, encoder, Model(), ["a", "b"], query_embedding_cache=False)
    named = {} if callable(encoder) else {"namespace": "the-model"}
    cache = EmbeddingCache.from_bytes_store(model, store, key_encoder=encoder, batch_size=32, **named)

    assert cache.embed_documents(["a", "b", "c"]) == before.embed_documents(["a", "b", "c"])
    assert model.texts == ["c"]
    assert cache.underlying_embeddings is model
    assert cache.document_embedding_store is store
    assert cache.query_embedding_store is None
    assert cache.batch_size == 32
    assert cache.embed_query("a") == cache.embed_query("a") == vector_of("a", "query")
    assert model.queries == ["a", "a"]


def test_queries_of_an_older_cache_are_read_where_they_had_a_store_of_their_own() -> None:
    documents, queries, model = InMemoryByteStore(), InMemoryByteStore(), Model()
    older(documents, "sha256", Model(), ["a"], query_embedding_cache=queries).embed_query("q")
    cache = EmbeddingCache.from_bytes_store(
        model, documents, namespace="the-model", key_encoder="sha256", query_embedding_cache=queries
    )

    assert cache.embed_query("q") == vector_of("q", "query")
    assert cache.query_embedding_store is queries
    assert model.calls == []


def test_queries_of_an_older_cache_that_shared_a_store_are_not_taken() -> None:
    store, model = InMemoryByteStore(), Model()
    older(store, "sha256", Model(), ["a"], query_embedding_cache=True)
    cache = EmbeddingCache.from_bytes_store(
        model, store, namespace="the-model", key_encoder="sha256", query_embedding_cache=True
    )

    assert cache.embed_query("a") == vector_of("a", "query")
    assert cache.embed_documents(["a"]) == [vector_of("a")]
    assert model.calls == ["embed_query"]


@pytest.mark.parametrize("value", [b"[0.5, NaN, 0.5, 0.5]", b"[1.0", b"{}", b"[]", b"\xff", b"[0.5, 0.5]", b"[[1.0]]"])
def test_an_older_vector_that_cannot_be_used_is_a_miss_and_one_warning(value: bytes) -> None:
    store, model = InMemoryByteStore(), Model()
    older(store, "sha256", Model(), ["a", "b", "c"])
    keys = [OlderCache(store, "the-model", "sha256").key(text) for text in "abc"]
    store.mset([(keys[1], value)])
    cache = EmbeddingCache(model, InMemoryByteStore(), read_through=OlderCache(store, "the-model", "sha256"))
    with pytest.warns(UserWarning, match=r"1 vector\(s\) in the cache .* cannot be used") as warned:
        assert cache.embed_documents(["a", "b", "c"]) == [vector_of(text) for text in "abc"]

    assert len(warned) == 1
    assert model.texts == ["b"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key_encoder": "md5"}, "key_encoder must be a function or one of sha1"),
        ({"key_encoder": str.upper, "namespace": "x"}, "put it into its keys"),
        ({"store": None}, "store must be a byte store"),
        ({"queries": "no"}, "queries must be a byte store"),
    ],
    ids=str,
)
def test_a_wrong_older_cache_is_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        OlderCache(**{"store": InMemoryByteStore(), **arguments})


# -- slices -----------------------------------------------------------------------------------------------------------


async def test_a_coroutine_gives_its_loop_back_between_slices() -> None:
    model = Model(1_536)
    array = np.random.default_rng(7).standard_normal((300, 1_536)).astype("float32")
    model.wrong = lambda right: array.tolist()
    cache = EmbeddingCache(model, KVByteStore("slices", "memory:slices"), batch_size=300)
    texts = [f"t{number}" for number in range(300)]
    async with counted_turns() as turns:
        for _ in range(2):
            turns.count = 0
            assert await cache.aembed_documents(texts) == array.tolist()
            assert turns.count >= 300 * 1_536 * 4 // call.SLICE_BYTES


def test_the_json_of_an_older_cache_is_what_langchain_writes() -> None:
    store = InMemoryByteStore()
    older(store, "sha256", Model(), ["a"])
    assert [json.loads(value) for value in store.store.values()] == [vector_of("a")]


def test_any_iterable_of_texts_is_read_once() -> None:
    texts: Any = iter(["a", "b"])
    assert EmbeddingCache(Model(), InMemoryByteStore()).embed_documents(texts) == [vector_of("a"), vector_of("b")]


async def test_what_others_did_not_get_comes_to_its_own_place(url: str) -> None:
    """Places that are not in order: of two flights that end without a result, one after the other."""
    model, begun = Model(), 0

    async def never(texts: list[str]) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    model.during = never
    async with EmbeddingCache(model, url) as cache:
        others = [asyncio.create_task(cache.aembed_documents(texts)) for texts in (["t1", "t9"], ["t3"])]
        while begun < 2:
            await asyncio.sleep(0)
        model.during = lambda texts: None
        texts = [f"t{number}" for number in range(10)]
        task = asyncio.create_task(cache.aembed_documents_array(texts))
        while cache.stats().misses < 10:
            await asyncio.sleep(0)
        for other in others:
            other.cancel()
        assert (await task).tolist() == [vector_of(text) for text in texts]
