"""The backend over an engine, in both colours; async answers are compared with sync ones."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_kv.backends import engine as engine_module
from langchain_kv.backends.base import INDEXING, Damaged
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import (
    CollectionConflictError,
    EngineError,
    StoreClosedError,
    UnknownCollectionError,
    UnknownKeyspaceError,
)

KV = CollectionName("ks", "kv")


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = (
        MemoryEngine() if request.param == "memory" else SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    )
    yield made
    made.close()


@pytest.fixture
def backend(engine: Engine) -> EngineBackend:
    made = EngineBackend(engine, KV)
    made.setup()
    return made


def record(key: str, value: Any = 1) -> tuple[str, bytes]:
    return key, json.dumps({"_id": key, "value": value}).encode()


def document(key: str, value: Any = 1) -> dict[str, Any]:
    return {"_id": key, "value": value}


async def collected(pages: AsyncIterator[list[Any]]) -> list[list[Any]]:
    return [page async for page in pages]


async def test_both_colours_write_read_and_delete(backend: EngineBackend) -> None:
    backend.put_many([record("a"), record("b", 2**70)])
    await backend.aput_many([record("c", [1, None]), record("a", "newer")])
    expected = [document("c", [1, None]), None, document("a", "newer"), document("b", 2**70)]
    keys = ["c", "x", "a", "b"]
    assert backend.get_many(keys) == await backend.aget_many(keys) == expected
    backend.delete_many(["a", "x"])
    await backend.adelete_many(["b"])
    assert backend.get_many(keys) == await backend.aget_many(keys) == [document("c", [1, None]), None, None, None]


async def test_empty_batches(backend: EngineBackend) -> None:
    backend.put_many([])
    backend.delete_many([])
    await backend.aput_many([])
    await backend.adelete_many([])
    assert backend.get_many([]) == await backend.aget_many([]) == []
    assert list(backend.scan_keys("")) == await collected(backend.ascan_keys("")) == [[]]


async def test_long_async_reads_let_small_ones_pass(backend: EngineBackend) -> None:
    keys = [f"{number:05}" for number in range(20 * engine_module.READ_PAGE)]
    backend.put_many([record(key) for key in keys])
    finished: list[str] = []

    async def read(name: str, wanted: list[str]) -> None:
        assert await backend.aget_many(wanted) == [document(key) for key in wanted]
        finished.append(name)

    await asyncio.gather(read("long", keys), read("small", keys[:1]))
    assert finished == ["small", "long"]


@pytest.mark.parametrize("what", ["reads", "keys"])
async def test_short_reads_one_after_the_other_let_others_run(backend: EngineBackend, what: str) -> None:
    backend.put_many([record(f"{number:05}") for number in range(5 * engine_module.SHORT_KEYS_PAGE)])
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    if what == "reads":
        for _ in range(5):
            await backend.aget_many(["00001"])
    else:
        await collected(backend.ascan_keys(""))
    counting.cancel()
    assert turns >= 5


async def test_a_large_read_is_parsed_in_parts(backend: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PARSED_AT_ONCE_BYTES", 100)
    keys = [f"{number:03}" for number in range(20)]
    backend.put_many([record(key, "x" * 30) for key in keys])
    wanted = ["none", *keys, "neither"]
    assert await backend.aget_many(wanted) == [None, *[document(key, "x" * 30) for key in keys], None]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 999, 1_000, 1_001, 2_500])
async def test_scans_give_each_key_once_in_bounded_pages(backend: EngineBackend, count: int) -> None:
    keys = [f"{number:05}" for number in range(count)]
    backend.put_many([record(key) for key in keys])
    for key_pages in (list(backend.scan_keys("")), await collected(backend.ascan_keys(""))):
        assert max(map(len, key_pages)) <= engine_module.KEYS_PAGE
        assert [key for page in key_pages for key in page] == keys
    for item_pages in (list(backend.scan_items("")), await collected(backend.ascan_items(""))):
        assert max(map(len, item_pages)) <= engine_module.ITEMS_PAGE
        assert [item for page in item_pages for item in page] == [(key, document(key)) for key in keys]


async def test_scans_by_prefix(backend: EngineBackend) -> None:
    backend.put_many([record(key) for key in ["a", "p", "p%", "p_1", "q"]])
    assert list(backend.scan_keys("p")) == await collected(backend.ascan_keys("p")) == [["p", "p%", "p_1"]]
    assert list(backend.scan_items("p%")) == await collected(backend.ascan_items("p%")) == [[("p%", document("p%"))]]


@pytest.mark.parametrize("texts", [0, 3, 1_000, 1_001])
async def test_ids_that_are_not_text_are_left_out_with_one_line_a_scan(
    backend: EngineBackend, engine: Engine, texts: int, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"{number:05}" for number in range(texts)]
    backend.put_many([record(key) for key in keys])
    engine.write(KV, [(b"n%d" % number, b'{"_id":1}') for number in range(2_100)])
    caplog.set_level(logging.INFO, "langchain_kv")
    for pages in (
        list(backend.scan_keys("")),
        await collected(backend.ascan_keys("")),
        [[key for key, _ in page] for page in backend.scan_items("")],
    ):
        assert [key for page in pages for key in page] == keys
    assert len(caplog.records) == 3
    caplog.clear()
    list(backend.scan_keys("0"))
    assert caplog.records == []


async def test_a_damaged_document_stands_alone(backend: EngineBackend, engine: Engine) -> None:
    engine.write(KV, [("a", b"{"), record("b")])
    found = backend.get_many(["a", "b"])
    assert isinstance(found[0], Damaged)
    assert found[1] == document("b")
    assert await backend.aget_many(["a", "b"]) == found
    assert list(backend.scan_keys("")) == [["a", "b"]]
    assert list(backend.scan_items("")) == [[("a", found[0]), ("b", found[1])]]


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_setup_makes_what_is_missing_and_keeps_what_is_there(engine: Engine, colour: str) -> None:
    backend = EngineBackend(engine, KV)

    async def setup(**arguments: bool) -> None:
        if colour == "sync":
            backend.setup(**arguments)
        else:
            await backend.asetup(**arguments)

    with pytest.raises((UnknownCollectionError, UnknownKeyspaceError)):
        backend.get_many(["a"])
    await setup()
    assert engine.settings(KV) == {"indexing": INDEXING}
    backend.put_many([record("a")])
    await setup()
    assert backend.get_many(["a"]) == [document("a")]
    await setup(pre_delete=True)
    assert backend.get_many(["a"]) == [None]


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_setup_of_a_collection_with_other_settings(engine: Engine, colour: str) -> None:
    engine.create_keyspace("ks")
    backend = EngineBackend(engine, KV)

    async def setup() -> None:
        if colour == "sync":
            backend.setup()
        else:
            await backend.asetup()

    engine.create_collection(KV, {"indexing": {"deny": ["x"]}})
    with pytest.raises(CollectionConflictError, match="kv"):
        await setup()
    engine.drop_collection(KV)
    engine.create_collection(KV, {})
    with pytest.warns(UserWarning, match="indexing"):
        await setup()


async def test_setup_without_leave_to_make_a_keyspace(engine: Engine) -> None:
    backend = EngineBackend(engine, KV, create_keyspace=False)
    with pytest.raises(UnknownKeyspaceError):
        backend.setup()
    with pytest.raises(UnknownKeyspaceError):
        await backend.asetup()
    at_home = EngineBackend(engine, CollectionName("default_keyspace", "kv"), create_keyspace=False)
    at_home.setup()
    assert at_home.get_many(["a"]) == [None]


async def test_drop(backend: EngineBackend, engine: Engine) -> None:
    backend.drop()
    backend.drop()
    await backend.adrop()
    assert engine.collections("ks") == {}
    backend.setup()
    await backend.adrop()
    assert engine.collections("ks") == {}


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_closing_once_and_for_all(engine: Engine, colour: str) -> None:
    closed: list[int] = []
    backend = EngineBackend(engine, KV, on_close=lambda: closed.append(1))
    backend.setup()
    for _ in range(2):
        if colour == "sync":
            backend.close()
        else:
            await backend.aclose()
    assert closed == [1]
    for call in (
        lambda: backend.get_many(["a"]),
        lambda: backend.put_many([record("a")]),
        lambda: backend.delete_many(["a"]),
        lambda: list(backend.scan_keys("")),
        lambda: list(backend.scan_items("")),
        backend.setup,
        backend.drop,
    ):
        with pytest.raises(StoreClosedError, match="kv"):
            call()
    for coroutine in (
        backend.aget_many(["a"]),
        backend.aput_many([record("a")]),
        backend.adelete_many(["a"]),
        collected(backend.ascan_keys("")),
        collected(backend.ascan_items("")),
        backend.asetup(),
        backend.adrop(),
    ):
        with pytest.raises(StoreClosedError, match="kv"):
            await coroutine
    assert engine.count(KV) == 0  # the engine is its owner's to close


@pytest.mark.parametrize("pre_delete", [True, False])
def test_a_set_up_that_fails_after_it_deleted_does_not_say_that_nothing_happened(pre_delete: bool) -> None:
    engine = MemoryEngine()
    backend = EngineBackend(engine, CollectionName("default_keyspace", "kv"))

    def fail(*_: Any) -> Any:
        raise EngineError("the disk is full")

    engine.create_collection = fail  # type: ignore[method-assign]
    with pytest.raises(EngineError) as caught:
        backend.setup(pre_delete=pre_delete)
    assert caught.value.applied is (None if pre_delete else False)
    engine.close()
