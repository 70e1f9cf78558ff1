"""updateOne, updateMany and findOneAndUpdate: what the recorded cases leave open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from answered import Send, codes, sender
from bodies import row
from langchain_kv.engines.base import CollectionName, DocId, Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.server.commands.table import answer
from langchain_kv.server.update.operators import OPERATORS

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


@pytest.fixture
def send(engine: Engine) -> Send:
    return sender(engine, ANY)


def insert(send: Send, *documents: dict[str, Any]) -> None:
    assert "errors" not in send({"insertMany": {"documents": documents}})


def update(send: Send, document: dict[str, Any], update: dict[str, Any]) -> Any:
    """Return what an update makes of a document, or the codes of its errors."""
    send({"deleteMany": {}})
    insert(send, {"_id": "d", **document})
    command = {"filter": {"_id": "d"}, "update": update, "options": {"returnDocument": "after"}}
    reply = send({"findOneAndUpdate": command})
    stored = send({"findOne": {"filter": {"_id": "d"}}})["data"]["document"]
    if "errors" in reply:
        assert stored == {"_id": "d", **document}
        return codes(reply)
    assert reply["data"]["document"] == stored
    assert next(iter(stored)) == "_id"
    return {name: value for name, value in stored.items() if name != "_id"}


# -- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, {"$set": {"a.b.c": 1}}, {"a": {"b": {"c": 1}}}),
        ({}, {"$set": {"a&.b": 1, "c&&": 2}}, {"a.b": 1, "c&": 2}),
        ({"a": [1]}, {"$set": {"a.3": 2}}, {"a": [1, None, None, 2]}),
        ({"a": [1]}, {"$set": {"a.2.x": 2}}, {"a": [1, None, {"x": 2}]}),
        ({"a": {}}, {"$set": {"a.01": 2}}, {"a": {"01": 2}}),
        ({"a": [1]}, {"$set": {"a.01": 2}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({"a": 1}, {"$set": {"a.b": 2}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({"a": None}, {"$set": {"a.b": 2}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({"a": [1, 2, 3]}, {"$unset": {"a.1": 1}}, {"a": [1, None, 3]}),
        ({"a": 1}, {"$unset": {"b": 1, "c.d": 1}}, {"a": 1}),
        ({}, {"$unset": {"$vector": 1}}, {}),
        ({"a": 5}, {"$inc": {"a": -7, "b": 1.5}}, {"a": -2, "b": 1.5}),
        ({"a": 2**70}, {"$inc": {"a": 1}}, {"a": 2**70 + 1}),
        ({"a": 0.1}, {"$inc": {"a": 0.2}}, {"a": 0.3}),
        ({"a": 2.5}, {"$mul": {"a": 4}}, {"a": 10}),
        ({}, {"$mul": {"a": 4}}, {"a": 0}),
        ({"a": "1"}, {"$inc": {"a": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_TARGET"]),
        ({"a": True}, {"$mul": {"a": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_TARGET"]),
        ({"a": 10**99}, {"$mul": {"a": 10**10 + 1}}, ["SHRED_DOC_LIMIT_VIOLATION"]),
        ({"a": 10**99}, {"$mul": {"a": 0.1}}, {"a": 1e98}),
        ({"a": 10**99 + 1}, {"$mul": {"a": 0.25}}, ["SHRED_DOC_LIMIT_VIOLATION"]),
        ({"a": 10**100 - 1}, {"$inc": {"a": 1}}, ["SHRED_DOC_LIMIT_VIOLATION"]),
        ({"a": 1e300}, {"$inc": {"a": 1}}, ["SHRED_DOC_LIMIT_VIOLATION"]),
        ({"a": 1}, {"$inc": {"a": True}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({"a": 1}, {"$inc": {"$a": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_MODIFIER"]),
        ({"a": 1}, {"$max": {"a": "0", "b": None}}, {"a": "0", "b": None}),
        ({"a": {"$date": 5}}, {"$min": {"a": {"$date": 4}}}, {"a": {"$date": 4}}),
        ({"a": [1, 2]}, {"$max": {"a": [1, 2, 0]}}, {"a": [1, 2, 0]}),
        ({"a": "\U0001f600"}, {"$max": {"a": "\uffff"}}, {"a": "\uffff"}),  # by UTF-16 units
        ({"a": 1}, {"$rename": {"a": "b.c"}}, {"b": {"c": 1}}),
        ({"a": [1]}, {"$rename": {"a.0": "b"}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({"a": 1, "b": [1]}, {"$rename": {"a": "b.0"}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({"a": 1}, {"$rename": {"a": "_id"}}, ["UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID"]),
        ({"a": 1}, {"$rename": {"a": 5}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({"a": [1, 2, 3]}, {"$pop": {"a": -1, "b": 1}}, {"a": [2, 3]}),
        ({"a": []}, {"$pop": {"a": 1}}, {"a": []}),
        ({"a": {}}, {"$pop": {"a": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_TARGET"]),
        ({"a": [1, 2]}, {"$pop": {"a": -1.5}}, {"a": [2]}),
        ({"a": [1]}, {"$pop": {"a": 2}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({"a": []}, {"$pop": {"a": "1"}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({"a": [1]}, {"$push": {"a": [2], "b": {"c": 1}}}, {"a": [1, [2]], "b": [{"c": 1}]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [8, 9], "$position": 1}}}, {"a": [1, 8, 9, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [8, 9], "$position": -1}}}, {"a": [1, 8, 9, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [9], "$position": 10**30}}}, {"a": [1, 2, 9]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [9], "$position": -(10**30)}}}, {"a": [9, 1, 2]}),
        ({}, {"$push": {"a": {"$each": 1}}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({}, {"$push": {"a": {"$position": 1}}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({}, {"$push": {"a": {"$each": [], "$position": 1.5}}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({}, {"$push": {"a": {"$each": [], "$sort": 1}}}, ["UNSUPPORTED_UPDATE_OPERATION_MODIFIER"]),
        ({}, {"$addToSet": {"a": {"$each": [1], "$position": 0}}}, ["UNSUPPORTED_UPDATE_OPERATION_MODIFIER"]),
        ({"a": [{"x": 1, "y": 2}]}, {"$addToSet": {"a": {"x": 1, "y": 2}}}, {"a": [{"x": 1, "y": 2}]}),
        ({"a": [{"x": 1, "y": 2}]}, {"$addToSet": {"a": {"y": 2, "x": 1}}},
         {"a": [{"x": 1, "y": 2}, {"y": 2, "x": 1}]}),
        ({"a": [1, True]}, {"$addToSet": {"a": {"$each": [True, 1, "1", "1"]}}}, {"a": [1, True, "1"]}),
        ({}, {"$currentDate": {"a": False}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({}, {"$currentDate": {"a": {"$type": "timestamp"}}}, ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]),
        ({"a": 1}, {"$setOnInsert": {"b": 1}}, {"a": 1}),
        ({}, {"$set": {"_id": "e"}}, ["UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID"]),
        ({}, {"$set": {"_id.x": "e"}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({}, {"$set": {"$vector": [1]}}, ["VECTOR_SEARCH_NOT_SUPPORTED"]),
        ({}, {"$set": {"$vectorize": "x"}}, ["EMBEDDING_SERVICE_NOT_CONFIGURED"]),
        ({}, {"$push": {"$vector": 1}}, ["UNSUPPORTED_UPDATE_OPERATOR_FOR_VECTOR"]),
        ({}, {"$set": {"a..b": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({}, {"$set": {"a&b": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
        ({}, {"$set": {"": 1}}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
    ],
)  # fmt: skip
def test_an_operator_changes_what_it_says(send: Send, before: Any, change: Any, after: Any) -> None:
    assert update(send, before, change) == after


@pytest.mark.parametrize("number", [b"1e999999999", b"-1e2147483647", b"1e-999999999"])
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_numbers_beyond_any_size_do_no_harm(engine: Engine, number: bytes, operator: str) -> None:
    async def send_all() -> list[bytes]:
        change = b'{"%s":{"a":%s,"b.0":%s,"c":{"$each":[],"$position":%s}}}' % (operator.encode(), *[number] * 3)
        commands = [
            b'{"insertOne":{"document":{"_id":"d","a":%s,"b":[1,%s]}}}' % (number, number),
            b'{"updateOne":{"filter":{},"update":%s}}' % change,
            b'{"updateMany":{"filter":{"a":%s},"update":{"%s":{"a":%s}}}}' % (number, operator.encode(), number),
            b'{"updateOne":{"filter":{},"update":{"$mul":{"a":%s}}}}' % number,
            b'{"find":{"filter":{"$not":{"a":{"$lt":5}}},"sort":{"a":1,"b":1}}}',
        ]
        return [(await answer(engine, ANY, command))[1] for command in commands]

    replies = asyncio.run(asyncio.wait_for(send_all(), 20))
    assert not any(b"UNEXPECTED" in reply for reply in replies)


def test_current_date_is_now_in_milliseconds(send: Send) -> None:
    start = time.time_ns() // 1_000_000
    changed = update(send, {}, {"$currentDate": {"a": True, "b.c": {"$type": "date"}}})
    assert start <= changed["a"]["$date"] <= time.time_ns() // 1_000_000
    assert abs(changed["b"]["c"]["$date"] - changed["a"]["$date"]) < 1_000


def test_operators_are_carried_out_in_one_order_whatever_order_they_came_in(send: Send) -> None:
    change = {"$unset": {"u": 1}, "$set": {"z": 1, "b": 1}, "$rename": {"r": "s"}, "$addToSet": {"x": 1}}
    assert list(update(send, {"u": 1, "r": 2}, change)) == ["x", "s", "b", "z"]


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"a": 1}, "$unset": {"a": 1}},
        {"$set": {"a": 1, "a.b": 2}},
        {"$set": {"a.b": 1}, "$inc": {"a": 1}},
        {"$set": {"0": 1, "a": 1, "a.b.c": 2}},
        {"$set": {"a": 1, "a&.b": 1, "a.c": 1}},
        {"$rename": {"a": "z", "b": "z"}},
        {"$rename": {"a": "z"}, "$set": {"z": 1}},
        {"$rename": {"a": "z.a"}, "$set": {"z": 1}},
        {"$rename": {"a": "z"}, "$set": {"z.a": 1}},
        {"$rename": {"from": "to.y"}, "$max": {"to": {"x": 0}}},
        {"$rename": {"a": "b", "b": "c"}},
        {"$rename": {"a": "b", "b": "a"}},
        {"$rename": {"a": "a.b"}, "$set": {"a.c": 1}},
        {"$rename": {"a.b": "a"}, "$unset": {"a.c": 1}},
    ],
)
def test_two_changes_of_one_part_are_refused(send: Send, change: Any) -> None:
    assert update(send, {}, change) == ["UNSUPPORTED_UPDATE_OPERATION_PARAM"]


def test_names_that_only_begin_alike_are_no_conflict(send: Send) -> None:
    assert update(send, {}, {"$set": {"a": 1, "ab": 2, "a&.b": 3}}) == {"a": 1, "ab": 2, "a.b": 3}


def test_a_value_may_be_moved_into_its_own_place_or_out_of_it(send: Send) -> None:
    change = {"$rename": {"a": "a.b", "c.d": "c"}, "$set": {"ab": 1, "ca": 2}}
    assert update(send, {"a": 1, "c": {"d": 2}}, change) == {"a": {"b": 1}, "c": 2, "ab": 1, "ca": 2}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (None, "COMMAND_FIELD_VALUE_INVALID"),
        ([], "UNSUPPORTED_UPDATE_DATA_TYPE"),
        ({"$set": 1}, "UNSUPPORTED_UPDATE_DATA_TYPE"),
        ({"a": 1}, "UNSUPPORTED_UPDATE_OPERATION"),
        ({"$each": {}}, "UNSUPPORTED_UPDATE_OPERATION"),
    ],
)
def test_an_update_that_is_none_is_refused_before_the_collection_is_looked_up(
    send: Send, change: Any, code: str
) -> None:
    nowhere = CollectionName("default_keyspace", "nowhere")
    for command in ("updateOne", "updateMany", "findOneAndUpdate"):
        assert codes(send({command: {"filter": {}, "update": change}}, nowhere)) == [code]


def test_an_empty_update_matches_and_changes_nothing(send: Send) -> None:
    insert(send, {"_id": "a"})
    for change in ({}, {"$set": {}}):
        reply = send({"updateOne": {"filter": {}, "update": change}})
        assert reply == {"status": {"matchedCount": 1, "modifiedCount": 0}}


def test_the_whole_document_is_checked_again(send: Send) -> None:
    insert(send, {"_id": "a", "text": "x" * 7_000})
    refused = {
        "SHRED_DOC_LIMIT_VIOLATION": [
            {"$set": {"long": "x" * 8_001}},
            {"$set": {".".join("abcdefghijklmnopq"): 1}},
            {"$push": {"list": {"$each": [0] * 1_001}}},
            {"$set": {"list.999999999": 1}},
            {"$set": {"x" * 1_001: 1}},
        ],
        "SHRED_BAD_FIELD_NAME": [{"$set": {"a.$b": 1}}, {"$set": {"a": {"": 1}}}, {"$set": {"$a": 1}}],
        "SHRED_BAD_EJSON_VALUE": [{"$set": {"a": {"$date": "today"}}}],
    }
    send({"updateOne": {"filter": {}, "update": {"$set": {"list": []}}}})
    for code, changes in refused.items():
        for change in changes:
            assert codes(send({"updateOne": {"filter": {"_id": "a"}, "update": change}})) == [code], change
    assert send({"findOne": {}})["data"]["document"] == {"_id": "a", "text": "x" * 7_000, "list": []}


def test_an_id_cannot_be_changed_through_its_inside(send: Send) -> None:
    insert(send, {"_id": {"$date": 1}})
    reply = send({"updateOne": {"filter": {}, "update": {"$set": {"_id.$date": 2}}}})
    assert codes(reply) == ["UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID"]
    assert send({"find": {}})["data"]["documents"] == [{"_id": {"$date": 1}}]


def test_what_counts_as_modified_is_what_the_data_api_counts(send: Send) -> None:
    insert(send, {"_id": "a", "n": 5, "o": {"x": 1, "y": 2}})

    def modified(change: dict[str, Any]) -> int:
        reply = send({"updateOne": {"filter": {"_id": "a"}, "update": change}})
        assert reply["status"]["matchedCount"] == 1
        return int(reply["status"]["modifiedCount"])

    assert modified({"$set": {"n": 5}}) == 0
    assert modified({"$set": {"n": 5.0}}) == 1  # though 5 is kept of both
    assert modified({"$set": {"o": {"x": 1, "y": 2}}}) == 0
    assert modified({"$set": {"o": {"y": 2, "x": 1}}}) == 1
    assert modified({"$inc": {"n": 0}}) == 0
    assert modified({"$mul": {"n": 1}}) == 0
    assert modified({"$push": {"l": {"$each": []}}}) == 1
    assert modified({"$addToSet": {"l": {"$each": []}}}) == 0
    assert modified({"$pop": {"l": 1}}) == 0
    assert modified({"$unset": {"nope": 1}}) == 0


# -- upserts ----------------------------------------------------------------------------------------------------------


def upserted(send: Send, condition: Any, change: Any, command: str = "updateOne") -> Any:
    send({"deleteMany": {}})
    reply = send({command: {"filter": condition, "update": change, "options": {"upsert": True}}})
    if "errors" in reply:
        assert send({"countDocuments": {}})["status"]["count"] == 0
        return codes(reply)
    (stored,) = send({"find": {}})["data"]["documents"]
    assert reply["status"] == {"upsertedId": stored["_id"], "matchedCount": 0, "modifiedCount": 0}
    return stored


@pytest.mark.parametrize("command", ["updateOne", "updateMany", "findOneAndUpdate"])
def test_an_upsert_starts_from_what_the_filter_says(send: Send, command: str) -> None:
    condition = {"_id": "a", "x.y": 1, "z": {"$eq": [1]}, "n": {"$gt": 5}, "m": {"$in": [1]}}
    stored = upserted(send, condition, {"$push": {"z": 2}, "$set": {"x.q": 3}}, command)
    assert stored == {"_id": "a", "x": {"y": 1, "q": 3}, "z": [1, 2]}


@pytest.mark.parametrize(
    ("condition", "stored"),
    [
        ({"_id": {"$in": ["a"]}}, {"_id": "a", "u": 1}),
        ({"$and": [{"_id": "a"}, {"b": 2}]}, {"_id": "a", "b": 2, "u": 1}),
        ({"_id": "a", "$or": [{"b": 2}]}, {"_id": "a", "u": 1}),
        ({"_id": "a", "$not": {"b": 2}}, {"_id": "a", "u": 1}),
        ({"_id": "a", "d": {"$date": 5}}, {"_id": "a", "d": {"$date": 5}, "u": 1}),
        ({"_id": {"$date": 5}}, {"_id": {"$date": 5}, "u": 1}),
        ({"_id": None}, {"_id": None, "u": 1}),
        ({"_id": "a", "b": 1, "b.c": 2}, ["UNSUPPORTED_UPDATE_OPERATION_PATH"]),
    ],
)
def test_an_upsert_takes_over_what_has_to_be_equal(send: Send, condition: Any, stored: Any) -> None:
    assert upserted(send, condition, {"$set": {"u": 1}}) == stored


def test_an_upsert_without_an_id_gets_a_new_one(send: Send) -> None:
    stored = upserted(send, {"a": 1}, {"$set": {"b": 2}})
    assert len(stored["_id"]) == 36
    assert {"a": 1, "b": 2}.items() <= stored.items()


@pytest.mark.parametrize("kind", ["uuid", "uuidv6", "uuidv7", "objectId"])
def test_an_upsert_without_an_id_gets_one_of_the_collection_s_type(send: Send, engine: Engine, kind: str) -> None:
    made = CollectionName("default_keyspace", kind)
    engine.create_collection(made, {"defaultId": {"type": kind}})
    reply = send({"updateOne": {"filter": {"a": 1}, "update": {"$set": {"b": 2}}, "options": {"upsert": True}}}, made)
    (stored,) = send({"find": {}}, made)["data"]["documents"]
    assert reply["status"]["upsertedId"] == stored["_id"]
    assert list(stored["_id"]) == ["$objectId" if kind == "objectId" else "$uuid"]


def test_set_on_insert_can_set_the_id(send: Send) -> None:
    assert upserted(send, {"a": 1}, {"$setOnInsert": {"_id": "new"}}) == {"_id": "new", "a": 1}
    assert upserted(send, {"_id": "a"}, {"$setOnInsert": {"_id": "b", "c": 1}}) == {"_id": "b", "c": 1}
    assert upserted(send, {"_id": "a"}, {"$setOnInsert": {"_id": []}}) == ["SHRED_BAD_DOCID_TYPE"]


def test_an_upsert_never_takes_another_s_id(send: Send) -> None:
    insert(send, {"_id": "taken", "a": 2})
    options = {"upsert": True}
    for condition, change in (({"a": 1}, {"_id": "taken"}), ({"_id": "free"}, {"_id": "taken"})):
        command = {"updateOne": {"filter": condition, "update": {"$setOnInsert": change}, "options": options}}
        assert codes(send(command)) == ["DOCUMENT_ALREADY_EXISTS"]
    command = {"updateOne": {"filter": {"_id": "taken", "a": 1}, "update": {"$set": {"b": 1}}, "options": options}}
    assert send(command) == {"status": {"matchedCount": 0, "modifiedCount": 0}}
    assert send({"find": {}})["data"]["documents"] == [{"_id": "taken", "a": 2}]


def test_a_refused_upsert_inserts_nothing(send: Send) -> None:
    assert upserted(send, {"_id": "a", "b": "x"}, {"$inc": {"b": 1}}) == ["UNSUPPORTED_UPDATE_OPERATION_TARGET"]


def test_without_upsert_nothing_is_inserted(send: Send) -> None:
    for command in ("updateOne", "updateMany"):
        reply = send({command: {"filter": {"_id": "a"}, "update": {"$set": {"b": 1}}}})
        assert reply == {"status": {"matchedCount": 0, "modifiedCount": 0}}
    assert send({"countDocuments": {}})["status"] == {"count": 0}


@pytest.mark.parametrize(("wanted", "document"), [("before", None), ("after", {"_id": "a", "b": 1})])
def test_an_upserted_document_is_returned_as_it_was_or_is(send: Send, wanted: str, document: Any) -> None:
    options = {"upsert": True, "returnDocument": wanted}
    command = {"filter": {"_id": "a"}, "update": {"$set": {"b": 1, "c": 2}}, "options": options}
    reply = send({"findOneAndUpdate": {**command, "projection": {"c": 0}}})
    assert reply["data"] == {"document": document}


# -- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 120])
def test_update_many_goes_fifty_by_fifty(send: Send, count: int) -> None:
    for start in range(0, count, 100):
        insert(send, *({"_id": f"k{n:03}"} for n in range(start, min(count, start + 100))))
    insert(send, {"_id": "other", "other": True})
    command = {"filter": {"other": {"$exists": False}}, "update": {"$inc": {"n": 1}}}
    matched, state = [], None
    while True:
        options = {"pageState": state} if state else {}
        status = send({"updateMany": {**command, "options": options}})["status"]
        assert status["matchedCount"] == status["modifiedCount"]
        matched.append(status["matchedCount"])
        state = status.get("nextPageState")
        assert (state is not None) is status.get("moreData", False)
        if state is None:
            break
    assert matched == [50] * (count // 50) + [count % 50]
    documents = send({"countDocuments": {"filter": {"n": 1}}})["status"]
    assert documents == {"count": count}


def test_update_many_of_an_in_takes_all_of_them_at_once(send: Send) -> None:
    ids = [f"k{n:03}" for n in range(100)]
    insert(send, *({"_id": one} for one in ids[:80]))
    command = {"updateMany": {"filter": {"_id": {"$in": [*ids[:-1], ids[0]]}}, "update": {"$inc": {"n": 1}}}}
    assert send(command) == {"status": {"matchedCount": 80, "modifiedCount": 80}}
    assert send({"countDocuments": {"filter": {"n": 1}}})["status"] == {"count": 80}


def test_update_many_is_all_or_nothing_within_a_call(send: Send) -> None:
    insert(send, {"_id": "a", "n": 1}, {"_id": "b", "n": "text"}, {"_id": "c", "n": 1})
    reply = send({"updateMany": {"filter": {}, "update": {"$inc": {"n": 1}}}})
    assert codes(reply) == ["UNSUPPORTED_UPDATE_OPERATION_TARGET"]
    assert [one["n"] for one in send({"find": {}})["data"]["documents"]] == [1, "text", 1]


def test_a_later_page_never_upserts(send: Send) -> None:
    insert(send, *({"_id": f"k{n:02}"} for n in range(50)))
    command = {"filter": {"a": {"$exists": False}}, "update": {"$set": {"b": 1}}}
    state = send({"updateMany": {**command, "options": {"upsert": True}}})["status"]["nextPageState"]
    reply = send({"updateMany": {**command, "options": {"upsert": True, "pageState": state}}})
    assert reply == {"status": {"matchedCount": 0, "modifiedCount": 0}}


# -- one of many ------------------------------------------------------------------------------------------------------


def test_a_sort_decides_which_document_is_changed(send: Send) -> None:
    insert(send, *({"_id": f"k{n}", "n": (n * 7) % 10} for n in range(10)))

    def at(n: int) -> str:
        return f"k{next(k for k in range(10) if (k * 7) % 10 == n)}"

    sort = {"n": -1}
    reply = send({"findOneAndUpdate": {"filter": {}, "sort": sort, "update": {"$set": {"u": 1}}}})
    assert reply["data"]["document"]["_id"] == at(9)
    send({"updateOne": {"filter": {}, "sort": sort, "update": {"$set": {"n": -1}}}})
    assert send({"findOne": {"filter": {"n": -1}}})["data"]["document"]["_id"] == at(9)
    reply = send({"findOneAndReplace": {"filter": {"n": {"$lt": 5}}, "sort": sort, "replacement": {"r": 1}}})
    assert reply["data"]["document"]["_id"] == at(4)
    assert send({"findOneAndDelete": {"sort": sort}})["data"]["document"]["_id"] == at(8)
    send({"deleteOne": {"filter": {}, "sort": sort}})
    assert send({"findOne": {"sort": sort}})["data"]["document"]["_id"] == at(6)


def test_an_unindexed_path_cannot_choose_what_is_changed(send: Send) -> None:
    change = {"update": {"$set": {"v": 1}}}
    assert codes(send({"updateOne": {"filter": {"v": 1}, **change}}, KV)) == ["FILTER_PATH_UNINDEXED"]
    assert codes(send({"updateOne": {"filter": {}, "sort": {"v": 1}, **change}}, KV)) == ["SORT_CLAUSE_PATH_UNINDEXED"]
    for field in ("filter", "sort"):
        assert "errors" not in send({"updateOne": {field: {"_id": 1}, **change}}, KV)


async def test_concurrent_increments_all_count(engine: Engine) -> None:
    body = json.dumps(
        {"updateOne": {"filter": {"_id": "a"}, "update": {"$inc": {"n": 1}}, "options": {"upsert": True}}}
    ).encode()
    replies = [json.loads(reply) for _, reply in await asyncio.gather(*(answer(engine, ANY, body) for _ in range(200)))]
    assert sum("upsertedId" in reply["status"] for reply in replies) == 1
    _, reply = await answer(engine, ANY, b'{"findOne":{"filter":{"_id":"a"}}}')
    assert json.loads(reply)["data"]["document"]["n"] == 200


def test_a_document_that_changed_meanwhile_is_updated_as_it_is_now(
    send: Send, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(send, {"_id": "a", "n": 1}, {"_id": "b", "n": 1}, {"_id": "c", "n": 1})
    modify = engine.modify

    def interfere(collection: CollectionName, ids: list[DocId], change: Any) -> None:
        if "b" in ids:
            engine.write(collection, [row("a", b'{"_id":"a","n":10}'), row("b", b'{"_id":"b","m":1}')])
        modify(collection, ids, change)

    monkeypatch.setattr(engine, "modify", interfere)
    reply = send({"updateMany": {"filter": {"n": {"$gte": 0}}, "update": {"$inc": {"n": 1}}}})
    assert reply == {"status": {"matchedCount": 2, "modifiedCount": 2}}
    documents = send({"find": {}})["data"]["documents"]
    assert documents == [{"_id": "a", "n": 11}, {"_id": "b", "m": 1}, {"_id": "c", "n": 2}]


def test_every_operator_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{operator}": {{' in text for operator in OPERATORS)
