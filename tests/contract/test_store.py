"""The store's contract on every place, and what is true of our own places only: documents, their limits, damage.

The oracle is the engine below, read without the store.
"""

from __future__ import annotations

import base64
import inspect
from typing import Any

import pytest
from langchain_core.stores import BaseStore

from langchain_kv import (
    AstraDBBaseStore,
    AstraDBByteStore,
    AstraDBStore,
    DamagedValueError,
    Encryption,
    InvalidValueError,
    KVBaseStore,
    KVByteStore,
    KVStore,
    SetupMode,
    UnknownCollectionError,
)
from langchain_kv.testing import StoreContract
from places import Place


class TestStore(StoreContract):
    """The contract, on every place."""

    @pytest.fixture(autouse=True)
    def _lives_on(self, place: Place) -> None:
        self.place = place
        self.updates = not place.is_http

    @pytest.fixture
    def collection(self, place: Place) -> str:
        return place.lend()

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        store: KVBaseStore[Any] = self.place.store(kind, collection, **options)
        return store

    def peek(self, collection: str) -> list[str]:
        return self.place.keys(collection)


class TestEncryptedStore(TestStore):
    """The same through wrappers."""

    @pytest.fixture
    def place(self, memory_place: Place) -> Place:
        return memory_place

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        return super().open(collection, kind, encryption=Encryption({"k": bytes(32)}), statistics=True, **options)


@pytest.mark.usefixtures("no_waiting")
class TestAtomicStore(TestStore):
    """The same over HTTP, in collections whose values have a version."""

    @pytest.fixture(autouse=True)
    def _lives_on(self, place: Place) -> None:
        self.place = place

    @pytest.fixture
    def place(self, http_place: Place) -> Place:
        return http_place

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        return super().open(collection, kind, atomic=True, namespaced=True, **options)


def test_what_is_stored_is_what_langchain_astradb_stores(place: Any, face: Any) -> None:
    store = place.store()
    face(store).mset([("a", {"n": [1, None]})])
    assert place.peek(store.collection.name, "a") == {"_id": "a", "value": {"n": [1, None]}}
    blobs = place.store(KVByteStore)
    face(blobs).mset([("a", b"\x00\xff")])
    assert place.peek(blobs.collection.name, "a") == {"_id": "a", "value": base64.b64encode(b"\x00\xff").decode()}


def test_overwriting_replaces_the_whole_document(place: Any, face: Any) -> None:
    store = place.store()
    name = store.collection.name
    face(store).mset([("a", "\ud800")])
    assert place.peek(name, "a")["encoding"] == "json"
    face(store).mset([("a", 5)])
    assert place.peek(name, "a") == {"_id": "a", "value": 5}


def test_a_value_that_is_too_large_is_refused_before_anything_is_stored(place: Any, face: Any) -> None:
    inner = place.store()
    with pytest.raises(InvalidValueError, match="'bad'"):
        face(inner).mset([("good", 1), ("bad", "x" * 4_000_000)])
    assert place.keys(inner.collection.name) == []


@pytest.mark.slow
def test_the_largest_values_work(place: Any, face: Any) -> None:
    blob = bytes(range(256)) * 11_600
    store = face(place.store(KVByteStore))
    store.mset([(f"k{n}", blob) for n in range(7)])  # more than one request body holds
    assert store.mget([f"k{n}" for n in range(7)]) == [blob] * 7


def test_generators_are_real_and_do_nothing_before_they_are_asked(place: Any) -> None:
    store = place.store(collection="missing", setup_mode=SetupMode.OFF)
    for generator in (store.yield_keys(), store.yield_items()):
        assert inspect.isgenerator(generator)
        with pytest.raises(UnknownCollectionError):
            next(generator)
    for agenerator in (store.ayield_keys(), store.ayield_items()):
        assert inspect.isasyncgen(agenerator)


def test_a_missing_collection_is_one_error_everywhere(place: Any, face: Any) -> None:
    store = face(place.store(collection="missing", setup_mode=SetupMode.OFF))
    calls = [
        lambda: store.mget(["a"]),
        lambda: store.mset([("a", 1)]),
        lambda: store.mdelete(["a"]),
        store.keys,
        store.items,
    ]
    for call in calls:
        with pytest.raises(UnknownCollectionError, match="missing"):
            call()


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '{"_id":"bad","value":"1","encoding":"zip"}',
        '{"_id":"bad","value":7,"encoding":"json"}',
        '{"_id":"bad","value":"{","encoding":"json"}',
    ],
)
def test_a_damaged_value_is_named_and_the_others_stay_readable(place: Any, face: Any, body: str) -> None:
    if body == "{" and place.is_http:
        pytest.skip("no server puts a body that is no JSON into its answer; the client's own tests cover such replies")
    inner = place.store()
    store = face(inner)
    store.mset([("a", 1), ("b", 2)])
    place.plant(inner.collection.name, "bad", body)
    with pytest.raises(DamagedValueError, match="'bad'") as caught:
        store.mget(["a", "bad", "b"])
    assert set(caught.value.errors) == {"bad"}
    assert caught.value.values == {"a": 1, "b": 2}
    assert store.mget(["a", "b"]) == [1, 2]
    assert sorted(store.keys()) == ["a", "b", "bad"]
    seen: list[Any] = []
    with pytest.raises(DamagedValueError, match="'bad'"):
        seen.extend(inner.yield_items())
    assert sorted(seen) == [("a", 1), ("b", 2)]
    store.mset([("bad", 3)])
    assert store.mget(["bad"]) == [3]


@pytest.mark.parametrize("value", ['"a"', '"YQ==!"', "5", "[1]"])
def test_a_byte_store_names_what_is_not_base64(place: Any, face: Any, value: str) -> None:
    inner = place.store(KVByteStore)
    store = face(inner)
    store.mset([("a", b"1")])
    place.plant(inner.collection.name, "bad", f'{{"_id":"bad","value":{value}}}')
    with pytest.raises(DamagedValueError, match="'bad'") as caught:
        store.mget(["a", "bad"])
    assert caught.value.values == {"a": b"1"}


def test_a_page_with_values_that_only_some_readers_take(place: Any, face: Any) -> None:
    inner = place.store()
    store = face(inner)
    store.mset([(f"k{n}", n) for n in range(10)])
    name = inner.collection.name
    place.plant(name, "huge", '{"_id":"huge","value":1E+400}')
    place.plant(name, "half", '{"_id":"half","value":"\\ud800"}')
    place.plant(name, "long", '{"_id":"long","value":1234567890123456789012345678901234567890}')
    expected = [float("inf"), "\ud800", 1234567890123456789012345678901234567890, 3]
    assert store.mget(["huge", "half", "long", "k3"]) == expected
    items = dict(store.items())
    assert [items["huge"], items["half"], items["long"], items["k3"]] == expected
    assert len(store.keys()) == 13


def test_documents_of_others_are_read_or_skipped(place: Any, face: Any, caplog: pytest.LogCaptureFixture) -> None:
    inner = place.store()
    store = face(inner)
    store.mset([("a", 1)])
    name = inner.collection.name
    place.plant(name, "other", '{"_id":"other","x":1}')
    place.plant(name, b"\x025", '{"_id":5,"value":1}')
    assert store.mget(["other"]) == [None]
    with caplog.at_level("INFO", "langchain_kv"):
        assert sorted(store.keys()) == ["a", "other"]
    assert len([record for record in caplog.records if record.name == "langchain_kv"]) == 1
    assert dict(store.items()) == {"a": 1, "other": None}


@pytest.mark.parametrize("kind", [KVStore, KVByteStore, AstraDBStore, AstraDBByteStore])
def test_every_store_is_a_langchain_store(place: Any, kind: Any) -> None:
    store = place.store(kind)
    assert isinstance(store, BaseStore)
    assert isinstance(store, AstraDBBaseStore) is kind.__name__.startswith("Astra")
    assert place.url not in ("",)
    assert "a-token" not in repr(store)
    assert store.collection.name in repr(store)


def test_the_collection_tells_its_names_and_nothing_else(place: Any) -> None:
    store = place.store(collection="named", keyspace="default_keyspace")
    for handle in (store.collection, store.async_collection):
        assert (handle.name, handle.keyspace, handle.full_name) == (
            "named",
            "default_keyspace",
            "default_keyspace.named",
        )
        with pytest.raises(AttributeError, match="use astrapy"):
            handle.find_one({})
        with pytest.raises(AttributeError):
            handle.name = "other"


class Upper(AstraDBBaseStore[str]):
    """A user's own codec."""

    def encode_value(self, value: str | None) -> Any:
        return None if value is None else {"upper": value.upper()}

    def decode_value(self, value: Any) -> str | None:
        return None if value is None else str(value["upper"])


class Packed(AstraDBByteStore):
    """A user's own codec over a store's."""

    def encode_value(self, value: bytes | None) -> str | None:
        return super().encode_value(value[::-1] if isinstance(value, bytes) else value)

    def decode_value(self, value: Any) -> bytes | None:
        decoded = super().decode_value(value)
        return None if decoded is None else decoded[::-1]


def test_a_subclass_brings_its_own_codec(place: Any, face: Any) -> None:
    store = place.store(Upper)
    face(store).mset([("a", "x")])
    assert face(store).mget(["a", "b"]) == ["X", None]
    assert place.peek(store.collection.name, "a")["value"] == {"upper": "X"}
    packed = place.store(Packed)
    with pytest.raises(TypeError, match="'the key'"):
        face(packed).mset([("the key", 5)])
    face(packed).mset([("a", b"12")])
    assert place.peek(packed.collection.name, "a")["value"] == base64.b64encode(b"21").decode()
    assert face(packed).mget(["a"]) == [b"12"]
