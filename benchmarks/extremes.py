"""What does not fit into rows: a million keys listed, and small reads beside a large one.

Each listing runs in a process of its own, so that its peak of memory is its own:
``python -m benchmarks.extremes CONTENDER TARGET`` lists once and prints what that took.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson

from benchmarks.measure import resident_bytes
from benchmarks.report import duration
from benchmarks.services import TOKEN, data_api
from langchain_kv import KVStore

__all__ = ["beside_a_large_read", "listings"]

MANY = 1_000_000
FEW = 1_000
PAIRS = 15
READ = 20_000


class Listing(NamedTuple):
    """What one process took to list the keys of a collection."""

    keys: int
    wall_s: float
    peak_bytes: int


def listings(folder: Path) -> str:
    """List 1,000 and 1,000,000 keys on a file, and those over HTTP once; return a table."""
    lines = [
        "### Listing 1,000,000 keys",
        "",
        "| where | floor | langchain-kv | ratio | peak of memory above that of listing 1,000: floor | langchain-kv |",
        "|---|---|---|---|---|---|",
    ]
    for count, name in ((MANY, "many"), (FEW, "few")):
        with KVStore("kv", f"sqlite:{folder / name}.db") as store:
            for start in range(0, count, 10_000):
                store.mset([(f"key-{number:07}", number) for number in range(start, min(count, start + 10_000))])
    targets = {name: f"sqlite:{folder / name}.db" for name in ("many", "few")}
    lines.append(_row("a file", ("sql", "ours"), targets, PAIRS))
    with data_api(targets["many"]) as (many, _), data_api(targets["few"]) as (few, _):
        lines.append(_row("over HTTP, one pair", ("requests", "ours"), {"many": many, "few": few}, 1))
    return "\n".join([*lines, ""])


def _row(where: str, names: tuple[str, str], targets: dict[str, str], pairs: int) -> str:
    few = {name: _listed(name, targets["few"], FEW).peak_bytes for name in names}
    runs: dict[str, list[Listing]] = {name: [] for name in names}
    for number in range(pairs):
        for name in names if number % 2 else names[::-1]:
            runs[name].append(_listed(name, targets["many"], MANY))
    floor, ours = (statistics.median(run.wall_s for run in runs[name]) for name in names)
    ratio = statistics.median(
        mine.wall_s / other.wall_s for mine, other in zip(runs["ours"], runs[names[0]], strict=True)
    )
    grown = [(max(run.peak_bytes for run in runs[name]) - few[name]) / 2**20 for name in names]
    return (
        f"| {where} | {duration(floor)} | {duration(ours)} | **{ratio:.2f}** | {grown[0]:.1f} MB | {grown[1]:.1f} MB |"
    )


def _listed(contender: str, target: str, count: int) -> Listing:
    command = [sys.executable, "-m", "benchmarks.extremes", contender, target]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TOKEN": TOKEN})
    listing = Listing(*json.loads(told.stdout))
    assert listing.keys == count, f"{contender} listed {listing.keys} keys, not {count}"
    return listing


def _sql(target: str) -> Iterator[str]:
    import sqlite3

    connection = sqlite3.connect(target.removeprefix("sqlite:"))
    (table,) = connection.execute("SELECT id FROM collections WHERE name='kv'").fetchone()
    return (key for (key,) in connection.execute(f"SELECT id FROM docs_{table} ORDER BY id"))


def _requests(target: str) -> Iterator[str]:
    async def pages() -> int:
        count, options = 0, {}
        headers = {"Token": TOKEN, "Content-Type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                command = {"find": {"filter": {}, "projection": {"value": False}, "options": options}}
                url = f"{target}/v1/default_keyspace/kv"
                async with session.post(url, data=orjson.dumps(command)) as response:
                    data = orjson.loads(await response.read())["data"]
                count += len([each["_id"] for each in data["documents"]])
                if data.get("nextPageState") is None:
                    return count
                options = {"pageState": data["nextPageState"]}

    return iter(range(asyncio.run(pages())))  # type: ignore[arg-type] # only counted


def _ours(target: str) -> Iterator[str]:
    return KVStore("kv", target, token=TOKEN).yield_keys()


_LISTERS: dict[str, Callable[[str], Iterator[str]]] = {"sql": _sql, "requests": _requests, "ours": _ours}


def beside_a_large_read(folder: Path) -> str:
    """Time one-key amget alone and beside an amget of 20,000 keys, in turns; return a table."""

    def value(number: int) -> Any:
        return {"page_content": "x" * 900, "n": number}

    keys = [f"key-{number:07}" for number in range(READ)]

    async def small(store: Any, calls: int) -> list[float]:
        times = []
        for number in range(calls):
            started = time.perf_counter()
            (found,) = await store.amget([keys[number]])
            times.append(time.perf_counter() - started)
            assert found == value(number)
        return times

    async def beside(store: Any) -> tuple[list[float], float]:
        started = time.perf_counter()
        large = asyncio.create_task(store.amget(keys))
        times: list[float] = []
        while not large.done():
            times += await small(store, 20)
        assert [each["n"] for each in await large] == list(range(READ))
        return times, time.perf_counter() - started

    async def run(store: Any) -> tuple[list[float], list[float], list[float]]:
        alone: list[float] = []
        among: list[float] = []
        large: list[float] = []
        await small(store, 100)
        for _ in range(PAIRS):
            alone += await small(store, 500)
            times, took_s = await beside(store)
            among += times
            large.append(took_s)
        return alone, among, large

    with KVStore("large", f"sqlite:{folder / 'large.db'}") as store:
        store.mset([(key, value(number)) for number, key in enumerate(keys)])
        alone, among, large = asyncio.run(run(store))
    before, after = (_percentile(times) for times in (alone, among))
    return "\n".join(
        [
            "### One-key amget beside an amget of 20,000 keys, on a file",
            "",
            "| | median | p99 | calls |",
            "|---|---|---|---|",
            f"| alone | {duration(statistics.median(alone))} | {duration(before)} | {len(alone):,} |",
            f"| beside | {duration(statistics.median(among))} | {duration(after)} | {len(among):,} |",
            "",
            f"p99 beside is **{after / before:.1f}** times p99 alone. The large read took"
            f" {duration(statistics.median(large))}.",
            "",
        ]
    )


def _percentile(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def main() -> None:
    """List the keys of one target by one contender; print how many there were, the seconds, and the peak of memory."""
    lister, target = _LISTERS[sys.argv[1]], sys.argv[2]
    started = time.perf_counter()
    count = sum(1 for _ in lister(target))
    took_s = time.perf_counter() - started
    print(json.dumps([count, took_s, resident_bytes(peak=True)]))


if __name__ == "__main__":
    main()
