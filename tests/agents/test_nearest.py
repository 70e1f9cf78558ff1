"""Searches by meaning over HTTP, where the service compares: the same answers as by comparing here, in two requests."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp

from agents.test_by_meaning import DIMS, NS, TEXTS, Letters, fill, index
from faults.forwarder import Forwarder
from langchain_kv import CollectionConflictError, Encryption, KVStore, LangGraphStore
from langchain_kv.cli.main import run
from langchain_kv.engines.base import CollectionName
from langchain_kv.testing.contract import Clock
from langchain_kv.values.namespaces import namespace_prefix
from places import Place

VECTOR = {"dimension": DIMS, "metric": "cosine"}
FORM = {"indexing": {"allow": ["_id", "ns", "version"]}}


@pytest.fixture
def place(http_place: Place) -> Place:
    return http_place


@contextmanager
def opened(place: Place, collection: str, **arguments: Any) -> Iterator[LangGraphStore]:
    arguments = {"url": place.url, "index": index(), **place.arguments, **arguments}
    with LangGraphStore(collection=collection, **arguments) as store:
        yield store


def vector_of(place: Place, collection: str, key: str, namespace: tuple[str, ...] = NS) -> list[float] | None:
    """Return the vector of an item's document."""
    found = place.peek(collection, namespace_prefix(namespace) + key)
    vector = found.get("$vector")
    if isinstance(vector, dict):
        raw = base64.b64decode(vector["$binary"])
        return list(struct.unpack(f">{len(raw) // 4}f", raw))
    return vector


def settings_of(place: Place, collection: str) -> dict[str, Any]:
    return dict(place.engine.settings(CollectionName("default_keyspace", collection)))


def word(numbers: random.Random) -> str:
    return "".join(numbers.choices("abcdefghijklmnop", k=numbers.randint(0, 6)))


def random_puts(numbers: random.Random, count: int) -> list[PutOp]:
    """Return puts of items with one vector, several, one of zeros and none, in several namespaces."""
    puts = []
    for number in range(count):
        namespace = numbers.choice([("a",), ("a", "b"), ("a", "b", "c"), ("a", "bb"), ("z",)])
        value: dict[str, Any] = {"n": number % 7}
        if numbers.random() < 0.8:
            value["text"] = word(numbers)
        if numbers.random() < 0.2:
            value["more"] = [{"text": word(numbers)} for _ in range(numbers.randint(0, 3))]
        puts.append(PutOp(namespace, f"k{number}", value, index=False if numbers.random() < 0.1 else None))
    return puts


def told(found: list[Any]) -> list[Any]:
    return [(item.namespace, item.key, item.value, item.score) for item in found]


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_those_of_comparing_here(place: Place, seed: int) -> None:
    numbers = random.Random(seed)
    fields = {"fields": ["text", "more[*].text"]}
    puts = random_puts(numbers, 400)
    with (
        opened(place, "c", index=index(**fields)) as store,
        LangGraphStore("memory:", index=index(**fields), pre_delete_collection=True) as reference,  # type: ignore[arg-type]
    ):
        for each in (store, reference):
            each.batch(puts)  # in one moment: the order of equals is that of the keys
        for _ in range(40):
            asked: dict[str, Any] = {"query": word(numbers) or "x", "limit": numbers.choice([1, 3, 10, 60, 1000])}
            asked["offset"] = numbers.choice([0, 0, 0, 5, 100])
            if numbers.random() < 0.4:
                asked["filter"] = {"n": numbers.choice([1, {"$gt": 4}, {"$gt": 99}])}
            namespace = numbers.choice([(), ("a",), ("a", "b"), ("z",), ("y",)])
            found, wanted = store.search(namespace, **asked), reference.search(namespace, **asked)
            scores = [item.score for item in wanted]
            assert [item.score for item in found] == [None if s is None else pytest.approx(s, abs=1e-6) for s in scores]
            # Where the last of them has equals, which the service may choose from, any of those will do.
            surely = [item for item in wanted if item.score is None or item.score > (scores[-1] or -1) + 1e-6]
            assert told(found)[: len(surely)] == told(surely)


def test_pages_together_are_the_whole(place: Place) -> None:
    with opened(place, "c") as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pizza" + "a" * n}) for n in range(120)])
        whole = [item.key for item in store.search(NS, query="pizza", limit=1000)]
        paged = [item.key for at in range(0, 130, 25) for item in store.search(NS, query="pizza", limit=25, offset=at)]
        assert paged == whole == [f"k{n}" for n in range(120)]


def test_an_item_that_was_removed_between_two_pages_leaves_no_gap(place: Place) -> None:
    with opened(place, "c") as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pizza" + "a" * n}) for n in range(60)])
        store.search(NS, query="pizza", limit=25)
        second = store.search(NS, query="pizza", limit=25, offset=25)
        store.delete(NS, "k55")
        third = store.search(NS, query="pizza", limit=10, offset=50)
        assert [item.key for item in second] == [f"k{n}" for n in range(25, 50)]
        assert [item.key for item in third] == [f"k{n}" for n in (50, 51, 52, 53, 54, 56, 57, 58, 59)]


def test_a_search_takes_two_requests_whatever_is_there(place: Place) -> None:
    port = int(place.url.rpartition(":")[2])
    with Forwarder(port, seed=0) as counting, opened(place, "c", url=counting.url) as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pizza" + "a" * (n % 50)}) for n in range(500)])
        before = counting.requests
        assert len(store.search(NS, query="pizza")) == 10
        assert counting.requests - before == 2
        before = counting.requests
        assert len(store.search(NS, query="pizza", limit=10, filter={"text": {"$ne": "pizza"}})) == 10
        assert counting.requests - before == 2


def test_the_collection_is_made_with_vectors_and_documents_have_theirs(place: Place) -> None:
    with opened(place, "c", index=index(fields=["text", "more"])) as store:
        fill(store)
        store.put(NS, "several", {"text": "ab", "more": "cd"})
        store.put(NS, "zero", {"text": "123"})
        store.put(NS, "none", {"n": 1})
    assert settings_of(place, "c")["vector"].items() >= VECTOR.items()
    assert vector_of(place, "c", "pizza") == Letters().of("pizza pizza")
    assert [vector_of(place, "c", key) for key in ("several", "zero", "none")] == [None] * 3
    apart = ["\x1c", "\x1c\x1fnotes", "\x1c\x1fnotes\x1fu1"]
    for key, names in {"several": apart, "zero": apart, "none": [], "pizza": []}.items():
        assert place.peek("c", namespace_prefix(NS) + key)["ns"][3:] == names


def test_a_new_value_has_the_new_vector_or_none(place: Place) -> None:
    with opened(place, "c") as store:
        fill(store)
        store.put(NS, "pizza", {"text": "zebra"})
        assert vector_of(place, "c", "pizza") == Letters().of("zebra")
        store.put(NS, "pizza", {"text": "zebra"}, index=False)
        assert vector_of(place, "c", "pizza") is None
        assert store.search(NS, query="zebra")[-1].key == "pizza"


@pytest.mark.parametrize(
    "vector",
    [None, {**VECTOR, "dimension": 5}, {**VECTOR, "metric": "dot_product"}, {**VECTOR, "metric": "euclidean"}],
    ids=str,
)
def test_a_collection_that_is_there_with_others_is_compared_here(place: Place, vector: dict[str, Any] | None) -> None:
    place.create("c", {**FORM, **({"vector": vector} if vector else {})})
    with opened(place, "c") as store, LangGraphStore("memory:", index=index(), pre_delete_collection=True) as reference:  # type: ignore[arg-type]
        for each in (store, reference):
            each.batch([PutOp(NS, key, value) for key, value in TEXTS.items()])
        assert told(store.search(NS, query="pizza", limit=2)) == told(reference.search(NS, query="pizza", limit=2))
        assert vector_of(place, "c", "pizza") is None


def test_who_does_not_make_the_collection_finds_out_what_it_is(place: Place) -> None:
    with opened(place, "c"):
        pass
    with opened(place, "c", setup_mode="OFF") as store:
        fill(store)
        assert store.search(NS, query="zebra", limit=1)[0].key == "zebra"
    assert vector_of(place, "c", "zebra") == Letters().of("zebra")
    with opened(place, "c", setup_mode="OFF", index=None) as store:
        store.put(NS, "more", {"text": "x"})
    with opened(place, "d", setup_mode="ASYNC") as store:
        fill(store)
    assert vector_of(place, "d", "zebra") == Letters().of("zebra")


def test_encrypted_items_show_no_vector(place: Place) -> None:
    with opened(place, "c", encryption=Encryption({"k": bytes(32)})) as store:
        fill(store)
        assert store.search(NS, query="pizza", limit=1)[0].key == "pizza"
    assert "vector" not in settings_of(place, "c")


def test_what_is_copied_into_it_is_found_too(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LangGraphStore(f"sqlite:{tmp_path / 'here.db'}", index=index()) as store:  # type: ignore[arg-type]
        fill(store)
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", place.arguments["token"])
    with opened(place, "langgraph_store"):
        pass
    copied = run(["copy", f"sqlite:{tmp_path / 'here.db'}", place.url, "--collection", "langgraph_store"])
    assert copied in (0, None)
    assert vector_of(place, "langgraph_store", "zebra") == Letters().of("zebra")
    with opened(place, "langgraph_store") as store:
        assert store.search(NS, query="zebra", limit=1)[0].key == "zebra"


def test_a_plain_store_does_not_take_it_and_one_of_its_form_does(place: Place) -> None:
    with opened(place, "c") as store:
        fill(store)
    with pytest.raises(CollectionConflictError, match="a vector collection"):
        KVStore("c", place.url, **place.arguments)
    with KVStore("c", place.url, namespaced=True, atomic=True, **place.arguments) as values:
        key = namespace_prefix(NS) + "pizza"
        assert values.mget([key])[0]["value"] == TEXTS["pizza"]
        values.mset([("other", {"vectors": ["AAAA"], "created_at": "x" * 32})])
        assert values.mget(["other"]) == [{"vectors": ["AAAA"], "created_at": "x" * 32}]


def test_a_query_without_a_direction_is_compared_here(place: Place) -> None:
    with opened(place, "c") as store:
        fill(store)
        assert [item.score for item in store.search(NS, query="123")] == [0.0] * 4


def test_what_has_expired_is_not_among_the_nearest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with opened(place, "c") as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pizza"}, ttl=1) for n in range(50)])
        fill(store)
        clock.now_s += 61
        assert [item.key for item in store.search(NS, query="pizza", limit=2)] == ["pizza", "piano"]
