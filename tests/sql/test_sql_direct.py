"""What is one statement on PostgreSQL goes by psycopg itself: errors, what is cut off, and what the pool gets back."""

from __future__ import annotations

import gc
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from langchain_kv import (
    ConfigError,
    ConnectError,
    DataAPIError,
    KVStore,
    SetupMode,
    SQLPlace,
    UnknownCollectionError,
)
from langchain_kv.backends.sql_driver import DirectEngine
from sql_servers import alchemy_url

pytestmark = pytest.mark.slow


@pytest.fixture
def url(servers: Callable[[str], str]) -> str:
    return servers("postgresql")


@pytest.fixture
def store(url: str) -> Iterator[KVStore]:
    with KVStore("direct", url) as store:
        store.mset([("a", 1), ("b", 2)])
        yield store
        store.clear()


def expect_transactions(store: KVStore, url: str) -> None:
    """Expect that a row which is looked at to be updated stays locked meanwhile."""

    def change(value: Any) -> Any:
        with psycopg.connect(url) as other, pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(
                "SELECT FROM langchain_kv WHERE namespace='default_keyspace.direct' AND key='a'::bytea"
                " FOR UPDATE NOWAIT"
            )
        return value

    for _ in range(3):
        store.update("a", change)


def direct_of(store: KVStore) -> DirectEngine:
    found = store._backend._at_once  # type: ignore[attr-defined]
    assert isinstance(found, DirectEngine)
    return found


def test_what_is_updated_is_locked_after_single_statements(store: KVStore, url: str, face: Any) -> None:
    face(store).mset([("c", 3)])
    assert face(store).mget(["a", "c", "none"]) == [1, 3, None]
    face(store).mdelete(["c", "none"])
    expect_transactions(store, url)
    assert face(store).mget(["a", "c"]) == [1, None]


def test_a_connection_that_nobody_gave_back_is_whole_again_in_the_pool(store: KVStore, url: str) -> None:
    connection = direct_of(store).begin().__enter__()
    connection.carry_out("SELECT 1", None)
    del connection
    gc.collect()
    expect_transactions(store, url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_so_is_one_whose_call_was_cut_off(store: KVStore, url: str, error: type[BaseException]) -> None:
    def cut_off() -> None:
        with direct_of(store).begin() as connection:
            connection.carry_out("SELECT 1", None)
            raise error

    with pytest.raises(error):
        cut_off()
    expect_transactions(store, url)
    assert store.mget(["a", "b"]) == [1, 2]


def test_ctrl_c_ends_a_call_that_waits_and_leaves_nothing_behind(store: KVStore, url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM langchain_kv WHERE key='a'::bytea FOR UPDATE")
        threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            store.mset([("a", 3)])
        other.rollback()
    assert store.mget(["a", "b"]) == [1, 2]
    expect_transactions(store, url)


def test_a_statement_that_is_refused_leaves_its_connection_usable(store: KVStore, url: str) -> None:
    with pytest.raises(DBAPIError) as caught, direct_of(store).begin() as connection:
        connection.carry_out("SELECT 1 / 0", None)
    assert caught.value.connection_invalidated is False
    assert isinstance(caught.value.orig, psycopg.errors.DivisionByZero)
    assert store.mget(["a"]) == [1]
    expect_transactions(store, url)


def test_a_table_that_is_gone_is_told_by_each_call(url: str, face: Any) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE SCHEMA IF NOT EXISTS nothing")
    with KVStore("direct", f"{url}?options=-csearch_path%3Dnothing", setup_mode=SetupMode.OFF) as store:
        for call in (lambda s: s.mget(["a"]), lambda s: s.mset([("a", 1)]), lambda s: s.mdelete(["a"])):
            with pytest.raises(UnknownCollectionError, match="has no table langchain_kv"):
                call(face(store))


def test_a_first_call_that_cannot_connect_says_why(url: str) -> None:
    def first(changed: str) -> Any:
        with KVStore("direct", changed, setup_mode=SetupMode.OFF) as store:
            return store.mget(["a"])

    with pytest.raises(ConfigError, match="does not take the URL"):
        first(f"{url}?nonsense=1")
    with pytest.raises(ConnectError, match="Check that the server runs") as caught:
        first(re.sub(r":\d+/", ":1/", url))
    assert caught.value.applied is False
    with pytest.raises(DataAPIError, match="Check user and password"):
        first(re.sub(r"//[^@/]*@", "//kv:wrong@", url))


def test_transactions_are_as_isolated_as_the_server_is_set_to(url: str) -> None:
    def level(connection: Any) -> Any:
        return connection.exec_driver_sql("SHOW transaction_isolation").scalar()

    with KVStore("direct", f"{url}?options=-cdefault_transaction_isolation%3Dserializable") as store:
        for _ in range(2):
            store.mset([("a", 1)])
            assert store.mget(["a"]) == [1]
            assert store._backend._do(level) == "serializable"  # type: ignore[attr-defined]


def test_an_engine_that_the_program_has_a_say_in_goes_by_sqlalchemy(url: str, caplog: Any) -> None:
    with closing(KVStore("direct", SQLPlace(alchemy_url(url), {"echo": True}))) as store:
        caplog.set_level(logging.INFO, "sqlalchemy.engine")
        caplog.clear()
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]
        store.mdelete(["a"])
        assert all(any(verb in line for line in caplog.messages) for verb in ("INSERT", "SELECT", "DELETE"))


def test_by_threads_and_with_few_connections(url: str) -> None:
    failures: list[BaseException] = []

    def work(store: KVStore, number: int) -> None:
        try:
            for n in range(50):
                store.mset([(f"{number}", n)])
                assert store.mget([f"{number}"]) == [n]
                store.update("sum", lambda value: (value or 0) + 1)
        except BaseException as error:
            failures.append(error)

    with KVStore("direct_threads", url) as store:
        store.clear()
        threads = [threading.Thread(target=work, args=(store, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert store.mget(["sum"]) == [600]
        store.clear()
