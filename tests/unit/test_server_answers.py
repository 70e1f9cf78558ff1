"""What the real Data API answers where no recording says it: from its source (1.0.51), and tried with its parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from answered import Send, codes, sender
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.commands.table import COMMANDS

ANY = CollectionName("default_keyspace", "any")
KEYSPACE = ("default_keyspace",)


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    engine = MemoryEngine()
    engine.create_collection(ANY, {})
    yield engine
    engine.close()


@pytest.fixture
def send(engine: MemoryEngine) -> Send:
    return sender(engine, ANY)


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"null", b"5", b'""', b"true", b"[]", b"[{}]"])
@pytest.mark.parametrize("commands", COMMANDS, ids=["general", "keyspace", "collection"])
def test_a_command_whose_value_is_no_object_has_the_wrong_structure(
    send: Send, commands: dict[str, Any], value: bytes
) -> None:
    path = ANY[: COMMANDS.index(commands)]
    for name in commands:
        assert codes(send(b'{"%b":%b}' % (name.encode(), value), path)) == ["REQUEST_STRUCTURE_MISMATCH"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"null", "COMMAND_FIELD_VALUE_INVALID"),
        (b'{"nope":null}', "COMMAND_UNKNOWN"),
        (b'{"nope":5}', "COMMAND_UNKNOWN"),
        (b'{"nope":{},"find":{}}', "COMMAND_UNKNOWN"),
        (b'{"find":{},"nope":{}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":null,"nope":{}}', "REQUEST_STRUCTURE_MISMATCH"),
        (b'{"find":{"x":1},"nope":{}}', "COMMAND_FIELD_UNKNOWN"),
    ],
)
def test_of_several_faults_of_a_request_the_first_is_told(send: Send, body: bytes, code: str) -> None:
    assert codes(send(body)) == [code]


# -- $all -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "wanted", "is_found"),
    [
        ({"x": 1}, [{"x": 1}], False),  # only an array holds an object
        ([{"x": 1}], [{"x": 1}], True),
        ([{"x": 1.0}, 2], [2, {"x": 1}], True),
        ([{"x": 1, "y": 2}], [{"y": 2, "x": 1}], False),
        ({}, [{}], False),
        ([{}], [{}], True),
        ([1, 2], [[1, 2]], False),
        ([[1, 2]], [[1, 2]], True),
        ([], [[]], False),
        (5, [5], True),
        (5, [5, 5.0], True),
        (5, [5, 6], False),
        ("a", ["a"], True),
        (None, [None], True),
        (True, [1], False),
        ({"$date": 5}, [{"$date": 5}], True),
        ([{"$date": 5}], [{"$date": 5}], True),
    ],
)
def test_all_finds_what_an_array_holds_and_a_single_value(
    send: Send, field: Any, wanted: list[Any], is_found: bool
) -> None:
    send({"insertOne": {"document": {"_id": "a", "f": field}}})
    send({"insertOne": {"document": {"_id": "without"}}})
    found = [one["_id"] for one in send({"find": {"filter": {"f": {"$all": wanted}}}})["data"]["documents"]]
    assert found == (["a"] if is_found else [])
    others = [one["_id"] for one in send({"find": {"filter": {"$not": {"f": {"$all": wanted}}}}})["data"]["documents"]]
    assert others == (["without"] if is_found else ["a", "without"])


# -- updates --------------------------------------------------------------------------------------------------------

ID, MODIFIER, PARAM, PATH = "OPERATOR_FOR_DOC_ID", "OPERATION_MODIFIER", "OPERATION_PARAM", "OPERATION_PATH"
BAD = {
    "$inc": "x",
    "$mul": None,
    "$pop": "x",
    "$currentDate": 5,
    "$rename": 5,
    "$push": {"$each": 5},
    "$addToSet": {"$each": 5},
}


@pytest.mark.parametrize("operator", BAD)
def test_a_bad_argument_is_told_before_a_path_that_is_not_well_formed(send: Send, operator: str) -> None:
    assert _refusal(send, {operator: {"a..b": BAD[operator]}}) == PARAM


@pytest.mark.parametrize("operator", BAD)
def test_a_field_that_cannot_be_changed_is_told_before_a_bad_argument(send: Send, operator: str) -> None:
    assert _refusal(send, {operator: {"_id": BAD[operator]}}) == ID


@pytest.mark.parametrize("operator", ["$inc", "$mul"])
def test_a_name_of_a_modifier_is_told_first(send: Send, operator: str) -> None:
    assert _refusal(send, {operator: {"$vector": "x"}}) == MODIFIER


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"$set": {"b..": 1, "_id": 1}}, PATH),
        ({"$set": {"_id": 1, "b..": 1}}, ID),
        ({"$inc": {"z": "x", "a..b": 1}}, PARAM),
        ({"$inc": {"a..b": 1, "z": "x"}}, PATH),
        ({"$unset": {"_id": 1}, "$inc": {"a": "x"}}, PARAM),
        ({"$pullAll": {"a": [1]}, "$set": {"_id": 1}}, ID),
        ({"$pullAll": {}}, "OPERATION"),
        ({"$pullAll": 5}, "DATA_TYPE"),
        ({"$set": {"a": 1, "a.b": 1}, "$unset": {"c..d": 1}}, PATH),
        ({"$rename": {"a..b": "_id"}}, ID),
        ({"$rename": {"a..b": "a..b"}}, PATH),
        ({"$push": {"a": {"$each": 5, "$nope": 1}}}, PARAM),
        ({"$push": {"a": {"$nope": 1, "$each": 5}}}, MODIFIER),
        ({"$push": {"a": {"$position": "x", "$nope": 1}}}, PARAM),
        ({"$push": {"a": {"$position": 1}}}, PARAM),
        ({"$push": {"$a": {"$nope": 1}}}, PARAM),
        ({"$addToSet": {"a": {"$position": 1, "$each": 5}}}, MODIFIER),
    ],
)
def test_of_several_faults_of_an_update_the_data_api_s_first_is_told(send: Send, update: Any, told: str) -> None:
    assert _refusal(send, update) == told


def _refusal(send: Send, update: Any) -> str:
    (code,) = codes(send({"updateOne": {"filter": {}, "update": update}}))
    return str(code).removeprefix("UNSUPPORTED_UPDATE_")


# -- insertMany -----------------------------------------------------------------------------------------------------


def responses(send: Send, documents: list[Any], path: tuple[str, ...] = ANY) -> list[dict[str, Any]]:
    options = {"ordered": True, "returnDocumentResponses": True}
    reply = send({"insertMany": {"documents": documents, "options": options}}, path)
    found: list[dict[str, Any]] = reply["status"]["documentResponses"]
    return found


def test_a_skipped_document_without_an_id_has_the_one_that_was_made_for_it(send: Send) -> None:
    failed, skipped = responses(send, [{"$bad": 1}, {"a": 1}])
    assert failed == {"_id": failed["_id"], "status": "ERROR", "errorsIdx": 0}
    assert skipped == {"_id": skipped["_id"], "status": "SKIPPED"}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one["_id"]) for one in (failed, skipped))


def test_the_id_made_for_a_skipped_document_is_of_the_collection_s_type(send: Send, engine: MemoryEngine) -> None:
    engine.create_collection(CollectionName("default_keyspace", "objects"), {"defaultId": {"type": "objectId"}})
    skipped = responses(send, [{"$bad": 1}, {}], ("default_keyspace", "objects"))[1]
    assert list(skipped["_id"]) == ["$objectId"]


@pytest.mark.parametrize("document", [{"_id": ""}, {"_id": [1]}, {"_id": {"$uuid": "x"}}, 5, None])
def test_an_id_that_can_be_none_is_left_out_of_the_responses(send: Send, document: Any) -> None:
    assert responses(send, [{"$bad": 1}, document])[1] == {"status": "SKIPPED"}
    assert responses(send, [document]) == [{"status": "ERROR", "errorsIdx": 0}]


def test_null_is_an_id_also_of_a_skipped_document(send: Send) -> None:
    assert responses(send, [{"$bad": 1}, {"_id": None}])[1] == {"_id": None, "status": "SKIPPED"}


# -- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": {"explain": True}}, {"options": {}}])
def test_there_are_no_tables_and_no_types(send: Send, options: Any) -> None:
    assert send({"listTables": options}, KEYSPACE) == {"status": {"tables": []}}
    assert send({"listTypes": options}, KEYSPACE) == {"status": {"types": []}}


@pytest.mark.parametrize("kind", ["Table", "Index", "Type"])
def test_what_is_not_there_is_dropped_if_it_exists(send: Send, kind: str) -> None:
    assert send({f"drop{kind}": {"name": "x", "options": {"ifExists": True}}}, KEYSPACE) == {"status": {"ok": 1}}
    for options in ({}, {"options": None}, {"options": {"ifExists": False}}, {"options": {"ifExists": None}}):
        reply = send({f"drop{kind}": {"name": "x", **options}}, KEYSPACE)
        assert codes(reply) == [f"CANNOT_DROP_UNKNOWN_{kind.upper()}"]
        assert reply["errors"][0]["scope"] == "SCHEMA"
    for name in ({}, {"name": None}, {"name": ""}):
        assert codes(send({f"drop{kind}": name}, KEYSPACE)) == ["COMMAND_FIELD_VALUE_INVALID"]


def test_a_collection_is_no_table_to_drop(send: Send) -> None:
    assert codes(send({"dropTable": {"name": "any"}}, KEYSPACE)) == ["CANNOT_DROP_UNKNOWN_TABLE"]
    assert send({"dropTable": {"name": "any", "options": {"ifExists": True}}}, KEYSPACE) == {"status": {"ok": 1}}
    assert send({"findCollections": {}}, KEYSPACE) == {"status": {"collections": ["any"]}}


@pytest.mark.parametrize("command", ["createTable", "createType", "alterType"])
def test_what_would_make_a_table_or_a_type_is_refused_as_of_tables(send: Send, command: str) -> None:
    assert codes(send({command: {"name": "x"}}, KEYSPACE)) == ["UNSUPPORTED_TABLE_COMMAND"]


COMMANDS_OF_TABLES = ["alterTable", "createIndex", "createTextIndex", "createVectorIndex", "listIndexes"]


@pytest.mark.parametrize("command", COMMANDS_OF_TABLES)
def test_a_command_of_tables_is_refused_on_a_collection(send: Send, command: str) -> None:
    assert codes(send({command: {}})) == ["UNSUPPORTED_COLLECTION_COMMAND"]
    assert codes(send({command: {}}, ("default_keyspace", "nowhere"))) == ["UNKNOWN_COLLECTION_OR_TABLE"]
    assert codes(send({command: {"nope": 1}})) == ["COMMAND_FIELD_UNKNOWN"]


@pytest.mark.parametrize("command", ["listTables", "listTypes", "createTable", "createType", "alterType"])
def test_a_keyspace_that_is_not_there_is_told_first(send: Send, command: str) -> None:
    assert codes(send({command: {}}, ("nowhere",))) == ["UNKNOWN_KEYSPACE"]


@pytest.mark.parametrize("kind", ["Table", "Index", "Type"])
def test_nothing_is_dropped_in_a_keyspace_that_is_not_there(send: Send, kind: str) -> None:
    command = {f"drop{kind}": {"name": "x", "options": {"ifExists": True}}}
    assert codes(send(command, ("nowhere",))) == ["UNKNOWN_KEYSPACE"]
