"""Public clients, unmodified, against our server: they read what our stores wrote, and the reverse."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_kv import AstraDBByteStore, AstraDBStore, KVStore
from places import TOKEN, open_place

astrapy = pytest.importorskip("astrapy", reason="astrapy is a dependency of the tests")
theirs = pytest.importorskip("langchain_astradb", reason="langchain-astradb is a dependency of the tests")

# These clients never close their sockets, and the one warns of the other's deprecated methods.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated as of:DeprecationWarning"),
]

VALUES = {
    "object": {"n": 1, "list": [1, 2.5, None, True]},
    "text": "h\u00e9llo \U0001f600",
    "float": 1.5,
    "whole float": 2.0,
    "big": 2**60,
    "vector": [0.1 * n for n in range(64)],
    "empty": {},
}


@pytest.fixture(params=["http+memory", "http+sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Any]:
    with open_place(request.param, tmp_path) as place:
        yield place


@pytest.fixture(autouse=True)
def _collect_what_they_left_open() -> Iterator[None]:
    yield
    gc.collect()


def upstream(kind: Any, place: Any, name: str, **arguments: Any) -> Any:
    return kind(collection_name=name, token=TOKEN, api_endpoint=place.url, namespace="default_keyspace", **arguments)


def test_each_json_store_reads_what_the_other_wrote(server: Any) -> None:
    ours = server.store(AstraDBStore, collection="kv")
    other = upstream(theirs.AstraDBStore, server, "kv")
    ours.mset(list(VALUES.items()))
    assert dict(zip(VALUES, other.mget(list(VALUES)), strict=True)) == VALUES
    assert sorted(other.yield_keys()) == sorted(VALUES)
    other.mset([(f"theirs {key}", value) for key, value in VALUES.items()])
    assert ours.mget([f"theirs {key}" for key in VALUES]) == list(VALUES.values())
    other.mset([("text", "changed")])
    assert ours.mget(["text"]) == ["changed"]
    other.mdelete(["text"])
    assert ours.mget(["text"]) == [None]
    ours.mdelete(["float"])
    assert other.mget(["float"]) == [None]


def test_each_byte_store_reads_what_the_other_wrote(server: Any) -> None:
    other = upstream(theirs.AstraDBByteStore, server, "blobs")
    ours = server.store(AstraDBByteStore, collection="blobs")
    values = {"a": b"", "b": bytes(range(256)), "c": None}
    ours.mset(list(values.items()))
    assert other.mget(list(values)) == list(values.values())
    other.mset([(f"theirs {key}", value) for key, value in values.items()])
    assert ours.mget([f"theirs {key}" for key in values]) == list(values.values())


def test_both_in_async(server: Any) -> None:
    async def main() -> None:
        ours = server.store(AstraDBStore, collection="kv")
        from langchain_astradb.utils.astradb import SetupMode

        other = upstream(theirs.AstraDBStore, server, "kv", setup_mode=SetupMode.ASYNC)
        await ours.amset(list(VALUES.items()))
        assert await other.amget(list(VALUES)) == list(VALUES.values())
        await other.amset([("x", 1)])
        assert await ours.amget(["x"]) == [1]
        listed = [key async for key in other.ayield_keys()]
        assert sorted(listed) == sorted([*VALUES, "x"])

    asyncio.run(main())


def test_upstreams_setup_mode_enum_is_understood(server: Any) -> None:
    from langchain_astradb.utils.astradb import SetupMode

    with KVStore("kv", server.url, token=TOKEN, setup_mode=SetupMode.ASYNC) as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]


def test_a_marked_value_is_text_to_upstream(server: Any) -> None:
    ours = server.store(AstraDBStore, collection="kv")
    ours.mset([("a", {"$ref": 1})])
    assert upstream(theirs.AstraDBStore, server, "kv").mget(["a"]) == ['{"$ref":1}']


def test_astrapy_objects_serve_as_settings(server: Any) -> None:
    from astrapy.api_options import APIOptions, TimeoutOptions
    from astrapy.authentication import StaticTokenProvider

    options = APIOptions(timeout_options=TimeoutOptions(request_timeout_ms=5000))
    with AstraDBStore("kv", token=StaticTokenProvider(TOKEN), api_endpoint=server.url, api_options=options) as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]
    database = astrapy.DataAPIClient(environment="other").get_database(
        server.url, token=TOKEN, keyspace="default_keyspace"
    )
    with AstraDBStore("kv", astra_db_client=database) as store:
        assert store.mget(["a"]) == [1]


def test_astrapy_uses_the_server_as_the_real_one(server: Any) -> None:
    database = astrapy.DataAPIClient(environment="other").get_database(
        server.url, token=TOKEN, keyspace="default_keyspace"
    )
    collection = database.create_collection("kv", definition={"indexing": {"allow": ["_id"]}})
    assert "kv" in database.list_collection_names()
    collection.insert_many([{"_id": f"k{n}", "value": {"n": n}} for n in range(120)])
    assert collection.find_one({"_id": "k7"}) == {"_id": "k7", "value": {"n": 7}}
    assert len(list(collection.find({}))) == 120
    assert collection.count_documents({}, upper_bound=1000) == 120
    result = collection.replace_one({"_id": "k7"}, {"value": 1}, upsert=True)
    assert result.update_info["nModified"] == 1
    assert collection.find_one_and_delete({"_id": "k7"}) == {"_id": "k7", "value": 1}
    assert collection.delete_many({"_id": {"$in": [f"k{n}" for n in range(50)]}}).deleted_count == 49
    ours = server.store(AstraDBStore, collection="kv")
    assert ours.mget(["k60", "k7"]) == [{"n": 60}, None]
    assert collection.delete_many({}).deleted_count == -1
    assert list(ours.yield_keys()) == []
    database.drop_collection("kv")
    assert "kv" not in database.list_collection_names()
