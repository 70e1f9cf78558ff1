"""astrapy's Collection and AsyncCollection, unchanged, against this server: every public method, and what it does."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest

from conformance.coverage_page import ASTRAPY, ASTRAPY_VERSION
from conformance.replay import TOKEN
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.http.running import run_in_thread

pytestmark = pytest.mark.slow

astrapy = pytest.importorskip("astrapy", reason="the client is not installed")
httpx = pytest.importorskip("httpx", reason="the client is not installed")

SORTED = [{"_id": f"k{n:03}", "n": n, "tags": ["even" if n % 2 == 0 else "odd"]} for n in range(120)]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_in_thread(MemoryEngine(), TOKEN) as url:
        yield url


class Collection:
    """A collection, sync or async; ``call`` drives a method and waits for it where it is to be awaited."""

    def __init__(self, url: str, is_async: bool) -> None:
        client = astrapy.DataAPIClient(environment="other")
        database = (client.get_async_database if is_async else client.get_database)(
            url, token=TOKEN, keyspace="default_keyspace"
        )
        self._runner = asyncio.Runner() if is_async else None
        self._database = database
        self.call(database.drop_collection, "c")
        self.collection = self.call(database.create_collection, "c")

    def call(self, method: Call, *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        if self._runner is None:
            return list(result) if isinstance(result, Iterator) else result
        return self._runner.run(_settled(result))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.collection, name)
        return (lambda *args, **kwargs: self.call(found, *args, **kwargs)) if callable(found) else found

    def close(self, opened: list[Any]) -> None:
        with self._runner or asyncio.Runner() as runner:
            for client in opened:
                if isinstance(client, httpx.Client):
                    client.close()
                else:
                    runner.run(client.aclose())


async def _settled(result: Any) -> Any:
    if inspect.isawaitable(result):
        return await result
    if isinstance(result, AsyncIterator):
        return [one async for one in result]
    return result


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The HTTP clients that astrapy opens, and never closes."""
    opened: list[Any] = []
    for kind in (httpx.Client, httpx.AsyncClient):
        monkeypatch.setattr(kind, "__init__", _noting(kind.__init__, opened))
    return opened


def _noting(make: Call, opened: list[Any]) -> Call:
    def make_and_note(self: Any, *args: Any, **kwargs: Any) -> None:
        opened.append(self)
        make(self, *args, **kwargs)

    return make_and_note


@pytest.fixture(params=["sync", "async"])
def collection(request: pytest.FixtureRequest, url: str, opened: list[Any]) -> Iterator[Collection]:
    collection = Collection(url, request.param == "async")
    yield collection
    collection.close(opened)


@pytest.fixture
def filled(collection: Collection) -> Collection:
    assert len(collection.insert_many(SORTED, ordered=False, chunk_size=50).inserted_ids) == 120
    return collection


# -- a driver for each method ----------------------------------------------------------------------------------------


def drive_insert_one(collection: Collection) -> None:
    assert collection.insert_one({"_id": "new"}).inserted_id == "new"
    with pytest.raises(astrapy.exceptions.DataAPIResponseException, match="DOCUMENT_ALREADY_EXISTS"):
        collection.insert_one({"_id": "new"})


def drive_insert_many(collection: Collection) -> None:
    result = collection.insert_many([{"_id": f"x{n}"} for n in range(250)], chunk_size=100, concurrency=3)
    assert set(result.inserted_ids) == {f"x{n}" for n in range(250)}
    with pytest.raises(astrapy.exceptions.CollectionInsertManyException) as failure:
        collection.insert_many([{"_id": "y0"}, {"_id": "x0"}, {"_id": "y1"}], ordered=True)
    assert failure.value.inserted_ids == ["y0"]


def drive_find(collection: Collection) -> None:
    assert [one["_id"] for one in collection.find({})] == [one["_id"] for one in SORTED]
    found = collection.find({"tags": "odd", "n": {"$lt": 9}}, sort={"n": -1}, skip=1, limit=2, projection={"n": True})
    assert found == [{"_id": "k005", "n": 5}, {"_id": "k003", "n": 3}]
    assert len(collection.find({"n": {"$gte": 10}}, limit=75)) == 75


def drive_find_one(collection: Collection) -> None:
    assert collection.find_one({"_id": "k007"}) == SORTED[7]
    assert collection.find_one(sort={"n": -1}) == SORTED[-1]
    assert collection.find_one({"n": -1}) is None


def drive_distinct(collection: Collection) -> None:
    assert sorted(collection.distinct("tags")) == ["even", "odd"]
    assert sorted(collection.distinct("tags.0", filter={"n": 4})) == ["even"]


def drive_count_documents(collection: Collection) -> None:
    assert collection.count_documents({"tags": "odd"}, upper_bound=100) == 60
    with pytest.raises(astrapy.exceptions.TooManyDocumentsToCountException):
        collection.count_documents({}, upper_bound=100)


def drive_estimated_document_count(collection: Collection) -> None:
    assert collection.estimated_document_count() == 120


def drive_update_one(collection: Collection) -> None:
    info = collection.update_one({"tags": "odd"}, {"$inc": {"n": 1_000}}, sort={"n": -1}).update_info
    assert (info["n"], info["nModified"], info["updatedExisting"]) == (1, 1, True)
    assert collection.find_one({"_id": "k119"})["n"] == 1_119
    info = collection.update_one({"_id": "new"}, {"$set": {"n": 1}}, upsert=True).update_info
    assert info["upserted"] == "new"


def drive_update_many(collection: Collection) -> None:
    info = collection.update_many({}, {"$addToSet": {"tags": "all"}}).update_info
    assert (info["n"], info["nModified"]) == (120, 120)
    assert collection.count_documents({"tags": "all"}, upper_bound=1_000) == 120


def drive_find_one_and_update(collection: Collection) -> None:
    change = {"$push": {"tags": {"$each": ["a"], "$position": 0}}, "$unset": {"n": ""}}
    changed = collection.find_one_and_update({"_id": "k001"}, change, return_document="after")
    assert changed == {"_id": "k001", "tags": ["a", "odd"]}
    assert collection.find_one_and_update({"_id": "nope"}, change) is None


def drive_replace_one(collection: Collection) -> None:
    info = collection.replace_one({"_id": "k001"}, {"m": 1}).update_info
    assert (info["n"], info["nModified"]) == (1, 1)
    assert collection.find_one({"_id": "k001"}) == {"_id": "k001", "m": 1}
    assert collection.replace_one({"_id": "new"}, {}, upsert=True).update_info["upserted"] == "new"


def drive_find_one_and_replace(collection: Collection) -> None:
    replaced = collection.find_one_and_replace({"tags": "even"}, {"m": 1}, sort={"n": -1}, return_document="before")
    assert replaced == SORTED[118]
    assert collection.find_one({"_id": "k118"}) == {"_id": "k118", "m": 1}


def drive_delete_one(collection: Collection) -> None:
    assert collection.delete_one({"tags": "odd"}, sort={"n": -1}).deleted_count == 1
    assert collection.find_one({"_id": "k119"}) is None


def drive_delete_many(collection: Collection) -> None:
    assert collection.delete_many({"tags": "odd"}).deleted_count == 60
    assert collection.delete_many({}).deleted_count == -1
    assert collection.find({}) == []


def drive_find_one_and_delete(collection: Collection) -> None:
    assert collection.find_one_and_delete({}, sort={"n": 1}, projection={"n": True}) == {"_id": "k000", "n": 0}


def drive_command(collection: Collection) -> None:
    reply = collection.command({"findOne": {"filter": {"_id": "k001"}}})
    assert reply == {"data": {"document": SORTED[1]}}


def drive_options(collection: Collection) -> None:
    options = collection.options()
    assert (options.vector, options.lexical.enabled, options.indexing) == (None, False, None)


def drive_names(collection: Collection) -> None:
    assert (collection.name, collection.keyspace, collection.full_name) == (
        "c",
        "default_keyspace",
        "default_keyspace.c",
    )
    assert collection.database.keyspace == "default_keyspace"


def drive_with_options(collection: Collection) -> None:
    other = collection.collection.with_options()
    assert collection.call(other.find_one, {"_id": "k001"}) == SORTED[1]


def drive_to_async(collection: Collection) -> None:
    other = collection.collection
    if hasattr(other, "to_async"):
        with asyncio.Runner() as runner:
            assert runner.run(_find_one_and_close(other.to_async())) == SORTED[1]
    else:
        assert other.to_sync().find_one({"_id": "k001"}) == SORTED[1]


async def _find_one_and_close(collection: Any) -> Any:
    async with collection:
        return await collection.find_one({"_id": "k001"})


def drive_drop(collection: Collection) -> None:
    collection.drop()
    with pytest.raises(astrapy.exceptions.DataAPIResponseException, match="UNKNOWN_COLLECTION_OR_TABLE"):
        collection.find_one({})


def drive_find_and_rerank(collection: Collection) -> None:
    with pytest.raises(astrapy.exceptions.DataAPIResponseException, match="RERANKING_FEATURE_NOT_ENABLED"):
        collection.find_and_rerank(sort={"$hybrid": "x"})


def drive_info(collection: Collection) -> None:
    with pytest.raises(astrapy.exceptions.InvalidEnvironmentException):
        collection.info()


DRIVERS: dict[str, Callable[[Collection], None]] = {
    **{name.removeprefix("drive_"): drive for name, drive in list(globals().items()) if name.startswith("drive_")},
    **dict.fromkeys(("name", "keyspace", "full_name", "database"), drive_names),
    "to_sync": drive_to_async,
}
del DRIVERS["names"]


@pytest.mark.parametrize("method", DRIVERS)
def test_a_method_of_the_client_does_what_the_page_says(filled: Collection, method: str) -> None:
    DRIVERS[method](filled)


def test_every_public_method_of_the_client_is_driven() -> None:
    public = {name for kind in (astrapy.Collection, astrapy.AsyncCollection) for name in dir(kind) if name[0] != "_"}
    assert set(DRIVERS) == public == set(ASTRAPY)
    assert version("astrapy") == ASTRAPY_VERSION, json.dumps("drive the new version, and say so in coverage_page.py")
