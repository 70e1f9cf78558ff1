"""What comes between the statements of one call, and in which order they answer."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from langchain_kv import ConfigError, KVStore, SQLPlace, StoreError
from langchain_kv.backends import sql_errors
from langchain_kv.backends.sql_errors import TRIES
from langchain_kv.runtime import loop_thread
from langchain_kv.stores.sql import SQLStore
from sql_servers import alchemy_url


@pytest.fixture
def name() -> str:
    return f"between_{uuid4().hex[:8]}"


def before_the_first_delete(engine: Any, act: Callable[[], Any]) -> None:
    left = [act]

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("DELETE") and left:
            left.pop()()


@pytest.mark.parametrize("by", ["add", "mset"])
def test_what_another_stored_over_an_expired_key_is_not_added_over(plain_database: str, name: str, by: str) -> None:
    engine = create_engine(alchemy_url(plain_database))
    with KVStore(name, SQLPlace(engine)) as store, KVStore(name, plain_database) as other:
        store.mset([("lock", "old")], ttl_s=0.001)
        time.sleep(0.01)
        before_the_first_delete(engine, lambda: getattr(other, by)([("lock", "of another")]))
        assert store.add([("lock", "mine")]) == []
        assert other.mget(["lock"]) == ["of another"]
    engine.dispose()


def test_pages_with_values_are_in_the_order_of_the_keys(database: str, name: str) -> None:
    with KVStore(name, database) as store:
        keys = [f"k{number * 7_919 % 700:03}" for number in range(700)]
        for start in range(0, 700, 100):
            store.mset([(key, 1) for key in keys[start : start + 100]])
        assert [key for key, _ in store.yield_items()] == sorted(keys)


def test_a_namespace_that_the_column_would_cut_is_refused(mariadb: str) -> None:
    url = alchemy_url(mariadb)
    for namespace in ("n" * 513, "\u00e9" * 257):
        with pytest.raises(ConfigError, match="at most 512 bytes"):
            SQLStore(namespace=namespace, db_url=url)
    with closing(SQLStore(namespace="\u00e9" * 256, db_url=url)) as store:
        store.create_schema()
        store.mset([("k", b"1")])
        assert (store.add([("k", b"2"), ("l", b"3")]), store.mget(["k", "l"])) == (["l"], [b"1", b"3"])
        store.drop()


def test_a_key_that_is_there_is_not_logged(mariadb: str, name: str, caplog: Any) -> None:
    with KVStore(name, mariadb) as store:
        store.mset([("customer", 1)])
        assert store.add([("customer", 2)]) == []
    assert "customer" not in caplog.text


@pytest.mark.slow
def test_a_row_that_changed_since_the_snapshot_is_a_race(servers: Any, name: str) -> None:
    url = servers("mariadb")
    engine = create_engine(alchemy_url(url))

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_snapshot_isolation = ON")

    with KVStore(name, SQLPlace(engine)) as store, KVStore(name, url) as other:
        store.mset([("k", "old")], ttl_s=0.001)
        time.sleep(0.01)
        before_the_first_delete(engine, lambda: other.mset([("k", "new")]))
        assert (store.add([("k", "mine")]), store.mget(["k"])) == ([], ["new"])
    engine.dispose()


@pytest.mark.parametrize(
    ("driver", "mode", "tries", "ends_well"),
    [
        *[(driver, mode, 5, True) for driver in ("pysqlite", "aiosqlite") for mode in ("delete", "wal")],
        ("pysqlite", "wal", 100, False),
    ],
)
def test_a_lock_that_is_refused_while_others_write_is_waited_for_longer(
    tmp_path: Any, driver: str, mode: str, tries: int, ends_well: bool
) -> None:
    path = tmp_path / "kv.db"
    make: Any = create_async_engine if driver == "aiosqlite" else create_engine
    engine = make(f"sqlite+{driver}:///{path}", connect_args={"timeout": 0.12})
    left = tries

    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:  # the loop's thread
        other.execute(f"PRAGMA journal_mode = {mode}")

        @event.listens_for(getattr(engine, "sync_engine", engine), "before_cursor_execute")
        def another_commits(*_: Any) -> None:
            nonlocal left
            if other.in_transaction:
                other.execute(f"PRAGMA user_version = {left}")
                other.execute("COMMIT")
                left -= 1
                if left:
                    other.execute("BEGIN IMMEDIATE")

        with KVStore("c", SQLPlace(engine)) as store:
            store.mset([("k", 1)])
            other.execute("BEGIN IMMEDIATE")
            if ends_well:
                store.mset([("k", 2)])
            else:
                with pytest.raises(StoreError, match="others write all the time: repeat the call later") as told:
                    store.mset([("k", 2)])
                assert (told.value.retryable, told.value.applied) == (True, False)
                other.execute("ROLLBACK")
            assert tries - left == min(tries, TRIES)
            assert store.mget(["k"]) == [2 if ends_well else 1]
    loop_thread.run(engine.dispose()) if driver == "aiosqlite" else engine.dispose()


def test_a_lock_is_not_waited_for_longer_than_half_a_minute(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sql_errors.WAITED_S == 30
    monkeypatch.setattr(sql_errors, "WAITED_S", 0.4)
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}", connect_args={"timeout": 0.15})
    with KVStore("c", SQLPlace(engine)) as store, closing(sqlite3.connect(tmp_path / "kv.db")) as other:
        store.mset([("k", 1)])
        tries = 0

        @event.listens_for(engine, "before_cursor_execute")
        def another_commits(*_: Any) -> None:
            nonlocal tries
            tries += 1
            other.execute(f"PRAGMA user_version = {tries}")
            other.commit()
            other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreError, match="others write all the time"):
            store.mset([("k", 2)])
        assert 2 <= tries <= 3
    engine.dispose()


def test_a_lock_that_stays_is_waited_for_twice_and_told(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}", connect_args={"timeout": 0.2})
    with KVStore("c", SQLPlace(engine)) as store:
        store.mset([("k", 1)])
        with engine.begin() as connection:
            connection.execute(text("UPDATE langchain_kv SET value = value"))
            started = time.monotonic()
            with pytest.raises(StoreError, match=r"another transaction holds .* is one of this program's open") as told:
                store.mset([("k", 2)])
            assert time.monotonic() - started < 2
            assert (told.value.retryable, told.value.applied) == (True, False)
        store.mset([("k", 3)])
        assert store.mget(["k"]) == [3]
    engine.dispose()
