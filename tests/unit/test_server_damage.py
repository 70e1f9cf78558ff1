"""Documents that were damaged in the file: an error for each, which names it, and the rest is served."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from bodies import row
from langchain_kv import DamagedValueError, DataAPIError, KVStore
from langchain_kv.backends.dataapi.replies import parse_page
from langchain_kv.engines.base import CollectionName
from places import TOKEN, Place

DAMAGE = {
    "no JSON": '{"_id":"bad","value":{{{',
    "cut": '{"_id":"bad","value":"abc',
    "zeros": "\0" * 100,
    "empty": "",
    "a number that is none": '{"_id":"bad","value":NaN}',
    "joins what stands beside it": '{"_id":"bad"},{"_id":"intruder"}',
}


def ask(place: Place, collection: str, command: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{place.url}/v1/default_keyspace/{collection}",
        json.dumps(command).encode(),
        {"Content-Type": "application/json", "Token": TOKEN},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer: dict[str, Any] = json.loads(reply.read().decode())  # strictly: no half of a surrogate pair
        return answer


def planted(place: Place, body: str, good: int = 3) -> tuple[KVStore, str]:
    """Return a store, and its collection, that holds good values and one damaged document, 'bad'."""
    collection = place.new_name()
    store = place.store(collection=collection)
    store.mset([(f"good {number}", number) for number in range(good)])
    place.plant(collection, "bad", body)
    return store, collection


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_page_is_served_with_one_error_that_names_the_damaged_document(kind: str, http_place: Place) -> None:
    _, collection = planted(http_place, DAMAGE[kind])

    for command in ({}, {"filter": {"_id": {"$in": ["good 0", "bad", "good 1", "good 2"]}}}):
        reply = ask(http_place, collection, {"find": command})
        assert [document["_id"] for document in reply["data"]["documents"]] == ["good 0", "good 1", "good 2"]
        (error,) = reply["errors"]
        assert (error["errorCode"], error["documentIds"]) == ("DOCUMENT_FROM_DB_UNPARSEABLE", ["bad"])
        assert "'bad'" in error["message"]
        assert "abc" not in error["message"]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("option", [{"filter": {"value": {"$exists": True}}}, {"projection": {"value": True}}], ids=str)
def test_a_filter_or_a_projection_changes_nothing_of_that(kind: str, option: dict[str, Any], http_place: Place) -> None:
    collection = http_place.new_name()
    http_place.engine.create_collection(CollectionName("default_keyspace", collection), {})  # every field is indexed
    for number in range(3):
        http_place.plant(collection, f"good {number}", f'{{"_id":"good {number}","value":{number}}}')
    http_place.plant(collection, "bad", DAMAGE[kind])

    reply = ask(http_place, collection, {"find": option})
    assert len(reply["data"]["documents"]) == 3
    (error,) = reply["errors"]
    assert error["documentIds"] == ["bad"]


@pytest.mark.parametrize("command", ["find", "findOne", "countDocuments", "updateMany"])
def test_a_command_that_cannot_do_without_a_damaged_document_names_it(command: str, http_place: Place) -> None:
    collection = http_place.new_name()
    http_place.engine.create_collection(CollectionName("default_keyspace", collection), {})
    http_place.plant(collection, "bad", DAMAGE["cut"])
    more = {"find": {"sort": {"value": 1}}, "updateMany": {"update": {"$set": {"seen": True}}}}

    reply = ask(http_place, collection, {command: {"filter": {"value": 5}, **more.get(command, {})}})
    (error,) = reply["errors"]
    assert (error["errorCode"], error["documentIds"]) == ("DOCUMENT_FROM_DB_UNPARSEABLE", ["bad"])


def test_half_a_surrogate_pair_is_sent_escaped(http_place: Place) -> None:
    _, collection = planted(http_place, '{"_id":"bad","value":"\ud800"}', good=0)

    reply = ask(http_place, collection, {"find": {}})
    assert reply == {"data": {"documents": [{"_id": "bad", "value": "\ud800"}], "nextPageState": None}}


def test_find_one_of_a_damaged_document_names_it(http_place: Place) -> None:
    _, collection = planted(http_place, DAMAGE["cut"])

    reply = ask(http_place, collection, {"findOne": {"filter": {"_id": "bad"}}})
    assert "data" not in reply
    assert reply["errors"][0]["documentIds"] == ["bad"]


def test_pages_go_on_past_a_damaged_document(http_place: Place) -> None:
    store, _ = planted(http_place, DAMAGE["cut"], good=120)

    with pytest.raises(DamagedValueError) as caught:
        list(store.yield_items())
    assert list(caught.value.errors) == ["bad"]
    assert len(set(store.yield_keys())) == 121


def test_a_store_over_http_gives_the_good_values_and_names_the_bad_key(http_place: Place, face: Any) -> None:
    store, _ = planted(http_place, DAMAGE["cut"])

    with pytest.raises(DamagedValueError) as caught:
        face(store).mget(["good 0", "bad", "good 1", "missing"])
    assert list(caught.value.errors) == ["bad"]
    assert {key: caught.value.values[key] for key in ("good 0", "good 1")} == {"good 0": 0, "good 1": 1}
    assert sorted(face(store).keys()) == ["bad", "good 0", "good 1", "good 2"]


def test_a_damaged_document_can_be_deleted_and_stored_anew(http_place: Place) -> None:
    store, _ = planted(http_place, DAMAGE["cut"])

    with pytest.raises(Exception, match="DOCUMENT_FROM_DB_UNPARSEABLE"):
        store.mset([("bad", "new")])
    store.mdelete(["bad"])
    store.mset([("bad", "new")])
    assert store.mget(["bad"]) == ["new"]


def test_bytes_that_are_no_utf8_are_damage_like_any_other(http_place: Place) -> None:
    store, collection = planted(http_place, "{}")
    http_place.engine.write(
        CollectionName("default_keyspace", collection), [row("bad", b'{"_id":"bad","value":"\xff"}')]
    )

    reply = ask(http_place, collection, {"find": {}})
    assert reply["errors"][0]["documentIds"] == ["bad"]
    with pytest.raises(DamagedValueError):
        store.mget(["bad", "good 0"])


# -- what a client makes of such a page --------------------------------------------------------------------------------

ENTRY = {"errorCode": "DOCUMENT_FROM_DB_UNPARSEABLE", "documentIds": ["bad"], "scope": "DATABASE", "family": "SERVER"}
DATA = {"documents": [{"_id": "a", "value": 1}], "nextPageState": None}


@pytest.mark.parametrize("value", ["1", "1e999", '"\\ud800"'], ids=["fast", "slow", "slowest"])
def test_whichever_way_a_page_is_read_its_damaged_documents_are_there(value: str) -> None:
    body = json.dumps({"data": DATA, "errors": [ENTRY]}).replace('"value": 1', f'"value": {value}').encode()

    page = parse_page(200, body, "find")
    assert [key for key, _ in page.items] == ["a", "bad"]
    assert not isinstance(page.items[1][1], dict)


@pytest.mark.parametrize("value", ["1", "1e999", '"\\ud800"'], ids=["fast", "slow", "slowest"])
@pytest.mark.parametrize(
    "entry",
    [{**ENTRY, "errorCode": "UNEXPECTED_DRIVER_ERROR"}, {**ENTRY, "documentIds": []}],
    ids=["another code", "nobody named"],
)
def test_another_error_beside_documents_is_raised(entry: dict[str, Any], value: str) -> None:
    body = json.dumps({"data": DATA, "errors": [ENTRY, entry]}).replace('"value": 1', f'"value": {value}').encode()

    with pytest.raises(DataAPIError):
        parse_page(200, body, "find")
