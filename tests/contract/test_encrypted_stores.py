"""Encryption through a store: what it keeps cannot be read or changed below, and what is not encrypted is refused."""

from __future__ import annotations

import copy
import json
import pickle
from base64 import b64decode, b64encode
from typing import Any

import pytest

from langchain_kv import ConfigError, DamagedValueError, Encryption, KVByteStore, KVStore, UnsupportedError
from places import Place

SECRET = Encryption({"2026": bytes(range(32))})


def sealed(place: Place, collection: str, key: str) -> bytes:
    return b64decode(place.peek(collection, key)["value"])


def plant_sealed(place: Place, collection: str, key: str, data: bytes) -> None:
    place.plant(collection, key, json.dumps({"_id": key, "value": b64encode(data).decode()}))


def test_values_come_back_and_cannot_be_read_below(place: Place, face: Any) -> None:
    store = place.store(encryption=SECRET)
    values = {"a": {"n": "plain words"}, "b": None, "c": {"$ref": [2**70]}, "d": "\ud800", "e": "AQIz"}
    face(store).mset(list(values.items()))
    assert dict(face(store).items()) == values
    assert face(store).mget(list(values)) == list(values.values())
    assert b"plain" not in sealed(place, store.collection.name, "a")


def test_bytes_come_back(place: Place, face: Any) -> None:
    store = place.store(KVByteStore, encryption=SECRET)
    face(store).mset([("a", b"plain words"), ("b", b"")])
    assert face(store).mget(["a", "b"]) == [b"plain words", b""]
    assert b"plain" not in sealed(place, store.collection.name, "a")


def test_a_changed_byte_and_a_cut_are_refused_wherever_they_are(place: Place) -> None:
    store = place.store(encryption=SECRET)
    name = store.collection.name
    store.mset([("a", 1)])
    right = sealed(place, name, "a")
    for position in range(len(right)):
        changed = bytearray(right)
        changed[position] ^= 1
        for wrong in (bytes(changed), right[:position], right[position + 1 :]):
            plant_sealed(place, name, "a", wrong)
            with pytest.raises(DamagedValueError):
                store.mget(["a"])
    plant_sealed(place, name, "a", right)
    assert store.mget(["a"]) == [1]


def test_swapped_rows_are_refused_within_a_collection_and_between_namespaces(place: Place) -> None:
    store = place.store(encryption=SECRET)
    name = store.collection.name
    one, two = store.namespace("1"), store.namespace("2")
    store.mset([("a", 1), ("b", 2)])
    one.mset([("k", 1)])
    two.mset([("k", 2)])
    for first, second in [("a", "b"), ("\x1f1\x1ek", "\x1f2\x1ek")]:
        was = sealed(place, name, first)
        plant_sealed(place, name, first, sealed(place, name, second))
        plant_sealed(place, name, second, was)
    for each, keys in [(store, ["a", "b"]), (one, ["k"]), (two, ["k"])]:
        with pytest.raises(DamagedValueError) as caught:
            each.mget(keys)
        assert sorted(caught.value.errors) == keys


def test_a_row_of_another_collection_is_refused(place: Place) -> None:
    one, other = place.store(encryption=SECRET), place.store(encryption=SECRET)
    one.mset([("a", 1)])
    other.mset([("a", 2)])
    plant_sealed(place, other.collection.name, "a", sealed(place, one.collection.name, "a"))
    with pytest.raises(DamagedValueError):
        other.mget(["a"])


def test_the_id_of_another_key_that_is_given_is_refused(place: Place) -> None:
    store = place.store(encryption=Encryption({"2026": bytes(range(32)), "2027": bytes(32)}))
    name = store.collection.name
    store.mset([("a", 1)])
    plant_sealed(place, name, "a", sealed(place, name, "a").replace(b"2026", b"2027"))
    with pytest.raises(DamagedValueError):
        store.mget(["a"])


def test_another_key_and_plain_text_are_refused(place: Place) -> None:
    store = place.store(encryption=SECRET)
    name = store.collection.name
    place.store(collection=name).mset([("plain", "text"), ("base64", "AQQyMDI2"), ("object", {})])
    store.mset([("a", 1)])
    for key in ("plain", "base64", "object"):
        with pytest.raises(DamagedValueError):
            store.mget([key])
    for keys in ({"2026": bytes(32)}, {"2027": bytes(range(32))}):
        with pytest.raises(DamagedValueError):
            place.store(collection=name, encryption=Encryption(keys)).mget(["a"])


def test_keys_are_changed_by_writing_anew(place: Place) -> None:
    store = place.store(encryption=SECRET)
    store.mset([("a", 1)])
    both = Encryption({"2026": bytes(range(32)), "2027": bytes(32)}, primary="2027")
    newer = place.store(collection=store.collection.name, encryption=both)
    newer.mset(list(newer.yield_items()))
    newest = place.store(collection=store.collection.name, encryption=Encryption({"2027": bytes(32)}))
    assert newest.mget(["a"]) == [1]


def test_adding_and_updating_go_through_it(sqlite_place: Place) -> None:
    store = sqlite_place.store(encryption=SECRET)
    assert store.add([("n", 1)]) == ["n"]
    assert store.update("n", lambda old: old + 1) == 2
    assert store.mget(["n"]) == [2]


def test_a_copy_has_the_keys_and_a_pickle_is_refused(sqlite_place: Place) -> None:
    store = sqlite_place.store(encryption=SECRET)
    store.mset([("a", 1)])
    with copy.deepcopy(store) as copied:
        assert copied.mget(["a"]) == [1]
    with pytest.raises(UnsupportedError, match="not pickled"):
        pickle.dumps(store)


@pytest.mark.parametrize("encryption", [bytes(32), {"k": bytes(32)}, "k", True])
def test_keys_come_in_an_encryption(encryption: Any) -> None:
    with pytest.raises(ConfigError, match="must be an Encryption") as caught:
        KVStore("kv", "memory:", encryption=encryption)
    assert "\\x00" not in str(caught.value)
