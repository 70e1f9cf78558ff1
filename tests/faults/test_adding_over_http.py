"""``add`` over HTTP where answers are lost: what this call may have stored is never called "not added"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, api_error, errors
from langchain_kv import KVStore, PartialWriteError, StoreError

pytestmark = pytest.mark.usefixtures("no_waiting")

LOST = [Fault("reset", applied=True), Fault("truncate", applied=True), Answer(502, b"<html>", applied=True)]
REFUSED = errors(api_error("UNAUTHENTICATED_REQUEST", scope="SECURITY", family="REQUEST"))


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


def open_store(server: Misbehaving, **more: Any) -> KVStore:
    given = {"token": "t", "keyspace": "k", "deadline_s": 5, "setup_mode": "OFF"}
    return KVStore("c", server.url, **{**given, **more})


@pytest.mark.parametrize("fault", LOST, ids=["reset", "truncate", "502"])
def test_an_add_whose_answer_was_lost_is_unknown_and_named(server: Misbehaving, fault: Any) -> None:
    server.plant(there=0)
    with open_store(server) as store:
        server.faults.append(fault)
        with pytest.raises(PartialWriteError, match="was lost") as caught:
            store.add([("a", 1), ("there", 1)])
    assert caught.value.written == ()
    assert set(caught.value.unknown) == {"a", "there"}
    assert caught.value.errors["a"].applied is None


@pytest.mark.parametrize("fault", LOST, ids=["reset", "truncate", "502"])
def test_one_key_alone_is_no_other_case(server: Misbehaving, fault: Any) -> None:
    with open_store(server) as store:
        server.faults.append(fault)
        with pytest.raises(PartialWriteError) as caught:
            store.add([("a", 1)])
    assert caught.value.unknown == ("a",)


@pytest.mark.parametrize("fault", [Fault("reset"), Answer(503, b""), Answer(429, b"")], ids=["reset", "503", "429"])
def test_an_insert_that_was_not_carried_out_is_sent_again(server: Misbehaving, fault: Any) -> None:
    with open_store(server) as store:
        server.faults.append(fault)
        assert store.add([("a", 1), ("b", 1)]) == ["a", "b"]
    assert server.values() == {"a": 1, "b": 1}


def test_a_refusal_with_a_fresh_token_goes_on_where_it_was(server: Misbehaving) -> None:
    server.plant(k7=0)
    with open_store(server, token=lambda: "t") as store:
        server.faults.extend([None, REFUSED])  # the second of three inserts, or what comes after
        added = store.add([(f"k{number}", number) for number in range(250)])
    assert added == [f"k{number}" for number in range(250) if number != 7]


def test_what_failed_is_told_apart_from_what_was_there(server: Misbehaving) -> None:
    server.plant(k7=0)
    with open_store(server) as store:
        server.script = lambda request: (
            Answer(413, b"") if b'"k150"' in request.body and request.name == "insertMany" else None
        )
        with pytest.raises(PartialWriteError, match="repeat the call with the unwritten ones") as caught:
            store.add([(f"k{number}", number) for number in range(200)])
    assert "k7" not in caught.value.written
    assert "k7" not in caught.value.errors
    assert {"k7", "k150"} <= set(caught.value.unwritten)
    assert set(caught.value.written) == {f"k{number}" for number in range(100)} - {"k7"}


def test_no_value_is_fetched_to_see_whether_what_is_there_has_expired(server: Misbehaving) -> None:
    server.plant(a=1)
    with open_store(server) as store:
        assert store.add([("a", 2)]) == []
    (found,) = [request for request in server.requests if request.name == "find"]
    assert found.options["projection"] == {"value": False, "encoding": False, "body_blob": False}


def test_a_purge_goes_on_with_a_fresh_token(server: Misbehaving) -> None:
    server.plant(kept=1)
    for number in range(60):
        server.documents[f"k{number}"] = json.dumps({"_id": f"k{number}", "value": 1, "expires_at": {"$date": 1}})
    with open_store(server, token=lambda: "t") as store:
        refused: list[bool] = []

        def refuse_once(request: Any) -> Any:
            if request.name != "deleteMany" or len(server.documents) > 50 or refused:
                return None
            refused.append(True)
            return REFUSED

        server.script = refuse_once
        store.purge()
    assert refused
    assert server.values() == {"kept": 1}


def test_updating_is_refused_without_a_request(server: Misbehaving) -> None:
    with open_store(server) as store, pytest.raises(StoreError, match=r"add\(\)"):
        store.update("a", lambda old: 1)
    assert server.requests == []
