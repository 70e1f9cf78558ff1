"""The store's contract: every place, both colours. The oracle is the engine below, read without the store."""

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
    InvalidKeyError,
    InvalidValueError,
    KVByteStore,
    KVStore,
    SetupMode,
    StoreClosedError,
    UnknownCollectionError,
    UsageError,
)

VALUES = [
    ("object", {"n": 1, "list": [1, 2.5, None, True, "x"], "deep": {"a": {"b": []}}}),
    ("text", "h\u00e9llo \U0001f600 \x00"),
    ("number", 1.5),
    ("whole float", 2.0),
    ("minus zero", -0.0),
    ("big", 2**70),
    ("bigger", 10**99),
    ("over the limit of digits", 10**100),
    ("tiny", 5e-324),
    ("true", True),
    ("empty", {}),
    ("empty list", []),
    ("empty text", ""),
    ("dollar", {"$ref": 1, "": 2}),
    ("date", {"$date": 1700000000000}),
    ("uuid", {"$uuid": "not checked"}),
    ("deep", [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]),
    ("surrogate", "\ud800"),
    ("vector", [0.1 * n for n in range(1536)]),
]


def test_any_json_value_comes_back(place: Any, face: Any) -> None:
    store = face(place.store())
    store.mset(VALUES)
    assert store.mget([key for key, _ in VALUES]) == [value for _, value in VALUES]
    assert sorted(store.items(), key=lambda item: item[0]) == sorted(VALUES, key=lambda item: item[0])


def test_what_is_stored_is_what_langchain_astradb_stores(place: Any, face: Any) -> None:
    store = place.store()
    face(store).mset([("a", {"n": [1, None]})])
    assert place.peek(store.collection.name, "a") == {"_id": "a", "value": {"n": [1, None]}}
    blobs = place.store(KVByteStore)
    face(blobs).mset([("a", b"\x00\xff")])
    assert place.peek(blobs.collection.name, "a") == {"_id": "a", "value": base64.b64encode(b"\x00\xff").decode()}


def test_what_one_colour_writes_the_other_reads(place: Any, face: Any) -> None:
    store = place.store()
    face(store).mset([("a", 1)])
    assert store.mget(["a"]) == [1]
    store.mset([("a", 2)])
    assert face(store).mget(["a"]) == [2]


def test_order_and_repeats_of_mget_are_kept(place: Any, face: Any) -> None:
    store = face(place.store())
    store.mset([("a", 1), ("b", 2)])
    assert store.mget(["b", "x", "a", "b", "x"]) == [2, None, 1, 2, None]


def test_last_of_duplicate_keys_wins(place: Any, face: Any) -> None:
    store = face(place.store())
    for round_ in range(2):  # new keys, then existing ones
        store.mset([(f"k{n % 7}", (round_, n)) for n in range(60)])
        assert store.mget([f"k{n}" for n in range(7)]) == [
            [round_, max(m for m in range(60) if m % 7 == n)] for n in range(7)
        ]
    assert len(store.keys()) == 7


def test_overwriting_replaces_the_whole_document(place: Any, face: Any) -> None:
    store = place.store()
    name = store.collection.name
    face(store).mset([("a", "\ud800")])
    assert place.peek(name, "a")["encoding"] == "json"
    face(store).mset([("a", 5)])
    assert place.peek(name, "a") == {"_id": "a", "value": 5}


def test_iterables_are_read_once(place: Any, face: Any) -> None:
    store = face(place.store())
    store.mset((key, 1) for key in ("a", "b", "c"))
    assert store.mget(key for key in ("a", "b")) == [1, 1]
    store.mdelete(key for key in ("a", "b"))
    assert store.keys() == ["c"]


def test_empty_batches_do_nothing(place: Any, face: Any) -> None:
    store = face(place.store())
    assert store.mget([]) == []
    assert store.mset([]) is None
    assert store.mdelete([]) is None


def test_deleting_twice_and_missing_keys_is_fine(place: Any, face: Any) -> None:
    store = face(place.store())
    store.mset([("a", 1), ("b", 2)])
    store.mdelete(["a", "a", "missing"])
    store.mdelete(["a"])
    assert store.mget(["a", "b"]) == [None, 2]


def test_none_is_stored_listed_and_reads_as_missing(place: Any, face: Any) -> None:
    for kind in (KVStore, KVByteStore):
        store = face(place.store(kind))
        store.mset([("a", None)])
        assert store.mget(["a"]) == [None]
        assert store.keys() == ["a"]


@pytest.mark.parametrize("count", [1, 4, 5, 20, 21, 99, 100, 101, 250])
def test_batches_of_any_size(place: Any, face: Any, count: int) -> None:
    store = face(place.store())
    pairs = [(f"key {n}", {"n": n}) for n in range(count)]
    store.mset(pairs)
    assert store.mget([key for key, _ in pairs]) == [value for _, value in pairs]
    store.mset([(key, [value]) for key, value in pairs])
    assert sorted(store.items()) == sorted((key, [value]) for key, value in pairs)
    store.mdelete([key for key, _ in pairs[1:]])
    assert store.keys() == ["key 0"]


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 101, 1001])
def test_keys_are_listed_once_whatever_the_page(place: Any, face: Any, count: int) -> None:
    store = face(place.store())
    store.mset([(f"k{n}", n) for n in range(count)])
    listed = store.keys()
    assert len(listed) == count
    assert set(listed) == {f"k{n}" for n in range(count)}


AWKWARD = [
    "a",
    "a%",
    "a_",
    "a*",
    "aa",
    "ab",
    "b",
    "A",
    "a\x00",
    "a\U0010ffff",
    "a\U0010ffff\U0010ffff",
    "\U0010ffff",
    "a\ud7ff",
    "a\ue000",
    "\u00e9",
    "e\u0301",
]


@pytest.mark.parametrize(
    "prefix",
    [None, "", "a", "a%", "a_", "a*", "aa", "A", "a\x00", "a\U0010ffff", "\U0010ffff", "a\ud7ff", "\u00e9", "e", "zz"],
)
def test_a_prefix_is_literal(place: Any, face: Any, prefix: str | None) -> None:
    store = face(place.store())
    store.mset([(key, key) for key in AWKWARD])
    expected = sorted(key for key in AWKWARD if key.startswith(prefix or ""))
    assert sorted(store.keys(prefix)) == expected
    assert sorted(store.items(prefix)) == [(key, key) for key in expected]


def test_keys_of_the_greatest_length_work(place: Any, face: Any) -> None:
    store = face(place.store())
    keys = ["x" * 8000, "\u20ac" * 2666, "\U0001f600" * 2000]
    store.mset([(key, key[:5]) for key in keys])
    assert store.mget(keys) == [key[:5] for key in keys]
    assert sorted(store.keys()) == sorted(keys)


@pytest.mark.parametrize("key", ["", 5, None, b"a", "x" * 8001, "\ud800"])
def test_a_bad_key_is_refused_before_anything_is_stored(place: Any, face: Any, key: Any) -> None:
    inner = place.store()
    store = face(inner)
    for call in (
        lambda: store.mset([("good", 1), (key, 2)]),
        lambda: store.mget(["good", key]),
        lambda: store.mdelete([key]),
    ):
        with pytest.raises(InvalidKeyError) as caught:
            call()
        assert caught.value.applied is False
    assert place.keys(inner.collection.name) == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [({1: 2}, TypeError), ({1, 2}, TypeError), (float("nan"), ValueError), ("x" * 4_000_000, ValueError)],
)
def test_a_bad_value_is_refused_before_anything_is_stored(place: Any, face: Any, value: Any, kind: Any) -> None:
    inner = place.store()
    with pytest.raises(kind, match="'bad'") as caught:
        face(inner).mset([("good", 1), ("bad", value)])
    assert isinstance(caught.value, InvalidValueError)
    assert place.keys(inner.collection.name) == []


@pytest.mark.parametrize("value", ["text", [1], 5])
def test_a_byte_store_refuses_text_and_lists(place: Any, face: Any, value: Any) -> None:
    inner = place.store(KVByteStore)
    with pytest.raises(TypeError, match="'bad'"):
        face(inner).mset([("good", b"1"), ("bad", value)])
    assert place.keys(inner.collection.name) == []


def test_bytearray_and_memoryview_come_back_as_bytes(place: Any, face: Any) -> None:
    store = face(place.store(KVByteStore))
    store.mset([("a", bytearray(b"12")), ("b", memoryview(b"34")), ("c", bytes(range(256)))])
    store.mset([("strided", memoryview(b"abcdef")[::2])])
    assert store.mget(["a", "b", "c", "strided"]) == [b"12", b"34", bytes(range(256)), b"ace"]


@pytest.mark.slow
def test_the_largest_values_work(place: Any, face: Any) -> None:
    blob = bytes(range(256)) * 11_600
    store = face(place.store(KVByteStore))
    store.mset([(f"k{n}", blob) for n in range(7)])  # more than one request body holds
    assert store.mget([f"k{n}" for n in range(7)]) == [blob] * 7


@pytest.mark.parametrize("pairs", [("a", 1), [("a",)], [("a", 1, 2)], ["ab"], [5], [None]])
def test_what_is_no_pair_is_refused_and_nothing_is_stored(place: Any, face: Any, pairs: Any) -> None:
    inner = place.store()
    with pytest.raises(UsageError, match="pairs"):
        face(inner).mset(pairs)
    assert place.keys(inner.collection.name) == []


def test_a_prefix_that_is_no_text_is_refused_everywhere(place: Any, face: Any) -> None:
    store = face(place.store())
    for prefix in ("\ud800", 5, b"a"):
        with pytest.raises(InvalidKeyError):
            store.keys(prefix)


def test_a_value_in_the_place_of_a_key_is_not_shown(place: Any, face: Any) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        face(place.store()).mset([({"password": "hunter2"}, "k")])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("call", ["mapping", "text keys"])
def test_an_easily_made_mistake_is_caught(place: Any, face: Any, call: str) -> None:
    store = face(place.store())
    with pytest.raises(UsageError):
        store.mset({"ab": 1}) if call == "mapping" else store.mget("ab")


def test_generators_are_real_and_do_nothing_before_they_are_asked(place: Any) -> None:
    store = place.store(collection="missing", setup_mode=SetupMode.OFF)
    for generator in (store.yield_keys(), store.yield_items()):
        assert inspect.isgenerator(generator)
        with pytest.raises(UnknownCollectionError):
            next(generator)
    for agenerator in (store.ayield_keys(), store.ayield_items()):
        assert inspect.isasyncgen(agenerator)


def test_an_abandoned_listing_is_no_trouble(place: Any, face: Any) -> None:
    store = place.store()
    store.mset([(f"k{n}", n) for n in range(300)])
    listing = store.yield_keys()
    next(listing)
    listing.close()
    assert len(face(store).keys()) == 300


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


def test_a_closed_store_says_so(place: Any, face: Any) -> None:
    inner = place.store()
    store = face(inner)
    store.close()
    store.close()
    for call in (
        lambda: store.mget(["a"]),
        lambda: store.mset([("a", 1)]),
        lambda: store.mdelete(["a"]),
        store.keys,
        store.items,
    ):
        with pytest.raises(StoreClosedError):
            call()


def test_closing_one_store_leaves_another_of_its_target_alone(place: Any, face: Any) -> None:
    one, other = place.store(), place.store()
    face(one).mset([("a", 1)])
    face(other).mset([("a", 2)])
    one.close()
    assert face(other).mget(["a"]) == [2]


def test_a_store_is_a_context_manager_of_both_colours(place: Any) -> None:
    with place.store() as store:
        store.mset([("a", 1)])
    with pytest.raises(StoreClosedError):
        store.mget(["a"])


async def test_a_store_is_an_async_context_manager(place: Any) -> None:
    async with place.store() as store:
        await store.amset([("a", 1)])
        assert await store.amget(["a"]) == [1]
    with pytest.raises(StoreClosedError):
        await store.amget(["a"])


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
