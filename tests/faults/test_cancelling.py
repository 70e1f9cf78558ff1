"""Giving up: a cancelled task or Ctrl-C leaves no task, no connection in use, and no write that was not yet sent."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, Request
from langchain_kv import KVStore, SetupMode
from langchain_kv.backends.base import Record
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.flow import Flow
from langchain_kv.engines.sqlite.file_lock import FileLock

TIMEOUT_S = 30
SOON_S = TIMEOUT_S / 2
"""Seconds that no call needs that was ended, however slow the machine is, unless it waits for its request."""
KEYS = [f"k{number}" for number in range(300)]
PAIRS = [(key, "new") for key in KEYS]
RECORDS = [Record(key, b'"new"') for key in KEYS]


class Watching(Misbehaving):
    """Notices at once when the client closes a connection whose answer stalls."""

    async def _answer(self, request: Request, fault: Answer | Fault | None, writer: asyncio.StreamWriter) -> bool:
        answer = asyncio.ensure_future(super()._answer(request, fault, writer))
        end = asyncio.ensure_future(getattr(writer, "_reader").read(1))  # noqa: B009 - a client sends one at a time
        stalls = isinstance(fault, Fault) and fault.kind.startswith("stall")
        try:
            await asyncio.wait([answer, end] if stalls else [answer], return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else False
        finally:
            for task in (answer, end):
                task.cancel()
            await asyncio.wait([answer, end])


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Watching() as server:
        yield server


async def _list(backend: DataAPIBackend) -> None:
    async for _ in backend.ascan("", values=False):
        pass


OPERATIONS: dict[str, Callable[[DataAPIBackend], Awaitable[Any]]] = {
    "get": lambda backend: backend.aget_many(KEYS),
    "put": lambda backend: backend.aput_many(RECORDS),
    "delete": lambda backend: backend.adelete_many(KEYS),
    "keys": _list,
    "open": lambda backend: backend.aopen(),
}
AT_ONCE = {"get": 3, "put": 3, "delete": 15, "keys": 1, "open": 1}
"""Requests that each sends before any is answered: those that are on their way when it is cancelled still arrive."""


def _backend(server: Misbehaving) -> DataAPIBackend:
    return DataAPIBackend(
        server.url, collection="c", keyspace="k", token="t", request_timeout_s=TIMEOUT_S, deadline_s=TIMEOUT_S
    )


# -- a task that is cancelled, in each phase of a request -----------------------------------------------------------

Reached = Callable[[Misbehaving, DataAPIBackend, int], Awaitable[None]]


async def _event(server: Misbehaving, condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(server.wait_for, condition)


async def _connecting(server: Misbehaving, backend: DataAPIBackend, count: int) -> None:
    while backend._current_pool().flow().is_idle:
        await asyncio.sleep(0)


async def _answer_comes_in(server: Misbehaving, backend: DataAPIBackend, count: int) -> None:
    await _event(server, lambda: len(server.met) == count)


async def _waiting_for_the_answer(server: Misbehaving, backend: DataAPIBackend, count: int) -> None:
    await _event(server, lambda: server.in_flight == count)


async def _between_two_tries(server: Misbehaving, backend: DataAPIBackend, count: int) -> None:
    await _event(server, lambda: bool(server.met) and server.in_flight == 0)
    while not backend._current_pool().flow().is_idle:
        await asyncio.sleep(0)


async def _waiting_for_a_turn(server: Misbehaving, backend: DataAPIBackend, count: int) -> None:
    await _event(server, lambda: server.in_flight > 0)
    for _ in range(10):
        await asyncio.sleep(0)


PHASES: dict[str, tuple[Answer | Fault | None, Reached]] = {
    "connecting": (None, _connecting),
    "waiting for the answer": (Fault("stall"), _waiting_for_the_answer),
    "in the middle of the answer": (Fault("stall in the middle"), _answer_comes_in),
    "between two tries": (Answer(429, b"", (("Retry-After", "20"),)), _between_two_tries),
    "waiting for a turn": (Fault("stall"), _waiting_for_a_turn),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("phase", PHASES)
async def test_cancelled_task_leaves_nothing_behind(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, operation: str, phase: str
) -> None:
    fault, reached = PHASES[phase]
    server.script = lambda request: fault
    if phase == "connecting":
        server.set_door("full")
    if phase == "waiting for a turn":
        monkeypatch.setattr("langchain_kv.backends.dataapi.client.Flow", lambda: Flow(1))
    backend = _backend(server)
    task = asyncio.ensure_future(OPERATIONS[operation](backend))
    await reached(server, backend, AT_ONCE[operation])
    started = monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert monotonic() - started < SOON_S
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert backend._current_pool().flow().is_idle
    sent = len(server.requests)
    await backend.aclose()
    server.set_door("open")
    await _event(server, lambda: server.open_connections == 0)
    assert len(server.requests) == sent  # every connection has ended: nothing more can come


@pytest.mark.parametrize("operation", ["get", "put", "delete", "keys"])
async def test_connections_in_use_end_with_the_task_and_the_backend_goes_on(
    server: Misbehaving, operation: str
) -> None:
    server.script = lambda request: Fault("stall")
    backend = _backend(server)
    task = asyncio.ensure_future(OPERATIONS[operation](backend))
    await _event(server, lambda: server.in_flight > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _event(server, lambda: server.open_connections == 0)
    server.script = lambda request: None
    assert await backend.aget_many(["k0"]) == [None]
    await backend.aclose()


async def test_cancelled_put_sends_no_further_write(server: Misbehaving) -> None:
    server.script = lambda request: Fault("stall") if len(server.requests) > 20 else None
    server.plant(**dict.fromkeys(KEYS, "old"))
    backend = _backend(server)
    task = asyncio.ensure_future(backend.aput_many(RECORDS))
    await _event(server, lambda: len(server.requests) > 25)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await backend.aclose()
    await _event(server, lambda: server.open_connections == 0)
    named = "".join(request.body.decode() for request in server.requests if request.name == "findOneAndReplace")
    changed = {key for key, value in server.values().items() if value == "new"}
    assert changed <= {key for key in KEYS if f'"{key}"' in named}
    assert len(changed) <= 20


async def test_iterator_that_is_given_up_between_two_pages_leaves_nothing_behind(server: Misbehaving) -> None:
    server.plant(**dict.fromkeys(KEYS, 1))
    async with KVStore("c", server.url, token="t", setup_mode=SetupMode.OFF) as store:

        async def work() -> None:
            async for _ in store.ayield_keys():
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await _event(server, lambda: len(server.met) == 2)  # the second page comes while the first is worked on
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # asyncio closes what the loop dropped
            await asyncio.wait(others, timeout=TIMEOUT_S)
    await _event(server, lambda: server.open_connections == 0)


async def test_waiter_for_the_set_up_is_cancelled_alone(server: Misbehaving) -> None:
    server.script = lambda request: Fault("stall") if len(server.requests) == 1 else None
    store = KVStore("c", server.url, token="t", setup_mode=SetupMode.ASYNC, request_timeout_s=0.5)
    await _event(server, lambda: server.in_flight > 0)
    tasks = [asyncio.create_task(call) for call in (store.amget(["a"]), store.amset(PAIRS), store.amget(["b"]))]
    await asyncio.sleep(0)
    for task in tasks[:2]:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await tasks[2] == [None]
    assert not server.documents
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await store.aclose()


# -- Ctrl-C in a plain call -----------------------------------------------------------------------------------------

PLAIN = {
    "get": "store.mget(keys)",
    "put": "store.mset([(key, 'new') for key in keys])",
    "delete": "store.mdelete(keys)",
    "keys": "list(store.yield_keys())",
    "open": "open_store(SetupMode.SYNC)",
}


class Child:
    """A Python process that does one operation, and says what Ctrl-C left."""

    def __init__(self, url: str, operation: str) -> None:
        code = f"""
            import asyncio, signal, sys
            from langchain_kv import KVStore, SetupMode
            from langchain_kv.runtime import loop_thread
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            keys = [f"k{{number}}" for number in range(300)]
            def open_store(mode):
                return KVStore("c", {url!r}, token="t", setup_mode=mode, request_timeout_s=60, deadline_s=60)
            store = open_store(SetupMode.OFF)
            async def tasks():
                for _ in range(1000):
                    if len(asyncio.all_tasks()) == 1:
                        break
                    await asyncio.sleep(0.001)
                return len(asyncio.all_tasks()) - 1
            try:
                {operation}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                print(loop_thread.run(tasks()), flush=True)
                sys.stdin.readline()
                store.close()
        """
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self) -> tuple[str, float]:
        """Press Ctrl-C; return what the child says first, and after how many seconds."""
        started = monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        return (self.process.stdout.readline().strip() if readable else ""), monotonic() - started

    def complaints(self, elapsed_s: float) -> str:
        """Return, of a child that went wrong, whether it had ended by itself and what it wrote."""
        ended = self.process.poll()
        self.process.kill()
        return f"after {elapsed_s:.1f} s, ended: {ended}: {self.process.communicate()[1]}"

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=TIMEOUT_S)


PLAIN_PHASES = {name: PHASES[name][0] for name in ("waiting for the answer", "between two tries")}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("operation", PLAIN)
@pytest.mark.parametrize("phase", PLAIN_PHASES)
def test_ctrl_c_returns_soon_and_leaves_nothing_behind(server: Misbehaving, operation: str, phase: str) -> None:
    server.script = lambda request: PLAIN_PHASES[phase]
    with Child(server.url, PLAIN[operation]) as child:
        if phase == "between two tries":
            server.wait_for(lambda: bool(server.met) and server.in_flight == 0, TIMEOUT_S)
        else:
            server.wait_for(lambda: server.in_flight > 0, TIMEOUT_S)
        said, elapsed_s = child.interrupt()
        assert said == "interrupted", child.complaints(elapsed_s)
        assert elapsed_s < SOON_S
        assert child.process.stdout is not None
        assert child.process.stdout.readline() == "0\n"  # tasks left
        if phase != "between two tries":  # where the connection is idle, and kept
            server.wait_for(lambda: server.open_connections == 0, TIMEOUT_S)
        sent = len(server.requests)
        _, complaints = child.process.communicate("end\n", timeout=TIMEOUT_S)
    assert (child.process.returncode, complaints) == (0, "")
    server.wait_for(lambda: server.open_connections == 0, TIMEOUT_S)
    assert len(server.requests) == sent


# -- embedded targets -----------------------------------------------------------------------------------------------


async def test_memory_stores_a_batch_whole_or_not_at_all() -> None:
    async with KVStore("c", "memory:cancelling") as store:
        task = asyncio.create_task(store.amset(PAIRS))
        task.cancel()  # before it begins
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.amget(KEYS) == [None] * len(KEYS)
        await store.amset(PAIRS)
        assert await store.amget(KEYS) == ["new"] * len(KEYS)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_sqlite_drops_what_is_queued_and_ends_what_has_begun(tmp_path: Path) -> None:
    path = tmp_path / "kv.db"
    async with KVStore("c", f"sqlite:{path}") as store:
        with _held(FileLock(f"{path}.lock")):
            begun = asyncio.create_task(store.amset(PAIRS))
            lane = store._backend._engine.bridge._writes  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            while lane._jobs[0].outcome is None:  # until the writing thread has taken it, and waits for the file's lock
                await asyncio.sleep(0)
            queued = asyncio.create_task(store.amset([("queued", 1)]))
            await asyncio.sleep(0)
            for task in (begun, queued):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await store.amset([("after", 1)])  # comes after both
        found = await store.amget([*KEYS, "queued", "after"])
    assert found[-2:] == [None, 1]
    assert found[:-2] in (["new"] * len(KEYS), [None] * len(KEYS))


@contextmanager
def _held(lock: FileLock) -> Iterator[None]:
    """Hold the lock in another thread, as another process would."""
    has_lock, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has_lock.set()
            let_go.wait(TIMEOUT_S)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert has_lock.wait(TIMEOUT_S)
        yield
    finally:
        let_go.set()
        holder.join()
        lock.close()


INTERRUPTED = """
    import os, signal, sys, threading
    from langchain_kv import KVStore
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with KVStore("other", sys.argv[1]) as other:  # all modules: an interrupted import leaves Python's own file unclosed
        other.mset([("key", 1)])
    store = KVStore("c", sys.argv[1])
    number = 0
    try:
        print("ready", flush=True)  # the signal may come at once: it finds the handler below in its place
        while True:
            store.mset([(f"{number}/{part}", number) for part in range(500)])
            number += 1
    except KeyboardInterrupt:
        print(number, flush=True)
        store.mset([("afterwards", 1)])
        store.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("pause_s", [0.0, 0.013, 0.05, 0.1])
def test_ctrl_c_in_sqlite_leaves_whole_batches_and_a_store_that_works(tmp_path: Path, pause_s: float) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(INTERRUPTED), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(pause_s)  # any moment of the work will do
        started = monotonic()
        process.send_signal(signal.SIGINT)
        line = process.stdout.readline()
        assert monotonic() - started < SOON_S
        _, complaints = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, complaints) == (0, "")
    acknowledged = int(line)
    with KVStore("c", url) as store:
        counts: dict[int, int] = {}
        for key in store.yield_keys():
            if "/" in key:
                counts[int(key.split("/")[0])] = counts.get(int(key.split("/")[0]), 0) + 1
        assert store.mget(["afterwards"]) == [1]
    assert set(range(acknowledged)) <= set(counts) <= set(range(acknowledged + 1))
    assert set(counts.values()) <= {500}
