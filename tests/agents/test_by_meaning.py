"""Searches by meaning: scores and order as InMemoryStore's, fields, filters, pages, a model that answers wrongly."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, PutOp
from langgraph.store.memory import InMemoryStore

from agents.questions import Opened, keys
from langchain_kv import BadVectorError, ConfigError, EmbeddingCache, Encryption, LangGraphStore
from langchain_kv.testing.contract import BaseFace, Clock
from places import OF_ITEMS, Place

NS = ("notes", "u1")
DIMS = 26
TEXTS = {
    "pizza": {"text": "pizza pizza", "kind": "food"},
    "pasta": {"text": "pasta", "kind": "food"},
    "piano": {"text": "a piano", "kind": "music"},
    "zebra": {"text": "zebra", "kind": "animal"},
}


class Letters(Embeddings):
    """A model that counts letters; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [self.of(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.of(text)

    def of(self, text: str) -> list[float]:
        counted = Counter(text.lower())
        return [float(counted[chr(97 + at)]) for at in range(DIMS)]


def index(model: Any = None, **more: Any) -> dict[str, Any]:
    return {"dims": DIMS, "embed": model or Letters(), "fields": ["text"], **more}


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest, place: Place) -> Iterator[Opened]:
    collection = place.lend(OF_ITEMS)
    stores: list[LangGraphStore] = []

    def opened(**arguments: Any) -> BaseFace:
        stores.append(LangGraphStore(place.url, collection=collection, **place.arguments, **arguments))
        return BaseFace(stores[-1], request.param == "async", runner.run)

    with asyncio.Runner() as runner:
        yield opened
        for store in stores:
            store.close()


def fill(*stores: Any) -> None:
    for store in stores:
        for key, value in TEXTS.items():
            store.put(NS, key, value)


def test_items_come_by_their_nearness_with_scores_as_of_langgraphs_own_store(opened: Opened) -> None:
    store, reference = opened(index=index()), InMemoryStore(index=index())  # type: ignore[arg-type]
    fill(store, reference)
    for query in ("pizza", "zebra", "a piano", "pasta and pizza"):
        found, wanted = store.search(NS, query=query), reference.search(NS, query=query)
        assert keys(found) == keys(wanted)
        assert [each.score for each in found] == pytest.approx([each.score for each in wanted], abs=1e-6)
        assert [each.value for each in found] == [each.value for each in wanted]


def test_a_query_goes_with_a_filter_and_with_pages(opened: Opened) -> None:
    store = opened(index=index())
    fill(store)
    assert keys(store.search(NS, query="piano", filter={"kind": "food"})) == ["pasta", "pizza"]
    whole = keys(store.search(NS, query="pizza"))
    paged = [keys(store.search(NS, query="pizza", limit=1, offset=at)) for at in range(5)]
    assert paged == [[key] for key in whole] + [[]]
    assert store.search(("notes", "u2"), query="pizza") == []


def test_the_nearest_of_several_vectors_counts(opened: Opened) -> None:
    fields = ["title", "parts[*].text"]
    store = opened(index=index(fields=fields))
    reference = InMemoryStore(index=index(fields=fields))  # type: ignore[arg-type]
    for each in (store, reference):
        each.put(NS, "a", {"title": "zzz", "parts": [{"text": "pizza"}, {"text": "qqq"}]})
        each.put(NS, "b", {"title": "pizzaz", "parts": []})
        each.put(NS, "c", {"title": "qq"})
    found, wanted = store.search(NS, query="pizza"), reference.search(NS, query="pizza")
    assert keys(found) == keys(wanted) == ["a", "b", "c"]
    assert [each.score for each in found] == pytest.approx([each.score for each in wanted], abs=1e-6)


def test_a_put_says_what_of_it_is_found(opened: Opened) -> None:
    model = Letters()
    store = opened(index=index(model))
    store.put(NS, "not", {"text": "pizza"}, index=False)
    store.put(NS, "other", {"text": "zzz", "title": "pizza"}, index=["title"])
    store.put(NS, "usual", {"text": "piano"})
    store.put(NS, "none", {"n": 1})
    found = store.search(NS, query="pizza")
    assert [(each.key, each.score is None) for each in found[:2]] == [("other", False), ("usual", False)]
    assert [(each.key, each.score) for each in found[2:]] == [("none", None), ("not", None)]
    assert model.asked == ["pizza", "piano"]


def test_an_item_without_fields_is_found_by_all_of_it(opened: Opened) -> None:
    model = Letters()
    store = opened(index={"dims": DIMS, "embed": model})
    store.put(NS, "a", {"b": 1, "a": "é"})
    assert model.asked == ['{"a": "é", "b": 1}']
    assert store.search(NS, query="ab")[0].score is not None


def test_a_new_value_has_a_new_vector_and_a_removed_item_none(opened: Opened, monkeypatch: Any) -> None:
    time = Clock(monkeypatch)
    store = opened(index=index(), ttl={"default_ttl": 10})
    store.put(NS, "a", {"text": "zzz"})
    first = store.search(NS, query="pizza")[0]
    time.now_s += 1
    store.put(NS, "a", {"text": "pizza"})
    (found,) = store.search(NS, query="pizza")
    assert found.score == pytest.approx(1.0)
    assert (found.value, found.created_at) == ({"text": "pizza"}, first.created_at)
    assert store.get(NS, "a").value == {"text": "pizza"}
    store.delete(NS, "a")
    assert store.search(NS, query="pizza") == []


def test_a_store_without_an_index_reads_what_one_with_it_wrote(opened: Opened) -> None:
    fill(opened(index=index()))
    assert [(item.value, item.score) for item in opened().search(NS, query="x", filter={"kind": "music"})] == [
        (TEXTS["piano"], None)
    ]


def test_vectors_of_another_length_are_not_compared(opened: Opened) -> None:
    fill(opened(index=index()))
    other = opened(index={"dims": 2, "embed": lambda texts: [[1.0, 2.0]] * len(texts)})
    assert [item.score for item in other.search(NS, query="x")] == [None] * 4


def test_one_text_is_one_question_to_the_model(opened: Opened) -> None:
    model = Letters()
    store = opened(index=index(model))
    store.batch([PutOp(NS, f"k{n}", {"text": "the same"}) for n in range(10)])
    assert model.asked == ["the same"]


def test_an_embedding_cache_spares_the_model(opened: Opened, tmp_path: Any) -> None:
    model = Letters()
    with EmbeddingCache(model, f"sqlite:{tmp_path / 'cache.db'}", name="letters") as cached:
        store = opened(index=index(cached))
        for n in range(3):
            store.put(NS, f"k{n}", {"text": "pizza"})
        assert model.asked == ["pizza"]
        assert len(store.search(NS, query="pizza")) == 3


def test_functions_are_models_too(opened: Opened) -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return [Letters().of(text) for text in texts]

    store = opened(index=index(embed))
    if not store.is_async:
        store = opened(index=index(lambda texts: [Letters().of(text) for text in texts]))
    fill(store)
    assert keys(store.search(NS, query="zebra", limit=1)) == ["zebra"]


def test_encrypted_items_are_found_too(opened: Opened) -> None:
    store = opened(index=index(), encryption=Encryption({"k": bytes(32)}))
    fill(store)
    store.put(NS, "pizza", TEXTS["pizza"])
    assert keys(store.search(NS, query="pizza", limit=1)) == ["pizza"]
    with pytest.raises(Exception, match="encrypted"):
        opened().get(NS, "pizza")


@pytest.mark.parametrize(
    "answer",
    [[], [[1.0]], [[1.0] * 3, [1.0] * 3], [[math.nan] * DIMS], [["x"] * DIMS], None, [1.0] * DIMS, [[1e300] * DIMS]],
    ids=str,
)
def test_a_model_that_answers_wrongly_stores_nothing(opened: Opened, answer: Any) -> None:
    store = opened(index=index(lambda _: answer))
    with pytest.raises(BadVectorError, match="Nothing was stored"):
        store.batch([PutOp(NS, "a", {"text": "x"}), GetOp(NS, "a")])
    assert store.get(NS, "a") is None


def test_what_a_model_raises_is_passed_on_and_nothing_is_stored(opened: Opened) -> None:
    def fails(_: Any) -> Any:
        raise ZeroDivisionError

    store = opened(index=index(fails))
    with pytest.raises(ZeroDivisionError):
        store.batch([PutOp(NS, "a", {"text": "x"}), PutOp(NS, "b", {"text": "x"}, index=False)])
    assert store.search(NS) == []


@pytest.mark.parametrize(
    "wrong",
    [{}, {"dims": 2}, 5, {"embed": Letters(), "dims": 0}, {"embed": Letters(), "dims": "2"}, index(fields="text")],
    ids=lambda wrong: str(wrong)[:20],
)
def test_an_index_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="index"):
        LangGraphStore("memory:", index=wrong)


@pytest.mark.parametrize("wrong", ["text", True, 5])
def test_an_index_of_a_put_that_is_none_is_refused(opened: Opened, wrong: Any) -> None:
    with pytest.raises(ValueError, match="index must be None, False or a list of paths"):
        opened(index=index()).put(NS, "a", {}, index=wrong)
