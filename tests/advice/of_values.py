"""Advice on keys, values, calls and the life of a store, followed."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from advice.world import BIG, Case, World, named
from langchain_kv import DamagedValueError, KVByteStore, KVStore, SetupMode
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import memory_engine
from langchain_kv.places.arguments import place_of, resolve


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def released(data: bytes) -> memoryview:
    view = memoryview(data)
    view.release()
    return view


def split_bytes(w: World, message: str) -> None:
    limit = int(named(r"is ([\d,]+):", message).replace(",", ""))
    data = bytes(range(256)) * 15_000
    for start in range(0, len(data), limit):
        w.put_bytes("k", data[start : start + limit])
    w.put_bytes("k", zlib.compress(data))


def split_text(w: World, message: str) -> None:
    w.put("k1", BIG[:2_000_000])
    w.put("k2", BIG[2_000_000:])
    w.put_bytes("k", zlib.compress(BIG.encode()))


def closed(w: World) -> None:
    store = KVStore("kv", "memory:advice")
    store.close()
    store.mget(["a"])


def closed_backend(w: World, url: str, **arguments: Any) -> None:
    place = place_of(url)
    backend = place.open(resolve("kv", place, **arguments))
    backend.close()
    backend.get_many(["a"])


def damaged(w: World) -> Any:
    with KVStore("kv", "memory:damaged") as store:
        store.mset([("bad", "?"), ("good", "aGk=")])
    with KVByteStore("kv", "memory:damaged") as bytes_store:
        return bytes_store.mget(["good", "bad"])


def written_again_or_deleted(w: World, message: str) -> None:
    repairs: list[Callable[[KVByteStore], None]] = [
        lambda store: store.mset([("bad", b"1")]),
        lambda store: store.mdelete(["bad"]),
    ]
    for repair in repairs:
        with pytest.raises(DamagedValueError) as caught:
            damaged(w)
        assert caught.value.values == {"good": b"hi"}
        with KVByteStore("kv", "memory:damaged") as store:
            repair(store)
            assert store.mget(["good"]) == [b"hi"]


def too_early(w: World) -> None:
    async def call() -> None:
        KVStore("kv", "memory:early", setup_mode=SetupMode.ASYNC).mget(["a"])

    asyncio.run(call())


def awaited_or_in_sync_mode(w: World, message: str) -> None:
    async def call() -> None:
        store = KVStore("kv", "memory:early", setup_mode=SetupMode.ASYNC)
        await store.amget(["a"])
        store.mget(["a"])
        KVStore("kv", "memory:early", setup_mode=SetupMode.SYNC).mget(["a"])

    asyncio.run(call())


def collection_with(settings: dict[str, Any]) -> Any:
    def open_it(w: World) -> None:
        name = CollectionName("default_keyspace", f"other_{next(iter(settings))}")
        memory_engine("advice").create_collection(name, settings)
        w.kv("memory:advice", name.name)

    return open_it


def another_collection(w: World, message: str) -> None:
    w.kv("memory:advice", "another")


CASES = [
    # keys and calls
    Case(
        "use a hash of it as key",
        lambda w: w.put("k" * 9_000, 1),
        lambda w, m: w.put(hashlib.sha256(b"k" * 9_000).hexdigest(), 1),
    ),
    Case("use valid Unicode text", lambda w: w.put("\ud800", 1), lambda w, m: w.put("\U00010000", 1)),
    Case("A key must be a string, got", lambda w: w.put(b"k", 1), lambda w, m: w.put(b"k".decode(), 1)),
    Case("A key must be a string, got", lambda w: w.put(5, 1), lambda w, m: w.put(str(5), 1)),
    Case("pass [key]", lambda w: KVStore("kv", "memory:").mget("k"), lambda w, m: KVStore("kv", "memory:").mget(["k"])),
    Case(
        "pass mapping.items()",
        lambda w: KVStore("kv", "memory:").mset({"a": 1}),
        lambda w, m: KVStore("kv", "memory:").mset({"a": 1}.items()),
    ),  # type: ignore[arg-type]
    Case("pass [(key, value), ...]", lambda w: KVStore("kv", "memory:").mset(["ab"]), lambda w, m: w.put("a", "b")),  # type: ignore[list-item]
    # values
    Case(
        "store None or text in its place",
        lambda w: w.put("k", [float("nan")]),
        lambda w, m: [w.put("k", [value]) for value in (None, "NaN")],
    ),
    Case("store it as hexadecimal text", lambda w: w.put("k", 10**5_000), lambda w, m: w.put("k", hex(10**5_000))),
    Case("flatten it, or store it as text", lambda w: w.put("k", deep(300)), lambda w, m: w.put("k", repr(deep(300)))),
    Case(
        "names are strings, convert it with str()", lambda w: w.put("k", {1: 2}), lambda w, m: w.put("k", {str(1): 2})
    ),
    Case("split it over several keys, or compress it", lambda w: w.put_bytes("k", bytes(3_840_000)), split_bytes),
    Case("split the value over several keys, or compress it", lambda w: w.put("k", BIG), split_text),
    Case(
        "is a memoryview that was released: give the bytes",
        lambda w: w.put_bytes("k", released(b"1")),
        lambda w, m: w.put_bytes("k", b"1"),
    ),
    Case(
        "A byte store keeps bytes, got",
        lambda w: w.put_bytes("k", "text"),
        lambda w, m: [w.put_bytes("k", b"text"), w.put("k", "text")],
    ),
    Case("A byte store keeps bytes, got", lambda w: w.put_bytes("k", {"a": 1}), lambda w, m: w.put("k", {"a": 1})),
    Case("Write them again, or delete them", damaged, written_again_or_deleted),
    # the life of a store
    Case("This store was closed: make a new one", closed, lambda w, m: w.kv()),
    Case("was closed; open a new one", lambda w: closed_backend(w, "memory:advice"), lambda w, m: w.kv()),
    Case(
        "is closed: make a new one",
        lambda w: closed_backend(w, w.server.url, token="test-token"),
        lambda w, m: w.http(),
    ),
    Case("await any of the asynchronous methods first, or use SetupMode.SYNC", too_early, awaited_or_in_sync_mode),
    Case(
        "choose another name for the store's collection",
        collection_with({"vector": {"dimension": 2}}),
        another_collection,
    ),
    Case("Choose another name for the collection", collection_with({"indexing": {"deny": ["x"]}}), another_collection),
]
