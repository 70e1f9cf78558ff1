"""PostgreSQL by its drivers, with engines as programs make them: statements go by SQLAlchemy or by the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from langgraph.store.base import PutOp
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from langchain_kv import KVByteStore, KVStore, LangGraphStore, SQLPlace
from langchain_kv.backends.base import Merge, Record
from langchain_kv.backends.sql_rows import Rows
from langchain_kv.backends.sql_tables import OURS
from langchain_kv.langgraph.items import created_earlier
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


def test_what_is_one_statement_is_known_before() -> None:
    rows = Rows(OURS, "kv", "postgresql", "p")
    large = [Record(key, b"x" * 3_000_000, Kind.BYTES) for key in "abc"]
    assert [rows.is_put_at_once(some) for some in ([], large[:1], large[:2], large)] == [False, True, True, False]
    assert not Rows(OURS, "kv", "mariadb", "m").is_put_at_once(large[:2])
    small = [Record("a", b"1"), Record("b", b"1", Kind.JSON, 5)]
    assert rows.ending_of(small, created_earlier) is created_earlier.ending
    assert rows.ending_of(small, Merge(created_earlier)) is None
    assert rows.ending_of([*small, large[0]], created_earlier) is None
    assert Rows(OURS, "kv", "sqlite", "s").ending_of(small, created_earlier) is None
