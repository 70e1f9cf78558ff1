"""One process of the soak's clients: threads and tasks, over HTTP and on the file; told and asked through its pipes."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.ledger import Ledger, Operation
from langchain_kv import KVStore
from langchain_kv.runtime import loop_thread

__all__ = ["COLLECTION", "TOKEN", "Footprint"]

TOKEN = "token-of-the-soak"
COLLECTION = "soak"
THREADS, TASKS, FILE_THREADS, FILE_TASKS = 3, 6, 1, 2
"""Workers by way; a process without HTTP has those of the file only."""

RSS_GROWTH_MAX_MIB = 32
"""What a process may have grown by after its warm-up: allocators keep some of what they had at their peak."""


class Footprint(NamedTuple):
    """What a process holds on to."""

    descriptors: int
    threads: int
    tasks: int
    rss_mib: float

    @classmethod
    def of(cls, pid: int | str = "self", tasks: int = 0) -> Footprint:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(
            len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir(f"/proc/{pid}/task")),
            tasks,
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        )

    def leaks_since(self, before: Footprint) -> list[str]:
        """Return in words what there is more of than before."""
        leaks = [
            f"{name}: {was} before, {now} after"
            for name, was, now in zip(self._fields[:3], before, self, strict=False)
            if now > was
        ]
        if self.rss_mib > before.rss_mib + RSS_GROWTH_MAX_MIB:
            leaks.append(f"memory: {before.rss_mib:.0f} MiB before, {self.rss_mib:.0f} MiB after")
        return leaks


# -- workers ------------------------------------------------------------------------------------------------------


def _call(store: Any, operation: Operation) -> Any:
    if operation.kind == "mset":
        return store.mset(operation.pairs)
    if operation.kind.startswith("yield"):
        with closing(getattr(store, operation.kind)(prefix=operation.keys[0].partition("-")[0] + "-")) as items:
            return list(islice(items, operation.limit))
    return getattr(store, operation.kind)(operation.keys)


async def _acall(store: Any, operation: Operation) -> Any:
    if operation.kind == "mset":
        return await store.amset(operation.pairs)
    if operation.kind.startswith("yield"):
        items: list[Any] = []
        prefix = operation.keys[0].partition("-")[0] + "-"
        async with aclosing(getattr(store, "a" + operation.kind)(prefix=prefix)) as source:
            async for item in source:
                items.append(item)
                if len(items) == operation.limit:
                    break
        return items
    return await getattr(store, "a" + operation.kind)(operation.keys)


def _work(store: Any, ledger: Ledger, is_over: Callable[[], bool]) -> None:
    while not is_over():
        operation = ledger.next()
        try:
            ledger.succeeded(operation, _call(store, operation))
        except Exception as error:
            ledger.failed(operation, error)


async def _awork(store: Any, ledger: Ledger, is_over: Callable[[], bool]) -> None:
    while not is_over():
        operation = ledger.next()
        task = asyncio.ensure_future(_acall(store, operation))
        cancel_after_s = ledger.is_to_be_cancelled()
        if cancel_after_s is not None:
            await asyncio.wait({task}, timeout=cancel_after_s)
            task.cancel()
        try:
            ledger.succeeded(operation, await task)
        except asyncio.CancelledError:
            ledger.cancelled(operation)
        except Exception as error:
            ledger.failed(operation, error)


def _run_loops(stores: list[tuple[Any, list[Ledger]]], is_over: Callable[[], bool]) -> None:
    """Run tasks in one event loop after the other, on the same stores."""
    while not is_over():
        until = time.monotonic() + 3
        loop_is_over = lambda until=until: is_over() or time.monotonic() > until  # noqa: E731

        async def main(is_over: Callable[[], bool]) -> None:
            works = [_awork(store, ledger, is_over) for store, ledgers in stores for ledger in ledgers]
            await asyncio.gather(*works)

        asyncio.run(main(loop_is_over))


class Clients:
    """The workers of one process, and their ledgers, which outlive the stores."""

    def __init__(self, name: str, url: str | None, file_url: str, seed: int) -> None:
        self._urls = [url, file_url] if url else [file_url]
        self._seed = seed
        self._name = name
        self.ledgers: list[Ledger] = []
        self._threads = [self._new(url, THREADS), self._new(file_url, FILE_THREADS)]
        self._tasks = [self._new(url, TASKS), self._new(file_url, FILE_TASKS)]

    def _new(self, url: str | None, number: int) -> tuple[str | None, list[Ledger]]:
        if url is None:
            return None, []
        first = len(self.ledgers)
        made = [Ledger(f"w{self._name}{first + each}", self._seed) for each in range(number)]
        self.ledgers += made
        return url, made

    def load(self, seconds: float, began: Callable[[], None] = lambda: None) -> None:
        """Work for so long, with stores that are closed at the end; ``began`` is called once they are open."""
        stores = {url: open_store(url) for url in self._urls}
        began()
        end = time.monotonic() + seconds
        is_over = lambda: time.monotonic() > end  # noqa: E731
        threads = [
            threading.Thread(target=_work, args=(stores[url], ledger, is_over))
            for url, ledgers in self._threads
            if url
            for ledger in ledgers
        ]
        looped = [(stores[url], ledgers) for url, ledgers in self._tasks if url]
        threads.append(threading.Thread(target=_run_loops, args=(looped, is_over)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for store in stores.values():
            store.close()

    def verify(self) -> None:
        """Read every key on every way, without faults."""
        for url in self._urls:
            with open_store(url) as store:
                for ledger in self.ledgers:
                    operation = Operation("mget", ledger.keys)
                    ledger.succeeded(operation, store.mget(ledger.keys))
                    operation = Operation("yield_items", ledger.keys)
                    ledger.succeeded(operation, list(store.yield_items(prefix=ledger.prefix)))

    def footprint(self) -> Footprint:
        gc.collect()
        worker = loop_thread._process.worker
        if worker is None:
            return Footprint.of()
        tasks = loop_thread.run(_count_tasks())
        return Footprint.of(tasks=tasks)


async def _count_tasks() -> int:
    """Return how many tasks the loop thread has beside this one, once those that are ending have ended."""
    for _ in range(100):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            return 0
        await asyncio.wait(others, timeout=0.05)
    return len(asyncio.all_tasks()) - 1


def open_store(url: str) -> Any:
    return KVStore(COLLECTION, url, token=TOKEN, request_timeout_s=2, deadline_s=4)


def run_client(config: dict[str, Any]) -> None:
    """The life of a client process: each step is told on stdout, and the next one is waited for on stdin."""
    clients = Clients(**config["clients"])
    clients.load(config["warm_s"])
    before = clients.footprint()
    _tell({"step": "warm"})
    input()
    clients.load(config["load_s"], lambda: _tell({"step": "open"}))
    _tell({"step": "loaded"})
    input()
    clients.verify()
    after = clients.footprint()
    report = {
        "before": before,
        "after": after,
        "operations": sum((ledger.operations for ledger in clients.ledgers), Counter()),
        "errors": sum((ledger.errors for ledger in clients.ledgers), Counter()),
        "wrong": [text for ledger in clients.ledgers for text in ledger.wrong],
        "possible": {key: list(numbers) for ledger in clients.ledgers for key, numbers in ledger.possible.items()},
    }
    _tell(report)


def _tell(message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    run_client(json.loads(sys.argv[1]))
