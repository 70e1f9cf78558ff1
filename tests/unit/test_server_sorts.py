"""Sorts and going through collections: orders, limits, memory, and room for other requests."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from answered import Send, codes
from bodies import row
from langchain_kv.engines.base import CollectionName, DocId, Engine
from langchain_kv.engines.indexing import Indexing
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.limits import SORT_MAX_ROWS
from langchain_kv.server.commands import reads
from langchain_kv.server.commands.requests import Collection
from langchain_kv.server.commands.table import answer
from langchain_kv.server.query import searching
from langchain_kv.server.query.matching import MISSING
from langchain_kv.server.query.ordering import sort_key, value_key
from langchain_kv.server.query.sorting import Picker, parse_sort

ANY = CollectionName("default_keyspace", "any")
KV = CollectionName("default_keyspace", "kv")


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine: Engine = (
        MemoryEngine() if request.param == "memory" else SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    )
    engine.create_collection(ANY, {})
    engine.create_collection(KV, {"indexing": {"allow": ["_id"]}})
    yield engine
    engine.close()


async def asend(engine: Engine, command: Any, collection: CollectionName = ANY) -> Any:
    _, reply = await answer(engine, tuple(collection), json.dumps(command).encode())
    return json.loads(reply)


@pytest.fixture
def send(engine: Engine) -> Send:
    return lambda command, collection=ANY: asyncio.run(asend(engine, command, collection))


def plant(engine: Engine, documents: Sequence[dict[str, Any]], collection: CollectionName = ANY) -> None:
    engine.write(collection, [row(one["_id"], json.dumps(one).encode()) for one in documents])


def ids(reply: Any) -> list[Any]:
    return [document["_id"] for document in reply["data"]["documents"]]


# -- orders -----------------------------------------------------------------------------------------------------------


def test_types_have_an_order_and_missing_comes_first() -> None:
    values = [MISSING, None, -5, Decimal("2.5"), 3, "", "A", "a", False, True, {"$date": 0}, {"$date": 1}]
    shuffled = random.Random(5).sample(values, len(values))
    assert sorted(shuffled, key=sort_key) == values


def test_texts_are_ordered_by_utf16_units() -> None:
    assert sorted(["\uffff", "\U0001f600", "z"], key=sort_key) == ["z", "\U0001f600", "\uffff"]
    assert sorted(["\uffff", "\U0001f600", "z"], key=value_key) == ["z", "\U0001f600", "\uffff"]


def test_updates_compare_objects_and_arrays_part_by_part() -> None:
    values = [None, 7, "x", {}, {"a": 1}, {"a": 1, "b": 0}, {"a": 2}, {"b": 0}, [], [1], [1, 0], [2], False, True]
    shuffled = random.Random(6).sample(values, len(values))
    assert sorted(shuffled, key=value_key) == values


def test_several_fields_and_directions(send: Send, engine: Engine) -> None:
    rng = random.Random(7)
    documents = [{"_id": f"k{n:02}", "a": rng.randrange(3), "b": rng.randrange(3)} for n in range(40)]
    plant(engine, documents)
    expected = sorted(documents, key=lambda one: (-one["a"], one["b"], one["_id"]))
    reply = send({"find": {"sort": {"a": -1, "b": 1}}})
    assert reply["data"] == {"documents": expected, "nextPageState": None}
    for skip, limit in ((0, 5), (5, 5), (38, 5), (40, 5), (2**31 - 1, 1)):
        reply = send({"find": {"sort": {"a": -1, "b": 1}, "options": {"skip": skip, "limit": limit}}})
        assert reply["data"]["documents"] == expected[skip : skip + limit]


def test_equals_come_in_the_order_of_ids_also_when_descending(send: Send) -> None:
    text_like = {"$uuid": "a0000000-0000-0000-0000-000000000000"}
    expected = [None, 2, 10, "a", text_like, "b", {"$date": 3}, True]
    shuffled = random.Random(9).sample(expected, len(expected))
    send({"insertMany": {"documents": [{"_id": one, "n": 1} for one in shuffled]}})
    for direction in (1, -1):
        assert ids(send({"find": {"sort": {"n": direction}}})) == expected


def test_a_sort_by_id_works_where_only_the_id_is_indexed(send: Send, engine: Engine) -> None:
    plant(engine, [{"_id": f"k{n}", "value": n} for n in range(5)], KV)
    assert ids(send({"find": {"sort": {"_id": -1}}}, KV)) == ["k4", "k3", "k2", "k1", "k0"]
    assert codes(send({"find": {"sort": {"value": 1}}}, KV)) == ["SORT_CLAUSE_PATH_UNINDEXED"]


def test_a_sort_applies_to_what_an_in_names(send: Send, engine: Engine) -> None:
    plant(engine, [{"_id": f"k{n}", "n": -n} for n in range(5)])
    command = {"filter": {"_id": {"$in": ["k1", "k3", "nope", "k2"]}}, "sort": {"n": 1}}
    assert ids(send({"find": command})) == ["k3", "k2", "k1"]
    assert send({"findOne": command})["data"]["document"]["_id"] == "k3"


@pytest.mark.parametrize(
    ("sort", "code"),
    [
        ([], "SORT_CLAUSE_INVALID"),
        ("a", "SORT_CLAUSE_INVALID"),
        ({"a": 0}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"a": True}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"a": 1.0}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"a": "asc"}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"a": [1]}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"": 1}, "SORT_CLAUSE_PATH_INVALID"),
        ({"$a": 1}, "SORT_CLAUSE_PATH_INVALID"),
        ({"a&b": 1}, "SORT_CLAUSE_PATH_INVALID"),
        ({"$vector": [1]}, "VECTOR_SEARCH_NOT_SUPPORTED"),
        ({"$vector": "x"}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"$vectorize": "x"}, "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        ({"$vectorize": " "}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"$vectorize": [1]}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"$vectorize": "x", "a": 1}, "SORT_CLAUSE_INVALID"),
        ({"$vector": [1], "a": 1}, "SORT_CLAUSE_INVALID"),
        ({"$lexical": "x"}, "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
    ],
)
def test_bad_sorts_are_refused_by_every_command_that_has_one(send: Send, sort: Any, code: str) -> None:
    for command, fields in (
        ("find", {}),
        ("findOne", {}),
        ("updateOne", {"update": {}}),
        ("findOneAndUpdate", {"update": {}}),
        ("findOneAndReplace", {"replacement": {}}),
        ("findOneAndDelete", {}),
        ("deleteOne", {"filter": {}}),
    ):
        assert codes(send({command: {"sort": sort, **fields}})) == [code]


def test_a_sorted_result_has_one_page(send: Send, engine: Engine) -> None:
    plant(engine, [{"_id": f"k{n:03}"} for n in range(120)])
    state = send({"find": {}})["data"]["nextPageState"]
    for limit in ({}, {"limit": 100}):
        reply = send({"find": {"sort": {"_id": -1}, "options": limit}})
        assert ids(reply) == [f"k{n:03}" for n in range(119, 69, -1)]
        assert reply["data"]["nextPageState"] is None
    for given in (state, "of another server"):
        reply = send({"find": {"sort": {"_id": 1}, "options": {"pageState": given}}})
        assert codes(reply) == ["SORT_CLAUSE_INVALID"]
    assert ids(send({"find": {"sort": {}, "options": {"pageState": state, "limit": 52}}})) == ["k050", "k051"]


def test_skip_needs_the_field_sort_even_if_it_is_empty(send: Send, engine: Engine) -> None:
    plant(engine, [{"_id": "a"}])
    assert codes(send({"find": {"options": {"skip": 1}}})) == ["COMMAND_FIELD_VALUE_INVALID"]
    assert ids(send({"find": {"sort": {}, "options": {"skip": 1}}})) == ["a"]
    assert codes(send({"find": {"sort": {"a": 1}, "options": {"skip": -1}}})) == ["COMMAND_FIELD_VALUE_INVALID"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [SORT_MAX_ROWS - 1, SORT_MAX_ROWS])
def test_too_many_rows_are_refused_and_one_fewer_are_not(send: Send, engine: Engine, count: int) -> None:
    plant(engine, [{"_id": f"k{n:05}", "n": -n} for n in range(count)])
    is_refused = count == SORT_MAX_ROWS
    reply = send({"find": {"sort": {"n": 1}, "options": {"limit": 1}}})
    assert (codes(reply) == ["OVERLOADED_SORT_ROW_LIMIT"]) if is_refused else (ids(reply) == [f"k{count - 1:05}"])
    reply = send({"findOneAndDelete": {"sort": {"n": 1}}})
    assert ("errors" in reply) is is_refused
    reply = send({"find": {"filter": {"n": {"$gt": -3}}, "sort": {"n": 1}}})
    assert ids(reply) == ["k00002", "k00001", "k00000"]


def test_a_pick_keeps_no_more_than_it_needs() -> None:
    sort = parse_sort({"n": 1}, Collection(ANY, {}, Indexing({})))
    assert sort is not None
    picker = Picker(sort, 3)
    order = random.Random(8).sample(range(9_000), 9_000)
    most = 0
    for n in order:
        picker.add(f"k{n}", b'{"_id":"k%d","n":%d}' % (n, n))
        most = max(most, len(picker._kept))
    assert picker.picked() == ["k0", "k1", "k2"]
    assert most < 200


# -- going through a collection --------------------------------------------------------------------------------------


def test_a_find_by_id_is_at_most_one_hop_to_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(engine, [{"_id": "a"}])
    bridge, hops = engine.bridge, []
    read = bridge.read

    async def counted(call: Any, /, *args: Any, **kwargs: Any) -> Any:
        hops.append(call)
        return await read(call, *args, **kwargs)

    monkeypatch.setattr(bridge, "read", counted)
    for command in (
        {"find": {"filter": {"_id": "a"}}},
        {"find": {"filter": {"_id": {"$in": ["a", "b"]}}}},
        {"findOne": {"filter": {"_id": "a"}}},
        {"findOne": {}},
        {"find": {"options": {"limit": 1}}},
        {"countDocuments": {"filter": {"_id": "a"}}},
    ):
        hops.clear()
        assert "errors" not in asyncio.run(asend(engine, command))
        assert len(hops) <= 1, command  # none where a short read is done at once


async def test_a_long_scan_lets_other_requests_pass(engine: Engine) -> None:
    plant(engine, [{"_id": f"k{n:05}", "n": n} for n in range(5_000)])
    long = asyncio.ensure_future(asend(engine, {"find": {"filter": {"n": -1}}}))
    passed = 0
    while not long.done():
        assert (await asend(engine, {"findOne": {"filter": {"_id": "k00001"}}}))["data"]["document"]["n"] == 1
        passed += 1
        await asyncio.sleep(0)
    assert (await long)["data"]["documents"] == []
    assert passed >= 5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["find", "count", "sort"])
def test_going_through_a_collection_does_not_load_it(tmp_path: Path, command: str) -> None:
    engine = SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    engine.create_collection(ANY, {"indexing": {"allow": ["n"]}})
    for start in range(0, 500, 50):
        plant(engine, [{"_id": f"k{n:03}", "n": n, "text": "x" * 100_000} for n in range(start, start + 50)])
    send = {
        "find": {"find": {"filter": {"n": -1}}},
        "count": {"countDocuments": {"filter": {"n": {"$gte": 0}}}},
        "sort": {"find": {"sort": {"n": -1}, "options": {"limit": 2}}},
    }[command]
    asyncio.run(asend(engine, send))
    tracemalloc.start()
    reply = asyncio.run(asend(engine, send))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    engine.close()
    assert "errors" not in reply
    assert peak < 8 * 1024 * 1024  # of 50 MB


def test_documents_that_go_while_they_are_sorted_are_left_out(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(engine, [{"_id": f"k{n}", "n": n} for n in range(3)])
    read = engine.read

    def steal(collection: CollectionName, wanted: Sequence[DocId]) -> Any:
        engine.delete(collection, ["k0"])
        return read(collection, wanted)

    monkeypatch.setattr(engine, "read", steal)
    assert ids(send({"find": {"sort": {"n": 1}}})) == ["k1", "k2"]


def test_a_sorted_write_that_lost_its_document_takes_the_next(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(engine, [{"_id": f"k{n}", "n": n} for n in range(3)])
    read = engine.read

    def steal(collection: CollectionName, wanted: Sequence[DocId]) -> Any:
        engine.delete(collection, ["k0"])
        return read(collection, wanted)

    monkeypatch.setattr(engine, "read", steal)
    assert send({"findOneAndDelete": {"sort": {"n": 1}}})["data"]["document"]["_id"] == "k1"


# -- large documents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 7, 12, 100])
def test_a_page_of_large_documents_ends_by_its_bytes(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(searching, "REPLY_BYTES", 10_000)
    monkeypatch.setattr(reads, "REPLY_BYTES", 10_000)
    plant(engine, [{"_id": f"k{n:02}", "text": "x" * 2_400} for n in range(12)])
    options: dict[str, Any] = {} if limit is None else {"limit": limit}
    found: list[list[str]] = []
    while True:
        reply = send({"find": {"options": options}})
        found.append(ids(reply))
        options["pageState"] = reply["data"]["nextPageState"]
        if options["pageState"] is None:
            break
    assert [one for page in found for one in page] == [f"k{n:02}" for n in range(limit or 12)][:12]
    assert max(map(len, found)) == 5


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"a": None}, ["null"]),
        ({"a": {"$in": [None]}}, ["array", "null"]),
        ({"a": {"$ne": None}}, ["array", "five", "missing", "text"]),
        ({"a": {"$gt": 4}}, ["five"]),
        ({"$not": {"a": {"$gt": 5}}}, ["five"]),
        ({"$not": {"$not": {"a": {"$gt": 4}}}}, ["five"]),
        ({"$not": {"a": 5}}, ["array", "missing", "null", "text"]),
        ({"$not": {"$or": [{"a": 5}, {"a": "5"}]}}, ["array", "missing", "null"]),
        ({"$not": {"$and": [{"a": 5}, {"_x": {"$exists": False}}]}}, ["array", "missing", "null", "text"]),
        ({"a.0": None}, ["array"]),
        ({"a": {"$all": [None, None]}}, ["array", "null"]),
        ({"a": {"$all": [True]}}, []),
        ({f"a.{'9' * 5_000}": 1}, []),
    ],
)
def test_null_and_negation_in_filters(send: Send, engine: Engine, condition: Any, expected: list[str]) -> None:
    plant(engine, [{"_id": "null", "a": None}, {"_id": "array", "a": [None]}, {"_id": "missing"}])
    plant(engine, [{"_id": "five", "a": 5}, {"_id": "text", "a": "5"}])
    assert ids(send({"find": {"filter": condition}})) == expected
    assert send({"countDocuments": {"filter": condition}})["status"] == {"count": len(expected)}
