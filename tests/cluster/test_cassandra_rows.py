"""Rows as the real Data API writes them (recorded), rows that others wrote badly, and tables that do not fit."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cassandra_node import Node
from conformance.replay import TOKEN, Client
from langchain_kv import CollectionConflictError, DamagedValueError, KVStore, SetupMode
from langchain_kv.engines.base import CollectionName, DocId, Engine
from langchain_kv.engines.cassandra.rows import doc_id_of
from langchain_kv.errors import DataAPIError, InvalidKeyError, InvalidValueError
from langchain_kv.server.http.running import run_in_thread
from langchain_kv.values.json_text import read, write

from .conftest import new_collection

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data" / "cassandra"
ROWS = [json.loads(line) for line in (DATA / "rows.jsonl").read_text().splitlines()]
SCHEMA = json.loads((DATA / "schema.json").read_text())
COLUMNS = list(SCHEMA["rows_allow_id"]["columns"])
INDEXINGS: list[Any] = [{"allow": ["_id"]}, {"deny": ["*"]}]


def recorded(indexing: Any, how: str | None = None) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["indexing"] == indexing and row.get("by") == how]


def as_recorded(value: Any) -> Any:
    """Return a value of a column in the form of the recording."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, uuid.UUID):
        assert value.version == 1
        return "<timeuuid>"
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "items"):
        return {key: as_recorded(inner) for key, inner in value.items()}
    if isinstance(value, tuple) or hasattr(value, "isdisjoint"):
        return [as_recorded(inner) for inner in value]
    return str(value)  # a timestamp


def stored_rows(cql: Any, collection: CollectionName) -> dict[Any, dict[str, Any]]:
    rows = cql(f'SELECT {", ".join(COLUMNS)} FROM "{collection.keyspace}"."{collection.name}"')
    return {tuple(row[0]): dict(zip(COLUMNS, map(as_recorded, row), strict=True)) for row in rows}


# -- as the Data API --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexing", INDEXINGS, ids=["allow-id", "deny-all"])
@pytest.mark.parametrize("how", ["write", "insert", "replace"])
def test_rows_are_written_as_the_data_api_writes_them(shared_engine: Engine, cql: Any, indexing: Any, how: str) -> None:
    collection = new_collection(shared_engine, {"indexing": indexing})
    expected = {tuple(row["row"]["key"]): row["row"] for row in recorded(indexing)}
    documents: dict[DocId, bytes] = {}
    for row in recorded(indexing):
        doc_id = doc_id_of(tuple(row["row"]["key"]))
        assert doc_id is not None
        documents[doc_id] = row["document"].encode()
    if how != "insert":
        shared_engine.write(collection, [(doc_id, _emptied(body)) for doc_id, body in documents.items()])
    if how == "write":
        shared_engine.write(collection, list(documents.items()))
    else:
        shared_engine.modify(collection, list(documents), lambda doc_id, _: documents[doc_id])

    assert len(expected) >= 50
    assert stored_rows(cql, collection) == expected


@pytest.mark.parametrize("indexing", INDEXINGS, ids=["allow-id", "deny-all"])
def test_the_local_server_writes_the_same_rows(shared_engine: Engine, cql: Any, indexing: Any) -> None:
    collection = new_collection(shared_engine, {"indexing": indexing})
    upserted = recorded(indexing, "findOneAndReplace upsert")
    expected = {tuple(row["row"]["key"]): row["row"] for row in [*recorded(indexing), *upserted]}
    documents = ",".join(row["document"] for row in recorded(indexing))
    commands = [f'{{"insertMany":{{"documents":[{documents}]}}}}']
    for row in upserted:
        command = {"filter": {"_id": row["row"]["key"][1]}, "options": {"upsert": True}}
        commands.append(json.dumps({"findOneAndReplace": {**command, "replacement": json.loads(row["document"])}}))
    with run_in_thread(shared_engine.rows, TOKEN) as url, closing(Client(url)) as client:
        for sent in commands:
            assert "errors" not in client.command(f"/v1/default_keyspace/{collection.name}", sent.encode()).json

    assert len(expected) >= 51
    assert stored_rows(cql, collection) == expected


def _emptied(body: bytes) -> bytes:
    return write({"_id": read(body)["_id"]})


@pytest.mark.parametrize("indexing", INDEXINGS, ids=["allow-id", "deny-all"])
def test_rows_that_the_data_api_wrote_are_read_back(shared_engine: Engine, cql: Any, indexing: Any) -> None:
    collection = new_collection(shared_engine, {"indexing": indexing})
    expected = {}
    for row in [*recorded(indexing), *recorded(indexing, "findOneAndReplace upsert")]:
        plant(cql, collection, tuple(row["row"]["key"]), row["row"]["doc_json"])
        expected[doc_id_of(tuple(row["row"]["key"]))] = row["row"]["doc_json"].encode()

    assert dict(shared_engine.scan(collection, limit=1_000)) == expected
    assert shared_engine.read(collection, list(expected)) == list(expected.values())


@pytest.mark.parametrize("table", SCHEMA)
def test_tables_are_made_as_the_data_api_makes_them(shared_engine: Engine, cql: Any, table: str) -> None:
    wanted = SCHEMA[table]
    collection = CollectionName("default_keyspace", table)
    shared_engine.create_collection(collection, wanted["settings"])
    where = f"WHERE keyspace_name = 'default_keyspace' AND table_name = '{table}'"
    columns = dict(cql(f"SELECT column_name, type FROM system_schema.columns {where}"))
    ((comment,),) = cql(f"SELECT comment FROM system_schema.tables {where}")
    indexes = [
        {"name": name, "kind": kind, "options": dict(options)}
        for name, kind, options in cql(f"SELECT index_name, kind, options FROM system_schema.indexes {where}")
    ]

    assert columns == wanted["columns"]
    assert comment == wanted["comment"]
    assert sorted(indexes, key=lambda index: index["name"]) == wanted["indexes"]


def test_indexes_that_are_missing_are_made(shared_engine: Engine, cql: Any, kv: CollectionName) -> None:
    cql(f'DROP INDEX default_keyspace."{kv.name}_array_size"')
    shared_engine.create_collection(kv, {"indexing": {"allow": ["_id"]}})

    where = f"WHERE keyspace_name = 'default_keyspace' AND table_name = '{kv.name}'"
    assert len(cql(f"SELECT index_name FROM system_schema.indexes {where}")) == 8


# -- written badly ----------------------------------------------------------------------------------------------------


def plant(cql: Any, collection: CollectionName, key: Any, doc_json: str | None, tx_id: Any = "now") -> None:
    """Write a row as another program might."""
    cql(
        f'INSERT INTO "{collection.keyspace}"."{collection.name}" (key, tx_id, doc_json) VALUES (?, ?, ?)',
        (key, uuid.uuid1() if tx_id == "now" else tx_id, doc_json),
    )


BAD = {
    "no_id": ('{"value":1}', "no _id"),
    "other_id": ('{"_id":"another","value":1}', "another document"),
    "other_type": ('{"_id":5,"value":1}', "another document"),
    "broken": ('{"_id":"broken","value":', "JSON"),
    "nothing": (None, "doc_json"),
    "array": ("[1]", "object"),
    "empty": ("", "JSON"),
}


@pytest.fixture
def url(cassandra_node: Node) -> str:
    return cassandra_node.url("default_keyspace")


@pytest.mark.parametrize("key", BAD)
def test_a_bad_row_is_an_error_that_names_its_key_and_the_rest_is_answered(
    shared_engine: Engine, cql: Any, kv: CollectionName, url: str, key: str
) -> None:
    doc_json, reason = BAD[key]
    plant(cql, kv, (1, key), doc_json)
    with KVStore(kv.name, url) as store:
        store.mset([("good", 1), ("good2", 2)])
        with pytest.raises(DamagedValueError, match=key) as caught:
            store.mget(["good", key, "good2"])
        assert caught.value.values == {"good": 1, "good2": 2}
        assert reason in caught.value.errors[key]
        assert sorted(store.yield_keys()) == sorted(["good", "good2", key])
        items: list[Any] = []
        with pytest.raises(DamagedValueError, match=key):
            _drained(store.yield_items(), items)
        assert sorted(items) == [("good", 1), ("good2", 2)]
        with pytest.raises(DataAPIError, match=key) as refused:
            shared_engine.read(kv, ["good", key])
        assert refused.value.code == "DOCUMENT_FROM_DB_UNPARSEABLE"
        with pytest.raises(DataAPIError, match=key):
            shared_engine.scan(kv, limit=10)
        store.mset([(key, "mended")])
        assert store.mget([key]) == ["mended"]


def _drained(pairs: Any, into: list[Any]) -> None:
    for pair in pairs:
        into.append(pair)


def test_a_bad_row_can_be_deleted(shared_engine: Engine, cql: Any, kv: CollectionName) -> None:
    plant(cql, kv, (1, "broken"), "{")
    assert shared_engine.delete(kv, ["broken"]) == 1
    assert shared_engine.read(kv, ["broken"]) == [None]


def test_a_purge_leaves_bad_rows_alone(shared_engine: Engine, cql: Any, kv: CollectionName) -> None:
    plant(cql, kv, (1, "broken"), "{")
    plant(cql, kv, (9, "a"), '{"_id":"a"}')
    shared_engine.write(kv, [("old", b'{"_id":"old","value":1,"expires_at":{"$date":1}}'), ("new", b'{"_id":"new"}')])
    assert shared_engine.purge(kv, now_ms=2, limit=9) == 1
    assert sorted(map(str, shared_engine.scan_ids(kv, limit=9))) == ["broken", "new"]


def test_a_row_without_tx_id_is_read_replaced_and_removed(shared_engine: Engine, cql: Any, kv: CollectionName) -> None:
    for key in ("a", "b", "c"):
        plant(cql, kv, (1, key), f'{{"_id":"{key}","value":1}}', tx_id=None)
    assert shared_engine.read(kv, ["a"]) == [b'{"_id":"a","value":1}']
    shared_engine.write(kv, [("a", b'{"_id":"a","value":2}')])
    shared_engine.modify(kv, ["b"], lambda doc_id, body: b'{"_id":"b","value":2}')
    shared_engine.modify(kv, ["c"], lambda doc_id, body: None)
    assert dict(shared_engine.scan(kv, limit=9)) == {"a": b'{"_id":"a","value":2}', "b": b'{"_id":"b","value":2}'}


def test_harmless_spellings_are_read(shared_engine: Engine, cql: Any, kv: CollectionName) -> None:
    for key, text in [("a", '{ "_id" : "a", "value": 1.0 }'), ("b", '{"value":"\\u00e9","_id":"\\u0062"}')]:
        plant(cql, kv, (1, key), text)
    bodies = shared_engine.read(kv, ["a", "b"])
    assert [json.loads(body or b"") for body in bodies] == [{"_id": "a", "value": 1}, {"value": "é", "_id": "b"}]


def test_a_row_with_an_empty_key_is_named_and_listed_nowhere(
    shared_engine: Engine, cql: Any, kv: CollectionName, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant(cql, kv, (1, ""), '{"_id":"","value":1}')
    with KVStore(kv.name, url) as store:
        store.mset([("good", 1)])
        assert list(store.yield_keys()) == ["good"]
        assert "empty key" in caplog.text
        items: list[Any] = []
        with pytest.raises(DamagedValueError, match="empty"):
            _drained(store.yield_items(), items)
        assert items == [("good", 1)]
    with pytest.raises(InvalidKeyError, match="empty"):
        shared_engine.write(kv, [("", b'{"_id":"","value":1}')])


def test_keys_of_no_known_type_are_left_out(
    cql: Any, kv: CollectionName, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    for key in [(9, "a"), (None, "a"), (1, None)]:
        plant(cql, kv, key, '{"_id":"a"}')
    with KVStore(kv.name, url) as store:
        store.mset([("good", 1)])
        assert list(store.yield_keys()) == ["good"]
        assert list(store.yield_items()) == [("good", 1)]
    assert "not text" in caplog.text


@pytest.mark.parametrize("body", [b"", b"1", b'{"value":1}', b'{"_id":"other"}', b'{"_id":1}', b'{"_id":"a"', b"\xff"])
def test_what_is_not_the_document_of_its_id_is_not_written(
    shared_engine: Engine, kv: CollectionName, body: bytes
) -> None:
    with pytest.raises(InvalidValueError, match="'a'"):
        shared_engine.write(kv, [("b", b'{"_id":"b"}'), ("a", body)])
    with pytest.raises(InvalidValueError, match="'a'"):
        shared_engine.modify(kv, ["a"], lambda doc_id, old: body)
    assert shared_engine.count(kv) == 0


# -- tables that do not fit -------------------------------------------------------------------------------------------

ODD_OPTIONS: dict[str, dict[str, Any]] = {
    "lexical": {"indexing": {"allow": ["_id"]}, "lexical": {"enabled": True, "analyzer": "standard"}},
}


@pytest.fixture(params=[*ODD_OPTIONS, "schema_version"])
def odd(request: pytest.FixtureRequest, cql: Any, shared_engine: Engine) -> CollectionName:
    """A collection that only the Data API can write."""
    collection = new_collection(shared_engine, {"indexing": {"deny": ["*"]}})
    options = ODD_OPTIONS.get(request.param, {"indexing": {"allow": ["_id"]}})
    version = 3 if request.param == "schema_version" else 2
    comment = json.dumps({"collection": {"name": collection.name, "schema_version": version, "options": options}})
    plant(cql, collection, (1, "a"), '{"_id":"a","value":1}')
    cql(f"ALTER TABLE default_keyspace.\"{collection.name}\" WITH comment = '{comment}'")
    shared_engine.rows.__dict__["_tables"].clear()
    return collection


def test_collections_with_more_than_ids_are_read_and_not_written(shared_engine: Engine, odd: CollectionName) -> None:
    assert shared_engine.read(odd, ["a"]) == [b'{"_id":"a","value":1}']
    assert shared_engine.scan_ids(odd, limit=9) == ["a"]
    for call in (
        lambda: shared_engine.write(odd, [("a", b'{"_id":"a"}')]),
        lambda: shared_engine.modify(odd, ["a"], lambda doc_id, body: None),
        lambda: shared_engine.delete(odd, ["a"]),
        lambda: shared_engine.clear(odd),
    ):
        with pytest.raises(CollectionConflictError, match="https:"):
            call()
    assert shared_engine.read(odd, ["a"]) == [b'{"_id":"a","value":1}']


def test_a_store_does_not_open_them(odd: CollectionName, url: str) -> None:
    with pytest.raises(CollectionConflictError, match=odd.name):
        KVStore(odd.name, url)
    with KVStore(odd.name, url, setup_mode=SetupMode.OFF) as store:
        assert store.mget(["a"]) == [1]
        with pytest.raises(CollectionConflictError, match="https:"):
            store.mset([("b", 1)])


@pytest.mark.parametrize("settings", [{"lexical": {"enabled": True}}, {"rerank": {"enabled": True}}])
def test_such_collections_are_not_made(shared_engine: Engine, settings: Any) -> None:
    collection = CollectionName("default_keyspace", "never_made")
    with pytest.raises(DataAPIError, match=next(iter(settings))) as caught:
        shared_engine.create_collection(collection, settings)
    assert caught.value.code == "INVALID_CREATE_COLLECTION_OPTIONS"
    assert "never_made" not in shared_engine.collections("default_keyspace")


def test_a_table_that_is_no_collection_is_left_alone(shared_engine: Engine, cql: Any, url: str) -> None:
    cql("CREATE TABLE IF NOT EXISTS default_keyspace.someones (a int PRIMARY KEY) WITH comment = '{\"a\": 1}'")
    table = CollectionName("default_keyspace", "someones")
    for call in (
        lambda: shared_engine.read(table, ["a"]),
        lambda: shared_engine.write(table, [("a", b'{"_id":"a"}')]),
        lambda: shared_engine.create_collection(table, {"indexing": {"allow": ["_id"]}}),
        lambda: shared_engine.drop_collection(table),
        lambda: KVStore("someones", url),
        lambda: KVStore("someones", url, pre_delete_collection=True),
    ):
        with pytest.raises(DataAPIError, match="someones") as caught:
            call()
        assert caught.value.code == "EXISTING_TABLE_NOT_DATA_API_COLLECTION"
    assert "someones" not in shared_engine.collections("default_keyspace")
    assert cql("SELECT * FROM default_keyspace.someones") == []


def test_a_table_that_only_says_it_is_a_collection_is_refused(shared_engine: Engine, cql: Any) -> None:
    table = CollectionName("default_keyspace", "pretends")
    comment = SCHEMA["rows_deny_all"]["comment"]
    cql(f"CREATE TABLE IF NOT EXISTS default_keyspace.pretends (key text PRIMARY KEY) WITH comment = '{comment}'")
    with pytest.raises(DataAPIError, match="tx_id") as caught:
        shared_engine.read(table, ["a"])
    assert caught.value.code == "CORRUPTED_COLLECTION_SCHEMA"
