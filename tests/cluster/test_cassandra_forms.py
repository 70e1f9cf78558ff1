"""Collections that index more than ids, by CQL: which rows a namespace's listing reads, and that both doors agree."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from langgraph.store.base import PutOp

from agents.test_by_meaning import index
from cassandra_node import Node
from conformance.replay import TOKEN
from langchain_kv import CollectionConflictError, KVStore, LangGraphStore
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.cassandra import scan
from langchain_kv.engines.cassandra.shredding import containing
from langchain_kv.server.http.running import run_in_thread
from langchain_kv.values.namespaces import namespace_prefix

from .conftest import new_collection
from .test_cassandra_rows import COLUMNS, as_recorded

pytestmark = pytest.mark.slow

ROWS, NAMESPACES = 4_000, 40
NAMESPACED = {"indexing": {"allow": ["_id", "ns"]}}


@pytest.fixture(scope="module")
def url(cassandra_node: Node) -> str:
    return cassandra_node.url("default_keyspace")


@pytest.fixture(scope="module")
def filled(shared_engine: Engine, url: str) -> Iterator[KVStore]:
    """A namespaced collection of many rows in as many namespaces."""
    collection = new_collection(shared_engine, NAMESPACED)
    with KVStore(collection.name, url, namespaced=True) as store:
        for number in range(NAMESPACES):
            store.namespace("n", str(number)).mset([(f"k{key}", key) for key in range(ROWS // NAMESPACES)])
        store.mset([("in none", 1)])
        yield store
    shared_engine.drop_collection(collection)


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows that each statement of a scan answered."""
    counts: list[int] = []
    reading = scan.reading

    async def counted(*arguments: Any) -> Any:
        answers = await reading(*arguments)
        counts.extend(map(len, answers))
        return answers

    monkeypatch.setattr(scan, "reading", counted)
    return counts


def check_that_only_it_was_read(rows_read: list[int], size: int) -> None:
    # A statement that goes on behind a row reads that row again.
    assert size <= sum(rows_read) <= size + len(rows_read)
    rows_read.clear()


def test_listing_a_namespace_reads_its_rows_and_no_others(filled: KVStore, rows_read: list[int]) -> None:
    one = filled.namespace("n", "7")
    size = ROWS // NAMESPACES
    assert sorted(one.yield_keys()) == sorted(f"k{key}" for key in range(size))
    check_that_only_it_was_read(rows_read, size)
    assert dict(one.yield_items()) == {f"k{key}": key for key in range(size)}
    check_that_only_it_was_read(rows_read, size)
    assert one.count() == size
    check_that_only_it_was_read(rows_read, size)
    assert len(filled.namespaces(prefix=("n",))) == NAMESPACES
    check_that_only_it_was_read(rows_read, ROWS)
    assert filled.namespace("none").count() == 0
    check_that_only_it_was_read(rows_read, 0)


async def test_so_it_is_in_coroutines(filled: KVStore, rows_read: list[int]) -> None:
    one = filled.namespace("n", "8")
    assert len([key async for key in one.ayield_keys()]) == ROWS // NAMESPACES
    check_that_only_it_was_read(rows_read, ROWS // NAMESPACES)
    await asyncio.gather(*(filled.namespace("n", str(number)).acount() for number in range(4)))
    check_that_only_it_was_read(rows_read, 4 * ROWS // NAMESPACES)


def test_the_node_goes_by_the_index(filled: KVStore, shared_engine: Any) -> None:
    session = shared_engine._connected()._session
    select = session.prepare(
        f'SELECT key FROM default_keyspace."{filled.collection.name}" WHERE array_contains CONTAINS ?'
    )
    answer = session.execute(select, (containing("ns", namespace_prefix(("n", "9"))),), trace=True)
    size = ROWS // NAMESPACES
    assert len(answer.all()) == size
    told = [event.description for event in answer.get_query_trace(max_wait_sec=30).events]
    assert any(text.startswith(f"Read {size} live rows") for text in told)


def test_by_http_too_only_its_rows_are_read(filled: KVStore, shared_engine: Any, rows_read: list[int]) -> None:
    size = ROWS // NAMESPACES
    with (
        run_in_thread(shared_engine.rows, TOKEN) as http,
        KVStore(filled.collection.name, http, token=TOKEN, namespaced=True) as store,
    ):
        assert sorted(store.namespace("n", "7").yield_keys()) == sorted(f"k{key}" for key in range(size))
        # Pages of 50 are sent, and begin anew behind their last document: what was read beyond it is read again.
        assert size <= sum(rows_read) <= 3 * size
        rows_read.clear()
        assert store.namespace("none").count() == 0
        assert sum(rows_read) == 0


def test_clearing_a_namespace_reads_its_rows_and_leaves_the_others(
    shared_engine: Engine, url: str, rows_read: list[int]
) -> None:
    collection = new_collection(shared_engine, NAMESPACED)
    with KVStore(collection.name, url, namespaced=True) as store:
        for label in ("a", "ab", "b"):
            store.namespace(label).mset([(f"k{key}", key) for key in range(150)])
        rows_read.clear()
        store.namespace("a").clear()
        check_that_only_it_was_read(rows_read, 150)
        assert [store.namespace(label).count() for label in ("a", "ab", "b")] == [0, 150, 150]
    shared_engine.drop_collection(collection)


def test_both_doors_list_count_and_clear_alike(shared_engine: Any, url: str) -> None:
    collection = new_collection(shared_engine, NAMESPACED)
    with (
        run_in_thread(shared_engine.rows, TOKEN) as http,
        KVStore(collection.name, url, namespaced=True) as by_cql,
        KVStore(collection.name, http, token=TOKEN, namespaced=True) as by_http,
    ):
        for store, label in ((by_cql, "c"), (by_http, "h")):
            store.namespace("both").mset([(f"{label}{key}", key) for key in range(60)])
            store.namespace("both", label).mset([("k", label)])
            store.namespace(f"other {label}").mset([("k", 1)])
        for one, other in ((by_cql, by_http), (by_http, by_cql)):
            for labels in ((), ("both",), ("both", "c"), ("both", "h"), ("none",)):
                here, there = (store.namespace(*labels) if labels else store for store in (one, other))
                assert sorted(here.yield_items()) == sorted(there.yield_items())
                assert here.namespaces() == there.namespaces()
                assert here.count() == there.count()
        by_cql.namespace("both", "h").clear()
        by_http.namespace("both", "c").clear()
        assert by_cql.namespaces() == by_http.namespaces() == [("both",), ("other c",), ("other h",)]
        assert by_cql.namespace("both").count() == by_http.namespace("both").count() == 120
    shared_engine.drop_collection(collection)


@pytest.mark.parametrize("made_by", ["cql", "http"])
def test_a_collection_is_opened_by_either_door_as_it_was_made(shared_engine: Any, url: str, made_by: str) -> None:
    name = f"form_{uuid.uuid4().hex[:12]}"
    with run_in_thread(shared_engine.rows, TOKEN) as http:
        doors = {"cql": {"url": url}, "http": {"url": http, "token": TOKEN}}
        with KVStore(name, **doors[made_by], namespaced=True, atomic=True) as store:  # type: ignore[arg-type]
            store.namespace("a").mset([("k", 1)])
        for door in doors.values():
            with pytest.raises(CollectionConflictError, match="namespaced=True, atomic=True"):
                KVStore(name, **door)  # type: ignore[arg-type]
            with KVStore(name, **door, namespaced=True, atomic=True) as store:  # type: ignore[arg-type]
                assert store.namespace("a").update("k", lambda old: old + 1) in (2, 3)
    shared_engine.drop_collection(CollectionName("default_keyspace", name))


def test_memories_that_are_put_by_cql_are_found_by_their_vectors_over_http(
    shared_engine: Any, url: str, cql: Any
) -> None:
    name = f"form_{uuid.uuid4().hex[:12]}"
    namespace = ("notes",)
    with (
        run_in_thread(shared_engine.rows, TOKEN) as http,
        LangGraphStore(http, collection=name, token=TOKEN, index=index()) as by_http,  # type: ignore[arg-type]
        LangGraphStore(url, collection=name, index=index()) as by_cql,  # type: ignore[arg-type]
        LangGraphStore(url, collection=name, index=index(), setup_mode="OFF") as late,  # type: ignore[arg-type]
    ):
        late.put(namespace, "late", {"text": "zebras"})
        by_cql.batch([PutOp(namespace, f"k{n}", {"text": "pizza" + "a" * n}) for n in range(60)])
        by_cql.put(namespace, "k0", {"text": "zebra"})
        by_cql.put(namespace, "zero", {"text": "123"})
        for store in (by_http, by_cql):
            found = store.search(namespace, query="zebra", limit=3)
            assert [item.key for item in found] == ["k0", "late", "k2"]
            assert [item.score for item in found][:2] == pytest.approx([1.0, 5 / math.sqrt(30)])
        rows = cql(f'SELECT key, query_vector_value FROM default_keyspace."{name}"')
        assert [key[1].partition("\x1e")[2] for key, vector in rows if vector is None] == ["zero"]
        by_http.put(namespace, "k0", {"text": "zebra"}, index=False)
        assert by_cql.search(namespace, query="zebra", limit=1)[0].key == "late"
    shared_engine.drop_collection(CollectionName("default_keyspace", name))


# -- rows -------------------------------------------------------------------------------------------------------------

DOCUMENT = (
    '{"_id":"a","name":"Ann","tags":["x","y","x"],"n":{"a.b":1.5,"deep":{"&":[true,null,{"k":1E+2}]}},"none":null,'
    '"at":{"$date":1700000000000},"id":{"$uuid":"F3B6D2A0-0000-4000-8000-000000000001"},"long":"0123456789012345678901"}'
)
ALL = {
    "array_contains": {
        *("name SAnn", "tags Sx", "tags Sy", "tags.0 Sx", "tags.1 Sy", "tags.2 Sx"),
        *("n.a&.b N1.5", "n.deep.&& B1", "n.deep.&& Z", "n.deep.&& O1\nk\nN100", "n.deep.&&.0 B1", "n.deep.&&.1 Z"),
        *("n.deep.&&.2.k N100", "none Z", "at T1700000000000"),
        # printf %s S0123456789012345678901 | openssl md5 -binary | base64
        "long AlEWQb1EowQhZDRIZuDcXA",
        "id k6wUdDySlRuIrHcDZf4v/g",
    },
}


@pytest.mark.parametrize("how", ["write", "insert", "replace"])
def test_what_is_indexed_is_in_the_filter_columns(shared_engine: Any, cql: Any, how: str) -> None:
    for indexing in ({}, {"allow": ["*"]}, {"deny": ["tags", "n", "long"]}, {"allow": ["tags", "n.deep"]}):
        collection = new_collection(shared_engine, {"indexing": indexing} if indexing else {})
        if how == "replace":
            shared_engine.write(collection, [("a", b'{"_id":"a","tags":"none","gone":[1]}')])
        if how == "write":
            shared_engine.write(collection, [("a", DOCUMENT.encode())])
        else:
            shared_engine.modify(collection, ["a"], lambda doc_id, _: DOCUMENT.encode())
        (row,) = cql(f'SELECT {", ".join(COLUMNS)} FROM "{collection.keyspace}"."{collection.name}"')
        found = dict(zip(COLUMNS, map(as_recorded, row), strict=True))
        check_columns(found, indexing)
        shared_engine.drop_collection(collection)


def check_columns(found: dict[str, Any], indexing: Any) -> None:
    contained, existing = set(found["array_contains"]), set(found["exist_keys"])
    if indexing == {"allow": ["tags", "n.deep"]}:
        assert contained == {entry for entry in ALL["array_contains"] if entry.startswith(("tags", "n.deep"))}
        assert existing >= {"tags", "tags.2", "n", "n.deep", "n.deep.&&.2.k"}
        assert not existing & {"_id", "name", "n.a&.b"}
        assert set(found["query_text_values"]) == {"tags", "tags.0", "tags.1", "tags.2", "n", "n.deep"} | {
            "n.deep.&&",
            "n.deep.&&.2",
        }
        return
    if "deny" in indexing:
        assert contained == {entry for entry in ALL["array_contains"] if not entry.startswith(("tags", "n.", "long"))}
        assert existing == {"_id", "name", "none", "at", "id"}
        return
    assert contained == ALL["array_contains"]
    assert found["array_size"] == {"tags": 3, "n.deep.&&": 3}
    assert found["query_bool_values"] == {"n.deep.&&.0": 1}
    assert found["query_dbl_values"] == {"n.a&.b": "1.5", "n.deep.&&.2.k": "1E+2"}
    assert found["query_timestamp_values"] == {"at": "2023-11-14 22:13:20"}
    assert sorted(found["query_null_values"]) == ["n.deep.&&.1", "none"]
    texts = found["query_text_values"]
    plain = {"_id": "a", "name": "Ann", "tags.0": "x", "tags.1": "y", "tags.2": "x", "long": "0123456789012345678901"}
    of_short = {"tags": "A3\nSx\nSy\nSx", "n.deep.&&.2": "O1\nk\nN100", "id": "f3b6d2a0-0000-4000-8000-000000000001"}
    of_short |= {"n.deep.&&": "A3\nB1\nZ\nO1\nk\nN100"}
    assert {path: texts[path] for path in plain | of_short} == plain | of_short
    assert texts["n.deep"] == "h4LxAyXHITYvhSm9G1IzNg"  # of 22 characters, "O1\n&\nA3\nB1\nZ\nO1\nk\nN100"
    assert texts.keys() == plain.keys() | of_short.keys() | {"n", "n.deep"}


def test_a_store_by_http_writes_the_rows_that_one_by_cql_writes(shared_engine: Any, cql: Any, url: str) -> None:
    collections = [new_collection(shared_engine, NAMESPACED) for _ in range(2)]
    with run_in_thread(shared_engine.rows, TOKEN) as http:
        doors = ({"url": url}, {"url": http, "token": TOKEN})
        for collection, door in zip(collections, doors, strict=True):
            with closing(KVStore(collection.name, **door, namespaced=True)) as store:  # type: ignore[arg-type]
                store.namespace("a", "long label " * 9).mset([("k", [1.5, {"ns": ["x"]}])], ttl_s=10_000)
                store.namespace("a").add([("l", None)])
                store.mset([("plain", "text"), ("ns", {"a": 1})])
    one, other = ({tuple(row[0]): row[1:] for row in cql(_select(collection))} for collection in collections)
    assert len(one) == 4
    assert one == other
    for collection in collections:
        shared_engine.drop_collection(collection)


def _select(collection: CollectionName) -> str:
    columns = [name for name in COLUMNS if name not in ("tx_id", "key", "doc_json")]
    return f'SELECT key, {", ".join(columns)} FROM "{collection.keyspace}"."{collection.name}"'
