"""CassandraByteStore: langchain-community's and ours on one table, without its defects.

The numbers are those of the list in docs/siblings.md.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

from cassandra_node import PASSWORD, USER, Node, driver_of
from langchain_kv import (
    CassandraByteStore,
    ConfigError,
    InvalidValueError,
    KVBaseStore,
    KVByteStore,
    KVStore,
    SetupMode,
    StoreClosedError,
    UnknownCollectionError,
    UnsupportedError,
)
from langchain_kv.places.cassandra_tables import CassandraTablesPlace
from langchain_kv.testing import StoreContract

pytestmark = pytest.mark.slow

KEYSPACE = "ByteStores"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def session(cassandra_node: Node) -> Iterator[Any]:
    """A session of the driver, as a program has it: with its own profile and named rows."""
    from cassandra.auth import PlainTextAuthProvider

    cluster = driver_of(cassandra_node.host, cassandra_node.port, auth_provider=PlainTextAuthProvider(USER, PASSWORD))
    session = cluster.connect()
    replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    session.execute(f'CREATE KEYSPACE IF NOT EXISTS "{KEYSPACE}" WITH replication = {replication}')
    yield session
    cluster.shutdown()


@pytest.fixture
def table() -> str:
    """A table of its own for each test. None is dropped, which takes half a second: they go with the node."""
    return f"Table_{os.getpid()}_{next(_numbers)}"


@pytest.fixture
def store(session: Any, table: str) -> Iterator[CassandraByteStore]:
    with CassandraByteStore(table, session=session, keyspace=KEYSPACE) as store:
        yield store


@pytest.fixture
def archived(session: Any, table: str, store: CassandraByteStore) -> Any:
    """A store of langchain-community's on the table of ours, whose name it is given in quotes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = pytest.importorskip("langchain_community.storage.cassandra")
    return module.CassandraByteStore(f'"{table}"', session=session, keyspace=f'"{KEYSPACE}"')


class TestSync(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, store: CassandraByteStore) -> BaseStore[str, bytes]:
        return store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class TestAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, store: CassandraByteStore) -> BaseStore[str, bytes]:
        return store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class JSONInBytes(CassandraByteStore):
    """Any JSON as bytes, for the contract, which has values of JSON."""

    def encode_value(self, value: Any) -> Any:
        return None if value is None else json.dumps(value, allow_nan=False).encode()

    def decode_value(self, value: Any) -> Any:
        return None if value is None else json.loads(value)


class TestContract(StoreContract):
    """The contract, but for what goes by the test's own clock: the cluster's decides here, see test_6_5."""

    adds = updates = False
    key_max_bytes = 65_535

    test_what_has_expired_is_neither_served_nor_listed = None
    test_bytes_expire_too = None
    test_a_call_has_its_own_time_or_the_stores = None
    test_purging_removes_what_has_expired = None
    # Its errors would be those of the codec above.
    test_a_bad_value_is_named_with_its_place_before_anything_is_stored = None

    @pytest.fixture(autouse=True)
    def _lives_on(self, session: Any) -> None:
        self.session = session

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        if kind is KVByteStore:
            kind = CassandraByteStore
        elif kind is KVStore:
            kind = JSONInBytes
        if not issubclass(kind, CassandraByteStore):
            pytest.skip("it is about a class over another store's constructor")
        if options.keys() - {"setup_mode", "ttl_s"}:
            pytest.skip(f"upstream's constructor has no {', '.join(options)}")
        return kind(collection, session=self.session, keyspace=KEYSPACE, **options)

    def peek(self, collection: str) -> list[str]:
        return [key for (key,) in self.session.execute(f'SELECT row_id FROM "{KEYSPACE}"."{collection}"')]


# -- both ways --------------------------------------------------------------------------------------------------------


def test_one_reads_what_the_other_wrote(store: CassandraByteStore, archived: Any) -> None:
    pairs = [("a", b"one"), ("b", b""), ("c", bytes(range(256)) * 100), ("n", None)]
    keys = [key for key, _ in pairs]
    for writer, reader in ((archived, store), (store, archived)):
        writer.mset(pairs)
        assert reader.mget(keys) == [value for _, value in pairs]
        assert sorted(reader.yield_keys()) == sorted(writer.yield_keys()) == keys
        reader.mdelete(keys)
        assert list(writer.yield_keys()) == []


def test_its_attributes_are_there(store: CassandraByteStore, session: Any, table: str) -> None:
    assert (store.session, store.keyspace, store.table) == (session, KEYSPACE, table)


def test_a_url_and_a_place_lead_to_the_same_table(
    store: CassandraByteStore, session: Any, table: str, cassandra_node: Node
) -> None:
    store.mset([("a", b"1")])
    with CassandraByteStore(table, url=cassandra_node.url(), keyspace=KEYSPACE) as by_url:
        assert by_url.mget(["a"]) == [b"1"]
    with pytest.raises(StoreClosedError):
        by_url.mget(["a"])
    store.close()
    assert session.execute("SELECT key FROM system.local").one()  # which is the program's


def test_rows_of_any_kind_are_read(store: CassandraByteStore, session: Any) -> None:
    from cassandra.query import dict_factory

    store.mset([("a", b"1")])
    usual = session.cluster.profile_manager.default
    before, usual.row_factory = usual.row_factory, dict_factory
    try:
        assert store.mget(["a", "x"]) == [b"1", None]
        assert list(store.yield_items()) == [("a", b"1")]
    finally:
        usual.row_factory = before


# -- the defects ------------------------------------------------------------------------------------------------------


def test_6_1_off_makes_no_table(session: Any, table: str) -> None:
    with CassandraByteStore(table, session=session, keyspace=KEYSPACE, setup_mode=SetupMode.OFF) as store:
        with pytest.raises(UnknownCollectionError):
            store.mget(["a"])


def test_6_2_names_are_what_they_are(store: CassandraByteStore, session: Any, table: str) -> None:
    names = session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", [KEYSPACE])
    assert table in {name for (name,) in names}


async def test_6_3_batches_of_any_size_in_pages(store: CassandraByteStore) -> None:
    pairs = [(f"k{number:05}", b"x" * (number % 3)) for number in range(3_001)]
    await store.amset(pairs)
    assert await store.amget(iter([key for key, _ in pairs])) == [value for _, value in pairs]  # type: ignore[arg-type]
    assert sorted([key async for key in store.ayield_keys()]) == [key for key, _ in pairs]
    assert sorted([key async for key in store.ayield_keys(prefix="k0000")]) == [
        f"k0000{number}" for number in range(10)
    ]
    assert sorted([item async for item in store.ayield_items()]) == pairs
    assert await store.acount() == 3_001
    await store.aclear(prefix="k0000")
    assert await store.acount() == 2_991
    await store.amdelete([key for key, _ in pairs])
    assert await store.acount() == 0


def test_6_4_a_cancelled_call_leaves_nothing_behind(store: CassandraByteStore) -> None:
    told: list[Any] = []

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        task = asyncio.create_task(store.amget([f"k{number}" for number in range(500)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.amget(["x"]) == [None]

    asyncio.run(cancel())
    assert told == []


def test_6_5_values_expire_by_the_clusters_own_time(store: CassandraByteStore, session: Any, table: str) -> None:
    store.mset([("a", b"1")], ttl_s=999.5)
    ((left_s,),) = session.execute(f'SELECT TTL(body_blob) FROM "{KEYSPACE}"."{table}"')
    assert 900 < left_s <= 1_000
    with pytest.raises(InvalidValueError, match="give a shorter ttl_s"):
        store.mset([("b", b"1")], ttl_s=10**9 - 1)
    store.mset([("soon", b"1")], ttl_s=0.1)
    while store.mget(["soon"]) != [None]:  # the test's own time limit ends it
        pass
    assert list(store.yield_keys()) == ["a"]


def test_6_6_what_is_too_large_is_named_and_nothing_is_stored(store: CassandraByteStore) -> None:
    with pytest.raises(InvalidValueError, match="'b' has 17,000,000 bytes"):
        store.mset([("a", b"1"), ("b", bytes(17_000_000))])
    store.mset([("c", bytes(15_000_000))])
    assert list(store.yield_keys()) == ["c"]


def test_what_a_table_without_conditions_cannot_do_is_refused(store: CassandraByteStore) -> None:
    for call in (lambda: store.add([("a", b"1")]), lambda: store.update("a", lambda _: b"1")):
        with pytest.raises(UnsupportedError, match="of a CassandraByteStore cannot"):
            call()


def test_json_is_refused_with_the_right_way(session: Any, table: str, cassandra_node: Node) -> None:
    with KVStore("t", CassandraTablesPlace(KEYSPACE, session)) as store:
        with pytest.raises(InvalidValueError, match="keep JSON by the URL of the cluster"):
            store.mset([("a", {"n": 1})])
    with KVStore("json_instead", cassandra_node.url()) as right:
        right.mset([("a", {"n": 1})])
        assert right.mget(["a"]) == [{"n": 1}]
    session.execute(f'DROP TABLE "{KEYSPACE}"."t"', timeout=60)


def test_arguments_that_are_missing_or_too_many_are_told(
    store: CassandraByteStore, session: Any, table: str, cassandra_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cassio", None)
    with pytest.raises(ConfigError, match="give session= and keyspace="):
        CassandraByteStore("t")
    with pytest.raises(ConfigError, match="give one"):
        CassandraByteStore("t", session=session, url="cassandra://localhost")
    with pytest.raises(ConfigError, match="as they are in the cluster"):
        CassandraByteStore("", session=session, keyspace=KEYSPACE)
    CassandraByteStore(table, session=session, keyspace=KEYSPACE, setup_mode="OFF").close()
    CassandraByteStore(table, url=cassandra_node.url(), keyspace=KEYSPACE, setup_mode="OFF").close()
