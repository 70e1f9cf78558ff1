"""Byte stores on a file keep bytes as they are; everyone else sees the documents that they stand for."""

from __future__ import annotations

import asyncio
import base64
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bodies import row
from langchain_kv import AstraDBByteStore, DamagedValueError, InvalidValueError, KVByteStore, KVStore
from langchain_kv.backends.base import Kind, Record
from langchain_kv.backends.documents import document_of, found_in
from langchain_kv.engines import rows
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Keep
from langchain_kv.engines.rows import of_documents
from langchain_kv.engines.sqlite.schema import columns_of
from langchain_kv.limits import BYTES_VALUE_MAX
from old_files import OLD, version
from places import TOKEN, Place, open_place
from served import ask as ask_server

FIRST = [bytes([first]) + rest for first in range(256) for rest in (b"", b"\0", b"{", b"rest")]
LIKE_DOCUMENTS = [b"{", b"{}", b'{"_id":"k","value":"YQ=="}', b'{"_id":"k","value":null}', b'["_id"]', b"null", b" {}"]
VALUES = [b"", *FIRST, *LIKE_DOCUMENTS, b"\0\0{}", bytes(1_000), b"{" * 3_000, b"\xff" * BYTES_VALUE_MAX]
PAIRS = [(f"k{number:04}", value) for number, value in enumerate(VALUES)]
KEYS = [key for key, _ in PAIRS]


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def document(key: str, value: bytes) -> bytes:
    return document_of(Record(key, value, Kind.BYTES))


def kept(place: Place, collection: str) -> dict[str, tuple[bytes, int]]:
    """Return what the file holds, and whether it is bytes as they are, read by SQLite alone."""
    with closing(sqlite3.connect(place.engine._pool.path)) as connection:
        (table,) = connection.execute("SELECT id FROM collections WHERE name=?", [collection]).fetchone()
        found = connection.execute(f"SELECT id, content, is_raw FROM docs_{table}")
        return {key: (body, is_raw) for key, body, is_raw in found}


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
    answer: Any = ask_server(place.url, TOKEN, command, f"/v1/default_keyspace/{collection}")
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

    assert kept(sqlite_place, store.collection.name) == {
        "a": (b"as it is", True),
        "b": (b'{"n":1}', True),
        "c": (b"", True),
        "d": (b"\0\xff", True),
        "e": (b'{"_id":"e","value":null}', False),
    }
    assert face(store).mget(["a", "b", "c", "d", "e"]) == [b"as it is", b'{"n":1}', b"", b"\0\xff", None]


def test_a_large_value_is_not_copied(sqlite_place: Place) -> None:
    value = b"\xff" * 1_000_000
    store = sqlite_place.store(KVByteStore)
    assert store.encode_value(value) is value
    assert store.decode_value(value) is value
    with KVByteStore("kv", "memory:not copied") as in_memory:
        in_memory.mset([("k", value)])
        assert in_memory.mget(["k"])[0] is value


@given(st.binary(), st.none() | st.integers(0, 2**60))
def test_a_raw_value_stands_for_the_document_of_elsewhere(value: bytes, expires_at_ms: int | None) -> None:
    elsewhere = document_of(Record("k", value, Kind.BYTES, expires_at_ms))
    assert rows.document_of(("k", value, True, expires_at_ms)) == elsewhere
    assert rows.row_of("k", elsewhere) == ("k", elsewhere, False, expires_at_ms)
    found = found_in(elsewhere)
    assert (found.value, found.expires_at_ms) == (text(value), expires_at_ms)  # type: ignore[union-attr]


@pytest.mark.parametrize("is_raw", [1, 0])
def test_the_column_alone_says_whether_a_body_is_bytes_as_they_are(
    sqlite_place: Place, face: Any, is_raw: bool
) -> None:
    """Documents of every beginning, too: what it looks like says nothing."""
    store = sqlite_place.store(KVByteStore)
    collection = CollectionName("default_keyspace", store.collection.name)
    bodies = [(key, value if is_raw else document(key, value)) for key, value in PAIRS]
    sqlite_place.engine.write(collection, [(key, body, bool(is_raw), None) for key, body in bodies])

    assert kept(sqlite_place, store.collection.name) == {key: (body, is_raw) for key, body in bodies}
    assert face(store).mget(KEYS) == VALUES
    if not is_raw:
        sqlite_place.engine.write(collection, [(key, body, True, None) for key, body in bodies])
        assert face(store).mget(KEYS) == [body for _, body in bodies]


ESCAPED = (b"{", b"\0", b"\1", b"")


def kept_in_1(value: bytes) -> bytes:
    """Return the body that kept a value in a file of schema 1, which had no such column."""
    return b"\1" + value if value[:1] in ESCAPED else value


@given(st.binary())
def test_a_body_of_schema_1_is_told_from_a_document(value: bytes) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA user_version=1")
        selected = f"SELECT {columns_of(connection)} FROM (SELECT 'k' AS id, ? AS body)"
        stored = document("k", value)
        for body, found in ((kept_in_1(value), (value, 1)), (stored, (stored, 0))):
            assert connection.execute(selected, [body]).fetchone() == ("k", *found, None)


def test_every_value_of_a_file_of_schema_1_comes_back_before_and_after_its_upgrade(face: Any, tmp_path: Path) -> None:
    path = shutil.copy(OLD, tmp_path / "old.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM docs_3")
        connection.executemany("INSERT INTO docs_3 VALUES(?, ?)", [(key, kept_in_1(value)) for key, value in PAIRS])
    for number in (1, 2):
        assert version(path) == number
        with KVByteStore("bytes", f"sqlite:{path}") as store:
            assert face(store).mget(KEYS) == VALUES
            assert [face(store).mget([key])[0] for key in KEYS[::97]] == VALUES[::97]
            assert dict(face(store).items()) == dict(PAIRS)
            face(store).mdelete(["absent"])  # which upgrades it
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, content, is_raw, expires_at FROM docs_3")
        assert {row[0]: row[1:] for row in found} == {key: (value, 1, None) for key, value in PAIRS}


@pytest.mark.parametrize("body", [b"", bytes(24), b"\0{}", b"\1x", b'{"_id":'])
def test_what_was_damage_in_schema_1_is_damage_before_and_after_its_upgrade(
    body: bytes, face: Any, tmp_path: Path
) -> None:
    path = shutil.copy(OLD, tmp_path / "old.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO docs_3 VALUES('bad', ?)", [body])
    for _ in range(2):
        with KVByteStore("bytes", f"sqlite:{path}") as store:
            with pytest.raises(DamagedValueError) as caught:
                face(store).mget(["plain", "bad"])
            assert (list(caught.value.errors), caught.value.values) == (["bad"], {"plain": b"hello"})
            face(store).mdelete(["absent"])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT content, is_raw FROM docs_3 WHERE id='bad'").fetchone() == (body, 0)


@pytest.mark.parametrize("body", [b"", bytes(24), b"\0{}", b"\1x", b'{"_id":'])
@pytest.mark.parametrize("kind", [KVByteStore, KVStore])
def test_a_body_that_no_store_writes_is_damage(sqlite_place: Place, face: Any, kind: Any, body: bytes) -> None:
    store = sqlite_place.store(kind)
    collection = CollectionName("default_keyspace", store.collection.name)
    sqlite_place.engine.write(collection, [row("bad", body), row("good", document("good", b"x"))])

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
def test_what_is_not_bytes_is_refused_as_elsewhere(
    sqlite_place: Place, http_place: Place, face: Any, value: Any
) -> None:
    store = sqlite_place.store(KVByteStore)
    with pytest.raises(TypeError) as caught:
        face(store).mset([("a", b"1"), ("the key", value)])
    with pytest.raises(TypeError) as elsewhere:
        face(http_place.store(KVByteStore)).mset([("a", b"1"), ("the key", value)])
    assert "'the key'" in str(caught.value)
    assert (type(caught.value), str(caught.value)) == (type(elsewhere.value), str(elsewhere.value))
    assert kept(sqlite_place, store.collection.name) == {}


@pytest.mark.parametrize(
    "key", ["k", "\u20ac" * 2_666, "\x01" * 8_000, '"' * 8_000], ids=["short", "wide", "escaped", "quoted"]
)
def test_the_size_limit_is_the_same_as_elsewhere(sqlite_place: Place, http_place: Place, key: str) -> None:
    store = sqlite_place.store(KVByteStore)
    elsewhere = http_place.store(KVByteStore)
    outcomes = set()
    around = len(document(key, b"")) - (len(key.encode()) - len(key))
    fitting = (4_000_000 - around) // 4 * 3
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


def test_a_json_store_is_told_of_the_byte_store(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([("a", b"1"), ("none", None)])
    store = face(sqlite_place.store(KVStore, collection=blobs.collection.name))
    store.mset([("json", {"n": 1})])

    with pytest.raises(DamagedValueError, match=r"'a'.*bytes, not JSON.*KVByteStore") as caught:
        store.mget(["a", "none", "json"])
    assert caught.value.values == {"none": None, "json": {"n": 1}}
    with pytest.raises(DamagedValueError, match="'a'"):
        store.items()
    with pytest.raises(DamagedValueError, match=r"'json'.*not base64 text"):
        face(blobs).mget(["json"])


def test_bytes_of_an_older_file_are_read_beside_new_ones(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    store = face(blobs)
    for key, value in PAIRS[::2]:
        sqlite_place.plant(blobs.collection.name, key, f'{{"_id":"{key}","value":"{text(value)}"}}')
    store.mset(PAIRS[1::2])

    assert store.mget(KEYS) == VALUES
    assert dict(store.items()) == dict(PAIRS)
    store.mset(PAIRS)
    assert kept(sqlite_place, blobs.collection.name) == {key: (value, True) for key, value in PAIRS}


class Reading(KVByteStore):
    """Notes what it is given to decode."""

    def decode_value(self, value: Any) -> bytes | None:
        return f"read {value}".encode()


class Writing(KVByteStore):
    """Brings a codec for one way only."""

    def encode_value(self, value: bytes | None) -> Any:
        return super().encode_value(None if value is None else value.upper())


def test_a_codec_of_ones_own_sees_the_bytes(sqlite_place: Place, face: Any) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([("a", b"1"), ("b", b"{"), ("none", None)])
    reading = sqlite_place.store(Reading, collection=blobs.collection.name)
    assert face(reading).mget(["a", "b", "none"]) == [b"read b'1'", b"read b'{'", b"read None"]

    writing = sqlite_place.store(Writing, collection=blobs.collection.name)
    face(writing).mset([("a", b"x")])
    assert kept(sqlite_place, blobs.collection.name)["a"] == (b"X", True)
    assert face(writing).mget(["a", "b"]) == [b"X", b"{"]


# -- rows that are neither -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KVByteStore, KVStore])
@pytest.mark.parametrize("body", ["", "{", '{"_id":"bad","value":', "{]", '{"_id":"bad","value":"1","encoding":"zip"}'])
def test_a_body_that_is_neither_is_damage(sqlite_place: Place, face: Any, kind: Any, body: str) -> None:
    blobs = sqlite_place.store(KVByteStore)
    face(blobs).mset([("a", b"1")])
    sqlite_place.plant(blobs.collection.name, "bad", body)
    store = face(sqlite_place.store(kind, collection=blobs.collection.name))

    good = b"1" if kind is KVByteStore else 1
    store.mset([("a", good)])
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
        connection.execute('INSERT INTO docs_1(id, content) VALUES(\'by hand\', \'{"_id":"by hand","value":"YQ=="}\')')

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
    assert kept(served, name)["k"] == (b"rest", True)  # what no command changed is as it was


def test_a_change_sees_a_document_and_may_leave_it(sqlite_place: Place) -> None:
    blobs = sqlite_place.store(KVByteStore)
    blobs.mset([("a", b"1"), ("b", b"{")])
    where = CollectionName("default_keyspace", blobs.collection.name)
    engine = sqlite_place.engine
    engine.write(where, [row(b"\x025", b"neither")])
    seen: list[tuple[DocId, bytes | None]] = []

    def change(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
        seen.append((doc_id, body))
        return KEEP if doc_id == "a" or body is None else body

    engine.modify(where, ["a", "b", "b", "x", b"\x025"], of_documents(change))
    new = b'{"_id":"b","value":"ew=="}'
    assert seen == [
        ("a", b'{"_id":"a","value":"MQ=="}'),
        ("b", new),
        ("b", new),
        ("x", None),
        (b"\x025", b"neither"),
    ]
    assert kept(sqlite_place, blobs.collection.name) == {"a": (b"1", 1), "b": (new, 0), b"\x025": (b"neither", 0)}
    assert blobs.mget(["a", "b"]) == [b"1", b"{"]


def test_a_backup_has_the_bytes(sqlite_place: Place, tmp_path: Path) -> None:
    blobs = sqlite_place.store(KVByteStore)
    blobs.mset(PAIRS)
    copy = tmp_path / "copy.db"
    sqlite_place.engine.backup(str(copy))

    with KVByteStore(blobs.collection.name, f"sqlite:{copy}") as store:
        assert store.mget(KEYS) == VALUES
