"""Byte stores on a file keep bytes as they are; everyone else sees the documents that they stand for."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_kv.engines.documents import documents_of
from langchain_kv.values.kept import kept_body, kept_bytes

from langchain_kv import AstraDBByteStore, DamagedValueError, InvalidValueError, KVByteStore, KVStore
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Keep
from langchain_kv.limits import BYTES_VALUE_MAX
from langchain_kv.values.codecs import encode_bytes_document, encode_kept_bytes
from places import TOKEN, Place, open_place

FIRST = [bytes([first]) + rest for first in range(256) for rest in (b"", b"\0", b"{", b"rest")]
LIKE_DOCUMENTS = [b"{", b"{}", b'{"_id":"k","value":"YQ=="}', b'{"_id":"k","value":null}', b'["_id"]', b"null", b" {}"]
VALUES = [b"", *FIRST, *LIKE_DOCUMENTS, b"\0\0{}", bytes(1_000), b"{" * 3_000, b"\xff" * BYTES_VALUE_MAX]
PAIRS = [(f"k{number:04}", value) for number, value in enumerate(VALUES)]
KEYS = [key for key, _ in PAIRS]


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def bodies(place: Place, collection: str) -> dict[str, Any]:
    """Return what the file holds, read by SQLite alone."""
    with closing(sqlite3.connect(place.engine._pool.path)) as connection:
        (table,) = connection.execute("SELECT id FROM collections WHERE name=?", [collection]).fetchone()
        return dict(connection.execute(f"SELECT id, body FROM docs_{table}"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Place]:
    """A file that is served, and used by the stores of this process at the same time."""
    with open_place("http+sqlite", tmp_path) as place:
        yield place


def on_file(place: Place, kind: Any = KVByteStore, collection: str | None = None) -> Any:
    store = kind(collection or place.new_name(), f"sqlite:{place.engine._pool.path}")
    place._stores.append(store)
    return store


def ask(place: Place, collection: str, command: dict[str, Any]) -> Any:
    body = json.dumps(command).encode()
    headers = {"Content-Type": "application/json", "Token": TOKEN}
    request = urllib.request.Request(f"{place.url}/v1/default_keyspace/{collection}", body, headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer = json.load(reply)
    for error in answer.get("errors", []):
        del error["id"]  # each is another
    return answer


# -- the store -------------------------------------------------------------------------------------------------------


def test_bytes_of_every_beginning_come_back(sqlite_place: Place, face: Any) -> None:
    inner = sqlite_place.store(KVByteStore)
    store = face(inner)
    store.mset(PAIRS)

    assert store.mget(KEYS) == VALUES
    assert [store.mget([key])[0] for key in KEYS[::97]] == VALUES[::97]  # the way of short reads
    assert dict(store.items()) == dict(PAIRS)
    assert all(type(value) is bytes for value in store.mget(KEYS))


def test_the_file_holds_the_bytes_themselves(sqlite_place: Place, face: Any) -> None:
    store = sqlite_place.store(AstraDBByteStore, api_endpoint=sqlite_place.url)
    face(store).mset([("a", b"as it is"), ("b", b'{"n":1}'), ("c", b""), ("d", b"\0\xff"), ("e", None)])

    expected = {"a": b"as it is", "b": b'\1{"n":1}', "c": b"\1", "d": b"\1\0\xff", "e": b'{"_id":"e","value":null}'}
    assert bodies(sqlite_place, store.collection.name) == expected
    assert face(store).mget(["a", "b", "c", "d", "e"]) == [b"as it is", b'{"n":1}', b"", b"\0\xff", None]


def test_a_large_value_is_not_copied() -> None:
    value = b"\xff" * 1_000_000
    assert encode_kept_bytes("k", value) is value
    assert kept_bytes(value) is value


@given(st.binary())
def test_a_body_of_bytes_is_told_from_a_document(value: bytes) -> None:
    body = kept_body(value)
    assert body[:1] not in (b"", b"{")
    assert kept_bytes(body) == value
    assert kept_bytes(encode_bytes_document("k", value)) is None


@pytest.mark.parametrize("body", [b"", bytes(24), b"\0{}", b"\1x", b'{"_id":'])
@pytest.mark.parametrize("kind", [KVByteStore, KVStore])
def test_a_body_that_no_store_writes_is_damage(sqlite_place: Place, face: Any, kind: Any, body: bytes) -> None:
    store = sqlite_place.store(kind)
    collection = CollectionName("default_keyspace", store.collection.name)
    sqlite_place.engine.write(collection, [("bad", body), ("good", encode_bytes_document("good", b"x"))])

    with pytest.raises(DamagedValueError) as caught:
        face(store).mget(["good", "bad"])
    assert list(caught.value.errors) == ["bad"]
    assert list(caught.value.values) == ["good"]


def test_a_value_is_what_it_was_when_it_was_given(sqlite_place: Place, face: Any) -> None:
    store = face(sqlite_place.store(KVByteStore))
    changing = bytearray(b"before")
    numbers = memoryview(b"0123456789abcdef")
    store.mset([("a", changing), ("b", numbers[::-1]), ("c", numbers.cast("I")), ("d", numbers[:0])])
    changing[:] = b"after!"

    assert store.mget(["a", "b", "c", "d"]) == [b"before", b"fedcba9876543210", b"0123456789abcdef", b""]


@pytest.mark.parametrize("value", ["text", 5, [b"a"]])
def test_what_is_not_bytes_is_refused_as_elsewhere(sqlite_place: Place, face: Any, value: Any) -> None:
    store = sqlite_place.store(KVByteStore)
    with pytest.raises(TypeError) as caught:
        face(store).mset([("a", b"1"), ("the key", value)])
    with pytest.raises(TypeError) as elsewhere:
        encode_bytes_document("the key", value)
    assert (type(caught.value), str(caught.value)) == (type(elsewhere.value), str(elsewhere.value))
    assert bodies(sqlite_place, store.collection.name) == {}


@pytest.mark.parametrize(
    "key", ["k", "\u20ac" * 2_666, "\x01" * 8_000, '"' * 8_000], ids=["short", "wide", "escaped", "quoted"]
)
def test_the_size_limit_is_the_same_as_elsewhere(sqlite_place: Place, http_place: Place, key: str) -> None:
    store = sqlite_place.store(KVByteStore)
    elsewhere = http_place.store(KVByteStore)
    outcomes = set()
    document = len(encode_bytes_document(key, b"")) - (len(key.encode()) - len(key))
    fitting = (4_000_000 - document) // 4 * 3
    for size in (fitting - 1, fitting, fitting + 1, fitting + 2, fitting + 3, 4_000_000):
        refusals = []
        for each in (store, elsewhere):
            try:
                each.mset([(key, bytes(size))])
                refusals.append("")
            except InvalidValueError as error:
                refusals.append(str(error))
        assert refusals[0] == refusals[1]
        outcomes.add(bool(refusals[0]))
    assert outcomes == {True, False}
    assert store.mget([key]) == [bytes(fitting)]


async def test_writes_that_share_a_commit_keep_their_bytes(sqlite_place: Place) -> None:
    store = sqlite_place.store(KVByteStore)
    pairs = PAIRS[:1_000]
    await asyncio.gather(*(store.amset([pair]) for pair in pairs))

    assert await store.amget([key for key, _ in pairs]) == [value for _, value in pairs]
    assert [(await store.amget([key]))[0] for key, _ in pairs[::50]] == [value for _, value in pairs[::50]]


# -- beside a store of JSON, and a codec of one's own ----------------------------------------------------------------


def test_a_json_store_reads_them_as_base64_text(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([*PAIRS, ("none", None)])
    store = face(sqlite_place.store(KVStore, collection=blobs.collection.name))

    assert store.mget([*KEYS, "none"]) == [*map(text, VALUES), None]
    assert dict(store.items()) == {**{key: text(value) for key, value in PAIRS}, "none": None}


def test_bytes_of_an_older_file_are_read_beside_new_ones(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    store = face(blobs)
    for key, value in PAIRS[::2]:
        sqlite_place.plant(blobs.collection.name, key, f'{{"_id":"{key}","value":"{text(value)}"}}')
    store.mset(PAIRS[1::2])

    assert store.mget(KEYS) == VALUES
    assert dict(store.items()) == dict(PAIRS)
    store.mset(PAIRS)
    assert not [key for key, body in bodies(sqlite_place, blobs.collection.name).items() if body[:1] == b"{"]


class Reading(KVByteStore):
    """Notes what it is given to decode."""

    def decode_value(self, value: Any) -> bytes | None:
        return f"read {value}".encode()


class Writing(KVByteStore):
    """Brings a codec for one way only."""

    def encode_value(self, value: bytes | None) -> str | None:
        return super().encode_value(None if value is None else value.upper())


def test_a_codec_of_ones_own_sees_base64_text(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([("a", b"1"), ("b", b"{"), ("none", None)])
    reading = sqlite_place.store(Reading, collection=blobs.collection.name)
    assert face(reading).mget(["a", "b", "none"]) == [b"read MQ==", b"read ew==", b"read None"]

    writing = sqlite_place.store(Writing, collection=blobs.collection.name)
    face(writing).mset([("a", b"x")])
    assert bodies(sqlite_place, blobs.collection.name)["a"] == b'{"_id":"a","value":"WA=="}'
    assert face(writing).mget(["a", "b"]) == [b"X", b"{"]


# -- rows that are neither -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KVByteStore, KVStore])
@pytest.mark.parametrize("body", ["", "{", '{"_id":"bad","value":', "{]", '{"_id":"bad","value":"1","encoding":"zip"}'])
def test_a_body_that_is_neither_is_damage(sqlite_place: Place, face: Any, kind: Any, body: str) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([("a", b"1")])
    sqlite_place.plant(blobs.collection.name, "bad", body)
    store = face(sqlite_place.store(kind, collection=blobs.collection.name))

    good = b"1" if kind is KVByteStore else "MQ=="
    with pytest.raises(DamagedValueError, match="'bad'") as caught:
        store.mget(["a", "bad"])
    assert caught.value.values == {"a": good}
    with pytest.raises(DamagedValueError, match="'bad'"):
        store.items()
    store.mset([("bad", good)])
    assert store.mget(["bad"]) == [good]


def test_the_server_names_a_body_that_is_neither(served: Place) -> None:
    blobs = on_file(served)
    blobs.mset([("a", b"1")])
    served.plant(blobs.collection.name, "bad", "")

    reply = ask(served, blobs.collection.name, {"find": {}})
    assert reply["data"]["documents"] == [{"_id": "a", "value": "MQ=="}]
    assert reply["errors"][0]["documentIds"] == ["bad"]


def test_a_document_that_was_put_there_as_text_is_read(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    blobs.mset([("a", b"1")])
    with closing(sqlite3.connect(sqlite_place.engine._pool.path)) as connection, connection:
        connection.execute('INSERT INTO docs_1 VALUES(\'by hand\', \'{"_id":"by hand","value":"YQ=="}\')')

    assert face(blobs).mget(["by hand", "a"]) == [b"a", b"1"]


# -- the server on such a file ---------------------------------------------------------------------------------------


def test_a_data_api_client_sees_the_documents_of_langchain_astradb(served: Place) -> None:
    blobs = on_file(served)
    blobs.mset([*PAIRS[:500], ("none", None)])
    name = blobs.collection.name

    found: dict[str, Any] = {}
    options: dict[str, Any] = {}
    while options is not None:
        data = ask(served, name, {"find": {"options": options}})["data"]
        found.update((document["_id"], document) for document in data["documents"])
        options = {"pageState": data["nextPageState"]} if data["nextPageState"] else None
    assert found == {key: {"_id": key, "value": text(value)} for key, value in PAIRS[:500]} | {
        "none": {"_id": "none", "value": None}
    }
    wanted = {"filter": {"_id": {"$in": ["k0001", "k0499"]}}, "projection": {"value": True}}
    assert ask(served, name, {"find": wanted})["data"]["documents"] == [found["k0001"], found["k0499"]]


def test_stores_over_http_and_on_the_file_read_what_the_other_wrote(served: Place, face: Any) -> None:
    near = on_file(served)
    far = served.store(KVByteStore, collection=near.collection.name)
    face(near).mset(PAIRS[:1_030])
    face(far).mset(PAIRS[1_030:])
    assert face(far).mget(KEYS) == face(near).mget(KEYS) == VALUES

    face(far).mset(PAIRS[:100])  # over what the file keeps as it is
    face(near).mset(PAIRS[1_030:])  # over documents
    assert face(far).mget(KEYS) == face(near).mget(KEYS) == VALUES
    assert dict(face(far).items()) == dict(face(near).items()) == dict(PAIRS)


COMMANDS: list[dict[str, Any]] = [
    {"findOne": {"filter": {"_id": "a"}}},
    {"findOne": {"filter": {"_id": "a"}, "projection": {"value": False}}},
    {"findOne": {"filter": {"value": text(b"{b}")}}},
    {"find": {"filter": {"value": {"$in": [text(b"\0a"), text(b"")]}}}},
    {"find": {"sort": {"value": -1}}},
    {"countDocuments": {"filter": {"value": {"$exists": True}}}},
    {"estimatedDocumentCount": {}},
    {"insertOne": {"document": {"_id": "a", "value": "other"}}},
    {"insertMany": {"documents": [{"_id": "new"}, {"_id": "b"}, {"_id": "c"}], "options": {"ordered": False}}},
    {"updateOne": {"filter": {"_id": "a"}, "update": {"$set": {"seen": True}}}},
    {"updateOne": {"filter": {"_id": "b"}, "update": {"$set": {"value": text(b"{b}")}}}},
    {"updateMany": {"filter": {"value": text(b"")}, "update": {"$set": {"was": "empty"}}}},
    {"findOneAndUpdate": {"filter": {"_id": "d"}, "update": {"$unset": {"value": 1}}}},
    {"findOneAndReplace": {"filter": {"_id": "e"}, "replacement": {"value": text(b"replaced")}}},
    {"findOneAndDelete": {"filter": {"_id": "f"}, "projection": {"value": True}}},
    {"deleteOne": {"filter": {"value": text(b"deleted")}}},
    {"deleteMany": {"filter": {"_id": {"$in": ["h", "i"]}}}},
    {"find": {}},
]


def test_every_command_answers_as_it_does_about_documents(served: Place, http_place: Place) -> None:
    values = [b"\0a", b"{b}", b"", b"d", b"e", b"f", b"deleted", b"h", b"i", b"{}", b"rest"]
    pairs = list(zip("abcdefghijk", values, strict=True))
    name = served.new_name()
    for place in (served, http_place):
        place.create(name, {})  # every field is indexed, so that commands may look for values
    with pytest.warns(UserWarning, match="indexing"):
        near = on_file(served, collection=name)
    near.mset(pairs)
    for key, value in pairs:
        http_place.plant(name, key, f'{{"_id":"{key}","value":"{text(value)}"}}')

    for command in COMMANDS:
        assert ask(served, name, command) == ask(http_place, name, command), command
    expected = [b"\0a", b"{b}", b"", None, b"replaced", None, None, None, None, b"{}", b"rest"]
    assert near.mget(list("abcdefghijk")) == expected
    assert bodies(served, name)["k"] == b"rest"  # what no command changed is as it was


def test_a_change_sees_a_document_and_may_leave_it(sqlite_place: Place) -> None:
    blobs = sqlite_place.store(KVByteStore)
    blobs.mset([("a", b"1"), ("b", b"{")])
    where = CollectionName("default_keyspace", blobs.collection.name)
    engine = documents_of(sqlite_place.engine)
    engine.write(where, [(b"\x025", b"neither")])
    seen: list[tuple[DocId, bytes | None]] = []

    def change(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
        seen.append((doc_id, body))
        return KEEP if doc_id == "a" or body is None else body

    engine.modify(where, ["a", "b", "b", "x", b"\x025"], change)
    document = b'{"_id":"b","value":"ew=="}'
    assert seen == [
        ("a", b'{"_id":"a","value":"MQ=="}'),
        ("b", document),
        ("b", document),
        ("x", None),
        (b"\x025", b"neither"),
    ]
    assert bodies(sqlite_place, blobs.collection.name) == {"a": b"1", "b": document, b"\x025": b"neither"}
    assert blobs.mget(["a", "b"]) == [b"1", b"{"]


def test_a_backup_has_the_bytes(sqlite_place: Place, tmp_path: Path) -> None:
    blobs = sqlite_place.store(KVByteStore)
    blobs.mset(PAIRS)
    copy = tmp_path / "copy.db"
    sqlite_place.engine.backup(str(copy))

    with KVByteStore(blobs.collection.name, f"sqlite:{copy}") as store:
        assert store.mget(KEYS) == VALUES
