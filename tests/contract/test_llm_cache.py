"""KVCache: LangChain's standard tests on every target, and answers that other caches keep, read and left to them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import BaseCache
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite
from pydantic import BaseModel

from langchain_kv import Encryption, KVCache, KVStore, StoreClosedError, UsageError
from places import Place

QUESTION = ("What is 1 + 1?", "a model")


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, place: Place) -> Iterator[BaseCache]:
        yield from opened(place)


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, place: Place) -> Any:
        for cache in opened(place):
            yield cache
            await cache.aclose()


def opened(place: Place, **arguments: Any) -> Iterator[KVCache]:
    store = place.store()  # lends a collection where making one is slow
    with KVCache(store.collection.name, place.url, **place.arguments, **arguments) as cache:
        yield cache


@pytest.fixture
def cache(place: Place) -> Iterator[KVCache]:
    yield from opened(place)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Any:
    """Call a method, or its async twin."""
    if request.param == "sync":
        yield lambda method, *arguments: method(*arguments)
        return
    with asyncio.Runner() as runner:

        def twin(method: Any, *arguments: Any) -> Any:
            return runner.run(getattr(method.__self__, f"a{method.__name__}")(*arguments))

        yield twin


ANSWERS: list[list[Generation]] = [
    [],
    [Generation(text="2"), Generation(text="\u2603 \ud800", generation_info={"lc": 1, "type": "secret", "id": ["X"]})],
    [ChatGeneration(message=AIMessage("two", response_metadata={"tokens": 7}, usage_metadata=None))],
    [
        ChatGeneration(
            message=AIMessage("", tool_calls=[{"name": "f", "args": {"x": [1, None]}, "id": "1", "type": "tool_call"}])
        )
    ],
    [ChatGeneration(message=HumanMessage("2")), ChatGeneration(message=ToolMessage("2", tool_call_id="1"))],
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{len(answer)} {type(answer[-1:]).__name__}")
def test_an_answer_comes_back_as_it_was(cache: KVCache, call: Any, answer: list[Generation]) -> None:
    call(cache.update, *QUESTION, answer)

    assert call(cache.lookup, *QUESTION) == answer
    assert call(cache.lookup, QUESTION[0], "another model") is None
    call(cache.delete, *QUESTION)
    assert call(cache.lookup, *QUESTION) is None


def test_what_is_stored_is_what_langchain_astradb_stores(place: Place) -> None:
    for cache in opened(place):
        cache.update(*QUESTION, [Generation(text="2")])
        name = cache._store.collection.name
        (key,) = cache._store.yield_keys()

        stored = place.peek(name, key)

    assert {**stored, "body_blob": json.loads(stored["body_blob"])} == {
        "_id": "36e295d83bbd704f1dedc779a92e31a8#fe2dbffd447a970c1a42dac39791f114",
        "body_blob": [dumps(Generation(text="2"))],
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated as of:DeprecationWarning")
def test_langchain_astradbs_cache_reads_it_and_is_read(http_place: Place) -> None:
    from langchain_astradb import AstraDBCache
    from langchain_astradb.utils.astradb import SetupMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of collections that index everything, as it makes them
        place = {"token": http_place.arguments["token"], "api_endpoint": http_place.url, "environment": "other"}
        where = {**place, "namespace": "default_keyspace"}
        theirs = AstraDBCache(collection_name="theirs", **where)
        theirs.update(*QUESTION, [Generation(text="theirs")])
        with KVCache("theirs", http_place.url, token=http_place.arguments["token"]) as ours:
            assert ours.lookup(*QUESTION) == [Generation(text="theirs")]
            ours.update(*QUESTION, [Generation(text="ours")])
            assert theirs.lookup(*QUESTION) == [Generation(text="ours")]
            theirs.clear()
            assert ours.lookup(*QUESTION) is None
        with KVCache("ours", http_place.url, token=http_place.arguments["token"]) as ours:
            ours.update(*QUESTION, ANSWERS[3])
            assert (
                AstraDBCache(collection_name="ours", setup_mode=SetupMode.OFF, **where).lookup(*QUESTION) == ANSWERS[3]
            )
    gc.collect()  # the peer's connections, which it never closes, while their warning is ignored


# -- with models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def global_cache() -> Iterator[KVCache]:
    with KVCache("cache", "memory:of-models") as cache:
        set_llm_cache(cache)
        yield cache
        set_llm_cache(None)
        cache.clear()


@pytest.mark.parametrize("kind", [FakeListLLM, FakeListChatModel])
def test_a_model_is_asked_once(global_cache: KVCache, call: Any, kind: Any) -> None:
    model = kind(responses=["first", "second"])

    answers = [call(model.invoke, "question") for _ in range(3)]

    assert [getattr(answer, "content", answer) for answer in answers] == ["first"] * 3
    assert getattr(call(model.invoke, "another question"), "content", "second") == "second"


def test_an_agent_asks_once(global_cache: KVCache, call: Any) -> None:
    agent = create_agent(FakeListChatModel(responses=["first", "second"]))
    question = {"messages": [HumanMessage("question", id="1")]}

    assert [call(agent.invoke, question)["messages"][-1].content for _ in range(2)] == ["first"] * 2


def test_a_models_answer_is_removed_by_the_model(global_cache: KVCache, call: Any) -> None:
    model = FakeListLLM(responses=["first", "second"])
    assert call(model.invoke, "question") == "first"

    call(global_cache.delete_through_llm, "question", model)

    assert call(model.invoke, "question") == "second"


# -- what cannot be read, and what is not kept ------------------------------------------------------------------------


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[KVCache]:
    with KVCache("cache", f"memory:{request.node.name}") as cache:
        yield cache


def plant(cache: KVCache, value: Any) -> None:
    (place, key) = cache._store._place.shown, cache_key(cache)
    KVStore("cache", place).mset([(key, value)])


def cache_key(cache: KVCache) -> str:
    cache.update(*QUESTION, [Generation(text="2")])
    (key,) = cache._store.yield_keys()
    return key


@pytest.mark.parametrize(
    "value",
    [
        *(7, {"text": "2"}, "", "text", "7", "{}", '""', "[7]", "[null]", '["7"]', '[{"text": 7}]', '["{}"]'),
        json.dumps([dumps(Document("x"))]),
        json.dumps([dumps(AIMessage("x"))]),
        json.dumps(['{"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}}']),
        json.dumps(['{"lc": 1, "type": "not_implemented", "id": ["a"], "repr": "1"}']),
        json.dumps(['{"lc": 1, "type": "secret", "id": ["PATH"]}']),
        "[" * 100_000,
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_answer_that_cannot_be_read_is_a_miss_and_a_warning(
    memory: KVCache, call: Any, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    plant(memory, value)

    with caplog.at_level(logging.WARNING, "langchain_kv"):
        assert call(memory.lookup, *QUESTION) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "passed over" in caplog.text

    call(memory.update, *QUESTION, [Generation(text="new")])
    assert call(memory.lookup, *QUESTION) == [Generation(text="new")]


def test_the_first_form_of_langchain_astradb_is_read(memory: KVCache) -> None:
    plant(memory, '[{"text": "2", "generation_info": {"a": 1}}]')

    assert memory.lookup(*QUESTION) == [Generation(text="2", generation_info={"a": 1})]


class Parsed(BaseModel):
    x: int = 1


class Own(AIMessage):
    pass


@pytest.mark.parametrize(
    "answer",
    [
        [Generation(text="2", generation_info={"m": object()})],
        [ChatGeneration(message=AIMessage("2", additional_kwargs={"a": {"parsed": Parsed()}}))],
        [ChatGeneration(message=Own("2"))],
    ],
)
def test_an_answer_that_could_not_be_made_again_is_not_kept(
    memory: KVCache, call: Any, caplog: pytest.LogCaptureFixture, answer: list[Generation]
) -> None:
    with caplog.at_level(logging.WARNING, "langchain_kv"):
        call(memory.update, *QUESTION, answer)

    assert "cannot be made again of its text" in caplog.text
    assert call(memory.lookup, *QUESTION) is None
    assert memory._store.count() == 0


# -- what it has of a store -------------------------------------------------------------------------------------------


def test_answers_expire(memory: KVCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with KVCache("cache", memory._store._place.shown, ttl_s=60) as expiring:
        expiring.update(*QUESTION, [Generation(text="2")])
        (found,) = expiring._store._backend.get_many([next(iter(expiring._store.yield_keys()))])
        assert found.expires_at_ms  # type: ignore[union-attr]
        assert memory.lookup(*QUESTION) == [Generation(text="2")]

        later = found.expires_at_ms  # type: ignore[union-attr]
        monkeypatch.setattr("langchain_kv.backends.engine.now_ms", lambda: later)
        assert expiring.lookup(*QUESTION) is None
        assert expiring.purge() == 1


def test_answers_are_encrypted(memory: KVCache, call: Any, caplog: pytest.LogCaptureFixture) -> None:
    with KVCache("cache", memory._store._place.shown, encryption=Encryption({"a": bytes(32)})) as encrypted:
        call(encrypted.update, *QUESTION, ANSWERS[1])

        assert call(encrypted.lookup, *QUESTION) == ANSWERS[1]
    assert memory.lookup(*QUESTION) is None
    assert "passed over" in caplog.text


def test_hits_are_counted(request: pytest.FixtureRequest) -> None:
    with KVCache("cache", f"memory:{request.node.name}", statistics=True) as cache:
        cache.lookup(*QUESTION)
        cache.update(*QUESTION, [Generation(text="2")])
        cache.lookup(*QUESTION)

        assert (cache.statistics().hits, cache.statistics().gets) == (1, 2)
        assert repr(cache).startswith("KVCache over ")


async def test_a_closed_cache_says_so(request: pytest.FixtureRequest) -> None:
    async with KVCache("cache", f"memory:{request.node.name}", setup_mode="ASYNC") as cache:
        assert await cache.alookup(*QUESTION) is None
    with pytest.raises(StoreClosedError):
        cache.lookup(*QUESTION)


# -- SQLiteCache's table ----------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The table of LangChain's SQLiteCache, as its SQLAlchemy makes it, with answers in it."""
    connection = sqlite3.connect(tmp_path / "langchain.db")
    connection.execute(
        "CREATE TABLE full_llm_cache (prompt VARCHAR NOT NULL, llm VARCHAR NOT NULL, idx INTEGER NOT NULL,"
        " response VARCHAR, PRIMARY KEY (prompt, llm, idx))"
    )
    rows = [
        (f"prompt {number}", "a model", index, dumps(generation))
        for number in range(600)
        for index, generation in reversed(list(enumerate(ANSWERS[1 + number % 3])))
    ]
    connection.executemany("INSERT INTO full_llm_cache VALUES (?, ?, ?, ?)", [*rows, ("old", "a model", 0, "text")])
    yield connection
    connection.close()


BY_ORDER = "SELECT prompt, llm, idx, response FROM full_llm_cache ORDER BY prompt, llm, idx"


def test_answers_of_langchains_sqlite_cache_are_taken_over(place: Place, call: Any, table: sqlite3.Connection) -> None:
    for cache in opened(place):
        cache.update("prompt 7", "a model", [Generation(text="newer")])

        assert call(cache.add_rows, table.execute(BY_ORDER)) == 600
        assert call(cache.add_rows, table.execute(BY_ORDER)) == 0
        for number in (0, 1, 2, 599):
            assert call(cache.lookup, f"prompt {number}", "a model") == ANSWERS[1 + number % 3]
        assert call(cache.lookup, "prompt 7", "a model") == [Generation(text="newer")]
        assert call(cache.lookup, "old", "a model") == [Generation(text="text")]


def test_rows_in_another_order_are_refused(memory: KVCache, call: Any, table: sqlite3.Connection) -> None:
    with pytest.raises(UsageError, match="add ORDER BY prompt, llm, idx"):
        call(memory.add_rows, table.execute(f"{BY_ORDER} DESC"))

    assert call(memory.add_rows, table.execute(BY_ORDER)) == 601
