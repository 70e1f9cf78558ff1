"""What goes wrong with MongoDB is one clear error each, and its advice works."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cassandra_node import free_ports
from installed import need
from langchain_kv import (
    AuthError,
    BackendOptions,
    ConfigError,
    ConnectError,
    DataAPIError,
    InvalidValueError,
    KVStore,
    MongoDBClientPlace,
    PartialWriteError,
    RequestTimeoutError,
    StoreClosedError,
    StoreError,
    TransportError,
    UsageError,
)
from langchain_kv.places.schemes import parse_url
from mongodb_servers import missing, running_server

OPTIONS = BackendOptions("kv", "default_keyspace")
SECRET = "".join(["s3", "cret"])


@pytest.fixture
def nobody() -> str:
    """The URL of a port where nothing listens."""
    (port,) = free_ports("127.0.0.1", 1)
    return f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=300"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_is_not_there_is_told(nobody: str, is_async: bool) -> None:
    backend = parse_url(nobody).open(OPTIONS)
    with pytest.raises(ConnectError, match=r"(?s)No server was there.*check the host") as caught:
        asyncio.run(backend.aget_many(["a"])) if is_async else backend.get_many(["a"])
    assert (caught.value.applied, caught.value.retryable) == (False, True)
    with pytest.raises(ConnectError) as caught:
        backend.delete_many(["a", "b"])
    assert caught.value.applied is False
    backend.close()


@pytest.mark.slow
def test_a_store_is_not_made_where_nobody_answers(nobody: str, server_url: str) -> None:
    with pytest.raises(ConnectError):
        KVStore("kv", nobody)
    with KVStore("kv", server_url) as store:
        assert store.mget(["x"]) == [None]


@pytest.mark.parametrize("url", ["mongodb:", "mongodb://", "mongodb:host", "mongodb://a b:s3cret@x@y@z/"])
def test_a_url_of_another_form_is_told_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"has the form mongodb://USER|pymongo does not take") as caught:
        parse_url(url).open(OPTIONS)
    assert "s3cret" not in str(caught.value)
    parse_url("mongodb://a%20b:s3cret%40x@z/").open(OPTIONS).close()


@pytest.mark.parametrize("query", ["?w=-5", "?maxPoolSize=many", "?no=option"])
def test_an_option_that_pymongo_does_not_take_is_an_error_of_ours(query: str) -> None:
    # An unknown option is a warning of pymongo's, which the tests' settings make an error.
    with pytest.raises((ConfigError, UserWarning)):
        parse_url(f"mongodb://localhost/{query}").open(OPTIONS).close()


def test_a_password_is_neither_shown_nor_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"mongodb://user:{SECRET}@localhost/app?authSource=admin&authMechanismProperties=AWS_SESSION_TOKEN:{SECRET}"
    store = KVStore("kv", url, setup_mode="OFF")
    assert SECRET not in f"{store!r} {vars(store)!r} {store._place!r}"
    assert repr(store) == "KVStore('app.kv', 'mongodb://localhost/app')"
    text = pickle.dumps(store)
    assert SECRET.encode() not in text

    without = pickle.loads(text)
    assert without._place.url == "mongodb://localhost/app?authSource=admin"
    monkeypatch.setenv("LCKV_URL", url)
    again = pickle.loads(text)
    assert again._place.url == url
    for each in (store, without, again, copy.copy(store)):
        each.close()


def test_a_client_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be pymongo's MongoClient or AsyncMongoClient, got object"):
        MongoDBClientPlace(object()).open(OPTIONS)  # type: ignore[arg-type]


# -- what servers say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (18, "Authentication failed.", AuthError),
        (13, "not authorized on db to execute", AuthError),
        (10_334, "BSONObj size is invalid", InvalidValueError),
        (121, 'Document failed validation dup key: { value: "s3cret" }', DataAPIError),
    ],
)
def test_what_a_server_refuses_is_named(code: int, text: str, kind: type[StoreError]) -> None:
    from pymongo.errors import OperationFailure

    from langchain_kv.backends.mongodb_verbs import translated

    found = translated(OperationFailure(text, code, {"errmsg": text}), "kv", writes=True)
    assert type(found) is kind
    assert "s3cret" not in str(found)
    assert found.applied is (None if code == 121 else False)


@pytest.mark.parametrize(
    ("name", "kind", "applied"),
    [
        ("AutoReconnect", TransportError, None),
        ("NetworkTimeout", RequestTimeoutError, None),
        ("ServerSelectionTimeoutError", ConnectError, False),
        ("InvalidOperation", StoreClosedError, False),
        ("ConfigurationError", ConfigError, False),
        ("DocumentTooLarge", InvalidValueError, False),
        ("PyMongoError", StoreError, False),
    ],
)
def test_what_happens_on_the_way_is_named(name: str, kind: type[StoreError], applied: bool | None) -> None:
    from pymongo import errors

    from langchain_kv.backends.mongodb_verbs import translated

    found = translated(getattr(errors, name)("text"), "kv", writes=True)
    assert type(found) is kind
    assert found.applied is applied


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Any]:
    """A server of the test's own, and a function that ends it."""
    need(missing("java"))
    with ExitStack() as running:
        yield running.enter_context(running_server("java", tmp_path)), running.close


@pytest.mark.slow
def test_a_server_that_goes_away_is_told_and_served_again_when_it_is_back(short_lived: Any, tmp_path: Path) -> None:
    url, end = short_lived
    # The driver looks for a server that went twice a second: in 500 ms it may not look at all.
    with KVStore("kv", f"{url}&serverSelectionTimeoutMS=2000") as store:
        store.mset([("a", 1)])
        end()
        keys = tuple(f"k{number}" for number in range(3_000))
        with pytest.raises(PartialWriteError) as caught:
            store.mset([(key, 1) for key in keys])
        assert (caught.value.written, caught.value.unknown, caught.value.unwritten) == ((), keys[:1_000], keys[1_000:])
        assert caught.value.retryable
        with pytest.raises(ConnectError) as later:
            store.mset([(key, 1) for key in keys])
        assert later.value.applied is False
        with pytest.raises(TransportError):
            store.mget(["a"])
        with running_server("java", tmp_path, int(re.findall(r":(\d+)/", url)[0])):
            store.mset([("a", 2)])
            assert store.mget(["a"]) == [2]


@pytest.mark.slow
def test_what_takes_too_long_is_told(server_url: str) -> None:
    import pymongo

    with KVStore("kv", server_url) as store:
        with pytest.raises(RequestTimeoutError), pymongo.timeout(1e-6):
            store.mget(["a"])
        assert store.mget(["a"]) == [None]


@pytest.mark.slow
def test_an_update_of_what_is_too_large_for_one_request_is_told(server_url: str) -> None:
    with KVStore("large", server_url) as store:
        store.mset([("a", "x" * 9_000_000)])
        with pytest.raises(InvalidValueError, match="write it without update"):
            store.update("a", lambda _: "y" * 9_000_000)
        store.mset([("a", "y" * 9_000_000)])
        assert store.mget(["a"]) == ["y" * 9_000_000]


@pytest.mark.slow
def test_being_overtaken_all_the_time_is_told(server_url: str, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_kv.backends import mongodb_verbs

    monkeypatch.setattr(mongodb_verbs, "RACES_MAX", 3)
    with KVStore("overtaken", server_url) as store:
        store.mset([("a", 0)])

        def overtake(value: Any) -> Any:
            raw["overtaken"].update_one({"_id": "a"}, {"$inc": {"value": 1}})
            return -1

        with pytest.raises(StoreError, match="again and again") as caught:
            store.update("a", overtake)
        assert (caught.value.retryable, caught.value.applied, store.mget(["a"])) == (True, False, [3])
        store.update("a", lambda value: value + 1)
        assert store.mget(["a"]) == [4]


@pytest.mark.slow
def test_what_a_bulk_refuses_is_named_and_the_rest_is_stored(server_url: str, raw: Any) -> None:
    raw["unique"].create_index("value", unique=True)
    raw["unique"].insert_one({"_id": "there", "value": 2})
    with KVStore("unique", server_url) as store:
        with pytest.raises(PartialWriteError) as caught:
            store.mset([("a", 1), ("b", 2), ("c", 3)])
        assert (caught.value.written, caught.value.unwritten) == (("a", "c"), ("b",))
        with pytest.raises(PartialWriteError) as added:
            store.add([("a", 1), ("d", 2), ("e", 4)])
        assert (added.value.written, added.value.unwritten) == (("e",), ("a", "d"))
        with pytest.raises(DataAPIError):
            store.update("f", lambda _: 2)
        assert store.mget(["a", "b", "c", "e", "f"]) == [1, None, 3, 4, None]


# -- clients of the program's -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_that_wants_no_answers_to_writes_has_them_all_the_same(server_url: str) -> None:
    from pymongo import MongoClient

    with MongoClient(server_url, w=0) as client:
        store = KVStore("unasked", MongoDBClientPlace(client, "default_keyspace"))
        store.mset([("a", 1)], ttl_s=100)
        assert (store.add([("a", 2), ("b", 3)]), store.update("a", lambda old: old + 1)) == (["b"], 2)
        assert (store.mget(["a", "b"]), store.purge()) == ([2, 3], 0)
        store.clear()


@pytest.mark.slow
async def test_an_async_client_serves_its_loop_itself_and_threads_there(server_url: str) -> None:
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(server_url) as client:
        store = KVStore("kv_async", MongoDBClientPlace(client, "default_keyspace"), setup_mode="OFF")
        await store.amset([("a", 1)])
        assert await asyncio.to_thread(store.mget, ["a"]) == [1]
        assert [key async for key in store.ayield_keys()] == ["a"]
        with pytest.raises(UsageError, match="await the method with a leading a"):
            store.mget(["a"])
        await store.aclose()
        await client.admin.command("ping")  # which is the program's


@pytest.mark.slow
def test_an_async_client_whose_loop_has_ended_is_told(server_url: str) -> None:
    from pymongo import AsyncMongoClient

    client: Any = AsyncMongoClient(server_url)
    store = KVStore("kv", MongoDBClientPlace(client, "default_keyspace"), setup_mode="OFF")

    async def first() -> None:
        await store.amget(["a"])
        await client.close()

    asyncio.run(first())
    for call in (lambda: asyncio.run(store.amget(["a"])), lambda: store.mget(["a"])):
        with pytest.raises(UsageError, match="make a new client in each loop"):
            call()
    store.close()


@pytest.mark.slow
def test_a_client_of_the_programs_stays_open_and_one_that_it_closed_is_told(server_url: str) -> None:
    from pymongo import MongoClient

    client: Any = MongoClient(server_url)
    place = MongoDBClientPlace(client, "default_keyspace")
    with KVStore("kv", place) as store:
        store.mset([("a", 1)])
    with pytest.raises(StoreClosedError):
        store.mget(["a"])
    with pytest.raises(UsageError, match="cannot be pickled"):
        pickle.dumps(store)
    with KVStore("kv", place) as store:
        client.close()
        with pytest.raises(StoreClosedError, match=r"client .* was closed"):
            store.mget(["a"])
    with MongoClient(server_url) as client, KVStore("kv", MongoDBClientPlace(client, "default_keyspace")) as store:
        assert store.mget(["a"]) == [1]
