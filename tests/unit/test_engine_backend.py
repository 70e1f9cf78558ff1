"""The backend over an engine, sync and async; async answers are compared with sync ones."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bodies import row
from langchain_kv.backends import engine as engine_module
from langchain_kv.backends.base import Backend, Damaged, Found, Kind, Page, Record
from langchain_kv.backends.collections import INDEXING
from langchain_kv.backends.dataapi.backend import DataAPIBackend
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
    UnsupportedError,
)
from langchain_kv.runtime import slices
from loop_turns import counted_turns

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
    made.open()
    return made


def record(key: str, value: Any = 1) -> Record:
    return Record(key, json.dumps(value).encode())


def found(value: Any = 1) -> Found:
    return Found(value)


async def collected(pages: AsyncIterator[Page]) -> list[Page]:
    return [page async for page in pages]


async def key_pages(backend: EngineBackend, prefix: str = "") -> list[list[str]]:
    """Return the pages of keys, which sync and async give; a coroutine's may be shorter."""
    pages = list(backend.scan(prefix, values=False))
    apages = await collected(backend.ascan(prefix, values=False))
    assert [item for page in apages for item in page] == [item for page in pages for item in page]
    assert max(map(len, apages)) <= max(map(len, pages))
    assert all(stored is None for page in pages for _, stored in page)
    return [[key for key, _ in page] for page in pages]


async def item_pages(backend: EngineBackend, prefix: str = "") -> list[Page]:
    """Return the pages of keys with what is stored, which sync and async give."""
    pages = list(backend.scan(prefix, values=True))
    assert await collected(backend.ascan(prefix, values=True)) == pages
    return pages


async def test_sync_and_async_write_read_and_delete(backend: EngineBackend) -> None:
    backend.put_many([record("a"), record("b", 2**70)])
    await backend.aput_many([record("c", [1, None]), record("a", "newer")])
    expected = [found([1, None]), None, found("newer"), found(2**70)]
    keys = ["c", "x", "a", "b"]
    assert backend.get_many(keys) == await backend.aget_many(keys) == expected
    backend.delete_many(["a", "x"])
    await backend.adelete_many(["b"])
    assert backend.get_many(keys) == await backend.aget_many(keys) == [found([1, None]), None, None, None]


async def test_empty_batches(backend: EngineBackend) -> None:
    backend.put_many([])
    backend.delete_many([])
    await backend.aput_many([])
    await backend.adelete_many([])
    assert backend.get_many([]) == await backend.aget_many([]) == []
    assert await key_pages(backend) == await item_pages(backend) == [[]]


async def test_long_async_reads_let_small_ones_pass(backend: EngineBackend) -> None:
    keys = [f"{number:05}" for number in range(10 * engine_module.LONG_BATCH)]
    backend.put_many([record(key) for key in keys])
    finished: list[str] = []

    async def read(name: str, wanted: list[str]) -> None:
        assert await backend.aget_many(wanted) == [found()] * len(wanted)
        finished.append(name)

    await asyncio.gather(read("long", keys), read("small", keys[:1]))
    assert finished == ["small", "long"]


@pytest.mark.parametrize("what", ["reads", "keys"])
async def test_short_reads_one_after_the_other_let_others_run(backend: EngineBackend, what: str) -> None:
    backend.put_many([record(f"{number:05}") for number in range(5 * engine_module.KEYS_PAGE)])
    async with counted_turns() as turns:
        if what == "reads":
            for _ in range(5):
                await backend.aget_many(["00001"])
        else:
            await collected(backend.ascan("", values=False))
    assert turns.count >= 5


async def test_a_large_read_is_parsed_in_parts(backend: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 100)
    keys = [f"{number:03}" for number in range(20)]
    backend.put_many([record(key, "x" * 30) for key in keys])
    wanted = ["none", *keys, "neither"]
    assert await backend.aget_many(wanted) == [None, *[found("x" * 30)] * len(keys), None]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 999, 1_000, 1_001, 2_500])
async def test_scans_give_each_key_once_in_bounded_pages(backend: EngineBackend, count: int) -> None:
    keys = [f"{number:05}" for number in range(count)]
    backend.put_many([record(key) for key in keys])
    pages = await key_pages(backend)
    assert max(map(len, pages)) <= engine_module.KEYS_PAGE
    assert [key for page in pages for key in page] == keys
    items = await item_pages(backend)
    assert max(map(len, items)) <= engine_module.PAGE_DOCUMENTS
    assert [item for page in items for item in page] == [(key, found()) for key in keys]


async def test_scans_by_prefix(backend: EngineBackend) -> None:
    backend.put_many([record(key) for key in ["a", "p", "p%", "p_1", "q"]])
    assert await key_pages(backend, "p") == [["p", "p%", "p_1"]]
    assert await item_pages(backend, "p%") == [[("p%", found())]]


@pytest.mark.parametrize("texts", [0, 3, 1_000, 1_001])
async def test_ids_that_are_not_text_are_left_out_with_one_line_a_scan(
    backend: EngineBackend, engine: Engine, texts: int, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"{number:05}" for number in range(texts)]
    backend.put_many([record(key) for key in keys])
    engine.write(KV, [row(b"n%d" % number, b'{"_id":1}') for number in range(2_100)])
    caplog.set_level(logging.INFO, "langchain_kv")
    for values in (False, True):
        for pages in (list(backend.scan("", values=values)), await collected(backend.ascan("", values=values))):
            assert [key for page in pages for key, _ in page] == keys
    assert len(caplog.records) == 4
    caplog.clear()
    list(backend.scan("0", values=False))
    assert caplog.records == []


async def test_a_damaged_document_stands_alone(backend: EngineBackend, engine: Engine) -> None:
    engine.write(KV, [row("a", b"{")])
    backend.put_many([record("b")])
    stored = backend.get_many(["a", "b"])
    assert isinstance(stored[0], Damaged)
    assert stored[1] == found()
    assert await backend.aget_many(["a", "b"]) == stored
    assert await key_pages(backend) == [["a", "b"]]
    assert await item_pages(backend) == [[("a", stored[0]), ("b", stored[1])]]


async def test_bytes_are_kept_as_they_are_and_json_as_a_document(backend: EngineBackend, engine: Engine) -> None:
    backend.put_many([Record("a", b"\0{", Kind.BYTES), Record("b", b"1", Kind.BYTES, 2**62), record("c")])
    assert engine.read(KV, ["a", "b", "c"]) == [
        ("a", b"\0{", True, None),
        ("b", b"1", True, 2**62),
        ("c", b'{"_id":"c","value":1}', False, None),
    ]
    stored = [Found(b"\0{", Kind.BYTES), Found(b"1", Kind.BYTES, 2**62), found()]
    assert backend.get_many(["a", "b", "c"]) == await backend.aget_many(["a", "b", "c"]) == stored


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_opening_makes_what_is_missing_and_keeps_what_is_there(engine: Engine, mode: str) -> None:
    backend = EngineBackend(engine, KV)

    async def open_it(*, clear: bool = False) -> None:
        if mode == "sync":
            backend.open(clear=clear)
        else:
            await backend.aopen(clear=clear)

    with pytest.raises((UnknownCollectionError, UnknownKeyspaceError)):
        backend.get_many(["a"])
    await open_it()
    assert engine.settings(KV) == {"indexing": INDEXING}
    backend.put_many([record("a")])
    await open_it()
    assert backend.get_many(["a"]) == [found()]
    await open_it(clear=True)
    assert backend.get_many(["a"]) == [None]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_opening_of_a_collection_with_other_settings(engine: Engine, mode: str) -> None:
    engine.create_keyspace("ks")
    backend = EngineBackend(engine, KV)

    async def open_it() -> None:
        if mode == "sync":
            backend.open()
        else:
            await backend.aopen()

    engine.create_collection(KV, {"indexing": {"deny": ["x"]}})
    with pytest.raises(CollectionConflictError, match="kv"):
        await open_it()
    engine.drop_collection(KV)
    engine.create_collection(KV, {})
    with pytest.warns(UserWarning, match="indexing"):
        await open_it()


async def test_opening_without_leave_to_make_a_keyspace(engine: Engine) -> None:
    backend = EngineBackend(engine, KV, create_keyspace=False)
    with pytest.raises(UnknownKeyspaceError):
        backend.open()
    with pytest.raises(UnknownKeyspaceError):
        await backend.aopen()
    at_home = EngineBackend(engine, CollectionName("default_keyspace", "kv"), create_keyspace=False)
    at_home.open()
    assert at_home.get_many(["a"]) == [None]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_closing_once_and_for_all(engine: Engine, mode: str) -> None:
    closed: list[int] = []
    backend = EngineBackend(engine, KV, on_close=lambda: closed.append(1))
    backend.open()
    for _ in range(2):
        if mode == "sync":
            backend.close()
        else:
            await backend.aclose()
    assert closed == [1]
    for call in (
        lambda: backend.get_many(["a"]),
        lambda: backend.put_many([record("a")]),
        lambda: backend.delete_many(["a"]),
        lambda: list(backend.scan("", values=False)),
        lambda: list(backend.scan("", values=True)),
        lambda: backend.add_many([record("a")]),
        lambda: backend.update("a", lambda _: None),
        lambda: backend.count(""),
        lambda: backend.clear(""),
        backend.purge,
        backend.open,
    ):
        with pytest.raises(StoreClosedError, match="kv"):
            call()
    for coroutine in (
        backend.aget_many(["a"]),
        backend.aput_many([record("a")]),
        backend.adelete_many(["a"]),
        collected(backend.ascan("", values=False)),
        collected(backend.ascan("", values=True)),
        backend.aadd_many([record("a")]),
        backend.aupdate("a", lambda _: None),
        backend.acount(""),
        backend.aclear(""),
        backend.apurge(),
        backend.aopen(),
    ):
        with pytest.raises(StoreClosedError, match="kv"):
            await coroutine
    assert engine.count(KV) == 0  # the engine is its owner's to close


@pytest.mark.parametrize("clear", [True, False])
def test_an_opening_that_fails_after_it_deleted_does_not_say_that_nothing_happened(clear: bool) -> None:
    engine = MemoryEngine()
    backend = EngineBackend(engine, CollectionName("default_keyspace", "kv"))

    def fail(*_: Any) -> Any:
        raise EngineError("the disk is full")

    engine.create_collection = fail  # type: ignore[method-assign]
    with pytest.raises(EngineError) as caught:
        backend.open(clear=clear)
    assert caught.value.applied is (None if clear else False)
    engine.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_a_data_api_cannot_do_in_one_step_another_target_can(backend: EngineBackend, mode: str) -> None:
    def change(stored: Any) -> Record:
        return record("n", stored.value + 1 if stored else 1)

    def update(on: Backend) -> None:
        if mode == "sync":
            on.update("n", change)
        else:
            asyncio.run(on.aupdate("n", change))

    over_http = DataAPIBackend("http://localhost:1", collection="c", keyspace="k", token="t")
    with pytest.raises(UnsupportedError, match=r"cannot .* in one step with looking at it: use a target that can"):
        update(over_http)
    over_http.close()
    update(backend)
    update(backend)
    assert backend.get_many(["n"]) == [found(2)]
