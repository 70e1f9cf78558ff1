"""Vectors in the local server: what is kept, found, sent and refused, in memory and in a file."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import random
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest

from answered import Send, codes
from langchain_kv import KVStore, SetupMode
from langchain_kv.engines import vectors
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite import vectors as sqlite_vectors
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.engines.vectors import packed, spelled, vector_of
from langchain_kv.server.commands import admin
from langchain_kv.server.commands.table import answer

COLLECTION = CollectionName("default_keyspace", "v")
OF_FORMS = ("SHRED_BAD_DOCUMENT_VECTOR_TYPE", "SHRED_BAD_BINARY_VECTOR_VALUE")
SETTINGS = {"vector": {"dimension": 3, "metric": "cosine", "sourceModel": "other"}}


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine: Engine = (
        MemoryEngine() if request.param == "memory" else SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    )
    engine.create_collection(COLLECTION, SETTINGS)
    yield engine
    engine.close()


async def asend(engine: Engine, command: Any, path: tuple[str, ...] = COLLECTION) -> Any:
    _, reply = await answer(engine, tuple(path), json.dumps(command).encode())
    return json.loads(reply)


@pytest.fixture
def send(engine: Engine) -> Send:
    return lambda command, path=COLLECTION: asyncio.run(asend(engine, command, path))


def insert(send: Send, **of_ids: Any) -> None:
    documents = [{"_id": one, "$vector": vector} for one, vector in of_ids.items()]
    assert send({"insertMany": {"documents": documents}})["status"]["insertedIds"] == list(of_ids)


def nearest(send: Send, vector: Any, **fields: Any) -> list[str]:
    found = send({"find": {"sort": {"$vector": vector}, **fields}})
    assert "errors" not in found
    return [document["_id"] for document in found["data"]["documents"]]


def binary(*numbers: float) -> dict[str, str]:
    return {"$binary": base64.b64encode(struct.pack(f">{len(numbers)}f", *numbers)).decode()}


# -- what is kept and sent --------------------------------------------------------------------------------------------


def test_a_vector_is_sent_only_where_it_is_asked_for_and_as_it_came(send: Send) -> None:
    insert(send, a=[0.1, 2, 3e-3], b=binary(1, 2, 3), c=None)
    assert send({"find": {}})["data"]["documents"] == [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}]
    for projection in ({"$vector": 1}, {"*": 1}, {"$vector": True, "nothing": 0}):
        documents = send({"find": {"projection": projection}})["data"]["documents"]
        assert [one["$vector"] for one in documents] == [[0.1, 2, 0.003], binary(1, 2, 3), None]
    assert send({"findOne": {"projection": {"_id": 1, "x": 1}}})["data"]["document"] == {"_id": "a"}
    assert send({"findOne": {"projection": {"x": 1, "$vector": 1}}})["data"]["document"].keys() == {"_id", "$vector"}


def test_the_most_similar_come_first_and_those_without_a_vector_not_at_all(send: Send) -> None:
    insert(send, far=[0, 0, 1], near=binary(1, 0.1, 0), none=None, between=[1, 0, 1])
    send({"insertOne": {"document": {"_id": "bare"}}})
    assert nearest(send, [1, 0, 0]) == ["near", "between", "far"]
    assert nearest(send, binary(0, 0, 1), options={"limit": 2}) == ["far", "between"]
    assert nearest(send, [1, 0, 0], filter={"_id": {"$in": ["far", "none", "between", "lost"]}}) == ["between", "far"]
    assert nearest(send, [1, 0, 0], filter={"_id": "bare"}) == []


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("cosine", (1 + 0.8) / 2), ("dot_product", (1 + 8) / 2), ("euclidean", 1 / (1 + 5))],
)
def test_similarity_is_what_the_data_api_tells(send: Send, metric: str, expected: float) -> None:
    options = {"vector": {"dimension": 2, "metric": metric}}
    send({"createCollection": {"name": "m", "options": options}}, COLLECTION[:1])
    path = ("default_keyspace", "m")
    send({"insertOne": {"document": {"_id": "a", "$vector": [4, 3]}}}, path)
    command = {"sort": {"$vector": [2, 0] if metric != "euclidean" else [2, 2]}, "options": {"includeSimilarity": True}}
    found = send({"findOne": command}, path)["data"]["document"]
    assert found == {"_id": "a", "$similarity": pytest.approx(expected, rel=1e-6)}
    assert send({"find": command}, path)["data"]["documents"] == [found]


def test_a_float32_is_spelled_in_the_fewest_digits_that_tell_it() -> None:
    rng = random.Random(1)
    numbers = [0.51004946, 0.1, 1.0, 0.0, 1e-30, 3.4e38, *(rng.random() for _ in range(1_000))]
    for number in map(numpy.float32, numbers):
        assert spelled(float(number)) == repr(float(str(number)))


def test_the_vector_that_is_sorted_by_is_sent_back(send: Send) -> None:
    insert(send, a=[1, 0, 0])
    command = {"sort": {"$vector": [0.1, 0.25, 1]}, "options": {"includeSortVector": True}}
    assert send({"find": command})["status"] == {"sortVector": [0.1, 0.25, 1]}
    assert send({"findOne": command})["status"] == {"sortVector": [0.1, 0.25, 1]}


@pytest.mark.parametrize("sort", [{}, {"sort": {"n": 1}}, {"filter": {"_id": "a"}}, {"filter": {"_id": "none"}}])
def test_the_vector_of_a_search_by_none_is_null(send: Send, sort: Any) -> None:
    insert(send, a=[1, 0, 0])
    for command in ("find", "findOne"):
        found = send({command: {**sort, "options": {"includeSortVector": True}}})
        assert found["status"] == {"sortVector": None}
        assert "data" in found
        assert "status" not in send({command: {**sort, "options": {"includeSortVector": False}}})


def test_a_page_with_the_vector_of_its_search_is_the_only_one(send: Send) -> None:
    send({"insertMany": {"documents": [{} for _ in range(60)]}})
    assert send({"find": {}})["data"]["nextPageState"] is not None
    data = send({"find": {"options": {"includeSortVector": True}}})["data"]
    assert (len(data["documents"]), data["nextPageState"]) == (50, None)


def test_a_filter_finds_the_most_similar_of_those_that_match(send: Send) -> None:
    for start in range(0, 1_200, 100):
        documents = [{"_id": f"{n:04}", "n": n, "$vector": [1, n / 1_200, 0]} for n in range(start, start + 100)]
        assert "errors" not in send({"insertMany": {"documents": documents}})
    assert nearest(send, [1, 0, 0], filter={"n": {"$gte": 1_150}}, options={"limit": 3}) == ["1150", "1151", "1152"]
    assert len(nearest(send, [1, 0, 0])) == 1_000
    assert nearest(send, [1, 0, 0], filter={"n": 5}, options={"limit": 50}) == ["0005"]
    assert nearest(send, [1, 0, 0], filter={"n": -1}) == []


def test_a_filter_tells_whether_a_document_has_a_vector(send: Send) -> None:
    insert(send, a=[1, 0, 0], b=binary(0, 1, 0), none=None)
    send({"insertOne": {"document": {"_id": "bare"}}})
    with_vector = [
        (["a", "b"], {"$vector": {"$exists": True}}),
        (["bare", "none"], {"$vector": {"$exists": False}}),
        (["bare", "none"], {"$not": {"$vector": {"$exists": True}}}),
        (["b"], {"$and": [{"$vector": {"$exists": True}}, {"_id": {"$in": ["b", "bare"]}}]}),
        ([], {"$vectorize": {"$exists": True}}),
    ]
    for expected, condition in with_vector:
        found = send({"find": {"filter": condition}})["data"]["documents"]
        assert sorted(one["_id"] for one in found) == expected
    having = {"filter": {"$vector": {"$exists": True}}}
    assert nearest(send, [0, 1, 0], **having) == ["b", "a"]
    assert send({"countDocuments": having})["status"] == {"count": 2}
    assert send({"deleteOne": {**having, "sort": {"$vector": [0, 1, 0]}}})["status"] == {"deletedCount": 1}
    assert send({"findOne": {"filter": {"_id": "b"}}})["data"] == {"document": None}


@pytest.mark.parametrize(
    "condition",
    [{"$vector": [1, 0, 0]}, {"$vector": {"$eq": [1, 0, 0]}}, {"$vector": {"$in": [[1, 0, 0]]}}, {"$vector": 1}],
)
def test_a_filter_does_not_compare_a_vector(send: Send, condition: Any) -> None:
    (error,) = send({"find": {"filter": condition}})["errors"]
    assert error["errorCode"] == "FILTER_INVALID_EXPRESSION"
    assert "$exists" in error["message"]


@pytest.mark.parametrize(
    ("indexing", "is_indexed"), [({"allow": ["x"]}, True), ({"deny": ["x"]}, True), ({"deny": ["*"]}, False)]
)
def test_vectors_are_indexed_unless_nothing_is(send: Send, indexing: Any, is_indexed: bool) -> None:
    options = {"vector": {"dimension": 1}, "indexing": indexing}
    send({"createCollection": {"name": "i", "options": options}}, COLLECTION[:1])
    path = ("default_keyspace", "i")
    send({"insertOne": {"document": {"_id": "a", "$vector": [1]}}}, path)
    reply = send({"find": {"filter": {"$vector": {"$exists": True}}}}, path)
    if is_indexed:
        assert reply["data"]["documents"] == [{"_id": "a"}]
    else:
        assert codes(reply) == ["FILTER_PATH_UNINDEXED"]


def test_equals_come_in_the_order_of_their_ids_however_many_are_asked_for(send: Send) -> None:
    insert(send, **{f"k{n:02}": [0.3, 0.4, 0.5] for n in reversed(range(40))})
    for limit in (1, 7, 40, 100):
        assert nearest(send, [1, 1, 1], options={"limit": limit}) == [f"k{n:02}" for n in range(min(limit, 40))]


# -- changes ----------------------------------------------------------------------------------------------------------


def test_what_changes_a_document_changes_its_vector(send: Send) -> None:
    insert(send, a=[1, 0, 0], b=[0, 1, 0], c=[0, 0, 1])
    by_a, by_b = {"sort": {"$vector": [1, 0, 0]}}, {"sort": {"$vector": [0, 1, 0]}}
    send({"updateOne": {**by_a, "filter": {}, "update": {"$set": {"$vector": [0, 0.9, 0.1]}}}})
    assert nearest(send, [0, 1, 0.2]) == ["a", "b", "c"]
    replaced = send({"findOneAndReplace": {**by_b, "replacement": {"x": 1}, "options": {"returnDocument": "after"}}})
    assert replaced["data"]["document"] == {"_id": "b", "x": 1}
    assert nearest(send, [0, 1, 0]) == ["a", "c"]
    assert send({"deleteOne": {**by_b, "filter": {}}})["status"] == {"deletedCount": 1}
    updated = send({"findOneAndUpdate": {**by_b, "update": {"$unset": {"$vector": 1}}}})
    assert updated["data"]["document"] == {"_id": "c"}
    assert nearest(send, [0, 1, 0]) == []
    send({"updateMany": {"filter": {}, "update": {"$set": {"$vector": binary(1, 1, 1)}}}})
    assert nearest(send, [0, 1, 0]) == ["b", "c"]
    assert send({"findOneAndDelete": by_b})["data"]["document"] == {"_id": "b", "x": 1}
    send({"deleteMany": {"filter": {}}})
    assert nearest(send, [0, 1, 0]) == []


def test_an_upsert_keeps_the_vector_of_the_new_document(send: Send) -> None:
    update = {"$set": {"$vector": [1, 0, 0]}, "$setOnInsert": {"x": 1}}
    send({"updateOne": {"filter": {"_id": "a"}, "update": update, "options": {"upsert": True}}})
    assert nearest(send, [1, 0, 0]) == ["a"]


def test_a_store_that_overwrites_a_document_leaves_no_vector_behind(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with closing(SQLiteEngine(str(tmp_path / "kv.db"))) as engine:
        engine.create_collection(COLLECTION, {"indexing": {"allow": ["_id"]}, **SETTINGS})
        send: Send = lambda command, path=COLLECTION: asyncio.run(asend(engine, command, path))  # noqa: E731
        insert(send, a=[1, 0, 0], b=[0, 1, 0])
        with KVStore("v", url, setup_mode=SetupMode.OFF) as store:
            store.mset([("a", {"$note": 'a document\'s field may be called so: "$vector"'})])
            assert nearest(send, [1, 0, 0]) == ["b"]
            store.mdelete(["b"])
            assert nearest(send, [1, 0, 0]) == []


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("$vectorize", "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        ("$hybrid", "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
        ("$lexical", "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
    ],
)
def test_fields_that_need_a_service_are_refused(send: Send, field: str, code: str) -> None:
    assert codes(send({"insertOne": {"document": {"_id": "a", field: "text"}}})) == [code]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "code"),
    [
        ([], "SHRED_BAD_VECTOR_SIZE"),
        ([1, 2], "INVALID_VECTOR_LENGTH"),
        ([1, 2, 3, 4], "INVALID_VECTOR_LENGTH"),
        ([1, 2, "3"], "SHRED_BAD_VECTOR_VALUE"),
        ([1, 2, None], "SHRED_BAD_VECTOR_VALUE"),
        ([1, 2, True], "SHRED_BAD_VECTOR_VALUE"),
        ([1, 2, 1e300], "SHRED_BAD_VECTOR_VALUE"),
        ([1, 2, 10**90], "SHRED_BAD_VECTOR_VALUE"),
        ([0] * 4_097, "SHRED_DOC_LIMIT_VIOLATION"),
        ({"$binary": "AAAA"}, "SHRED_BAD_BINARY_VECTOR_VALUE"),
        ({"$binary": "?"}, "SHRED_BAD_BINARY_VECTOR_VALUE"),
        ({"$binary": 5}, "SHRED_BAD_BINARY_VECTOR_VALUE"),
        (binary(1, 2), "INVALID_VECTOR_LENGTH"),
        (binary(1, 2, float("nan")), "SHRED_BAD_BINARY_VECTOR_VALUE"),
        (binary(1, 2, float("inf")), "SHRED_BAD_BINARY_VECTOR_VALUE"),
        ({"$date": 1}, "SHRED_BAD_DOCUMENT_VECTOR_TYPE"),
        ({}, "SHRED_BAD_DOCUMENT_VECTOR_TYPE"),
    ],
)
def test_what_is_no_vector_of_the_collection_is_neither_kept_nor_searched_by(
    send: Send, vector: Any, code: str
) -> None:
    assert codes(send({"insertOne": {"document": {"_id": "a", "$vector": vector}}})) == [code]
    of_sort = "SORT_CLAUSE_VALUE_INVALID" if code in OF_FORMS else code
    assert codes(send({"find": {"sort": {"$vector": vector}}})) == [of_sort]
    insert(send, b=[1, 0, 0])
    update = {"filter": {"_id": "b"}, "update": {"$set": {"$vector": vector}}}
    assert codes(send({"updateOne": update})) == [code]
    assert nearest(send, [1, 0, 0]) == ["b"]


NOT_INDEXED = [
    ("cosine", [0, 0, 0]),
    ("cosine", [0.0, -0.0, 0]),
    ("cosine", [1e-6, -1e-6, 9e-7]),
    ("cosine", binary(0, 0, 0)),
    ("cosine", binary(1e-7, 0, -1e-7)),
    ("cosine", [1, 2, 1.1e17]),
    ("euclidean", [-1.1e17, 2, 3]),
    ("dot_product", binary(1, 2, 3e38)),
]


@pytest.mark.parametrize(("metric", "vector"), NOT_INDEXED)
def test_a_vector_that_no_index_takes_is_neither_kept_nor_searched_by(send: Send, metric: str, vector: Any) -> None:
    path = made(send, metric)
    documents = [{"_id": "a", "$vector": [1, 2, 3]}, {"_id": "bad", "$vector": vector}]
    reply = send({"insertMany": {"documents": documents}}, path)
    assert reply["status"] == {"insertedIds": ["a"]}
    (error,) = reply["errors"]
    assert (error["errorCode"], error["family"], error["scope"]) == ("INVALID_DATABASE_QUERY", "SERVER", "DATABASE")
    assert error["documentIds"] == ["bad"]
    setting, by_vector = {"update": {"$set": {"$vector": vector}}}, {"sort": {"$vector": vector}}
    upserting = {"filter": {"_id": "new"}, "options": {"upsert": True}}
    refused: list[Any] = [
        {"insertOne": {"document": {"$vector": vector}}},
        {"updateOne": {"filter": {"_id": "a"}, **setting}},
        {"updateMany": {"filter": {}, **setting}},
        {"findOneAndUpdate": {"filter": {}, **setting}},
        {"updateOne": {**upserting, "update": {"$setOnInsert": {"$vector": vector}}}},
        {"findOneAndReplace": {"filter": {}, "replacement": {"$vector": vector}}},
        {"find": by_vector},
        {"findOne": {"filter": {"_id": "a"}, **by_vector}},
        {"findOneAndDelete": by_vector},
        {"deleteOne": {"filter": {}, **by_vector}},
    ]
    assert [codes(send(command, path)) for command in refused] == [["INVALID_DATABASE_QUERY"]] * len(refused)
    kept = send({"find": {"projection": {"*": 1}}}, path)["data"]["documents"]
    assert kept == [{"_id": "a", "$vector": [1, 2, 3]}]


@pytest.mark.parametrize(
    ("metric", "vector"),
    [
        ("cosine", [0, 0, 1.1e-6]),
        ("cosine", [9e16, -9e16, 0]),
        ("euclidean", [0, 0, 0]),
        ("dot_product", binary(0, 0, 0)),
    ],
)
def test_a_vector_that_an_index_just_takes_is_kept_and_searched_by(send: Send, metric: str, vector: Any) -> None:
    path = made(send, metric)
    assert send({"insertOne": {"document": {"_id": "a", "$vector": vector}}}, path) == {
        "status": {"insertedIds": ["a"]}
    }
    assert send({"find": {"sort": {"$vector": vector}}}, path)["data"]["documents"] == [{"_id": "a"}]


def made(send: Send, metric: str) -> tuple[str, ...]:
    """Create a collection of vectors of three numbers; return its path."""
    options = {"vector": {"dimension": 3, "metric": metric}}
    assert send({"createCollection": {"name": "m", "options": options}}, COLLECTION[:1]) == {"status": {"ok": 1}}
    return (COLLECTION.keyspace, "m")


@pytest.mark.parametrize("vector", ["x", 5, True])
def test_what_has_not_the_form_of_a_vector_is_refused(send: Send, vector: Any) -> None:
    assert codes(send({"find": {"sort": {"$vector": vector}}})) == ["SORT_CLAUSE_VALUE_INVALID"]
    document = {"_id": "a", "$vector": vector}
    assert codes(send({"insertOne": {"document": document}})) == ["SHRED_BAD_DOCUMENT_VECTOR_TYPE"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sort": {"$vector": [1, 0, 0], "x": 1}}, "SORT_CLAUSE_INVALID"),
        ({"sort": {"$vectorize": "text"}}, "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        ({"sort": {"$vectorize": "text"}, "options": {"skip": 1}}, "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        ({"sort": {"$vectorize": "text"}, "options": {"limit": 1_001}}, "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        ({"sort": {"$vectorize": ""}}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"sort": {"$vectorize": 5}}, "SORT_CLAUSE_VALUE_INVALID"),
        ({"sort": {"$vector": [1, 0, 0]}, "options": {"skip": 1, "limit": 1_001}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"projection": {"$similarity": 1}}, "UNSUPPORTED_PROJECTION_PARAM"),
        ({"sort": {"$vector": [1, 0, 0]}, "options": {"skip": 1}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"sort": {"$vector": [1, 0, 0]}, "options": {"limit": 1_001}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"sort": {"$vector": [1, 0, 0]}, "options": {"pageState": "MTpzYQ"}}, "SORT_CLAUSE_INVALID"),
    ],
)
def test_searches_that_the_data_api_does_not_have_are_refused(send: Send, fields: Any, code: str) -> None:
    assert codes(send({"find": fields})) == [code]


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ({}, "INVALID_CREATE_COLLECTION_OPTIONS"),
        ([], "INVALID_CREATE_COLLECTION_OPTIONS"),
        ({"dimension": 0}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"dimension": "5"}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"dimension": 5, "metric": "manhattan"}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"dimension": 5, "metric": {}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"dimension": 5, "sourceModel": "mine"}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"dimension": 5, "other": 1}, "INVALID_CREATE_COLLECTION_FIELD"),
        ({"dimension": 4_097}, "VECTOR_SEARCH_TOO_BIG_VALUE"),
        ({"dimension": 5, "service": {"provider": "openai"}}, "VECTORIZE_FEATURE_NOT_AVAILABLE"),
    ],
)
def test_options_of_vectors_that_cannot_be_had_are_refused(send: Send, option: Any, code: str) -> None:
    assert codes(send({"createCollection": {"name": "n", "options": {"vector": option}}}, COLLECTION[:1])) == [code]


def test_what_an_option_leaves_out_is_as_on_the_data_api(send: Send) -> None:
    for name, option, metric, model in (
        ("a", {"dimension": 2}, "cosine", "other"),
        ("b", {"dimension": 2, "sourceModel": "bert"}, "dot_product", "bert"),
        ("c", {"size": 2, "function": "euclidean"}, "euclidean", "other"),
    ):
        command = {"createCollection": {"name": name, "options": {"vector": option}}}
        assert send(command, COLLECTION[:1]) == send(command, COLLECTION[:1]) == {"status": {"ok": 1}}
        (found,) = [
            each["options"]["vector"]
            for each in send({"findCollections": {"options": {"explain": True}}}, COLLECTION[:1])["status"][
                "collections"
            ]
            if each["name"] == name
        ]
        assert found == {"dimension": 2, "metric": metric, "sourceModel": model}


def test_another_dimension_is_another_collection(send: Send) -> None:
    command = {"createCollection": {"name": "v", "options": {"vector": {"dimension": 4}}}}
    assert codes(send(command, COLLECTION[:1])) == ["EXISTING_COLLECTION_DIFFERENT_SETTINGS"]


def test_without_numpy_a_collection_of_vectors_is_refused_by_the_name_of_the_extra(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "imported_numpy", lambda: None)
    reply = send({"createCollection": {"name": "n", "options": {"vector": {"dimension": 2}}}}, COLLECTION[:1])
    assert codes(reply) == ["VECTOR_SEARCH_NOT_SUPPORTED"]
    assert "langchain-kv[vector]" in reply["errors"][0]["message"]


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_search_sees_what_other_processes_changed(tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path)) as engine:
        engine.create_collection(COLLECTION, SETTINGS)
        send: Send = lambda command, path=COLLECTION: asyncio.run(asend(engine, command, path))  # noqa: E731
        insert(send, a=[1, 0, 0], b=[0, 1, 0], c=[0, 0, 1])
        assert nearest(send, [1, 0, 0]) == ["a", "b", "c"]
        changes = (
            {"deleteOne": {"filter": {"_id": "a"}}},
            {"insertOne": {"document": {"_id": "d", "$vector": [0.9, 0.1, 0]}}},
            {"updateOne": {"filter": {"_id": "b"}, "update": {"$set": {"$vector": [1, 0, 0]}}}},
        )
        for change, expected in zip(changes, (["b", "c"], ["d", "b", "c"], ["b", "d", "c"]), strict=True):
            process = multiprocessing.get_context("spawn").Process(target=_carry_out, args=(path, change))
            process.start()
            process.join()
            assert process.exitcode == 0
            assert nearest(send, [1, 0, 0]) == expected


def _carry_out(path: str, command: Any) -> None:
    with closing(SQLiteEngine(path)) as engine:
        assert "errors" not in asyncio.run(asend(engine, command))


def test_a_dropped_collection_leaves_no_vectors_to_one_of_its_name(tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path)) as engine:
        send: Send = lambda command, path=COLLECTION: asyncio.run(asend(engine, command, path))  # noqa: E731
        for drop in (
            lambda: engine.drop_collection(COLLECTION),
            lambda: (engine.drop_keyspace("default_keyspace"), engine.create_keyspace("default_keyspace")),
        ):
            engine.create_collection(COLLECTION, SETTINGS)
            insert(send, a=[1, 0, 0])
            assert nearest(send, [1, 0, 0]) == ["a"]
            drop()
            engine.create_collection(COLLECTION, SETTINGS)
            assert nearest(send, [1, 0, 0]) == []
            engine.drop_collection(COLLECTION)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'vectors_%'").fetchone() == (0,)


def test_too_many_vectors_to_keep_are_searched_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    with closing(SQLiteEngine(str(tmp_path / "kv.db"))) as engine:
        engine.create_collection(COLLECTION, SETTINGS)
        send: Send = lambda command, path=COLLECTION: asyncio.run(asend(engine, command, path))  # noqa: E731
        insert(send, **{f"k{n:02}": [rng.random() for _ in range(3)] for n in range(90)})
        kept = [nearest(send, [1, 0, 0], options={"limit": limit}) for limit in (1, 5, 100)]
        monkeypatch.setattr(sqlite_vectors, "MATRICES_MAX_BYTES", 100)
        monkeypatch.setattr(sqlite_vectors, "BLOCK_BYTES", 200)
        assert [nearest(send, [1, 0, 0], options={"limit": limit}) for limit in (1, 5, 100)] == kept


def test_a_search_inside_a_transaction_sees_what_that_wrote(tmp_path: Path) -> None:
    with closing(SQLiteEngine(str(tmp_path / "kv.db"))) as engine:
        engine.create_collection(COLLECTION, SETTINGS)
        row = ("a", b'{"_id":"a","$vector":[1,0,0]}', False, None)
        search = partial(engine.nearest, COLLECTION, packed([1, 0, 0]), limit=5)
        _, inside = engine.group([partial(engine.write, COLLECTION, [row]), search])
        assert [found[0] for found, _ in inside.result] == ["a"]
        assert [found[0] for found, _ in search()] == ["a"]


def test_another_program_cannot_leave_a_vector_that_is_not_the_documents(tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path)) as engine:
        engine.create_collection(COLLECTION, SETTINGS)
        engine.write(COLLECTION, [("a", b'{"_id":"a","$vector":[1,0,0]}', False, None)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA busy_timeout=0")
        (table,) = other.execute("SELECT name FROM sqlite_master WHERE name LIKE 'docs_%' AND type='table'").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="vector_of"):
            other.execute(f"UPDATE {table} SET content=?", (b'{"_id":"a","$vector":[0,1,0]}',))


# -- the pieces -------------------------------------------------------------------------------------------------------


def test_the_vector_of_a_body_is_that_of_the_document_not_of_a_value_inside() -> None:
    assert vector_of(b'{"_id":"a","value":{"$vector":[1]}}') == b""
    assert vector_of(b'{"_id":"a","$vector":null}') == vector_of(b"{") == vector_of(b'{"$vector":"x"}') == b""
    assert vector_of(b'{"_id":"a","$vector":[1,-0.5]}') == struct.pack("<2f", 1, -0.5)


def test_a_matrix_is_what_was_put_and_not_removed_whatever_came_in_between() -> None:
    rng = random.Random(3)
    matrix, model = vectors.Matrix(vectors.Vectors(2, "euclidean")), dict[str, list[float]]()
    query = packed([0.5, 0.5])
    for _ in range(400):
        some = [f"k{rng.randrange(40)}" for _ in range(rng.randrange(4))]
        if rng.random() < 0.4:
            matrix.remove(some)
            for one in some:
                model.pop(one, None)
        else:
            new = {one: [rng.random(), rng.random()] for one in some}
            matrix.put((one, packed(numbers)) for one, numbers in new.items())
            model.update(new)
        assert matrix.ids == set(model)
        expected = sorted(model, key=lambda one: sum((number - 0.5) ** 2 for number in model[one]))
        assert [near.id for near in matrix.nearest(query, 10)] == expected[:10]


def test_vectors_of_another_length_are_counted_and_never_found() -> None:
    matrix = vectors.Matrix(vectors.Vectors(2, "cosine"))
    matrix.put([("a", packed([1, 0])), ("b", b""), ("c", packed([1, 2, 3]))])
    assert (len(matrix), matrix.ids) == (3, {"a", "b", "c"})
    assert [near.id for near in matrix.nearest(packed([1, 0]), 5)] == ["a"]
    matrix.put([("b", packed([0, 1])), ("a", b"")])
    assert [near.id for near in matrix.nearest(packed([1, 0]), 5)] == ["b"]
    matrix.remove(["a", "b", "c"])
    assert (len(matrix), matrix.nearest(packed([1, 0]), 5)) == (0, [])


def test_a_vector_of_zeros_has_no_direction() -> None:
    matrix = vectors.Matrix(vectors.Vectors(2, "cosine"))
    matrix.put([("zero", packed([0, 0])), ("same", packed([2, 0])), ("opposite", packed([-1, 0]))])
    found = matrix.nearest(packed([1, 0]), 5)
    assert [(near.id, near.similarity) for near in found] == [("same", 1.0), ("zero", 0.5), ("opposite", 0.0)]
