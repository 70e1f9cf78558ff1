"""The largest pause of the event loop while a coroutine of ours works: what the other tasks of a program wait.

``python -m benchmarks.pauses`` prints this table alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import duration
from benchmarks.rows import SIZES
from benchmarks.services import TOKEN, data_api
from langchain_kv import KVByteStore, KVStore

__all__ = ["pauses"]

ROUNDS = 5
TICK_S = 0.001

BATCHES = {
    "20,000 of 1 KB": (20_000, SIZES["1 KB"]),
    "2,000 vectors": (2_000, SIZES["vector"]),
    "100 of 1 MB": (100, SIZES["1 MB"]),
}
"""Their names, how many values each has, and which."""

Operation = Callable[[Any, list[tuple[str, Any]]], Awaitable[Any]]


async def _all(pages: AsyncIterator[Any]) -> int:
    return sum([1 async for _ in pages])


OPERATIONS: dict[str, Operation] = {
    "amset": lambda store, pairs: store.amset(pairs),
    "amget": lambda store, pairs: store.amget([key for key, _ in pairs]),
    "ayield_items": lambda store, pairs: _all(store.ayield_items()),
    "ayield_keys": lambda store, pairs: _all(store.ayield_keys()),
    "amdelete": lambda store, pairs: store.amdelete([key for key, _ in pairs]),
}
"""In the order in which a round runs them."""


class Pause(NamedTuple):
    """What one call took, and the longest time that the loop ran nothing but it."""

    took_s: float
    longest_s: float


async def _longest_pause(work: Awaitable[Any]) -> Pause:
    """Await ``work`` beside a task that notes each millisecond how long it was not run."""
    longest_s, last, is_ended = 0.0, time.perf_counter(), False

    async def tick() -> None:
        nonlocal longest_s, last
        while not is_ended:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            longest_s, last = max(longest_s, now - last - TICK_S), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    longest_s = 0.0
    started = time.perf_counter()
    result = await work
    took_s = time.perf_counter() - started
    is_ended = True
    await ticking
    del result  # here: giving back the memory of a million floats takes tens of milliseconds, too
    return Pause(took_s, longest_s)


def _measure(url: str, *, raw: bool, name: str) -> dict[str, Pause]:
    """Return the medians of ROUNDS rounds on a collection of its own, by operation."""
    count, size = BATCHES[name]
    value = size.bytes if raw else size.json
    pairs = [(f"key-{number:07}", value(number)) for number in range(count)]
    kind = KVByteStore if raw else KVStore
    collection = f"p{'b' if raw else 'j'}{count}"
    token = TOKEN if url.startswith("http") else None
    found: dict[str, list[Pause]] = {name: [] for name in OPERATIONS}

    async def rounds() -> None:
        async with kind(collection, url, token=token) as store:
            for _ in range(ROUNDS):
                for operation, run in OPERATIONS.items():
                    gc.collect()
                    found[operation].append(await _longest_pause(run(store, pairs)))

    asyncio.run(rounds())
    return {
        operation: Pause(
            statistics.median(pause.took_s for pause in some), statistics.median(pause.longest_s for pause in some)
        )
        for operation, some in found.items()
    }


@contextmanager
def _targets(folder: Path) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        url, _ = stack.enter_context(data_api("memory:"))
        yield {"a file": f"sqlite:{folder / 'pauses.db'}", "memory": "memory:pauses", "over HTTP": url}


def pauses(folder: Path, only: str = "") -> str:
    """Run every operation on every target with each batch; return a table."""
    lines = [
        "### The largest pause of the event loop",
        "",
        f"For how long nothing else ran beside one call, at the most; in brackets what it took. Medians of {ROUNDS}.",
        "",
        f"| on | values | {' | '.join(OPERATIONS)} |",
        "|---|---|" + "---|" * len(OPERATIONS),
    ]
    with _targets(folder) as targets:
        for target, url in targets.items():
            for raw in (False, True):
                for name in BATCHES:
                    kinds = f"{name}, {'bytes' if raw else 'JSON'}"
                    if only not in f"{target} {kinds}":
                        continue
                    found = _measure(url, raw=raw, name=name)
                    cells = [f"{duration(each.longest_s)} ({duration(each.took_s)})" for each in found.values()]
                    lines.append(f"| {target} | {kinds} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.pauses", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose target and values hold this text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pauses") as folder:
        print(pauses(Path(folder), options.only))


if __name__ == "__main__":
    main()
