"""LangGraphCache: what nodes returned, kept on every target; expiry, namespaces, and entries that are not read."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.cache.base import BaseCache, FullKey
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy

from langchain_kv import (
    Encryption,
    InvalidKeyError,
    KVByteStore,
    KVStore,
    LangGraphCache,
    PartialWriteError,
    StoreClosedError,
    TransportError,
    UsageError,
)
from langchain_kv.backends.collections import CollectionForm
from langchain_kv.limits import BYTES_VALUE_MAX
from langchain_kv.runtime import clock
from langchain_kv.testing import DataAPIServer
from places import Place

KEY: FullKey = (("__pregel_ns_writes", "module.node", "node"), "a hash")
OTHER: FullKey = (("__pregel_ns_writes", "module.other", "other"), "a hash")


def opened(place: Place, **arguments: Any) -> Iterator[LangGraphCache[Any]]:
    collection = place.lend(CollectionForm(namespaced=True))
    with LangGraphCache[Any](collection, place.url, **place.arguments, **arguments) as cache:
        yield cache


@pytest.fixture
def cache(place: Place) -> Iterator[LangGraphCache[Any]]:
    yield from opened(place)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[LangGraphCache[Any]]:
    with LangGraphCache[Any]("cache", f"memory:{request.node.name}") as cache:
        yield cache


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


class Clock:
    """A time of the test's own."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000

    def now_ns(self) -> int:
        return self.now_s * 1_000_000_000


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(clock, "_now_ns", own.now_ns)
    return own


# -- LangGraph's interface --------------------------------------------------------------------------------------------

VALUES = [
    None,
    b"\0bytes",
    {"a": [1, 2.5, None, "\u2603"]},
    deque([["messages", [AIMessage("two", id="1")]], ["branch:to:x", None]]),
    datetime(2026, 1, 1, tzinfo=UTC),
    {"x"},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_result_comes_back_as_it_was(cache: LangGraphCache[Any], call: Any, value: Any) -> None:
    call(cache.set, {KEY: (value, None)})

    assert call(cache.get, [OTHER, KEY, KEY]) == {KEY: value}


def test_an_empty_batch_is_nothing(cache: LangGraphCache[Any], call: Any) -> None:
    call(cache.set, {KEY: (1, None)})
    call(cache.set, {})
    call(cache.clear, [])

    assert call(cache.get, []) == {}
    assert call(cache.get, [KEY]) == {KEY: 1}


def test_a_batch_of_many_results_is_kept_whole(cache: LangGraphCache[Any], call: Any) -> None:
    values = {(("graph", f"node {number % 7}"), str(number)): {"n": number} for number in range(300)}

    call(cache.set, {key: (value, (None, 60, 3600)[value["n"] % 3]) for key, value in values.items()})

    assert call(cache.get, list(values)) == values


COLLIDING: list[FullKey] = [
    ((), "a"),
    ((), "\x1fa\x1ek"),
    (("a",), "k"),
    (("a", "b"), "k"),
    (("a,b",), "k"),
    (("a\x1fb",), "k"),
    (("a\x1ek",), ""),
    (("a",), "\x1ek"),
    (("a", "k"), ""),
    (("ab",), "k"),
    (("%",), "k"),
    (("a",), "_"),
]


def test_no_two_keys_are_one(cache: LangGraphCache[Any], call: Any) -> None:
    values = {key: number for number, key in enumerate(COLLIDING)}

    call(cache.set, {key: (value, None) for key, value in values.items()})

    assert call(cache.get, COLLIDING) == values


@pytest.mark.parametrize("namespace", [(), ("a",), ("a,b",), ("%",)])
def test_clearing_a_namespace_leaves_all_others(
    cache: LangGraphCache[Any], call: Any, namespace: tuple[str, ...]
) -> None:
    values = {key: number for number, key in enumerate(COLLIDING)}
    call(cache.set, {key: (value, None) for key, value in values.items()})

    call(cache.clear, [namespace, ("nothing", "here"), namespace])

    assert call(cache.get, COLLIDING) == {key: value for key, value in values.items() if key[0] != namespace}


def test_clearing_without_namespaces_removes_everything(cache: LangGraphCache[Any], call: Any) -> None:
    call(cache.set, dict.fromkeys(COLLIDING, (1, None)))

    call(cache.clear)

    assert call(cache.get, COLLIDING) == {}
    assert cache._store.count() == 0


def test_two_loops_in_a_row_and_plain_calls_use_one_cache(cache: LangGraphCache[Any]) -> None:
    asyncio.run(cache.aset({KEY: (1, None)}))
    asyncio.run(cache.aset({OTHER: (2, None)}))

    assert cache.get([KEY, OTHER]) == asyncio.run(cache.aget([KEY, OTHER])) == {KEY: 1, OTHER: 2}


@pytest.mark.parametrize(("name", "why"), [(7, "must be a string, got int"), ("x" * 8_001, "the limit is 8,000")])
def test_a_key_that_is_none_is_refused(memory: LangGraphCache[Any], call: Any, name: Any, why: str) -> None:
    with pytest.raises(InvalidKeyError, match=why):
        call(memory.set, {KEY: (1, None), (("a",), name): (2, None)})
    with pytest.raises(InvalidKeyError, match=why):
        call(memory.get, [(("a",), name)])

    assert call(memory.get, [KEY]) == {}


def test_a_label_that_is_empty_is_refused_before_anything_is_kept(memory: LangGraphCache[Any], call: Any) -> None:
    with pytest.raises(InvalidKeyError, match="must not be empty"):
        call(memory.set, {KEY: (1, None), (("a", ""), "k"): (2, None)})
    with pytest.raises(InvalidKeyError, match="must not be empty"):
        call(memory.get, [(("a", ""), "k")])

    assert call(memory.get, [KEY]) == {}


# -- expiry -----------------------------------------------------------------------------------------------------------


def test_each_result_expires_after_its_own_seconds(cache: LangGraphCache[Any], call: Any, time: Clock) -> None:
    later: FullKey = (KEY[0], "later")
    call(cache.set, {KEY: (1, 10), later: (2, 20), OTHER: (3, None)})

    time.now_s += 9
    assert call(cache.get, [KEY, later, OTHER]) == {KEY: 1, later: 2, OTHER: 3}
    time.now_s += 1
    assert call(cache.get, [KEY, later, OTHER]) == {later: 2, OTHER: 3}
    time.now_s += 1_000_000
    assert call(cache.get, [KEY, later, OTHER]) == {OTHER: 3}
    assert call(cache.purge) == 2


def test_reading_does_not_prolong_and_writing_anew_does(memory: LangGraphCache[Any], call: Any, time: Clock) -> None:
    call(memory.set, {KEY: (1, 10), OTHER: (1, 10)})
    time.now_s += 9
    call(memory.set, {OTHER: (2, 10)})
    assert call(memory.get, [KEY, OTHER]) == {KEY: 1, OTHER: 2}

    time.now_s += 1

    assert call(memory.get, [KEY, OTHER]) == {OTHER: 2}


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_result_that_has_expired_already_takes_the_place_of_the_one_before(
    memory: LangGraphCache[Any], call: Any, ttl: int
) -> None:
    call(memory.set, {KEY: (1, None)})

    call(memory.set, {KEY: (2, ttl), OTHER: (3, 60)})

    assert call(memory.get, [KEY, OTHER]) == {OTHER: 3}


def test_the_caches_own_seconds_are_for_results_without(request: pytest.FixtureRequest, call: Any, time: Clock) -> None:
    with LangGraphCache[Any]("cache", f"memory:{request.node.name}", ttl_s=10) as cache:
        call(cache.set, {KEY: (1, None), OTHER: (2, 20)})
        time.now_s += 10

        assert call(cache.get, [KEY, OTHER]) == {OTHER: 2}


def test_seconds_that_are_no_number_are_refused_before_anything_is_kept(memory: LangGraphCache[Any], call: Any) -> None:
    with pytest.raises(UsageError, match="ttl_s must be a number, got str"):
        call(memory.set, {OTHER: (1, None), KEY: (1, "60")})

    assert call(memory.get, [OTHER]) == {}


# -- what is not read, and what is not kept ---------------------------------------------------------------------------


class Trap:
    """Whoever loads its pickle makes a list longer."""

    sprung: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return Trap.sprung.append, (1,)


def plant(cache: LangGraphCache[Any], entry: bytes) -> None:
    cache.set({KEY: ("good", None), OTHER: ("another", None)})
    (key,) = [key for key in cache._store.yield_keys() if "module.node" in key]
    cache._store.mset([(key, entry)])


FOREIGN = {
    "nothing": b"",
    "no kind": b"msgpack",
    "an unknown kind": b"yaml\0a: 1",
    "a kind that is no text": b"\xff\xfe\0x",
    "a text cut off": b"msgpack\0\x92\x01",
    "no JSON": b"json\0{",
    "a pickle": b"pickle\0" + pickle.dumps(Trap()),
    "an encrypted pickle": b"pickle+aes\0" + pickle.dumps(Trap()),
}


@pytest.mark.parametrize("entry", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("allows_pickle", [False, True])
def test_an_entry_that_cannot_be_read_is_a_miss_and_a_warning(
    memory: LangGraphCache[Any], call: Any, caplog: pytest.LogCaptureFixture, entry: bytes, allows_pickle: bool
) -> None:
    plant(memory, entry)
    memory.serde = JsonPlusSerializer(pickle_fallback=allows_pickle)

    with caplog.at_level(logging.WARNING, "langchain_kv"):
        assert call(memory.get, [KEY, OTHER]) == {OTHER: "another"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'a hash') is passed over" in caplog.text
    assert Trap.sprung == []

    call(memory.set, {KEY: ("new", None)})
    assert call(memory.get, [KEY]) == {KEY: "new"}


def test_a_value_of_another_store_is_a_miss_and_a_warning(
    memory: LangGraphCache[Any], call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    memory.set({KEY: ("good", None), OTHER: ("another", None)})
    (key,) = [key for key in memory._store.yield_keys() if "module.node" in key]
    with KVStore("cache", memory._store._place) as store:
        store.mset([(key, {"a": 1})])

    with caplog.at_level(logging.WARNING, "langchain_kv"):
        assert call(memory.get, [KEY, OTHER]) == {OTHER: "another"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def not_serialized() -> Any:
    return {"lock": threading.Lock()}


def too_large() -> Any:
    return b"x" * BYTES_VALUE_MAX


@pytest.mark.parametrize(
    ("make", "why"), [(not_serialized, "its serializer raises"), (too_large, "it takes 2,990,006 bytes, the limit is")]
)
def test_a_result_that_cannot_be_kept_is_a_miss_and_a_warning(
    memory: LangGraphCache[Any], call: Any, caplog: pytest.LogCaptureFixture, make: Any, why: str
) -> None:
    memory.set({KEY: ("before", None)})

    with caplog.at_level(logging.WARNING, "langchain_kv"):
        call(memory.set, {KEY: (make(), None), OTHER: ("another", None)})

    assert "is not cached: " + why in caplog.text
    assert call(memory.get, [KEY, OTHER]) == {OTHER: "another"}


def test_a_pickle_is_not_kept_whatever_the_serializer(
    request: pytest.FixtureRequest, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serde = JsonPlusSerializer(pickle_fallback=True)
    with LangGraphCache[Any]("cache", f"memory:{request.node.name}", serde=serde) as cache:
        with caplog.at_level(logging.WARNING, "langchain_kv"):
            call(cache.set, {KEY: (Trap(), None)})

        assert "a pickle is not stored" in caplog.text
        assert call(cache.get, [KEY]) == {}
        assert cache._store.count() == 0


def test_the_usual_serializer_has_no_pickle(memory: LangGraphCache[Any]) -> None:
    assert isinstance(memory.serde, JsonPlusSerializer)
    assert memory.serde.pickle_fallback is False


# -- what it has of a store -------------------------------------------------------------------------------------------


def test_entries_are_encrypted_by_the_store(
    memory: LangGraphCache[Any], call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = memory._store._place
    with LangGraphCache[Any]("cache", place, encryption=Encryption({"a": bytes(32)})) as encrypted:
        call(encrypted.set, {KEY: ("a secret", None)})
        assert call(encrypted.get, [KEY]) == {KEY: "a secret"}
    with KVByteStore("cache", place) as store:
        assert not any(b"secret" in (value or b"") for _, value in store.yield_items())

    assert call(memory.get, [KEY]) == {}
    assert "passed over" in caplog.text


class Turned:
    """A cipher to LangGraph, which has its own for a library that is not needed here."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "turned", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "turned"
        return ciphertext[::-1]


def test_a_serializer_of_langgraphs_that_encrypts_is_used(request: pytest.FixtureRequest, call: Any) -> None:
    serde = EncryptedSerializer(Turned(), JsonPlusSerializer(pickle_fallback=True))
    with LangGraphCache[Any]("cache", f"memory:{request.node.name}", serde=serde) as cache:
        call(cache.set, {KEY: (VALUES[3], None), OTHER: (Trap(), None)})

        assert call(cache.get, [KEY, OTHER]) == {KEY: VALUES[3]}
        assert cache._store.count() == 1


def test_hits_are_counted(request: pytest.FixtureRequest, call: Any) -> None:
    with LangGraphCache[Any]("cache", f"memory:{request.node.name}", statistics=True) as cache:
        call(cache.set, {KEY: (1, None)})
        call(cache.get, [KEY, OTHER])

        assert (cache.statistics().hits, cache.statistics().gets) == (1, 2)
        assert repr(cache).startswith("LangGraphCache over KVByteStore(")


async def test_a_closed_cache_says_so(request: pytest.FixtureRequest) -> None:
    async with LangGraphCache[Any]("cache", f"memory:{request.node.name}", setup_mode="ASYNC") as cache:
        assert await cache.aget([KEY]) == {}
    with pytest.raises(StoreClosedError):
        cache.get([KEY])


def test_a_store_that_is_not_reached_raises(call: Any, no_waiting: None) -> None:
    with DataAPIServer(token="a token") as server:
        cache = LangGraphCache[Any]("cache", server.url, token="a token", deadline_s=0.1)
    with cache:
        with pytest.raises(TransportError):
            call(cache.get, [KEY])
        with pytest.raises((TransportError, PartialWriteError)):
            call(cache.set, {KEY: (1, None)})


# -- in graphs --------------------------------------------------------------------------------------------------------


class State(TypedDict):
    question: str
    answer: str


class Graph:
    """A graph of one node, which counts its runs."""

    def __init__(self, cache: BaseCache[Any], ttl: int | None = None) -> None:
        self.runs = 0
        builder = StateGraph(State)
        builder.add_node("think", self._think, cache_policy=CachePolicy(ttl=ttl))
        builder.add_edge(START, "think")
        builder.add_edge("think", END)
        self.graph = builder.compile(cache=cache)

    def _think(self, state: State) -> dict[str, str]:
        self.runs += 1
        return {"answer": f"about {state['question']}"}


def test_a_node_runs_once_for_an_input_also_after_a_restart(place: Place, call: Any) -> None:
    for cache in opened(place):
        first = Graph(cache)
        answers = [call(first.graph.invoke, {"question": question}) for question in ("a", "a", "b")]
        assert [answer["answer"] for answer in answers] == ["about a", "about a", "about b"]
        assert first.runs == 2

        with LangGraphCache[Any](cache._store.collection.name, place.url, **place.arguments) as again:
            second = Graph(again)
            assert call(second.graph.invoke, {"question": "b"})["answer"] == "about b"
            assert second.runs == 0

            call(second.graph.clear_cache, ["think"])
            call(second.graph.invoke, {"question": "b"})
            assert second.runs == 1


def test_a_node_runs_again_when_its_result_has_expired(memory: LangGraphCache[Any], call: Any, time: Clock) -> None:
    graph = Graph(memory, ttl=60)
    call(graph.graph.invoke, {"question": "a"})
    time.now_s += 59
    call(graph.graph.invoke, {"question": "a"})
    assert graph.runs == 1

    time.now_s += 1
    call(graph.graph.invoke, {"question": "a"})

    assert graph.runs == 2
