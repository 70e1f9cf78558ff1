"""Searches by meaning over HTTP, where the service compares: the same answers as by comparing here, in two requests."""

from __future__ import annotations

import base64
import json
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp

from agents.test_by_meaning import DIMS, NS, TEXTS, Letters, fill, index
from faults.forwarder import Forwarder
from langchain_kv import CollectionConflictError, Encryption, InvalidKeyError, KVStore, LangGraphStore
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
        for _ in range(60):
            asked: dict[str, Any] = {"query": word(numbers) or "x", "limit": numbers.choice([1, 3, 10, 20, 60, 1000])}
            asked["offset"] = numbers.choice([0, 0, 0, 5, 100])
            if numbers.random() < 0.4:
                asked["filter"] = {"n": numbers.choice([1, {"$gt": 4}, {"$gt": 99}])}
            namespace = numbers.choice([(), ("a",), ("a", "b"), ("z",), ("y",)])
            assert told(store.search(namespace, **asked)) == told(reference.search(namespace, **asked))


@pytest.mark.parametrize("size", [10, 25])
def test_pages_of_items_that_score_alike_are_those_of_other_targets(place: Place, size: int) -> None:
    with (
        opened(place, "c") as store,
        LangGraphStore("memory:", index=index(), pre_delete_collection=True) as reference,  # type: ignore[arg-type]
    ):
        for each in (store, reference):
            each.batch([PutOp(NS, f"k{n:02}", {"text": "pizza"}) for n in range(60)])
            each.put(NS, "k07", {"text": "pizza"})
        for at in range(0, 70, size):
            pages = [each.search(NS, query="pizza", limit=size, offset=at) for each in (store, reference)]
            assert told(pages[0]) == told(pages[1])


def test_long_pages_hold_while_others_write(place: Place) -> None:
    with opened(place, "c") as store:
        store.batch([PutOp(NS, f"k{n:02}", {"text": "pizza" + "a" * n}) for n in range(90)])
        found = []
        for at in range(0, 100, 25):
            found += [item.key for item in store.search(NS, query="pizza", limit=25, offset=at)]
            store.put(NS, "k80", {"text": "pizza"})
        assert sorted(found) == [f"k{n:02}" for n in range(90)]


@pytest.mark.parametrize("texts", [["zebra"], ["zebra", "pizza"], ["123"]], ids=str)
def test_an_item_that_is_updated_all_the_time_is_always_found(place: Place, texts: list[str]) -> None:
    with opened(place, "c", index=index(fields=["text", "more[*].text"])) as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pasta"}) for n in range(60)])
        store.put(NS, "it", {"text": "zebra"})
        is_over = threading.Event()

        def write() -> None:
            while not is_over.is_set():
                store.put(NS, "it", {"text": "zebra", "more": [{"text": text} for text in texts]})
                store.put(NS, "it", {"text": "zebra"})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(40):
                assert store.search(NS, query="zebra", limit=1)[0].key == "it"
        finally:
            is_over.set()
            writer.join()


def test_what_is_in_no_namespace_is_in_no_answer(place: Place) -> None:
    with opened(place, "c") as store:
        fill(store)
        key = namespace_prefix(NS) + "pizza"
        ghost = {**place.peek("c", key), "_id": "\x1eghost"}
        place.plant("c", "\x1eghost", json.dumps(ghost))
        assert [item.key for item in store.search((), query="pizza", limit=2)] == ["pizza", "piano"]


@pytest.mark.parametrize("vector", [None, {**VECTOR, "dimension": 5}], ids=str)
def test_a_collection_that_was_made_anew_with_others_is_looked_at_again(place: Place, vector: Any) -> None:
    name = CollectionName("default_keyspace", "c")
    with opened(place, "c") as store:
        fill(store)
        place.engine.drop_collection(name)
        place.create("c", {**FORM, **({"vector": vector} if vector else {})})
        assert store.search(NS, query="pizza", limit=1) == []
        fill(store)
        assert store.search(NS, query="zebra", limit=1)[0].key == "zebra"
        place.engine.drop_collection(name)
        place.create("c", {**FORM, **({"vector": vector} if vector else {})})
        store._records._backend._has_seen_form = True
        fill(store)
        assert store.search(NS, query="zebra", limit=1)[0].key == "zebra"


def test_after_a_conflict_the_collection_is_made_as_it_was_asked_for(place: Place) -> None:
    place.create("c", {"indexing": {"allow": ["_id"]}})
    with opened(place, "c", setup_mode="ASYNC") as store:
        with pytest.raises(CollectionConflictError):
            store.put(NS, "a", {"text": "x"})
        place.engine.drop_collection(CollectionName("default_keyspace", "c"))
        fill(store)
    assert settings_of(place, "c")["vector"].items() >= VECTOR.items()


def test_a_file_that_a_server_keeps_says_how_it_is_opened(place: Place) -> None:
    with opened(place, "c") as store:
        fill(store)
    with pytest.raises(CollectionConflictError, match="open it so, over HTTP"):
        KVStore("c", place.url, **place.arguments)


def test_labels_of_items_with_several_vectors_have_a_limit_that_is_true(place: Place) -> None:
    several = {"text": "ab", "more": "cd"}
    with opened(place, "c", index=index(fields=["text", "more"])) as store:
        store.put(("l",) * 499, "k", several)
        with pytest.raises(InvalidKeyError, match=r"500 labels, the limit .* is 499 with several vectors"):
            store.put(("l",) * 500, "k", several)
        store.put(("l",) * 999, "k", {"text": "ab"})


def test_pages_together_are_the_whole(place: Place) -> None:
    with opened(place, "c") as store:
        store.batch([PutOp(NS, f"k{n}", {"text": "pizza" + "a" * n}) for n in range(120)])
        whole = [item.key for item in store.search(NS, query="pizza", limit=1000)]
        paged = [item.key for at in range(0, 130, 25) for item in store.search(NS, query="pizza", limit=25, offset=at)]
        assert paged == whole == [f"k{n}" for n in range(120)]


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
    assert vector_of(place, "c", "several") == Letters().of("ab")
    assert [vector_of(place, "c", key) for key in ("zero", "none")] == [None] * 2
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
    with pytest.raises(CollectionConflictError, match="made with namespaced=True, atomic=True"):
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
