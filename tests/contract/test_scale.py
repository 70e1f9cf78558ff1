"""Large batches: right, and in bounded memory. Times are the benchmarks' matter, not the tests'."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

pytestmark = pytest.mark.slow

COUNT = 10_000


def test_ten_thousand_keys_with_duplicates(place: Any, face: Any) -> None:
    store = face(place.store())
    pairs = [(f"key {n % (COUNT // 2)}", {"n": n}) for n in range(COUNT)]  # each key twice, the last wins
    latest = dict(pairs)
    store.mset(pairs)
    wanted = [f"key {n}" for n in range(COUNT)]  # half of them are missing
    assert store.mget(wanted) == [latest.get(key) for key in wanted]
    store.mset([(key, [value]) for key, value in latest.items()])
    assert dict(store.items()) == {key: [value] for key, value in latest.items()}
    assert sorted(store.keys()) == sorted(latest)
    store.mdelete(wanted[: COUNT // 4] + wanted)
    assert store.keys() == []


@pytest.fixture(scope="module")
def listed(shared_place: Any) -> Any:
    """A store with 100,000 keys beside one with 1,000."""
    from langchain_kv.engines.base import CollectionName

    large, small = shared_place.open(), shared_place.open()
    for store, count in ((large, 100_000), (small, 1_000)):
        for start in range(0, count, 10_000):
            keys = [f"key {n:06}" for n in range(start, min(start + 10_000, count))]
            shared_place.fill(store.collection.name, keys)
    yield large, small
    for store in (large, small):
        store.close()
        shared_place.engine.drop_collection(CollectionName("default_keyspace", store.collection.name))


def peak_bytes_of_listing(store: Any, mode: str, expected: int) -> int:
    async def count() -> int:
        counted = 0
        async for _ in store.ayield_keys():
            counted += 1
        return counted

    tracemalloc.start()
    try:
        counted = sum(1 for _ in store.yield_keys()) if mode == "sync" else asyncio.run(count())
        assert counted == expected
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_listing_a_hundred_thousand_keys_takes_constant_memory(listed: Any, shared_place: Any, mode: str) -> None:
    large, small = listed
    extra = peak_bytes_of_listing(large, mode, 100_000) - peak_bytes_of_listing(small, mode, 1_000)
    # On Cassandra eight pages of 1,000 rows are under way, about 3 MB; 100,000 keys held are 6.6 MB.
    assert extra < 5_000_000, f"{extra:,} bytes more than for 1,000 keys"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_key_of_a_hundred_thousand_is_listed_once(listed: Any, mode: str) -> None:
    large, _ = listed

    async def collect() -> list[str]:
        return [key async for key in large.ayield_keys()]

    keys = list(large.yield_keys()) if mode == "sync" else asyncio.run(collect())
    assert len(keys) == 100_000
    assert len(set(keys)) == 100_000
