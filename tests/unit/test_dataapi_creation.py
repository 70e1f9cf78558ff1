"""One new collection opened by several at once over HTTP: creations that meet, and use before it is there for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import together
from faults.proxy import Misbehaving, api_error, errors
from langchain_kv import KVStore
from langchain_kv.backends.base import Found, Record
from langchain_kv.backends.dataapi import backend as backend_module
from langchain_kv.backends.dataapi import retry, verbs
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.errors import AuthError, DataAPIError, UnknownCollectionError, UsageError
from langchain_kv.testing import DataAPIServer

RECORDS = [Record("a", b"1")]
UNKNOWN = api_error("UNKNOWN_COLLECTION_OR_TABLE", scope="SCHEMA", family="REQUEST")
NO_TABLE = {
    **api_error("INVALID_DATABASE_QUERY"),
    "message": "Not valid.\n\nThe database error: table k.c does not exist.",
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0005)
    monkeypatch.setattr(verbs, "CREATE_PAUSES_S", (0.001, 0.001, 0.001))


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.settings.clear()
        yield server


@pytest.fixture
def backend(server: Misbehaving) -> Iterator[DataAPIBackend]:
    backend = DataAPIBackend(server.url, collection="c", keyspace="k", token="t", deadline_s=10)
    yield backend
    backend.close()


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, backend: DataAPIBackend) -> Any:
    def call(verb: str, *arguments: Any, **named: Any) -> Any:
        if request.param == "sync":
            return getattr(backend, verb)(*arguments, **named)
        return asyncio.run(getattr(backend, "a" + verb)(*arguments, **named))

    return call


# -- creations that meet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(verbs.RACED))
def test_a_creation_that_met_another_one_is_looked_at_again(server: Misbehaving, do: Any, code: str) -> None:
    def script(request: Any) -> Any:
        if request.name == "createCollection":
            server.settings["c"] = {"indexing": {"allow": ["_id"]}}  # the other one's is there by now
            message = "x\n\nError Class: AlreadyExistsException"
            return errors({**api_error(code), "message": message})
        return None

    server.script = script
    do("open")
    assert server.names == ["findCollections", "createCollection", "findCollections"]


@pytest.mark.parametrize("code", ["EXISTING_INDEX_FOR_COLLECTION", "TOO_MANY_INDEXES_FOR_COLLECTION"])
def test_a_collection_that_both_lost_is_made_anew(server: Misbehaving, do: Any, code: str) -> None:
    left = [2]

    def script(request: Any) -> Any:
        if request.name == "createCollection" and left[0]:
            left[0] -= 1
            return errors(api_error(code, scope="SCHEMA", family="REQUEST"))
        return None

    server.script = script
    do("open")
    assert "c" in server.settings
    assert server.names.count("createCollection") == 3


def test_a_limit_that_is_reached_is_told_after_a_few_tries(server: Misbehaving, do: Any) -> None:
    refusal = api_error("TOO_MANY_INDEXES_FOR_COLLECTION", scope="SCHEMA", family="REQUEST")
    server.script = lambda request: errors(refusal) if request.name == "createCollection" else None
    with pytest.raises(DataAPIError, match="TOO_MANY_INDEXES"):
        do("open")
    assert server.names.count("createCollection") == len(verbs.CREATE_PAUSES_S) + 1


@pytest.mark.parametrize("code", ["TOO_MANY_COLLECTIONS", "INVALID_INDEXING_DEFINITION", "UNAUTHORIZED_ACCESS"])
def test_what_no_other_creation_can_cause_is_told_at_once(server: Misbehaving, do: Any, code: str) -> None:
    refusal = api_error(code, scope="SCHEMA", family="REQUEST")
    server.script = lambda request: errors(refusal) if request.name == "createCollection" else None
    with pytest.raises(DataAPIError, match=code):
        do("open")
    assert server.names.count("createCollection") == 1


def test_a_look_that_fails_does_not_take_the_place_of_the_creations_error(server: Misbehaving, do: Any) -> None:
    def script(request: Any) -> Any:
        if request.name == "createCollection":
            return errors(api_error("EXISTING_INDEX_FOR_COLLECTION", scope="SCHEMA", family="REQUEST"))
        if "createCollection" in server.names:
            return errors(api_error("UNAUTHORIZED_ACCESS", scope="SECURITY", family="REQUEST"))
        return None

    server.script = script
    with pytest.raises(DataAPIError, match="EXISTING_INDEX") as caught:
        do("open")
    assert isinstance(caught.value.__cause__, AuthError)


# -- right after a set-up ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [UNKNOWN, NO_TABLE], ids=["unknown", "no table"])
@pytest.mark.parametrize("verb", ["put_many", "get_many", "delete_many"])
def test_a_collection_that_is_not_there_yet_is_waited_for(server: Misbehaving, do: Any, verb: str, answer: Any) -> None:
    do("open")
    server.faults.extend(errors(answer) for _ in range(6))
    do(verb, RECORDS if verb == "put_many" else ["a"])
    assert len(server.names) == 2 + 7


@pytest.mark.parametrize("since", ["never opened", "later"])
def test_otherwise_a_missing_collection_is_told_at_once(
    server: Misbehaving, do: Any, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if since == "later":
        monkeypatch.setattr(backend_module.limits, "NEW_COLLECTION_S", 0.0)
    if since != "never opened":
        do("open")
    before = len(server.names)
    server.script = lambda request: errors(UNKNOWN)
    with pytest.raises(UnknownCollectionError):
        do("get_many", ["a"])
    assert len(server.names) == before + 1


# -- the local server, as slow as the real one ------------------------------------------------------------------------


def test_a_slow_collection_is_listed_before_it_can_be_used() -> None:
    with DataAPIServer() as server, ThreadPoolExecutor(1) as threads:
        server.create_slowly(60.0)
        first = threads.submit(server.store)
        one = DataAPIBackend(server.url, collection="kv", keyspace="default_keyspace", token=server.token)
        while "createCollection" not in server.commands:
            threading.Event().wait(0.01)
        one.open()  # finds it
        one._new_until = 0.0
        with pytest.raises(UnknownCollectionError):
            one.get_many(["a"])
        met = DataAPIBackend(server.url, collection="kv", keyspace="default_keyspace", token=server.token)
        with pytest.raises(DataAPIError, match="TOO_MANY_INDEXES"):
            asyncio.run(
                met._do(lambda call: met._verbs._admin(call, verbs.commands.create_collection("kv")), writes=True)
            )
        server.create_slowly(0.0)
        store = first.result()  # both creations failed, and this one was made anew
        store.mset([("a", 1)])
        assert one.get_many(["a"]) == [Found(1)]
        one.close()
        met.close()


def test_slowness_is_a_number_of_seconds_and_ends_with_reset() -> None:
    with DataAPIServer() as server:
        with pytest.raises(UsageError):
            server.create_slowly(-1.0)
        server.create_slowly(100.0)
        server.reset()
        server.store().mset([("a", 1)])


OPENING = """
import sys
from langchain_kv import KVStore
url, token, key = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with KVStore("kv", url, token=token) as store:
    store.mset([(key, 1)])
    assert store.mget([key]) == [1]
"""


@pytest.mark.slow
def test_four_processes_open_one_new_collection_at_once() -> None:
    with DataAPIServer() as server:
        for number in range(3):
            server.create_slowly(1.0)
            arguments = [[server.url, server.token, f"{number}-{at}"] for at in range(4)]
            assert together.complaints(OPENING, arguments) == [""] * 4
            with KVStore("kv", server.url, token=server.token) as store:
                assert sorted(store.yield_keys()) == [f"{number}-{at}" for at in range(4)]
            server.reset()
