"""Engines as programs make them: of one connection, in AUTOCOMMIT, with a small pool, and connections that break."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from langchain_kv import ConfigError, ConnectError, KVStore, SQLPlace, StoreError, TransportError
from langchain_kv.stores.sql import SQLStore
from sql_servers import alchemy_url


def refuse(value: Any) -> Any:
    raise ValueError("mine")


def test_threads_on_one_connection_do_not_mix_their_transactions() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    stores = [KVStore("c", SQLPlace(each)) for each in (engine, engine.execution_options(compiled_cache={}))]
    done: list[str] = []

    def write(store: KVStore, name: int) -> None:
        for number in range(60):
            store.mset([(f"{name}-{number}", 1), (f"{name}-{number}b", 1)])
            done.append(f"{name}-{number}")
            with suppress(ValueError):
                store.update("u", refuse)
            store.update("n", lambda old: (old or 0) + 1)

    writers = [threading.Thread(target=write, args=(stores[name % 2], name)) for name in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(done) == 240
    assert set(done) <= set(stores[0].yield_keys())
    assert stores[0].mget(["n"]) == [240]


def test_coroutines_on_one_connection_do_not_mix_their_transactions() -> None:
    async def scenario() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        assert isinstance(engine.pool, StaticPool)
        store = SQLStore(namespace="t", engine=engine)
        await store.acreate_schema()

        async def write(name: int) -> None:
            for number in range(20):
                await store.amset([(f"{name}-{number}", b"1")])
                with suppress(ValueError):
                    await store.aupdate("u", refuse)
                await store.aupdate("n", lambda old: str(int(old or b"0") + 1).encode())

        await asyncio.gather(*map(write, range(4)))
        assert len([key async for key in store.ayield_keys()]) == 81
        assert await store.amget(["n"]) == [b"80"]
        await engine.dispose()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["by SQLAlchemy", "by the driver"])
def test_an_engine_in_autocommit_loses_no_update(plain_database: str, how: str) -> None:
    url = alchemy_url(plain_database)
    is_by_driver = how == "by the driver" and "sqlite" not in url
    given: dict[str, Any] = (
        {"connect_args": {"autocommit": True}} if is_by_driver else {"isolation_level": "AUTOCOMMIT"}
    )
    engine = create_engine(url, **given)
    with KVStore("autocommit", SQLPlace(engine)) as store:
        store.mset([("n", 0)])

        def count() -> None:
            for _ in range(25):
                store.update("n", lambda old: old + 1)

        counters = [threading.Thread(target=count) for _ in range(4)]
        for each in counters:
            each.start()
        for each in counters:
            each.join()
        assert store.mget(["n"]) == [100]
        with pytest.raises(ValueError, match="mine"):
            store.update("n", refuse)
        store.clear()
    with pytest.raises(ConfigError, match="derived from"):
        KVStore("autocommit", SQLPlace(engine.execution_options(isolation_level="AUTOCOMMIT")))
    engine.dispose()


def test_an_engine_that_stays_in_autocommit_is_refused(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}")

    def stay(connection: Any, *_: Any) -> None:
        connection.isolation_level = None

    event.listen(engine, "connect", stay)
    event.listen(engine, "begin", lambda connection: stay(connection.connection.dbapi_connection))
    with pytest.raises(ConfigError, match="whatever level of isolation it is given"):
        KVStore("autocommit", SQLPlace(engine))
    engine.dispose()


def test_a_pool_without_a_free_connection_is_told(tmp_path: Any) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'kv.db'}", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1
    )
    with KVStore("c", SQLPlace(engine)) as store:
        with engine.connect(), pytest.raises(ConnectError, match="pool_size") as caught:
            store.mset([("a", 1)])
        assert (caught.value.applied, caught.value.retryable) == (False, True)
        store.mset([("a", 1)])
    engine.dispose()


@pytest.mark.parametrize("at", ["commit", "before_cursor_execute"])
def test_what_a_broken_connection_leaves_open_is_told(tmp_path: Any, at: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}")
    with KVStore("c", SQLPlace(engine)) as store:
        store.mset([("n", 1)])

        def broken(*_: Any) -> None:
            raise OSError("it is gone")

        event.listen(engine, at, broken)
        for call in (lambda: store.update("n", lambda old: old + 1), lambda: store.add([("a", 1)])):
            with pytest.raises(TransportError) as caught:
                call()
            is_open = at == "commit"
            assert caught.value.applied is (None if is_open else False)
            assert caught.value.retryable is not is_open
            assert ("read the key before" in str(caught.value)) is is_open
        with pytest.raises(TransportError, match="Repeating the call is safe") as told:
            store.mset([("n", 1), ("m", 1)])
        assert (told.value.applied, told.value.retryable) == (None, True)
        with pytest.raises(TransportError) as read:
            store.mget(["n"])
        assert read.value.applied is False
        event.remove(engine, at, broken)
    engine.dispose()


@pytest.mark.parametrize(
    "text",
    [
        "kv:S3cret@localhost/db",
        "postgresql:kv:S3cret@localhost/db",
        "postgresql+psycopg:/kv:S3cret@localhost/db",
        "postgresql+psycopg://us/er:S3cret@localhost:1/db",
        "postgresql+psycopg://kv:S3cret@localhost:1x/db",
        "host=localhost user=kv password=S3cret",
    ],
)
def test_a_text_that_is_no_url_is_not_shown(text: str) -> None:
    with pytest.raises(StoreError) as caught:
        SQLStore(namespace="n", db_url=text).mget(["a"])
    with pytest.raises(StoreError) as other:
        KVStore("c", SQLPlace(text))
    assert "S3cret" not in f"{caught.value} {other.value} {SQLPlace(text)!r} {SQLPlace(text).shown}"


@pytest.mark.parametrize("name", ["a?1.db", "p%41.db"])
def test_a_path_that_a_url_cannot_say_is_refused_and_taken_by_an_engine(tmp_path: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="takes no path with"):
        KVStore("c", f"sqlite+sqlalchemy:{tmp_path / name}")
    engine = create_engine(URL.create("sqlite", database=str(tmp_path / name)))
    with closing(KVStore("c", SQLPlace(engine))) as store:
        store.mset([("a", 1)])
    engine.dispose()
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_the_tables_schema_may_be_translated(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}")

    @event.listens_for(engine, "connect")
    def attach(connection: Any, record: Any) -> None:
        connection.execute(f"ATTACH '{tmp_path / 'tenant.db'}' AS tenant")

    for _ in range(2):
        with KVStore("c", SQLPlace(engine.execution_options(schema_translate_map={None: "tenant"}))) as store:
            store.mset([("a", 1)])
            assert store.mget(["a"]) == [1]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM tenant.langchain_kv").scalar() == 1
        with pytest.raises(ConfigError, match="takes a URL, an Engine or an AsyncEngine"):
            KVStore("c", SQLPlace(connection))  # type: ignore[arg-type]
    engine.dispose()


def test_parameters_may_be_named(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'kv.db'}", paramstyle="named")
    with closing(KVStore("c", SQLPlace(engine))) as store:
        store.mset([("a", 1), ("b", 2)])
        store.mset([("b", 3)])
        assert store.mget(["a", "b"]) == [1, 3]
    engine.dispose()


def test_a_call_on_a_loop_that_is_closed_meanwhile_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_kv.backends.at_home.LOOK_S", 0.05)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'kv.db'}", poolclass=NullPool)
    loop = asyncio.new_event_loop()

    async def make() -> Any:
        return SQLStore(namespace="t", engine=engine)

    store = loop.run_until_complete(make())
    told: list[Any] = []

    def call() -> None:
        try:
            told.append(store.mget(["a"]))
        except StoreError as error:
            told.append(error)

    caller = threading.Thread(target=call, daemon=True)

    async def leave() -> None:
        caller.start()
        time.sleep(0.2)

    loop.run_until_complete(leave())
    loop.close()
    caller.join(10)
    assert [type(each) for each in told] == [TransportError]
    assert "event loop of" in str(told[0])


def test_coroutines_on_a_driver_of_coroutines_take_a_bounded_number_of_threads(tmp_path: Any) -> None:
    names: list[int] = []

    async def watch() -> None:
        while True:
            names.append(sum("langchain-kv call" in each.name for each in threading.enumerate()))
            await asyncio.sleep(0)

    async def scenario(store: KVStore) -> None:
        watching = asyncio.ensure_future(watch())
        assert await asyncio.gather(*(store.amget(["a"]) for _ in range(200))) == [[1]] * 200
        watching.cancel()

    with KVStore("c", f"sqlite+aiosqlite:{tmp_path / 'kv.db'}") as store:
        store.mset([("a", 1)])
        asyncio.run(scenario(store))
    assert 0 < max(names) <= 20


def _engine(path: Any, is_async: bool) -> Any:
    if is_async:
        return create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
    return create_engine(f"sqlite:///{path}", poolclass=NullPool)


@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_driver_raises_that_cannot_connect_is_no_connection(tmp_path: Any, is_async: bool) -> None:
    engine = _engine(tmp_path / "kv.db", is_async)

    @event.listens_for(engine.sync_engine if is_async else engine, "do_connect")
    def connect(*_: object) -> None:
        raise RuntimeError("Transport does not expose socket instance")  # asyncmy's, of a server that ends meanwhile

    with pytest.raises(ConnectError, match="does not expose") as caught:
        KVStore("c", SQLPlace(engine))
    assert (caught.value.applied, caught.value.retryable) == (False, True)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_fault_of_a_program_is_no_broken_connection(tmp_path: Any, is_async: bool) -> None:
    engine = _engine(tmp_path / "kv.db", is_async)
    store = KVStore("c", SQLPlace(engine))

    @event.listens_for(engine.sync_engine if is_async else engine, "before_cursor_execute")
    def hook(*_: object) -> None:
        raise RuntimeError("of the program's own hook")

    with pytest.raises(RuntimeError, match="own hook"):
        store.mget(["a"])
    store.close()
