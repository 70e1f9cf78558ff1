"""DocumentStore on every target, in both colours; with what LangChain's docstore left in the same collection."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from decimal import Decimal
from typing import Any

import pytest
from langchain_classic.storage import InMemoryByteStore, create_kv_docstore
from langchain_core.documents import Document

from langchain_kv import AstraDBByteStore, DamagedValueError, DocumentStore, KVBaseStore
from places import Place

METADATA = {"when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "tags": {"a", "b"}, "sum": Decimal("1.10"), "n": [1, None]}
DOCUMENTS = [(f"k{number}", Document(f"text {number}", metadata={**METADATA, "n": number})) for number in range(250)]


class RawBytes(KVBaseStore[bytes]):
    """Keeps bytes as other programs might: unlike ours, they look at nothing."""

    def encode_value(self, value: bytes | None) -> Any:
        return value

    def decode_value(self, value: Any) -> bytes | None:
        raise AssertionError("it only writes")


def test_documents_come_back_in_the_order_of_the_keys(place: Place, face: Any) -> None:
    store = face(place.store(DocumentStore))
    store.mset(DOCUMENTS)
    keys = [key for key, _ in reversed(DOCUMENTS)]

    assert store.mget([*keys, "x", "k7"]) == [*(document for _, document in reversed(DOCUMENTS)), None, DOCUMENTS[7][1]]
    assert sorted(store.items(prefix="k24")) == sorted((k, d) for k, d in DOCUMENTS if k.startswith("k24"))


def test_what_create_kv_docstore_wrote_to_the_collection_is_read(place: Place, face: Any) -> None:
    below = place.store(AstraDBByteStore)
    document = Document("text", metadata={"n": [1, {"lc": 5}]}, id="1")
    create_kv_docstore(below).mset([("theirs", document)])
    store = face(place.store(DocumentStore, below.collection.name))
    store.mset([("ours", document)])

    assert store.mget(["theirs", "ours", "x"]) == [document, document, None]


def test_what_create_kv_docstore_cannot_read_again_is_rescued_beside_what_cannot_be(place: Place, face: Any) -> None:
    raw = place.store(RawBytes)
    below = InMemoryByteStore()
    good, bad = Document("x", metadata=METADATA), Document("x", metadata={"m": [object()]})
    create_kv_docstore(below).mset([("good", good), ("bad", bad)])
    raw.mset(list(below.store.items()))
    store = face(place.store(DocumentStore, raw.collection.name))

    with pytest.raises(
        DamagedValueError, match=r"'bad': '/metadata/m/0' in it is a note of a builtins\.object"
    ) as caught:
        store.mget(["good", "bad"])

    assert caught.value.values == {"good": good}


def test_a_store_of_documents_has_what_every_store_has(place: Place) -> None:
    store = place.store(DocumentStore, ttl_s=3600)
    document = Document("text", metadata=METADATA)

    assert store.add([("a", document), ("b", document)]) == ["a", "b"]
    assert store.add([("a", Document("other"))]) == []
    part = store.namespace("users")
    part.mset([("a", Document("inner"))])
    assert part.mget(["a", "b"]) == [Document("inner"), None]
    part.clear()
    assert store.count() == 2
    if not place.is_http:
        changed = store.update("a", lambda old: Document("new", metadata={"was": old.page_content}) if old else None)
        assert store.mget(["a"]) == [changed] == [Document("new", metadata={"was": "text"})]
    store.mdelete(["a"])
    assert store.mget(["a", "b"]) == [None, document]
    assert copy.deepcopy(store).mget(["b"]) == [document]


def test_a_store_of_documents_pickles(sqlite_place: Place) -> None:
    store = sqlite_place.store(DocumentStore)
    store.mset([("a", Document("text", metadata=METADATA))])
    with pickle.loads(pickle.dumps(store)) as loaded:
        assert loaded.mget(["a"]) == [Document("text", metadata=METADATA)]
