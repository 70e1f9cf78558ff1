"""PostgreSQL by its drivers, with engines as programs make them: statements go by SQLAlchemy or by the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from langchain_kv import KVByteStore, KVStore, LangGraphStore, SQLPlace
from langchain_kv.backends.base import Merge, Record
from langchain_kv.backends.sql_rows import Rows
from langchain_kv.backends.sql_tables import OURS
from langchain_kv.langgraph.items import UPDATED, created_earlier
from langchain_kv.stores.sql import SQLStore
from langchain_kv.values.records import Kind
from sql_servers import alchemy_url

KEYS = ["a", "\u00e9", "x\0y", "'\"\\{},NULL", "%(key_array)s %b $1", "\U0001f600"]


def _translated(url: str) -> Engine:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS tenant"))
    return engine.execution_options(schema_translate_map={None: "tenant"})


MADE: dict[str, Callable[[str], Any]] = {
    "psycopg": create_engine,
    "parameters by place": lambda url: create_engine(url, paramstyle="format"),
    "another schema": _translated,
    "psycopg_async": lambda url: create_async_engine(url, poolclass=NullPool),
    "asyncpg": lambda url: create_async_engine(url.replace("psycopg", "asyncpg"), poolclass=NullPool),
}


@pytest.fixture(params=MADE)
def place(request: pytest.FixtureRequest, postgresql: str) -> Iterator[SQLPlace]:
    url = alchemy_url(postgresql).replace("asyncpg", "psycopg")
    engine = MADE[request.param](url)
    yield SQLPlace(engine)
    getattr(engine, "sync_engine", engine).dispose()


def test_values_come_back_by_every_driver(place: SQLPlace) -> None:
    with closing(KVStore("drivers", place)) as store, closing(KVByteStore("drivers_b", place)) as bytes_store:
        store.mset([(key, n) for n, key in enumerate(KEYS)])
        store.mset([(KEYS[0], [None])], ttl_s=1_000)
        bytes_store.mset([(key, bytes(range(256)) + key.encode()) for key in KEYS])
        assert store.mget([*KEYS, "none"]) == [[None], 1, 2, 3, 4, 5, None]
        assert bytes_store.mget(KEYS) == [bytes(range(256)) + key.encode() for key in KEYS]
        assert sorted(store.yield_keys()) == sorted(KEYS)
        store.update(KEYS[1], lambda value: value + 1)
        assert store.add([(KEYS[1], 9), ("new", 9)]) == ["new"]
        store.mdelete(KEYS[2:])
        assert dict(store.yield_items()) == {KEYS[0]: [None], KEYS[1]: 2, "new": 9}
        store.clear()
        bytes_store.clear()


def test_items_keep_when_they_were_created_by_every_driver(place: SQLPlace) -> None:
    labels = [key.replace("\0", "0") for key in KEYS]
    with closing(LangGraphStore(place, collection="drivers_l")) as store:
        for count in (1, len(labels)):
            first = [PutOp(("n", label), label, {"n": 0}, ttl=[None, 60][at == 1]) for at, label in enumerate(labels)]
            store.batch(first)
            created = {item.key: item.created_at for item in store.search(("n",))}
            for start in range(0, len(labels), count):
                store.batch([put._replace(value={"n": 1}, ttl=None) for put in first[start : start + count]])
            items = store.search(("n",))
            assert {item.key: item.created_at for item in items} == created
            assert all(item.updated_at > item.created_at for item in items)
            assert [item.value for item in items] == [{"n": 1}] * len(labels)
            store.batch([put._replace(value=None, ttl=None) for put in first])


def test_keys_are_ranked_by_the_database_but_all_of_them_on_no_loop(place: SQLPlace) -> None:
    is_async = isinstance(place.database, AsyncEngine)
    with closing(LangGraphStore(place, collection="drivers_r")) as store:
        store.batch([PutOp(("n",), f"{n:02}", {}) for n in range(40)])
        backend = store._records._backend
        keys = [f"\x1fn\x1e{n:02}" for n in range(40)]
        assert backend.keys_by_ending("\x1fn", UPDATED, 3) == keys[:3]
        assert backend.keys_by_ending("\x1fn", UPDATED, None) == (None if is_async else keys)
        assert [item.key for item in store.search(("n",), limit=30, offset=10)] == [f"{n:02}" for n in range(10, 40)]
        store.batch([PutOp(("n",), f"{n:02}", None) for n in range(40)])


def test_a_batch_that_takes_two_statements_in_one_order_of_its_records_is_stored_whole_or_not(postgresql: str) -> None:
    with KVByteStore("drivers_whole", postgresql) as store, closing(psycopg.connect(_plain(postgresql))) as other:
        store.mset([("z", b"old")])
        other.execute("SELECT FROM langchain_kv WHERE key='z'::bytea FOR UPDATE")  # which holds up the second one
        writer = threading.Thread(target=store.mset, args=([("z", b"new"), ("a", bytes(5_000_000))],))
        writer.start()
        time.sleep(0.5)
        assert store.mget(["z", "a"]) == [b"old", None]
        other.rollback()
        writer.join()
        assert store.mget(["z", "a"]) == [b"new", bytes(5_000_000)]
        store.clear()


def test_what_has_expired_under_a_key_that_is_no_utf_8_is_purged(postgresql: str) -> None:
    with KVStore("drivers_purge", postgresql) as store:
        with closing(psycopg.connect(_plain(postgresql), autocommit=True)) as other:
            other.execute("INSERT INTO langchain_kv VALUES('default_keyspace.drivers_purge', %s, '1', 0, 1)", [b"\xff"])
        assert store.purge() == 1


@pytest.mark.parametrize("charset", ["latin1", "gbk", "utf8mb4"])
def test_a_namespace_is_told_apart_by_its_bytes_whatever_the_connections_characters(mariadb: str, charset: str) -> None:
    url = alchemy_url(mariadb).replace("asyncmy", "pymysql")
    namespace = "caf\u00e9 \u65e5\u672c"
    engine, plain = create_engine(f"{url}?charset={charset}"), create_engine(url)
    with closing(SQLStore(namespace=namespace, engine=engine)) as store:
        store.create_schema()
        store.mset([("a", b"1"), ("\u65e5", b"\xff")])
        store.mset([("a", b"2")])
        assert store.mget(["a", "\u65e5"]) == [b"2", b"\xff"]
        with plain.begin() as connection:
            where = {"namespace": namespace.encode()}
            counted = text("SELECT count(*) FROM langchain_key_value_stores WHERE namespace = :namespace")
            assert connection.execute(counted, where).scalar() == 2
        store.mdelete(["a", "\u65e5"])
    engine.dispose()
    plain.dispose()


def _plain(url: str) -> str:
    return url.replace("+asyncpg", "")


def test_what_is_one_statement_is_known_before() -> None:
    rows = Rows(OURS, "kv", "postgresql", "p")
    large = [Record(key, b"x" * 3_000_000, Kind.BYTES) for key in "abc"]
    tiny = [Record("z", b"x", Kind.BYTES), Record("a", bytes(5_000_000), Kind.BYTES)]  # two in the order of their keys
    cases = [], large[:1], tiny[:1] * 2, large[:2], tiny, tiny[:1] * 10_000, tiny[:1] * 10_001
    assert [rows.is_put_at_once(some) for some in cases] == [False, True, True, False, False, True, False]
    assert not Rows(OURS, "kv", "mariadb", "m").is_put_at_once(tiny[:1] * 2)
    small = [Record("a", b"1"), Record("b", b"1", Kind.JSON, 5)]
    assert rows.ending_of(small, created_earlier) is created_earlier.ending
    assert rows.ending_of(small, Merge(created_earlier)) is None
    assert rows.ending_of([*small, Record("c", b"{}", Kind.TEXT)], created_earlier) is created_earlier.ending
    assert rows.ending_of([*small, large[0]], created_earlier) is None
    assert Rows(OURS, "kv", "sqlite", "s").ending_of(small, created_earlier) is None
