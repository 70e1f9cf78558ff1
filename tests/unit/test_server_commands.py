"""Commands on an engine in memory, without HTTP: what the recorded cases leave open."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from answered import Send, codes, sender
from bodies import row
from langchain_kv.backends.dataapi.causes import is_deterministic
from langchain_kv.engines.base import Change, CollectionName, DocId
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.errors import (
    ConnectError,
    DataAPIError,
    EngineBusyError,
    EngineError,
    PartialWriteError,
    StoreError,
    TransportError,
)
from langchain_kv.server.commands.table import COMMANDS, answer
from langchain_kv.server.documents.ids import new_id, parse_id

KV = CollectionName("default_keyspace", "kv")


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    engine = MemoryEngine()
    engine.create_collection(KV, {"indexing": {"allow": ["_id"]}})
    engine.create_collection(CollectionName("default_keyspace", "any"), {})
    yield engine
    engine.close()


@pytest.fixture
def send(engine: MemoryEngine) -> Send:
    return sender(engine, KV)


def insert(send: Send, count: int, collection: str = "kv") -> None:
    for start in range(0, count, 100):
        documents = [{"_id": f"k{n:04}", "n": n} for n in range(start, min(start + 100, count))]
        send({"insertMany": {"documents": documents}}, ("default_keyspace", collection))


# -- requests --------------------------------------------------------------------------------------------------------


def test_every_error_has_all_its_fields(send: Send) -> None:
    (error,) = send({"nope": {}})["errors"]
    assert set(error) == {"id", "family", "scope", "errorCode", "title", "message"}
    assert all(isinstance(value, str) for value in error.values())
    assert "findOne" in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "COMMAND_FIELD_VALUE_INVALID"),
        (b"  \n", "COMMAND_FIELD_VALUE_INVALID"),
        (b'{"find":{"filter":{},"filter":{}}}', "REQUEST_NOT_JSON"),
        (b'{"find":{"nope":1}}', "COMMAND_FIELD_UNKNOWN"),
        (b'{"find":{"options":[]}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":{"options":{"limit":"5"}}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":{"options":{"limit":1e400}}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":{"options":{"pageState":5}}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"insertOne":{"document":{},"options":{"a":1}}}', "COMMAND_ACCEPTS_NO_OPTIONS"),
        (b'{"findOneAndDelete":{"filter":{},"options":{}}}', "COMMAND_FIELD_UNKNOWN"),
        (b'{"find":{"filter":' + b'{"$and":[' * 200 + b"]}" * 200 + b"}}", "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":{"projection":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}}", "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"insertOne":{"document":' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}", "SHRED_DOC_LIMIT_VIOLATION"),
        (b'{"insertOne":{"document":{"_id":"a","v":"\\ud800"}}}', "UNEXPECTED_DRIVER_ERROR"),
        (b'{"insertOne":{"document":{"_id":"\\ud800"}}}', "UNEXPECTED_DRIVER_ERROR"),
        (b'{"insertOne":{"document":{"_id":"a","\\ud800":1}}}', "UNEXPECTED_DRIVER_ERROR"),
        (b'{"findOne":{"filter":{"_id":"\\ud800"}}}', "UNEXPECTED_DRIVER_ERROR"),
        (b'{"\\ud800":{}}', "COMMAND_UNKNOWN"),
        (b'{"find":{"\\ud800":1}}', "COMMAND_FIELD_UNKNOWN"),
        (b'{"insertOne":{"document":{"_id":"a","$vector":[1]}}}', "VECTOR_SEARCH_NOT_SUPPORTED"),
        (b'{"insertOne":{"document":{"_id":"a","$vectorize":"x"}}}', "EMBEDDING_SERVICE_NOT_CONFIGURED"),
        (b'{"insertOne":{"document":{"_id":"a","$lexical":"x"}}}', "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
        (b'{"findOne":{"projection":{"$similarity":1}}}', "UNSUPPORTED_PROJECTION_PARAM"),
        (b'{"find":{"projection":{"a":1,"$similarity":0}}}', "UNSUPPORTED_PROJECTION_PARAM"),
        (b'{"find":{"sort":{"_id":2}}}', "SORT_CLAUSE_VALUE_INVALID"),
        (b'{"find":{"sort":[]}}', "SORT_CLAUSE_INVALID"),
        (b'{"updateOne":{"filter":{},"update":{"set":{"a":1}}}}', "UNSUPPORTED_UPDATE_OPERATION"),
    ],
)
def test_bad_requests_are_refused_with_a_code(send: Send, body: bytes, code: str) -> None:
    assert codes(send(body)) == [code]


def test_no_field_with_junk_in_it_is_an_error_of_the_server(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    junk = [None, True, 5, 1.5, "x", "", [], {}, [1], {"a": 1}, {"$x": 1}, [[]], {"": 1}, {"a": {"$in": {}}}]
    levels = ((), ("default_keyspace",), KV)
    with caplog.at_level(logging.ERROR):
        for path, table in zip(levels, COMMANDS, strict=True):
            for name, command in table.items():
                for field in command.fields:
                    for value in junk:
                        reply = send({name: {field: value}}, path)
                        assert "UNEXPECTED_SERVER_ERROR" not in json.dumps(reply), (name, field, value)
    assert not caplog.records


def test_no_message_repeats_more_than_a_thousand_characters_of_a_request(send: Send) -> None:
    long = "x" * 5000
    for command in (
        {long: {}},
        {"find": {long: 1}},
        {"find": {"filter": {"_id": {"$" + long: 1}}}},
        {"find": {"filter": {long + "&x": 1}}},
        {"find": {"projection": {long: "y"}}},
        {"find": {"options": {long: 1}}},
        {"insertOne": {"document": {"_id": 1, "$" + long: 1}}},
    ):
        (error,) = send(command)["errors"]
        assert len(error["message"]) < 1000


def test_an_error_that_nobody_foresaw_is_logged_and_told_without_its_text(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a stored value")

    monkeypatch.setattr(engine, "read", fail)
    with caplog.at_level(logging.ERROR, logger="langchain_kv"):
        reply = send({"findOne": {"filter": {"_id": "a"}}})
    assert codes(reply) == ["UNEXPECTED_SERVER_ERROR"]
    assert "a stored value" not in json.dumps(reply)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineBusyError("busy"), "UNAVAILABLE_DATABASE"), (EngineError("x"), "UNEXPECTED_DRIVER_ERROR")],
)
def test_a_fault_of_the_storage_is_a_fault_of_the_database(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, error: EngineError, code: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(engine, "modify", fail)
    (entry,) = send({"insertOne": {"document": {"_id": "a"}}})["errors"]
    assert (entry["errorCode"], entry["family"], entry["scope"]) == (code, "SERVER", "DATABASE")


@pytest.mark.parametrize(
    ("error", "code", "comes_again"),
    [
        (EngineError("the disk is full"), "UNEXPECTED_DRIVER_ERROR", True),
        (ConnectError("no node"), "FAILED_TO_CONNECT_TO_DATABASE", False),
        (TransportError("lost"), "UNEXPECTED_DRIVER_ERROR", False),
        (DataAPIError.of("TIMEOUT_WRITING_DATA", "slow"), "TIMEOUT_WRITING_DATA", False),
    ],
)
def test_a_client_is_told_whether_a_fault_of_the_storage_may_pass(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch, error: StoreError, code: str, comes_again: bool
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(engine, "modify", fail)
    (entry,) = send({"insertOne": {"document": {"_id": "a"}}})["errors"]
    assert entry["errorCode"] == code
    assert is_deterministic(entry["message"]) is comes_again


def test_a_text_that_cannot_be_stored_comes_again(send: Send) -> None:
    (entry,) = send(b'{"insertOne":{"document":{"_id":"a","v":"\\ud800"}}}')["errors"]
    assert is_deterministic(entry["message"])


def fail_in_part(monkeypatch: pytest.MonkeyPatch, engine: MemoryEngine, *failing: str) -> None:
    """Let changes of these ids fail, the others be made: as on a cluster, where a batch is no transaction."""
    modify = engine.modify

    def in_part(name: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        done = [doc_id for doc_id in ids if doc_id not in failing]
        modify(name, done, change)
        for doc_id in failing:
            change(doc_id, None)
        errors: dict[str, StoreError] = {doc_id: TransportError("lost") for doc_id in failing}
        raise PartialWriteError("in part", written=tuple(map(str, done)), unknown=failing, errors=errors)

    monkeypatch.setattr(engine, "modify", in_part)


def test_of_an_insert_many_that_failed_in_part_each_document_is_told(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in_part(monkeypatch, engine, "b")
    reply = send({"insertMany": {"documents": [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}]}})
    assert reply["status"] == {"insertedIds": ["a", "c"]}
    assert [(entry["errorCode"], entry["documentIds"]) for entry in reply["errors"]] == [
        ("UNEXPECTED_DRIVER_ERROR", ["b"])
    ]
    ordered = send({"insertMany": {"documents": [{"_id": "x"}, {"_id": "b"}], "options": {"ordered": True}}})
    assert codes(ordered) == ["UNEXPECTED_DRIVER_ERROR"]
    assert "status" not in ordered


def test_of_a_delete_many_that_failed_in_part_the_rest_is_counted(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    send({"insertMany": {"documents": [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}]}})
    modify = engine.modify

    def in_part(name: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        modify(name, ["a", "c"], change)
        raise PartialWriteError("in part", written=("a", "c"), unknown=("b",), errors={"b": TransportError("lost")})

    monkeypatch.setattr(engine, "modify", in_part)
    reply = send({"deleteMany": {"filter": {"_id": {"$in": ["a", "b", "c"]}}}})
    assert reply["status"] == {"deletedCount": 2}
    assert codes(reply) == ["UNEXPECTED_DRIVER_ERROR"]


# -- inserting -------------------------------------------------------------------------------------------------------


def test_of_a_repeated_id_the_first_is_inserted_and_the_next_is_an_error(send: Send) -> None:
    reply = send({"insertMany": {"documents": [{"_id": "a", "n": 1}, {"_id": "a", "n": 2}, {"_id": "b"}]}})
    assert reply["status"] == {"insertedIds": ["a", "b"]}
    assert reply["errors"][0]["documentIds"] == ["a"]
    assert send({"findOne": {"filter": {"_id": "a"}}})["data"]["document"] == {"_id": "a", "n": 1}


@pytest.mark.parametrize("bad", [{"_id": "a"}, {"_id": "x", "$y": 1}, {"_id": "old"}, 5])
def test_an_ordered_insert_stops_at_the_first_failure_of_any_kind(send: Send, bad: Any) -> None:
    send({"insertOne": {"document": {"_id": "old"}}})
    options = {"ordered": True, "returnDocumentResponses": True}
    reply = send({"insertMany": {"documents": [{"_id": "a"}, bad, {"_id": "b"}, {"_id": "$"}], "options": options}})
    assert [one["status"] for one in reply["status"]["documentResponses"]] == ["OK", "ERROR", "SKIPPED", "SKIPPED"]
    assert len(reply["errors"]) == 1
    assert send({"countDocuments": {}})["status"] == {"count": 2}


def test_ids_of_different_types_are_different_documents_and_uuids_are_their_text(send: Send) -> None:
    uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    ids = ["5", 5, True, "true", None, "null", {"$date": 5}, {"$uuid": uuid}, {"$objectId": "507f1f77bcf86cd799439011"}]
    assert send({"insertMany": {"documents": [{"_id": one} for one in ids]}})["status"]["insertedIds"] == ids
    for one in ids:
        assert send({"findOne": {"filter": {"_id": one}}})["data"]["document"] == {"_id": one}
    assert send({"findOne": {"filter": {"_id": uuid}}})["data"]["document"] == {"_id": {"$uuid": uuid}}
    assert send({"findOne": {"filter": {"_id": {"$uuid": uuid.upper()}}}})["data"]["document"] is not None
    assert codes(send({"insertOne": {"document": {"_id": uuid}}})) == ["DOCUMENT_ALREADY_EXISTS"]
    pages = send({"find": {}})["data"]["documents"]
    assert len(pages) == len(ids)


def test_a_number_as_id_is_known_by_its_spelling(send: Send) -> None:
    send(b'{"insertOne":{"document":{"_id":10}}}')
    assert send(b'{"findOne":{"filter":{"_id":10.0}}}')["data"]["document"] is None  # 1E+1
    send(b'{"insertOne":{"document":{"_id":5.50}}}')
    assert send(b'{"findOne":{"filter":{"_id":5.5}}}')["data"]["document"] == {"_id": 5.5}


def test_the_id_comes_first_in_what_is_stored(send: Send, engine: MemoryEngine) -> None:
    send(b'{"insertOne":{"document":{"b":1.50,  "_id":"x","a":[ ]}}}')
    assert engine.read(KV, ["x"]) == [row("x", b'{"_id":"x","b":1.5,"a":[]}')]


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (None, r"[0-9a-f-]{14}4[0-9a-f]{3}-[89ab][0-9a-f-]+"),
        ("uuid", r"[0-9a-f-]{14}4[0-9a-f]{3}-[89ab][0-9a-f-]+"),
        ("uuidv6", r"[0-9a-f-]{14}6[0-9a-f]{3}-[89ab][0-9a-f-]+"),
        ("uuidv7", r"[0-9a-f-]{14}7[0-9a-f]{3}-[89ab][0-9a-f-]+"),
        ("objectId", r"[0-9a-f]{24}"),
    ],
)
def test_made_ids_have_the_form_of_the_collections_default(send: Send, kind: str | None, form: str) -> None:
    options = {"defaultId": {"type": kind}} if kind else {}
    send({"createCollection": {"name": "made", "options": options}}, ("default_keyspace",))
    (one, two) = send({"insertMany": {"documents": [{}, {}]}}, ("default_keyspace", "made"))["status"]["insertedIds"]
    text = one if kind is None else next(iter(one.values()))
    assert re.fullmatch(form, text)
    assert one != two
    assert send({"findOne": {"filter": {"_id": one}}}, ("default_keyspace", "made"))["data"]["document"] == {"_id": one}
    explained = send({"findCollections": {"options": {"explain": True}}}, ("default_keyspace",))
    (made,) = [one for one in explained["status"]["collections"] if one["name"] == "made"]
    assert made["options"].get("defaultId") == (options.get("defaultId"))


def test_ids_made_one_after_the_other_are_in_order() -> None:
    for kind in ("uuidv6", "objectId"):
        made = [parse_id(new_id(kind)) for _ in range(50)]
        assert made == sorted(made)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("indexing", "is_limited"),
    [({}, True), ({"allow": ["v"]}, True), ({"deny": ["w"]}, True), ({"deny": ["v"]}, False), ({"deny": ["*"]}, False),
     ({"allow": ["_id"]}, False), ({"allow": ["*"]}, True), ({"allow": ["v.a"]}, True), ({"deny": ["v.a"]}, False)],
)  # fmt: skip
def test_limits_of_indexed_values_hold_where_a_path_is_indexed(send: Send, indexing: Any, is_limited: bool) -> None:
    options = {"indexing": indexing} if indexing else {}
    assert send({"createCollection": {"name": "c", "options": options}}, ("default_keyspace",)) == {"status": {"ok": 1}}
    wide = {f"k{n}": 1 for n in range(1001)}
    for value in ("x" * 8001, "é" * 4001, [0] * 1001, wide, {"$date": "x"}):
        reply = send({"insertOne": {"document": {"v": {"a": value}}}}, ("default_keyspace", "c"))
        assert bool(reply["status"]["insertedIds"]) is not is_limited
    reply = send({"insertOne": {"document": {"v": {"a": ["x" * 8000, [0] * 1000]}}}}, ("default_keyspace", "c"))
    assert reply["status"]["insertedIds"]


def test_paths_are_counted_in_utf16_units(send: Send) -> None:
    fits, too_long = "😀" * 497, "😀" * 498  # value. and 994, 996
    assert "errors" not in send({"insertOne": {"document": {"_id": "a", "value": {fits: 1}}}})
    assert codes(send({"insertOne": {"document": {"_id": "b", "value": {too_long: 1}}}})) == [
        "SHRED_DOC_LIMIT_VIOLATION"
    ]


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["garbage!", "AAAA", "é", "=", "MDpz", "e" * 5000, "\ud800"])
def test_a_page_state_that_is_none_is_an_error_with_a_code(send: Send, state: str) -> None:
    assert codes(send({"find": {"options": {"pageState": state}}})) == ["UNEXPECTED_SERVER_ERROR"]


@pytest.mark.parametrize("added", ["=", "==", "===", " ", "\n", "*", "A"])
def test_a_page_state_that_was_changed_is_an_error(send: Send, added: str) -> None:
    insert(send, 60)
    state = send({"find": {}})["data"]["nextPageState"]

    assert codes(send({"find": {"options": {"pageState": state + added}}})) == ["UNEXPECTED_SERVER_ERROR"]


@pytest.mark.parametrize("text", ["QUJD=", "QUJDQQ=", "QUJ", "QU JD", "-_==", "é", 5, None])
def test_an_extended_value_of_bytes_is_strict_base64(send: Send, text: Any) -> None:
    path = ("default_keyspace", "any")
    reply = send({"insertOne": {"document": {"value": {"$binary": text}}}}, path)

    assert codes(reply) == ["SHRED_BAD_EJSON_VALUE"]
    assert "errors" not in send({"insertOne": {"document": {"value": {"$binary": "QUI="}}}}, path)


@pytest.mark.parametrize("command_filter", [{}, {"n": {"$gte": 0}}])
@pytest.mark.parametrize("count", [0, 49, 50, 51, 120])
def test_every_document_comes_on_one_page_and_a_full_page_is_followed(
    send: Send, count: int, command_filter: dict[str, Any]
) -> None:
    path = ("default_keyspace", "any")
    insert(send, count, "any")
    found, sizes, state = [], [], None
    while True:
        page = send({"find": {"filter": command_filter, "options": {"pageState": state}}}, path)["data"]
        found += [document["n"] for document in page["documents"]]
        sizes.append(len(page["documents"]))
        state = page["nextPageState"]
        if state is None:
            break
        assert re.fullmatch(r"[A-Za-z0-9_-]+", state)
    assert found == list(range(count))
    assert sizes == [50] * (count // 50) + [count % 50]


def test_pages_go_on_after_ids_of_any_type(send: Send) -> None:
    ids: list[Any] = [*range(60), "é" * 50, "\x00", True, None, *(f"{n}" for n in range(50))]
    send({"insertMany": {"documents": [{"_id": one} for one in ids[:100]]}})
    send({"insertMany": {"documents": [{"_id": one} for one in ids[100:]]}})
    found, state = [], None
    while True:
        page = send({"find": {"options": {"pageState": state}}})["data"]
        found += [json.dumps(document["_id"]) for document in page["documents"]]
        state = page["nextPageState"]
        if state is None:
            break
    assert sorted(found) == sorted(json.dumps(one) for one in ids)


def test_a_page_state_outlives_the_document_it_points_to(send: Send) -> None:
    insert(send, 70)
    state = send({"find": {}})["data"]["nextPageState"]
    send({"deleteOne": {"filter": {"_id": "k0049"}}})
    assert [one["n"] for one in send({"find": {"options": {"pageState": state}}})["data"]["documents"]] == list(
        range(50, 70)
    )


def test_a_limit_holds_over_pages(send: Send) -> None:
    insert(send, 120)
    first = send({"find": {"options": {"limit": 100}}})["data"]
    second = send({"find": {"options": {"limit": 100, "pageState": first["nextPageState"]}}})["data"]
    assert (len(first["documents"]), len(second["documents"]), second["nextPageState"]) == (50, 50, None)
    assert send({"find": {"options": {"limit": 50}}})["data"]["nextPageState"] is None


def test_stored_documents_are_passed_on_as_they_are(engine: MemoryEngine) -> None:
    body = b'{"_id":"a","value":[1.0,1e-07,"\\u00e9"],"z":1E400}'
    engine.write(KV, [row("a", body)])
    for command in (b'{"find":{}}', b'{"find":{"filter":{"_id":"a"}}}', b'{"findOne":{}}'):
        assert body in asyncio.run(answer(engine, KV, command))[1]
    kept = asyncio.run(answer(engine, KV, b'{"findOne":{"projection":{"value":0}}}'))[1]
    assert b'{"_id":"a","z":1E400}' in kept


def test_counting_stops_at_a_thousand(send: Send) -> None:
    insert(send, 1000)
    assert send({"countDocuments": {}})["status"] == {"count": 1000}
    send({"insertOne": {"document": {}}})
    assert send({"countDocuments": {}})["status"] == {"count": 1000, "moreData": True}
    assert send({"countDocuments": {"filter": {"_id": {"$exists": True}}}})["status"] == {
        "count": 1000,
        "moreData": True,
    }
    assert send({"estimatedDocumentCount": {}})["status"] == {"count": 1001}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"_id": {"$gt": "k0003"}}, [4, 5]),
        ({"_id": {"$lte": "k0001"}}, [0, 1]),
        ({"_id": {"$gt": 5}}, []),
        ({"_id": {"$ne": "k0000"}}, [1, 2, 3, 4, 5]),
        ({"_id": {"$nin": ["k0000", "k0001"]}}, [2, 3, 4, 5]),
        ({"_id": {"$in": ["k0002", "k0001", "k0002"]}}, [2, 1, 2]),
        ({"n": {"$gte": 1, "$lt": 3}}, [1, 2]),
        ({"$or": [{"n": 1}, {"n": {"$gt": 4}}]}, [1, 5]),
        ({"$or": [{"n": {"$gt": 4, "$lt": 2}}]}, [0, 1, 5]),  # as the real server reads it
        ({"$or": [{"$and": [{"n": {"$gt": 1}}, {"n": {"$lt": 3}}]}, {"n": 5}]}, [2, 5]),
        ({"$not": {"n": {"$lt": 4}}}, [4, 5]),
        ({"$and": [{"_id": "k0001"}, {"n": 2}]}, []),
        ({"_id": {"$in": ["k0001", "k0004"]}, "n": {"$gt": 1}}, [4]),
        ({"n": {"$ne": 0}, "missing": {"$exists": False}}, [1, 2, 3, 4, 5]),
        ({"$not": {"_id": "k0001"}}, [0, 2, 3, 4, 5]),
    ],
)
def test_filters_go_beyond_what_one_index_can_do(send: Send, condition: dict[str, Any], found: list[int]) -> None:
    insert(send, 6, "any")
    reply = send({"find": {"filter": condition}}, ("default_keyspace", "any"))
    assert [document["n"] for document in reply["data"]["documents"]] == found


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"_id": {"$gt": "a", "$lt": "b"}}, "FILTER_MULTIPLE_ID_FILTER"),
        ({"$or": [{"_id": "a"}]}, "FILTER_INVALID_EXPRESSION"),
        ({"_id": {"$regex": "a"}}, "FILTER_UNSUPPORTED_OPERATOR"),
        ({"_id": {"$in": ["a", ""]}}, "SHRED_BAD_DOCID_VALUE"),
        ({"_id": {"$exists": 1}}, "FILTER_INVALID_EXPRESSION"),
        ({"$and": [5]}, "FILTER_INVALID_EXPRESSION"),
        ({"$and": 5}, "FILTER_INVALID_EXPRESSION"),
        ({"a..b": 1}, "FILTER_INVALID_EXPRESSION"),
        ({"a&b": 1}, "FILTER_INVALID_EXPRESSION"),
        ({f"f{n}": 1 for n in range(65)}, "FILTER_FIELDS_LIMIT_VIOLATION"),
        ({"a": {"$size": 1.5}}, "FILTER_INVALID_EXPRESSION"),
        ({"a": {"$size": True}}, "FILTER_INVALID_EXPRESSION"),
        ({"a": {"$all": []}}, "FILTER_INVALID_EXPRESSION"),
        ({"$vector": [1]}, "FILTER_INVALID_EXPRESSION"),
    ],
)
def test_filters_that_cannot_be_are_refused(send: Send, condition: dict[str, Any], code: str) -> None:
    assert codes(send({"find": {"filter": condition}}, ("default_keyspace", "any"))) == [code]


def test_an_id_that_is_not_indexed_is_found_by_key_only(send: Send) -> None:
    options = {"indexing": {"deny": ["*"]}}
    send({"createCollection": {"name": "none", "options": options}}, ("default_keyspace",))
    path = ("default_keyspace", "none")
    send({"insertOne": {"document": {"_id": "x" * 9000}}}, path)
    assert send({"findOne": {"filter": {"_id": "x" * 9000}}}, path)["data"]["document"]
    assert codes(send({"find": {"filter": {"_id": {"$gt": "a"}}}}, path)) == ["FILTER_ID_NOT_INDEXED"]
    assert codes(send({"find": {"filter": {"a": 1}}}, path)) == ["FILTER_PATH_UNINDEXED"]


@pytest.mark.parametrize(
    ("indexing", "condition", "is_found"),
    [
        ({"deny": ["o.no"]}, {"o": {"a": 1}}, True),
        ({"deny": ["o.no"]}, {"o": {"$in": [{"a": 1}, 5]}}, True),
        ({"allow": ["o"]}, {"o": {"a": 1}}, False),
        ({"deny": ["o.no"]}, {"o": {"$ne": {"a": 1}}}, False),
        ({"deny": ["o.no"]}, {"o": {"a": 2}}, False),
        ({"deny": ["l.no"]}, {"l": {"$all": [{"a": 1}, 2]}}, True),
        ({"deny": ["l.no"]}, {"l": {"$eq": [{"a": 1}, 2]}}, True),
        ({"deny": ["l.no"]}, {"l": {"$size": 2}}, True),
        ({"deny": ["_id", "o.no"]}, {"o": {"a": 1}, "_id": {"$in": ["k", "m"]}}, True),
        ({"deny": ["o.no"]}, {"$and": [{"o": {"a": 1}}, {"x": 3}]}, True),
    ],
)
def test_of_an_object_only_what_is_indexed_is_compared(
    send: Send, indexing: dict[str, Any], condition: dict[str, Any], is_found: bool
) -> None:
    send({"createCollection": {"name": "part", "options": {"indexing": indexing}}}, ("default_keyspace",))
    path = ("default_keyspace", "part")
    document = {"_id": "k", "o": {"a": 1, "no": 2}, "l": [{"a": 1, "no": 2}, 2], "x": 3}
    send({"insertOne": {"document": document}}, path)
    assert send({"find": {"filter": condition}}, path)["data"]["documents"] == [document] * is_found


# -- writing ---------------------------------------------------------------------------------------------------------


def test_a_replacement_by_another_field_keeps_the_id_of_what_it_replaces(send: Send) -> None:
    insert(send, 3, "any")
    path = ("default_keyspace", "any")
    command = {"filter": {"n": 1}, "replacement": {"m": 1}, "options": {"returnDocument": "after"}}
    assert send({"findOneAndReplace": command}, path)["data"]["document"] == {"_id": "k0001", "m": 1}
    command = {"filter": {"n": 9}, "replacement": {"m": 9}, "options": {"upsert": True}}
    status = send({"findOneAndReplace": command}, path)["status"]
    assert status["matchedCount"] == 0
    assert send({"findOne": {"filter": {"_id": status["upsertedId"]}}}, path)["data"]["document"]["m"] == 9


def test_a_replacement_keeps_the_form_of_the_id_and_refuses_another(send: Send) -> None:
    uuid = {"$uuid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}
    send({"insertOne": {"document": {"_id": uuid}}})
    command: dict[str, Any] = {
        "filter": {"_id": uuid["$uuid"]},
        "replacement": {"v": 1},
        "options": {"returnDocument": "after"},
    }
    assert send({"findOneAndReplace": command})["data"]["document"] == {"_id": uuid, "v": 1}
    command["replacement"] = {"_id": uuid["$uuid"], "v": 2}
    assert codes(send({"findOneAndReplace": command})) == ["DOCUMENT_REPLACE_DIFFERENT_DOCID"]


def test_a_filter_that_the_document_of_an_id_does_not_meet_changes_nothing(send: Send) -> None:
    path = ("default_keyspace", "any")
    insert(send, 1, "any")
    condition = {"_id": "k0000", "n": 5}
    for options in ({}, {"upsert": True}):
        command = {"filter": condition, "replacement": {"n": 9}, "options": options}
        reply = send({"findOneAndReplace": command}, path)
        assert reply == {"data": {"document": None}, "status": {"matchedCount": 0, "modifiedCount": 0}}
    assert send({"deleteOne": {"filter": condition}}, path)["status"] == {"deletedCount": 0}
    assert send({"deleteMany": {"filter": condition}}, path)["status"] == {"deletedCount": 0}
    assert send({"findOne": {}}, path)["data"]["document"]["n"] == 0


def test_delete_many_by_a_field_goes_twenty_by_twenty(send: Send) -> None:
    path = ("default_keyspace", "any")
    insert(send, 45, "any")
    command = {"deleteMany": {"filter": {"n": {"$gte": 3}}}}
    assert send(command, path)["status"] == {"deletedCount": 20, "moreData": True}
    assert send(command, path)["status"] == {"deletedCount": 20, "moreData": True}
    assert send(command, path)["status"] == {"deletedCount": 2}
    assert send({"countDocuments": {}}, path)["status"] == {"count": 3}


def test_delete_many_says_that_there_is_more_when_others_were_faster(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(send, 45, "any")
    modify = engine.modify

    def steal(collection: CollectionName, ids: list[DocId], change: Any) -> None:
        engine.delete(collection, ids[:5])
        modify(collection, ids, change)

    monkeypatch.setattr(engine, "modify", steal)
    reply = send({"deleteMany": {"filter": {"n": {"$gte": 0}}}}, ("default_keyspace", "any"))
    assert reply["status"] == {"deletedCount": 15, "moreData": True}


@pytest.mark.parametrize("condition", [{"$and": []}, {"$and": [{}]}, None])
def test_a_filter_that_says_nothing_deletes_everything(send: Send, condition: Any) -> None:
    insert(send, 30)
    assert send({"deleteMany": {"filter": condition}})["status"] == {"deletedCount": -1}
    assert send({"countDocuments": {}})["status"] == {"count": 0}


def test_a_write_that_lost_its_document_to_others_looks_for_another(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(send, 3, "any")
    modify, stolen = engine.modify, []

    def steal(collection: CollectionName, ids: list[DocId], change: Any) -> None:
        if len(stolen) < 2:
            stolen.append(ids[0])
            engine.delete(collection, ids)
        modify(collection, ids, change)

    monkeypatch.setattr(engine, "modify", steal)
    reply = send({"findOneAndDelete": {"filter": {"n": {"$gte": 0}}}}, ("default_keyspace", "any"))
    assert (reply["data"]["document"]["_id"], stolen) == ("k0002", ["k0000", "k0001"])


def test_a_write_that_always_loses_says_so(send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    insert(send, 9, "any")
    modify = engine.modify

    def steal(collection: CollectionName, ids: list[DocId], change: Any) -> None:
        engine.delete(collection, ids)
        modify(collection, ids, change)

    monkeypatch.setattr(engine, "modify", steal)
    reply = send({"deleteOne": {"filter": {"n": {"$gte": 0}}}}, ("default_keyspace", "any"))
    assert codes(reply) == ["FAILED_CONCURRENT_OPERATIONS"]


# -- collections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"vector": {"dimension": 0}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"lexical": {"enabled": True}}, "LEXICAL_NOT_AVAILABLE_FOR_DATABASE"),
        ({"lexical": {}}, "INVALID_CREATE_COLLECTION_OPTIONS"),
        ({"rerank": {"enabled": True}}, "RERANKING_FEATURE_NOT_ENABLED"),
        ({"defaultId": {"type": "x"}}, "INVALID_CREATE_COLLECTION_OPTIONS"),
        ({"defaultId": {"type": "uuid", "nope": 3}}, "INVALID_CREATE_COLLECTION_FIELD"),
        ({"defaultId": {}}, "INVALID_CREATE_COLLECTION_OPTIONS"),
        ({"defaultId": "uuid"}, "INVALID_CREATE_COLLECTION_OPTIONS"),
        ({"indexing": {"nope": 3}}, "INVALID_CREATE_COLLECTION_FIELD"),
        ({"indexing": []}, "INVALID_INDEXING_DEFINITION"),
        ({"indexing": {"allow": ["*", "a"]}}, "INVALID_INDEXING_DEFINITION"),
        ({"indexing": {"deny": [""]}}, "INVALID_INDEXING_DEFINITION"),
        ({"indexing": {"deny": ["a&"]}}, "INVALID_INDEXING_DEFINITION"),
        ({"indexing": {"deny": 5}}, "INVALID_INDEXING_DEFINITION"),
    ],
)
def test_options_that_cannot_be_had_are_refused_and_nothing_is_created(send: Send, options: Any, code: str) -> None:
    reply = send({"createCollection": {"name": "new", "options": options}}, ("default_keyspace",))
    assert codes(reply) == [code]
    assert "new" not in send({"findCollections": {}}, ("default_keyspace",))["status"]["collections"]


def test_the_order_of_indexed_paths_is_no_difference(send: Send) -> None:
    for paths in (["a", "b"], ["b", "a"]):
        options = {"indexing": {"allow": paths}, "lexical": {"enabled": False}}
        assert "errors" not in send({"createCollection": {"name": "c", "options": options}}, ("default_keyspace",))


def test_the_older_names_work_with_a_warning_also_when_they_fail(send: Send) -> None:
    reply = send({"createNamespace": {"name": "ks"}}, ())
    assert reply["status"]["ok"] == 1
    assert reply["status"]["warnings"][0]["errorCode"] == "DEPRECATED_COMMAND"
    reply = send({"createNamespace": {"name": "bad-name"}}, ())
    assert codes(reply) == ["UNSUPPORTED_SCHEMA_NAME"]
    assert reply["status"]["warnings"][0]["scope"] == "WARNING"
    assert send({"dropNamespace": {"name": "ks"}}, ())["status"]["ok"] == 1


def test_a_projection_reads_what_only_other_programs_store() -> None:
    from langchain_kv.server.query.projection import parse_projection

    keys_only = parse_projection({"value": False})
    assert keys_only.apply(b'{"_id":"a","value":"\\ud800"}') == b'{"_id":"a"}'
    assert keys_only.apply(b'{"_id":"a","value":1E+400,"x":"\\ud800"}').startswith(b'{"_id":"a","x":"\\ud800"')
    for damaged in (b"{", b"[1]", b"\xff"):
        with pytest.raises(DataAPIError) as caught:
            keys_only.apply(damaged)
        assert caught.value.code == "DOCUMENT_FROM_DB_UNPARSEABLE"


# -- services that are not here --------------------------------------------------------------------------------------


def test_what_needs_reranking_is_refused_as_where_it_is_switched_off(send: Send) -> None:
    assert codes(send({"findAndRerank": {"sort": {"$hybrid": "x"}}})) == ["RERANKING_FEATURE_NOT_ENABLED"]
    assert codes(send({"findAndRerank": {}}, ("default_keyspace", "nowhere"))) == ["UNKNOWN_COLLECTION_OR_TABLE"]
    assert codes(send({"findRerankingProviders": {}}, ())) == ["RERANKING_FEATURE_NOT_ENABLED"]
    assert send({"findEmbeddingProviders": {}}, ()) == {"status": {"embeddingProviders": {}}}


@pytest.mark.parametrize("status", ["nope", "SUPPORTED ", 1, True, [], {}])
def test_providers_are_asked_for_by_a_status_that_models_have(send: Send, status: Any) -> None:
    code = "REQUEST_STRUCTURE_MISMATCH" if status in ([], {}) else "COMMAND_FIELD_VALUE_INVALID"
    for name in ("findEmbeddingProviders", "findRerankingProviders"):
        assert codes(send({name: {"options": {"filterModelStatus": status}}}, ())) == [code]


@pytest.mark.parametrize("status", [None, "", "supported", "DEPRECATED", "End_Of_Life"])
def test_every_status_of_models_may_be_asked_for(send: Send, status: Any) -> None:
    options = {"options": {"filterModelStatus": status}}
    assert send({"findEmbeddingProviders": options}, ()) == {"status": {"embeddingProviders": {}}}
    assert codes(send({"findRerankingProviders": options}, ())) == ["RERANKING_FEATURE_NOT_ENABLED"]


@pytest.mark.parametrize(
    ("replication", "code"),
    [
        ("SimpleStrategy", "REQUEST_STRUCTURE_MISMATCH"),
        ([], "REQUEST_STRUCTURE_MISMATCH"),
        ({"class": "SimpleStrategy", "replication_factor": "one"}, "REQUEST_STRUCTURE_MISMATCH"),
        ({"class": "NetworkTopologyStrategy", "dc1": {}}, "REQUEST_STRUCTURE_MISMATCH"),
        ({"class": "NetworkTopologyStrategy", "dc1": True}, "REQUEST_STRUCTURE_MISMATCH"),
        ({"class": []}, "REQUEST_STRUCTURE_MISMATCH"),
        ({}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"class": None}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"class": "simpleStrategy"}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"replication_factor": 1}, "COMMAND_FIELD_VALUE_INVALID"),
    ],
)
def test_a_keyspace_with_a_replication_that_there_is_not_is_refused(send: Send, replication: Any, code: str) -> None:
    for name in ("createKeyspace", "createNamespace"):
        assert codes(send({name: {"name": "other", "options": {"replication": replication}}}, ())) == [code]
    assert "other" not in send({"findKeyspaces": {}}, ())["status"]["keyspaces"]


@pytest.mark.parametrize(
    "replication",
    [None, {"class": "SimpleStrategy", "replication_factor": 3}, {"class": "NetworkTopologyStrategy", "dc1": "3"}],
)
def test_a_replication_has_no_meaning(send: Send, replication: Any) -> None:
    command = {"name": "other", "options": {"replication": replication}}
    assert send({"createKeyspace": command}, ()) == {"status": {"ok": 1}}


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"$lexical": {"$match": "x"}}, "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
        ({"$lexical": "x"}, "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
        ({"a": {"$match": "x"}}, "FILTER_INVALID_EXPRESSION"),
        ({"$vector": [1]}, "FILTER_INVALID_EXPRESSION"),
        ({"$vectorize": "x"}, "FILTER_INVALID_EXPRESSION"),
    ],
)
def test_filters_of_searches_are_refused(send: Send, condition: Any, code: str) -> None:
    for command in ("find", "countDocuments", "deleteMany"):
        assert codes(send({command: {"filter": condition}}, ("default_keyspace", "any"))) == [code]


def test_every_command_checks_its_options(send: Send) -> None:
    for path, commands in zip(((), ("default_keyspace",), KV), COMMANDS, strict=True):
        for name, command in commands.items():
            reply = codes(send({name: {"options": {"nope": 1}}}, path))
            if "options" not in command.fields:
                assert reply == ["COMMAND_FIELD_UNKNOWN"]
            elif not command.options:
                assert reply == ["COMMAND_ACCEPTS_NO_OPTIONS"]
            else:
                assert reply == [command.unknown_option]
                assert codes(send({name: {"options": 5}}, path)) == ["REQUEST_STRUCTURE_MISMATCH"]


def test_an_upsert_by_id_is_one_write(send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    modify, calls = engine.modify, []

    def counted(*args: Any) -> None:
        calls.append(args)
        modify(*args)

    monkeypatch.setattr(engine, "modify", counted)
    command = {"filter": {"_id": "a"}, "replacement": {"value": 1}, "options": {"upsert": True}}
    assert send({"findOneAndReplace": command})["status"]["upsertedId"] == "a"
    assert len(calls) == 1
    assert send({"deleteOne": {"filter": {"_id": "nope"}}})["status"] == {"deletedCount": 0}
    assert len(calls) == 1


def test_a_replacement_is_made_before_the_write_and_once(
    send: Send, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_kv.server.commands import writes

    insert(send, 1)
    is_writing, made = False, []
    modify, shred = engine.modify, writes.shred

    def writing(*args: Any) -> None:
        nonlocal is_writing
        is_writing = True
        modify(*args)
        is_writing = False

    def noted(*args: Any) -> Any:
        made.append(is_writing)
        return shred(*args)

    monkeypatch.setattr(engine, "modify", writing)
    monkeypatch.setattr(writes, "shred", noted)
    send({"findOneAndReplace": {"filter": {"_id": "k0000"}, "replacement": {"n": 2}}})
    send({"findOneAndReplace": {"filter": {"_id": "new"}, "replacement": {"n": 2}, "options": {"upsert": True}}})
    assert made == [False, False]
