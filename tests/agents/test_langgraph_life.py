"""How a LangGraphStore lives: opened, closed, copied, swept; event loops, threads, processes and a killed server."""

from __future__ import annotations

import asyncio
import copy
import logging
import multiprocessing
import pickle
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, PutOp, SearchOp

from agents.questions import keys
from langchain_kv import (
    ConfigError,
    DamagedValueError,
    KVStore,
    LangGraphStore,
    StoreClosedError,
    StoreError,
)
from langchain_kv.testing.contract import Clock
from places import Place
from served import LCKV, TOKEN, Server, environment

NS = ("users", "u1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LangGraphStore]:
    with LangGraphStore(f"sqlite:{tmp_path / 'kv.db'}") as store:
        yield store


def test_event_loops_may_follow_each_other(store: LangGraphStore) -> None:
    async def work(n: int) -> Any:
        await asyncio.gather(*(store.aput(NS, f"k{n}-{at}", {}) for at in range(10)))
        return await store.asearch(NS, limit=100)

    assert [len(asyncio.run(work(n))) for n in range(3)] == [10, 20, 30]


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("how", ["locked", "only read"])
def test_what_was_read_is_answered_also_where_it_cannot_be_refreshed(
    tmp_path: Path, how: str, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, time = tmp_path / "kv.db", Clock(monkeypatch)
    with LangGraphStore(f"sqlite:{path}", ttl={"default_ttl": 1}) as writer:
        writer.put(NS, "a", {"n": 1})
    url = f"sqlite:{path}?mode=ro" if how == "only read" else f"sqlite:{path}"
    ops = [GetOp(NS, "a"), SearchOp(NS)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        time.now_s += 30
        with LangGraphStore(url, deadline_s=0.1) as store:
            if how == "locked":
                other.execute("BEGIN IMMEDIATE")
            got, found = store.batch(ops) if colour == "sync" else asyncio.run(store.abatch(ops))
            assert got.value == found[0].value == {"n": 1}
        if how == "locked":
            other.execute("ROLLBACK")
        time.now_s += 31
        with LangGraphStore(f"sqlite:{path}") as store:
            assert store.get(NS, "a") is None


def test_event_loops_of_several_threads_may_share_it(store: LangGraphStore) -> None:
    async def work(n: int) -> None:
        for at in range(20):
            await asyncio.gather(store.aput((f"t{n}",), f"k{at}", {"n": n}), store.aget((f"t{n}",), f"k{at - 1}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: asyncio.run(work(n)), range(4)))
    assert [len(store.search((f"t{n}",), limit=100)) for n in range(4)] == [20] * 4


async def test_calls_of_one_turn_are_one_read(store: LangGraphStore, monkeypatch: Any) -> None:
    store.batch([PutOp(NS, f"k{n}", {"n": n}) for n in range(64)])
    backend = store._records._backend
    asked: list[int] = []
    read = backend.aget_many

    async def aget_many(keys: Any) -> Any:
        asked.append(len(keys))
        return await read(keys)

    monkeypatch.setattr(backend, "aget_many", aget_many)
    found = await asyncio.gather(*(store.aget(NS, f"k{n % 64}") for n in range(100)))
    assert [item and item.value["n"] for item in found] == [n % 64 for n in range(100)]
    assert asked == [64]
    found[0].value["n"] = "changed"
    assert found[64] is not None
    assert (await store.aget(NS, "k0")).value == {"n": 0}  # type: ignore[union-attr]


async def test_a_call_that_is_cancelled_writes_nothing_and_spoils_no_other(store: LangGraphStore) -> None:
    calls = [asyncio.create_task(store.aput(NS, f"k{n}", {})) for n in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [done[0], done[2]] == [None, None]
    assert isinstance(done[1], asyncio.CancelledError)
    assert {"k0", "k2"} <= set(keys(await store.asearch(NS)))


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with LangGraphStore(f"sqlite:{tmp_path / 'kv.db'}") as store:
        store.put(NS, "a", {})
    store.close()
    with pytest.raises(StoreClosedError):
        store.get(NS, "a")
    with pytest.raises(StoreClosedError):
        asyncio.run(store.aget(NS, "a"))

    async def twice() -> None:
        async with LangGraphStore(f"sqlite:{tmp_path / 'kv.db'}") as again:
            assert await again.aget(NS, "a") is not None
        await again.aclose()

    asyncio.run(twice())


def test_copies_and_pickles_are_stores_of_their_own(store: LangGraphStore) -> None:
    store.put(NS, "a", {"n": 1})
    for again in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        assert again.get(NS, "a").value == {"n": 1}
        assert repr(again) == repr(store)
        again.close()
    assert store.get(NS, "a") is not None


def test_a_pickle_holds_no_token(http_place: Place) -> None:
    with LangGraphStore(http_place.url, **http_place.arguments) as store:
        assert http_place.arguments["token"].encode() not in pickle.dumps(store)
        assert http_place.arguments["token"] not in repr(store)


@pytest.mark.parametrize(
    "wrong",
    [{"ttl": 5}, {"ttl": {"default_ttl": 0}}, {"ttl": {"default_ttl": "5"}}, {"ttl": {"sweep_interval_minutes": -1}}],
    ids=str,
)
def test_a_ttl_config_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="ttl"):
        LangGraphStore("memory:", **wrong)


def test_over_http_the_collection_is_made_for_namespaces_and_updates(http_place: Place) -> None:
    with LangGraphStore(http_place.url, collection="items", **http_place.arguments) as store:
        store.put(NS, "a", {"n": 1})
        document = http_place.peek("items", "\x1fusers\x1fu1\x1ea")
    assert document["ns"] == ["\x1fusers", "\x1fusers\x1fu1", "\x1fusers\x1fu1\x1e"]
    assert document["value"]["value"] == {"n": 1}
    assert document["value"].keys() == {"value", "created_at", "updated_at"}


# -- what others wrote ------------------------------------------------------------------------------------------------


def test_what_is_no_item_is_named_by_a_get_and_left_out_of_a_search(
    store: LangGraphStore, tmp_path: Path, caplog: Any
) -> None:
    store.put(NS, "good", {"n": 1})
    with KVStore("langgraph_store", f"sqlite:{tmp_path / 'kv.db'}") as other:
        for n, value in enumerate([5, {"value": 5}, {"value": {}, "created_at": 1, "updated_at": "x"}, None, []]):
            other.namespace(*NS).mset([(f"bad{n}", value)])
        other.mset([("in no namespace", 1)])
        with pytest.raises(DamagedValueError, match=r"'bad1' of \('users', 'u1'\): it is no item of a LangGraphStore"):
            store.batch([GetOp(NS, "good"), GetOp(NS, "bad1")])
        with caplog.at_level(logging.WARNING, "langchain_kv"):
            assert keys(store.search(())) == ["good"]
            assert keys(store.search(NS, filter={"n": 1})) == ["good"]
        assert "leaves out" in caplog.text
        store.put(NS, "bad1", {"n": 2})
        assert store.get(NS, "bad1").value == {"n": 2}  # type: ignore[union-attr]


def test_an_item_that_another_program_wrote_in_another_form_is_an_item(store: LangGraphStore, tmp_path: Path) -> None:
    moment = "2026-01-02T03:04:05+01:00"
    with KVStore("langgraph_store", f"sqlite:{tmp_path / 'kv.db'}") as other:
        value = {"created_at": moment, "updated_at": moment, "value": {"updated_at": "x" * 32, "created_at": "y" * 32}}
        other.namespace(*NS).mset([("a", value)])
    store.put(NS, "b", {})
    assert keys(store.search(NS)) == ["b", "a"]
    (found,) = store.search(NS, filter={"updated_at": "x" * 32})
    assert (found.key, found.created_at.isoformat()) == ("a", moment)
    store.put(NS, "a", {})
    assert store.search(NS, limit=1)[0].key == "a"


# -- expiry -----------------------------------------------------------------------------------------------------------


def test_a_sweep_removes_for_good(store: LangGraphStore, monkeypatch: Any) -> None:
    time = Clock(monkeypatch)
    store.batch([PutOp(NS, f"k{n}", {}, ttl=1) for n in range(1_500)] + [PutOp(NS, "stays", {})])
    assert store.sweep_ttl() == 0
    time.now_s += 61
    assert store.sweep_ttl() == 1_500
    assert keys(store.search(NS)) == ["stays"]


def test_a_sweeper_sweeps_until_it_is_stopped(store: LangGraphStore, monkeypatch: Any) -> None:
    swept = threading.Semaphore(0)
    real = store.sweep_ttl

    def sweep() -> int:
        found = real()
        swept.release()
        if swept._value == 2:
            raise StoreError("away for a moment")  # it goes on
        return found

    monkeypatch.setattr(store, "sweep_ttl", sweep)
    future = store.start_ttl_sweeper(0.0001)
    assert store.start_ttl_sweeper() is future
    assert swept.acquire(timeout=60)
    assert swept.acquire(timeout=60)
    assert store.stop_ttl_sweeper(60)
    future.result(60)
    assert store.stop_ttl_sweeper()


def test_a_sweeper_ends_with_its_future_and_with_its_store(tmp_path: Path) -> None:
    store = LangGraphStore(f"sqlite:{tmp_path / 'kv.db'}", ttl={"sweep_interval_minutes": 60})
    future = store.start_ttl_sweeper()
    assert future.cancel()
    assert store.stop_ttl_sweeper(60)
    future = store.start_ttl_sweeper()
    store.close()
    future.result(60)


# -- processes and servers --------------------------------------------------------------------------------------------


def _remember(url: str, worker: int, count: int) -> None:
    with LangGraphStore(url) as store:
        for n in range(count):
            store.batch([PutOp(("shared",), f"k{n}", {"by": worker}), PutOp((f"own{worker}",), f"k{n}", {"n": n})])


@pytest.mark.slow
def test_eight_processes_share_their_memories_on_one_file(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with LangGraphStore(url) as store:
        store.batch([PutOp(("shared",), f"k{n}", {"by": None}) for n in range(25)])
        created = {item.key: item.created_at for item in store.search(("shared",), limit=100)}
        spawning = multiprocessing.get_context("spawn")
        workers = [spawning.Process(target=_remember, args=(url, worker, 25)) for worker in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(240)
        assert [worker.exitcode for worker in workers] == [0] * 8
        assert {item.key: item.created_at for item in store.search(("shared",), limit=100)} == created
        for worker in range(8):
            found = store.search((f"own{worker}",), limit=100)
            assert sorted(item.value["n"] for item in found) == list(range(25))
        assert len(store.list_namespaces()) == 9


def _serve(file: Path, port: str) -> Server:
    command = [*LCKV, "serve", "--port", port, "--db", f"sqlite:{file}"]
    return Server(
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(LCKV_TOKEN=TOKEN)
        )
    )


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_loses_no_item(tmp_path: Path) -> None:
    with ExitStack() as ends:

        def start(port: str) -> Server:
            server = _serve(tmp_path / "kv.db", port)
            ends.enter_context(server.process)
            ends.callback(server.process.kill)
            return server

        server = start("0")
        store = ends.enter_context(LangGraphStore(server.url, token=TOKEN, deadline_s=120))

        async def write() -> None:
            for n in range(0, 60, 4):
                await asyncio.gather(*(store.aput(NS, f"k{at % 30}", {"n": at}) for at in range(n, n + 4)))

        async def restart() -> None:
            await asyncio.sleep(0)
            server.process.kill()  # with requests under way
            server.process.wait()
            await asyncio.to_thread(start, server.url.rpartition(":")[2])

        async def both() -> None:
            writing = asyncio.create_task(write())
            while not await store.aget(NS, "k5"):
                await asyncio.sleep(0)
            await restart()
            await writing

        asyncio.run(both())
        assert sorted(item.value["n"] for item in store.search(NS, limit=100)) == list(range(30, 60))
