"""``SQLStore``, both ways with langchain_community's, and without the defects of that one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from langchain_kv import (
    InvalidKeyError,
    InvalidValueTypeError,
    KVByteStore,
    SQLPlace,
    StoreClosedError,
    UnsupportedError,
    UsageError,
)
from langchain_kv.stores.sql import LangchainKeyValueStores, SQLStore, items_equal
from langchain_kv.testing.contract import StoreFace
from sql_servers import alchemy_url


def upstream(**arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its package is no longer maintained
        from langchain_community.storage.sql import SQLStore as Archived
    return Archived(**arguments)


@pytest.fixture
def url(database: str) -> str:
    """SQLAlchemy's URL of each database."""
    return alchemy_url(database)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, url: str) -> Iterator[StoreFace]:
    """A store in a namespace of its own, by its plain calls and by its coroutines."""
    with ExitStack() as ends:
        runner = ends.enter_context(asyncio.Runner())
        store = SQLStore(namespace=uuid4().hex, db_url=url)
        ends.callback(store.close)
        store.create_schema()
        yield StoreFace(store, request.param == "async", runner.run)


class TestStandard(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, url: str) -> Iterator[SQLStore]:
        with SQLStore(namespace=uuid4().hex, db_url=url) as store:
            store.create_schema()
            yield store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"bar", b"buzz"


class TestStandardAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, url: str) -> Any:
        store = SQLStore(namespace=uuid4().hex, db_url=url)
        await store.acreate_schema()
        yield store
        await store.aclose()

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"bar", b"buzz"


# -- both ways with the archived class --------------------------------------------------------------------------------


@pytest.fixture
def legacy_url(legacy_database: str) -> str:
    """SQLAlchemy's URL of each database on which the archived class makes its table."""
    return alchemy_url(legacy_database)


PAIRS = [(f"key {number}", bytes([number, 255, 0])) for number in range(200)]


def test_each_reads_what_the_other_wrote(legacy_url: str) -> None:
    name = uuid4().hex
    archived = upstream(namespace=name, db_url=legacy_url)
    archived.create_schema()
    with SQLStore(namespace=name, db_url=legacy_url) as store:
        archived.mset(PAIRS)
        assert store.mget([key for key, _ in PAIRS]) == [value for _, value in PAIRS]
        assert set(store.yield_keys()) == set(archived.yield_keys())
        store.mset([(key, value + b"!") for key, value in PAIRS[:100]] + [("\u00e9", b"new")])
        assert archived.mget([PAIRS[0][0], PAIRS[150][0], "\u00e9"]) == [PAIRS[0][1] + b"!", PAIRS[150][1], b"new"]
        store.mdelete([PAIRS[0][0]])
        assert archived.mget([PAIRS[0][0]]) == [None]
        assert set(store.yield_keys(prefix="key 1")) == set(archived.yield_keys(prefix="key 1"))
    archived.engine.dispose()


def test_the_archived_class_uses_a_table_that_ours_made(legacy_url: str) -> None:
    engine = create_engine(legacy_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS langchain_key_value_stores"))
    store = SQLStore(namespace="a", engine=engine)
    store.create_schema()
    archived = upstream(namespace="a", engine=engine)
    archived.create_schema()
    archived.mset([("k", b"1"), ("k", b"2")])
    assert store.mget(["k"]) == [b"2"]
    engine.dispose()


def test_values_are_whole_while_both_write_the_same_keys(legacy_url: str) -> None:
    name, keys = uuid4().hex, [f"k{number}" for number in range(5)]
    archived = upstream(namespace=name, db_url=legacy_url)
    archived.create_schema()
    store = SQLStore(namespace=name, db_url=legacy_url)
    ours, theirs = b"o" * 5_000, b"t" * 5_000
    end = threading.Event()

    def write_theirs() -> int:
        stored = 0
        while not end.is_set():
            try:
                archived.mset([(key, theirs) for key in keys])
                stored += 1
            except (
                Exception
            ):  # it deletes and inserts: where ours comes between, its insert fails (a defect of its own)
                continue
        return stored

    def read() -> set[bytes | None]:
        seen: set[bytes | None] = set()
        while not end.is_set():
            seen.update(store.mget(keys))
        return seen

    with ThreadPoolExecutor(2) as pool:
        reader, writer = pool.submit(read), pool.submit(write_theirs)
        try:
            for _ in range(100):
                store.mset([(key, ours) for key in keys])
        finally:
            end.set()
        assert reader.result() <= {ours, theirs, None}
        writer.result()
    store.close()
    archived.engine.dispose()


# -- the defects of the archived class --------------------------------------------------------------------------------


def test_sync_and_async_calls_work_on_one_store(url: str) -> None:
    async def scenario(store: SQLStore) -> list[bytes | None]:
        await store.amset([("b", b"2")])
        return await store.amget(["a", "b"])

    with SQLStore(namespace=uuid4().hex, db_url=url) as store:
        store.create_schema()
        store.mset([("a", b"1")])
        assert asyncio.run(scenario(store)) == [b"1", b"2"]
        assert store.mget(["b"]) == [b"2"]


def test_many_writers_of_one_key_all_succeed(face: StoreFace) -> None:
    barrier = threading.Barrier(8)

    def write(worker: int) -> None:
        barrier.wait()
        for number in range(15):
            StoreFace(face.target, worker % 2 == 1).mset([("one", b"%d-%d" % (worker, number))])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert face.mget(["one"])[0].endswith(b"-14")


def test_writers_of_the_same_keys_in_other_orders_do_not_wait_for_each_other_for_ever(face: StoreFace) -> None:
    keys = [f"k{number:03}" for number in range(100)]

    def write(worker: int) -> None:
        for _ in range(5):
            StoreFace(face.target, False).mset([(key, b"x" * worker) for key in keys[:: 1 if worker % 2 else -1]])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 5)))
    assert len(set(face.mget(keys))) == 1


def test_the_last_of_a_repeated_key_wins(face: StoreFace) -> None:
    face.mset([("a", b"1"), ("b", b"x"), ("a", b"2")])
    assert face.mget(["a", "b", "a"]) == [b"2", b"x", b"2"]


@pytest.mark.slow
def test_seventy_thousand_keys_in_one_call(face: StoreFace) -> None:
    keys = [f"key-{number}" for number in range(70_000)]
    face.mset([(key, b"1") for key in keys[::7]])
    found = face.mget(keys)
    assert found[::7] == [b"1"] * 10_000
    assert found.count(None) == 60_000
    face.mdelete(keys)
    assert face.keys() == []


def test_listing_keys_reads_no_values(plain_database: str) -> None:
    engine = create_engine(alchemy_url(plain_database))
    store = SQLStore(namespace=uuid4().hex, engine=engine)
    store.create_schema()
    store.mset([(f"k{number}", b"x" * 1000) for number in range(50)])
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_: seen.append(statement))
    assert len(list(store.yield_keys(prefix="k1"))) == 11
    assert len(seen) == 1
    assert ".value" not in seen[0].partition("FROM")[0]
    engine.dispose()


def test_a_prefix_is_literal(face: StoreFace) -> None:
    keys = ["a%b", "axb", "a_b", "A%b", "a%", "\u00e9a", "e\u0301a", "a\\b", "a*b", "[a]"]
    face.mset([(key, b"1") for key in keys])
    for prefix in [*keys, "a", "A", "e", "\u00e9"]:
        assert face.keys(prefix) == sorted(key for key in keys if key.startswith(prefix))


def test_keys_of_other_case_are_other_keys_and_values_may_be_large(face: StoreFace) -> None:
    face.mset([("Foo", b"1"), ("foo", b"2"), ("large", bytes(70_000))])
    assert face.mget(["Foo", "foo", "large"]) == [b"1", b"2", bytes(70_000)]


def test_dropping_removes_this_namespace_only(url: str) -> None:
    with SQLStore(namespace=uuid4().hex, db_url=url) as one, SQLStore(namespace=uuid4().hex, db_url=url) as other:
        one.create_schema()
        for store in (one, other):
            store.mset([("a", b"1")])
        one.drop()
        assert one.mget(["a"]) == [None]
        assert other.mget(["a"]) == [b"1"]


def test_the_table_has_no_index_but_its_primary_key(legacy_url: str) -> None:
    engine = create_engine(legacy_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS langchain_key_value_stores"))
    SQLStore(namespace="a", engine=engine).create_schema()
    assert inspect(engine).get_indexes("langchain_key_value_stores") == []
    engine.dispose()


def test_none_is_refused_before_anything_is_sent(face: StoreFace) -> None:
    with pytest.raises(InvalidValueTypeError, match="bytes, got None"):
        face.mset([("a", b"1"), ("b", None)])
    assert face.keys() == []


def test_nul_in_a_key_is_refused_by_name_where_the_column_cannot_take_it(face: StoreFace) -> None:
    pairs = [("good", b"1"), ("a\0b", b"2")]
    if face.target.dialect != "postgresql":
        face.mset(pairs)
        assert face.mget(["a\0b"]) == [b"2"]
        return
    update = partial(face.target.update, "a\0b", lambda _: b"2")
    for call in (lambda: face.mset(pairs), lambda: face.mget(["a\0b"]), lambda: face.mdelete(["a\0b"]), update):
        with pytest.raises(InvalidKeyError, match=r"'a\\x00b' holds NUL"):
            call()
    assert face.keys() == []
    with KVByteStore("kv_nul", SQLPlace(face.target.engine)) as other:  # as the message says
        other.mset([("a\0b", b"2")])
        assert other.mget(["a\0b"]) == [b"2"]


def test_importing_it_needs_no_greenlet() -> None:
    script = (
        "import sys; sys.modules['greenlet'] = None\n"
        "from langchain_kv import SQLStore\n"
        "s = SQLStore(namespace='a', db_url='sqlite:///:memory:'); s.create_schema(); s.mset([('k', b'v')])\n"
        "print(s.mget(['k']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[b'v']\n"


# -- what it has ------------------------------------------------------------------------------------------------------


def test_expiry_is_refused_by_name(face: StoreFace) -> None:
    with pytest.raises(UnsupportedError, match=r"no room for a moment of expiry.*KVByteStore"):
        face.mset([("a", b"1")], ttl_s=10)


def test_attributes_are_those_of_the_archived_class(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'kv.db'}"
    with SQLStore(namespace="ns", db_url=url) as store:
        theirs = upstream(namespace="ns", db_url=url)
        assert (store.namespace, store.dialect, store.async_mode) == ("ns", theirs.dialect, theirs.async_mode)
        store.create_schema()
        store.mset([("a", b"1")])
        with store.session_maker() as session:
            rows = [(row.namespace, row.key, row.value) for row in session.query(LangchainKeyValueStores)]
        assert rows == [("ns", "a", b"1")]
        theirs.engine.dispose()
    assert items_equal([1], [1])
    assert not items_equal([1], [2])


@pytest.mark.parametrize("arguments", [{}, {"db_url": "sqlite://", "engine": object()}])
def test_one_of_url_and_engine_is_wanted(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Must specify either db_url or engine"):
        SQLStore(namespace="a", **arguments)


def test_an_engine_that_is_given_is_used_and_never_closed(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}")
    store = SQLStore(namespace="a", engine=engine)
    store.create_schema()
    store.mset([("a", b"1")])
    pool = engine.pool
    store.close()
    assert engine.pool is pool  # dispose() makes a new one
    with pytest.raises(StoreClosedError):
        store.mget(["a"])
    assert SQLStore(namespace="a", engine=engine).mget(["a"]) == [b"1"]
    engine.dispose()


def test_plain_calls_on_an_async_engine_run_on_its_loop(tmp_path: Any) -> None:
    async def scenario() -> tuple[Any, Any]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'kv.db'}")
        store = SQLStore(namespace="a", engine=engine)
        await store.acreate_schema()
        await store.amset([("a", b"1")])
        found = await asyncio.to_thread(store.mget, ["a"])
        with pytest.raises(UsageError, match="await the method with a leading a"):
            store.mget(["a"])
        await store.aclose()
        still = await SQLStore(namespace="a", engine=engine).amget(["a"])
        await engine.dispose()
        return found, still

    assert asyncio.run(scenario()) == ([b"1"], [b"1"])


def test_plain_calls_on_an_async_engine_work_without_a_loop(tmp_path: Any) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'kv.db'}", poolclass=NullPool)
    store = SQLStore(namespace="a", engine=engine)
    store.create_schema()
    store.mset([("a", b"1")])
    assert store.mget(["a"]) == [b"1"]
    store.close()
