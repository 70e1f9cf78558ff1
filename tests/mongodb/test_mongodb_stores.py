"""langchain-community's stores on MongoDB and ours: one reads what the other wrote, and ours has none of its defects.

The numbers are those of the list in docs/siblings.md.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

from langchain_kv import (
    BackendOptions,
    ConfigError,
    DamagedValueError,
    Found,
    InvalidValueError,
    Kind,
    KVByteStore,
    KVStore,
    MongoDBByteStore,
    MongoDBClientPlace,
    MongoDBStore,
    Record,
)
from langchain_kv.places.schemes import parse_url
from langchain_kv.stores.mongodb import MongoDBByteStore as ByOldPath
from langchain_kv.values.lenient import exact_numbers

pytestmark = pytest.mark.slow

_numbers = itertools.count()
BYTES = [("a", b"one"), ("b", b""), ("c", bytes(range(256)) * 100)]
DOCUMENTS = [
    ("a", Document("A text.", metadata={"page": 1, "tags": ["x", None], "deep": {"f": 1.5}}, id="1")),
    ("b", Document("", metadata={})),
]


@pytest.fixture
def collection() -> str:
    return f"stores_{next(_numbers)}"


@pytest.fixture
def blobs(server_url: str, collection: str) -> Iterator[MongoDBByteStore]:
    with MongoDBByteStore(server_url, "default_keyspace", collection) as store:
        yield store


@pytest.fixture
def documents(server_url: str, collection: str) -> Iterator[MongoDBStore]:
    with MongoDBStore(server_url, "default_keyspace", collection) as store:
        yield store


@pytest.fixture
def archived(server_url: str, collection: str) -> Iterator[Any]:
    """A function that makes a store of langchain-community's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = pytest.importorskip("langchain_community.storage.mongodb")
    made: list[Any] = []

    def make(name: str) -> Any:
        made.append(getattr(module, name)(server_url, "default_keyspace", collection))
        return made[-1]

    yield make
    for store in made:
        store.client.close()


class TestBytesSync(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, blobs: MongoDBByteStore) -> BaseStore[str, bytes]:
        return blobs

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class TestBytesAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, blobs: MongoDBByteStore) -> BaseStore[str, bytes]:
        return blobs

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class TestDocumentsSync(BaseStoreSyncTests[Document]):
    @pytest.fixture
    def kv_store(self, documents: MongoDBStore) -> BaseStore[str, Document]:
        return documents

    @pytest.fixture
    def three_values(self) -> tuple[Document, Document, Document]:
        return Document("one"), Document(""), Document("three", metadata={"n": 3})


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "pairs"),
    [
        ("MongoDBByteStore", MongoDBByteStore, BYTES),
        ("MongoDBStore", MongoDBStore, DOCUMENTS),
    ],
)
def test_one_reads_what_the_other_wrote(
    server_url: str, collection: str, archived: Any, raw: Any, name: str, kind: Any, pairs: Any
) -> None:
    keys = [key for key, _ in pairs]
    theirs = archived(name)
    with kind(server_url, "default_keyspace", collection) as ours:
        theirs.mset(pairs)
        as_they_wrote = list(raw[collection].find(sort=[("_id", 1)]))
        assert ours.mget(keys) == [value for _, value in pairs]
        assert sorted(ours.yield_keys()) == sorted(theirs.yield_keys()) == keys

        ours.mset(pairs)
        assert list(raw[collection].find(sort=[("_id", 1)])) == as_they_wrote
        assert theirs.mget(keys) == [value for _, value in pairs]
        ours.mdelete(keys[:1])
        assert sorted(theirs.yield_keys()) == keys[1:]


def test_both_may_write_the_same_keys_at_once(server_url: str, collection: str, archived: Any) -> None:
    theirs = archived("MongoDBByteStore")
    keys = [f"k{number}" for number in range(5)]
    possible = {b"ours" * 500, b"theirs" * 500}
    over = threading.Event()
    failed: list[BaseException] = []

    def write(store: Any, value: bytes) -> None:
        try:
            for _ in range(30):
                store.mset([(key, value) for key in keys])
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    with MongoDBByteStore(server_url, "default_keyspace", collection) as ours:
        ours.mset([(key, b"ours" * 500) for key in keys])
        threads = [
            threading.Thread(target=write, args=arguments)
            for arguments in ((ours, b"ours" * 500), (theirs, b"theirs" * 500))
        ]
        for thread in threads:
            thread.start()
        seen: set[Any] = set()
        while not over.is_set():
            seen.update(ours.mget(keys))
        for thread in threads:
            thread.join()
    assert failed == []
    assert seen <= possible


def test_a_store_of_theirs_in_place_of_ours_has_the_same_attributes(blobs: MongoDBByteStore, collection: str) -> None:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    assert ByOldPath is MongoDBByteStore
    assert isinstance(blobs.client, MongoClient)
    assert isinstance(blobs.collection, Collection)
    assert blobs.collection.full_name == f"default_keyspace.{collection}"


@pytest.mark.parametrize("kind", [MongoDBByteStore, MongoDBStore])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_not_given_is_told_as_before(kind: Any, at: int) -> None:
    arguments = ["mongodb://localhost", "db", "collection"]
    arguments[at] = ""
    with pytest.raises(ValueError, match=f"{('connection_string', 'db_name', 'collection_name')[at]} must be provided"):
        kind(*arguments)


def test_arguments_of_the_client_are_handed_on(server_url: str) -> None:
    with MongoDBByteStore(server_url, "db", "c", client_kwargs={"appname": "mine"}) as store:
        assert store.client.options.pool_options.metadata["application"] == {"name": "mine"}
    with pytest.raises(ConfigError, match="pymongo does not take the URL"):
        MongoDBByteStore(server_url, "db", "c", client_kwargs={"no such option": 1})


# -- the defects of theirs --------------------------------------------------------------------------------------------


async def test_4_1_a_prefix_is_literal_and_given_either_way(blobs: MongoDBByteStore) -> None:
    keys = ["a.b", "axb", "x|b", "b", "(", "(x", "a\0b", "\u00e9"]
    blobs.mset([(key, b"1") for key in keys])
    for prefix in ("a.", "x|b", "(", "a\0", "\u00e9", ""):
        expected = sorted(key for key in keys if key.startswith(prefix))
        assert sorted(blobs.yield_keys(prefix)) == sorted(blobs.yield_keys(prefix=prefix)) == expected
        assert sorted([key async for key in blobs.ayield_keys(prefix)]) == expected


def test_4_2_empty_batches_and_iterables(blobs: MongoDBByteStore) -> None:
    blobs.mset([])
    blobs.mset(iter([("a", b"1")]))
    assert blobs.mget([]) == []
    assert blobs.mget({"a": 0}.keys()) == [b"1"]  # type: ignore[arg-type]
    blobs.mdelete([])


def test_4_3_what_is_too_large_is_named_before_anything_is_stored(blobs: MongoDBByteStore) -> None:
    with pytest.raises(InvalidValueError, match=r"'b' makes a document of 17,\d+,\d+ bytes.*16,777,216"):
        blobs.mset([("a", b"1"), ("b", bytes(17_000_000)), ("c", b"3")])
    assert blobs.mget(["a", "b", "c"]) == [None] * 3


def test_4_4_a_document_of_others_is_named_and_spoils_no_other(blobs: MongoDBByteStore) -> None:
    blobs.mset([("a", b"1")])
    blobs.collection.insert_many([{"_id": "b", "other": 1}, {"other": 2}])
    with pytest.raises(DamagedValueError) as caught:
        blobs.mget(["a", "b"])
    assert caught.value.errors == {"b": "its document has no value: another program wrote it"}
    assert caught.value.values == {"a": b"1"}
    assert sorted(blobs.yield_keys()) == ["a", "b"]  # whose _id is no text is no key


def test_4_5_metadata_come_back_as_they_were(documents: MongoDBStore) -> None:
    metadata = {"t": datetime(2026, 1, 1, 1, 2, 3, 123456, UTC), "tuple": (1, 2), "set": {1}, "big": 2**70, "$x": 1}
    documents.mset([("a", Document("x", metadata=metadata))])
    (found,) = documents.mget(["a"])
    assert found is not None
    assert found.metadata == metadata


def test_4_6_values_expire_and_the_server_has_an_index_for_them(blobs: MongoDBByteStore) -> None:
    blobs.mset([("a", b"1"), ("b", b"2")], ttl_s=1_000)
    blobs.mset([("b", b"2")])
    ages = [index.get("expireAfterSeconds") for index in blobs.collection.index_information().values()]
    assert ages == [None, 0]
    assert [type(document.get("expires_at")) for document in blobs.collection.find(sort=[("_id", 1)])] == [
        datetime,
        type(None),
    ]


async def test_4_7_closing_ends_the_client_and_coroutines_are_there(server_url: str, collection: str) -> None:
    store = MongoDBByteStore(server_url, "default_keyspace", collection)
    await store.amset([("a", b"1")])
    assert await store.amget(["a"]) == [b"1"]
    client = store.client
    await store.aclose()
    from pymongo.errors import InvalidOperation

    with pytest.raises(InvalidOperation):
        client.admin.command("ping")


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_values_are_kept_as_bson_where_bson_has_them(server_url: str, collection: str, raw: Any) -> None:
    value = {"n": 1, "big": 2**40, "list": [1.5, None, True], "text": "\u00e9"}
    with KVStore(collection, server_url) as store:
        store.mset([("a", value), ("b", {"$ref": 1}), ("c", 2**70), ("d", {"x\0": 1})])
        kept = {document["_id"]: document for document in raw[collection].find()}
        assert kept == {
            "a": {"_id": "a", "value": value},
            "b": {"_id": "b", "value": '{"$ref":1}', "encoding": "json"},
            "c": {"_id": "c", "value": str(2**70), "encoding": "json"},
            "d": {"_id": "d", "value": '{"x\\u0000":1}', "encoding": "json"},
        }
        (found,) = store.mget(["a"])
        assert found == value
        assert type(found["big"]) is int


def test_numbers_that_bson_would_round_are_kept_where_that_is_asked_for(server_url: str, collection: str) -> None:
    with closing(parse_url(server_url).open(BackendOptions(collection, "default_keyspace"))) as backend:
        backend.open()
        with exact_numbers():
            backend.put_many([Record("a", b"[1.00000000000000000001,0.1]")])
            backend.put_many([Record("b", b"[0.1]"), Record("c", b"-1E+400")])
            found = backend.get_many(["a", "b", "c"])
    numbers = [[Decimal("1.00000000000000000001"), 0.1], [0.1], Decimal("-1E+400")]
    assert found == [Found(numbers[0], Kind.TEXT), Found(numbers[1], Kind.JSON), Found(numbers[2], Kind.TEXT)]


def test_an_update_beside_a_writer_of_theirs_loses_nothing(server_url: str, collection: str, raw: Any) -> None:
    with KVStore(collection, server_url) as store:
        store.mset([("a", {"n": 1})])
        seen: list[Any] = []

        def change(value: Any) -> Any:
            seen.append(value)
            if len(seen) == 1:
                raw[collection].update_one({"_id": "a"}, {"$set": {"value": {"n": 5}}})
            return {"n": value["n"] + 1}

        store.update("a", change)
        assert seen == [{"n": 1}, {"n": 5}]
        assert store.mget(["a"]) == [{"n": 6}]


@pytest.mark.parametrize("first", ["x", ["x"], {"n": ["x"]}, None])
def test_an_update_sees_that_its_value_is_an_element_of_a_list_now(
    server_url: str, collection: str, first: Any
) -> None:
    with KVStore(collection, server_url) as store, KVStore(collection, server_url) as other:
        store.mset([("a", first)])
        seen: list[Any] = []

        def change(value: Any) -> Any:
            seen.append(value)
            if len(seen) == 1:
                other.mset([("a", [first, "of another"])])
            return ["new of", value]

        store.update("a", change)
        assert seen == [first, [first, "of another"]]
        assert store.mget(["a"]) == [["new of", [first, "of another"]]]


def test_a_listing_goes_on_behind_a_value_that_ends_the_servers_answer(server_url: str, collection: str) -> None:
    from pymongo import AsyncMongoClient

    pairs = [("a", b"1" * 1_000_000), ("b", b"2" * 16_000_000), ("c", b"3"), ("d", b"4")]
    with KVByteStore(collection, server_url) as store:
        for pair in pairs:
            store.mset([pair])
        assert list(store.yield_items()) == pairs

    async def listed() -> list[tuple[str, bytes]]:
        async with AsyncMongoClient(server_url) as client:
            place = MongoDBClientPlace(client, "default_keyspace")
            return [pair async for pair in KVByteStore(collection, place, setup_mode="OFF").ayield_items()]

    assert asyncio.run(listed()) == pairs


def test_a_page_reads_one_answer_of_the_servers(server_url: str, collection: str) -> None:
    from pymongo import MongoClient, monitoring

    commands: list[str] = []

    class Listener(monitoring.CommandListener):
        def started(self, event: Any) -> None:
            commands.append(event.command_name)

        def succeeded(self, event: Any) -> None:
            pass

        failed = succeeded

    with MongoClient(server_url, event_listeners=[Listener()]) as client:
        store = KVByteStore(collection, MongoDBClientPlace(client, "default_keyspace"))
        for number in range(4):
            store.mset([(f"k{number}", b"1" * 9_000_000)])
        assert len(list(store.yield_items())) == 4
    assert "getMore" not in commands


def test_a_page_ends_where_the_servers_answer_does(server_url: str, collection: str) -> None:
    with KVStore(collection, server_url) as store:
        pairs = [(f"k{number}", str(number) * 6_000_000) for number in range(4)]
        store.mset(pairs)
        assert sorted(store.yield_items()) == pairs
