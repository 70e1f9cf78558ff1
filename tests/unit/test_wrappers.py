"""Wrappers: what they change, sync and async, and how their errors speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any

import pytest

from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.base import (
    Backend,
    Change,
    Damaged,
    Found,
    Kind,
    Page,
    Record,
    Stored,
    SyncBackend,
)
from langchain_kv.backends.wrappers import Counted, Prefixed, Statistics, Wrapper
from langchain_kv.errors import ConnectError, InvalidValueError, PartialWriteError, UnsupportedError
from langchain_kv.testing.backend_contract import Face
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import parse_json


class Held:
    """Records in a dictionary, as either kind of backend keeps them."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.failing: set[str] = set()

    def get(self, keys: Sequence[str]) -> list[Stored | None]:
        return [None if (record := self.records.get(key)) is None else found(record) for key in keys]

    def put(self, records: Sequence[Record]) -> None:
        bad = [record.key for record in records if record.key in self.failing]
        good = [record for record in records if record.key not in self.failing]
        self.records.update({record.key: record for record in good})
        if bad:
            error = ConnectError(f"no way to {shown(bad[0])}")
            raise PartialWriteError(
                f"{shown(bad[0])} failed: {error}",
                written=tuple(record.key for record in good),
                unwritten=tuple(bad),
                errors=dict.fromkeys(bad, error),
            )

    def page(self, prefix: str, values: bool) -> Page:
        return [
            (key, found(record) if values else None) for key, record in self.records.items() if key.startswith(prefix)
        ]

    def update(self, key: str, change: Change) -> None:
        (stored,) = self.get([key])
        record = change(stored)
        if record is None:
            self.records.pop(key, None)
        else:
            self.records[key] = record


def found(record: Record) -> Found:
    value = record.payload if record.kind is Kind.BYTES else parse_json(record.payload)
    return Found(value, record.kind, record.expires_at_ms)


class PlainCalls(SyncBackend):
    def __init__(self, held: Held) -> None:
        self.held = held

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self.held.get(keys)

    def put_many(self, records: Sequence[Record]) -> None:
        self.held.put(records)

    def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.held.records.pop(key, None)

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        yield self.held.page(prefix, values)

    def open(self, *, clear: bool = False) -> None:
        if clear:
            self.held.records.clear()

    def update(self, key: str, change: Change) -> None:
        self.held.update(key, change)


class Coroutines(AsyncBackend):
    def __init__(self, held: Held) -> None:
        self.held = held

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self.held.get(keys)

    async def aput_many(self, records: Sequence[Record]) -> None:
        self.held.put(records)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.held.records.pop(key, None)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        yield self.held.page(prefix, values)

    async def aopen(self, *, clear: bool = False) -> None:
        if clear:
            self.held.records.clear()

    async def aclose(self) -> None: ...

    async def aupdate(self, key: str, change: Change) -> None:
        self.held.update(key, change)


Make = Callable[[Callable[[Backend], Backend]], Face]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[PlainCalls, Coroutines])
def make(request: pytest.FixtureRequest, held: Held, mode: str) -> Any:
    backend = request.param(held)
    yield lambda wrap: Face(wrap(backend), mode == "async")
    backend.close()


def json_record(key: str, text: bytes = b"1") -> Record:
    return Record(key, text)


def test_a_sync_backend_is_async_and_an_async_one_sync(make: Make) -> None:
    face = make(lambda backend: backend)
    face.open(clear=True)
    face.put_many([json_record("a"), json_record("ab", b"[2]")])
    assert face.get_many(["ab", "x", "a"]) == [Found([2]), None, Found(1)]
    assert face.scan("ab") == [("ab", Found([2]))]
    assert face.scan(values=False) == [("a", None), ("ab", None)]
    assert face.count("a") == 2
    face.update("a", lambda stored: json_record("a", b"5") if stored == Found(1) else None)
    assert face.get_many(["a"]) == [Found(5)]
    face.delete_many(["a"])
    face.clear("a")
    assert face.scan() == []
    assert face.purge() == 0


def test_what_a_backend_cannot_is_refused(make: Make) -> None:
    with pytest.raises(UnsupportedError):
        make(lambda backend: backend).add_many([json_record("a")])


def test_a_prefix_is_put_before_keys_and_taken_off(make: Make, held: Held) -> None:
    face = make(lambda backend: Prefixed(backend, "t/"))
    held.records["other"] = json_record("other")
    face.put_many([json_record("a"), json_record("b")])
    assert list(held.records) == ["other", "t/a", "t/b"]
    assert face.get_many(["a", "other"]) == [Found(1), None]
    assert face.scan("a") == [("a", Found(1))]
    assert face.scan(values=False) == [("a", None), ("b", None)]
    face.update("a", lambda _: json_record("a", b"2"))
    assert held.records["t/a"].payload == b"2"
    face.delete_many(["a"])
    assert face.count("") == 1


def test_clearing_a_prefix_leaves_the_neighbours(make: Make, held: Held) -> None:
    face = make(lambda backend: Prefixed(backend, "t/"))
    held.records["other"] = json_record("other")
    face.put_many([json_record("a")])
    face.open(clear=True)
    assert list(held.records) == ["other"]


def test_errors_name_the_keys_above(make: Make, held: Held) -> None:
    face = make(lambda backend: Prefixed(Prefixed(backend, "inner/"), "outer/"))
    held.failing = {"inner/outer/b"}
    with pytest.raises(PartialWriteError) as caught:
        face.put_many([json_record("a"), json_record("b")])
    error = caught.value
    assert (error.written, error.unwritten, list(error.errors)) == (("a",), ("b",), ["b"])
    assert "'b' failed" in str(error)
    assert "inner" not in str(error)
    assert "outer" not in str(error)


class Refusing(Wrapper):
    def inwards(self, record: Record) -> Record:
        raise InvalidValueError(f"Key {shown(record.key)}: never")

    def outwards(self, key: str, found: Found) -> Stored | None:
        return Damaged("unreadable") if key == "a" else None


def test_a_wrapper_may_refuse_hide_and_call_damaged(make: Make, held: Held) -> None:
    face = make(Refusing)
    held.put([json_record("a"), json_record("b")])
    with pytest.raises(InvalidValueError, match="'c': never"):
        face.put_many([json_record("c")])
    assert face.get_many(["a", "b"]) == [Damaged("unreadable"), None]
    assert face.scan() == [("a", Damaged("unreadable"))]
    assert face.scan(values=False) == [("a", None), ("b", None)]


def test_statistics_count_keys_hits_and_errors(make: Make, held: Held) -> None:
    face = make(Counted)
    face.put_many([json_record("a"), json_record("b")])
    face.get_many(["a", "b", "x"])
    face.delete_many(["b", "y"])
    face.scan()
    face.update("a", lambda _: None)
    held.failing = {"c"}
    with pytest.raises(PartialWriteError):
        face.put_many([json_record("c")])
    assert face.target.statistics == Statistics(gets=3, hits=2, puts=4, deletes=2, listed=1, errors=1)  # type: ignore[attr-defined]


def test_a_scan_that_is_left_early_is_no_error(held: Held) -> None:
    counted = Counted(PlainCalls(held))
    held.put([json_record("a")])
    pages = counted.scan("", values=False)
    next(pages)
    pages.close()
    assert counted.statistics == Statistics(listed=1)
