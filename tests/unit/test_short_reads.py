"""Short reads of a file run where they are called, and take the way through a thread wherever they might wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bodies import MemoryEngine, SQLiteEngine
from langchain_kv.engines.base import KEEP, CollectionName, Engine, Keep
from langchain_kv.errors import EngineBusyError, StoreClosedError, UnknownCollectionError
from langchain_kv.runtime.work_queue import QueueBridge, WouldWait

KV = CollectionName("default_keyspace", "kv")
SETTINGS = {"indexing": {"allow": ["_id"]}}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SQLiteEngine]:
    with closing(SQLiteEngine(str(tmp_path / "kv.db"))) as engine:
        engine.create_collection(KV, SETTINGS)
        engine.write(KV, [("a", b'{"_id":"a"}')])
        yield engine


async def where(engine: Engine) -> threading.Thread:
    """Read shortly; return the thread that did."""

    def read() -> threading.Thread:
        assert engine.read(KV, ["a", "b"]) == [b'{"_id":"a"}', None]
        return threading.current_thread()

    return await engine.bridge.read_short(read)


async def test_only_the_first_short_read_leaves_its_thread(engine: SQLiteEngine) -> None:
    here = threading.current_thread()
    assert [await where(engine) is here for _ in range(3)] == [False, True, True]


async def test_short_reads_begin_also_after_others(engine: SQLiteEngine) -> None:
    await engine.bridge.read(engine.read, KV, ["a"])
    engine.read(KV, ["a"])
    here = threading.current_thread()
    assert [await where(engine) is here for _ in range(3)] == [False, True, True]


async def test_no_read_waits_for_another_process_to_make_short_ones_possible(engine: SQLiteEngine) -> None:
    await engine.bridge.read(engine.read, KV, ["a"])
    here = threading.current_thread()

    def hold(_: object, __: object) -> Keep:
        with ThreadPoolExecutor(1) as others:
            assert others.submit(lambda: asyncio.run(where(engine))).result(30) is not here
        return KEEP

    engine.modify(KV, ["a"], hold)
    assert [await where(engine) is here for _ in range(2)] == [False, True]


async def test_a_short_read_waits_for_no_other_one_on_this_thread(engine: SQLiteEngine) -> None:
    await where(engine)
    inside, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert may_go_on.wait(30)

    async def elsewhere() -> None:
        await engine.bridge.read_short(hold)

    other = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    other.start()
    try:
        assert inside.wait(30)
        assert await where(engine) is not threading.current_thread()
    finally:
        may_go_on.set()
        other.join()
    assert await where(engine) is threading.current_thread()


async def test_what_finds_the_file_busy_goes_on_where_it_may_wait(engine: SQLiteEngine) -> None:
    await where(engine)
    tries: list[threading.Thread] = []

    def read() -> list[bytes | None]:
        tries.append(threading.current_thread())
        if len(tries) == 1:
            raise EngineBusyError("another program holds the file")
        return engine.read(KV, ["a"])

    assert await engine.bridge.read_short(read) == [b'{"_id":"a"}']
    assert [thread is threading.current_thread() for thread in tries] == [True, False]


async def test_short_reads_see_what_others_wrote(engine: SQLiteEngine) -> None:
    for number in range(20):
        body = b'{"_id":"a","n":%d}' % number
        await engine.bridge.write(engine.write, KV, [("a", body)])
        assert await engine.bridge.read_short(engine.read, KV, ["a"]) == [body]


async def test_errors_of_a_short_read_are_its_callers(engine: SQLiteEngine) -> None:
    await where(engine)
    with pytest.raises(UnknownCollectionError):
        await engine.bridge.read_short(engine.read, KV._replace(name="none"), ["a"])
    assert await where(engine) is threading.current_thread()


async def test_no_short_read_after_the_end(engine: SQLiteEngine) -> None:
    await where(engine)
    engine.close()
    with pytest.raises(StoreClosedError):
        await engine.bridge.read_short(engine.read, KV, ["a"])


async def test_a_bridge_that_runs_nothing_at_once_uses_its_thread() -> None:
    def refuse(_: object) -> object:
        raise WouldWait

    for bridge in (QueueBridge("short"), QueueBridge("short", run_at_once=refuse)):
        with closing(bridge):
            assert await bridge.read_short(threading.current_thread) is not threading.current_thread()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_settings_come_with_what_is_read(kind: str, tmp_path: Path) -> None:
    with closing(MemoryEngine() if kind == "memory" else SQLiteEngine(str(tmp_path / "kv.db"))) as engine:
        engine.create_collection(KV, SETTINGS)
        engine.write(KV, [("a", b"{}")])
        for _ in range(2):
            assert engine.read_with_settings(KV, ["a", "b"]) == (SETTINGS, [b"{}", None])
            assert engine.read_with_settings(KV, []) == (SETTINGS, [])
        engine.drop_collection(KV)
        with pytest.raises(UnknownCollectionError):
            engine.read_with_settings(KV, ["a"])


def test_settings_of_a_collection_that_another_made_anew_are_the_new_ones(engine: SQLiteEngine, tmp_path: Path) -> None:
    assert engine.read_with_settings(KV, ["a"]) == (SETTINGS, [b'{"_id":"a"}'])
    with closing(SQLiteEngine(str(tmp_path / "kv.db"))) as other:
        other.drop_collection(KV)
        other.create_collection(KV, {})
    assert engine.read_with_settings(KV, ["a"]) == ({}, [None])
