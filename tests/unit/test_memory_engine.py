"""What only the engine in memory does: shared by name, copied by a fork, quick to page."""

from __future__ import annotations

import os
import sys

import pytest

from bodies import MemoryEngine, row
from langchain_kv.engines import ids as ids_module
from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.engines.memory import memory_engine

KV = CollectionName("default_keyspace", "kv")


def test_one_database_a_name(request: pytest.FixtureRequest) -> None:
    name = request.node.nodeid
    first = memory_engine(name)
    first.create_collection(KV, {})
    first.write(KV, [row("a", b"1")])
    first.close()
    assert memory_engine(name) is first
    assert memory_engine(name).read(KV, ["a"]) == [row("a", b"1")]
    assert memory_engine(f"{name} other").collections("default_keyspace") == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of a fork while the test runner has threads")
def test_a_fork_inside_a_change_leaves_both_a_working_copy() -> None:
    engine = MemoryEngine()
    engine.create_collection(KV, {})
    pids: list[int] = []
    parent = os.getpid()

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        pids.append(os.fork())
        return b"changed"

    status = 1
    try:
        engine.modify(KV, ["a"], change)
        if pids == [0]:
            engine.write(KV, [("child", b"1")])
            status = 0 if engine.scan_ids(KV, limit=9) == ["a", "child"] else 1
    finally:
        if os.getpid() != parent:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert engine.scan_ids(KV, limit=9) == ["a"]


@pytest.mark.slow
def test_pages_and_insertions_in_turn_sort_everything_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how many ids are sorted while a large collection is paged and added to in turn."""
    sorted_ids = 0

    def counted(ids: object) -> list[DocId]:
        nonlocal sorted_ids
        found = sorted(ids)  # type: ignore[call-overload]
        sorted_ids += len(found)
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(ids_module, "sorted", counted, raising=False)
    engine = MemoryEngine()
    engine.create_collection(KV, {})
    engine.write(KV, [(f"{number:06}", b"x") for number in range(50_000)])
    after = None
    pages = 0
    while page := engine.scan_ids(KV, after=after, limit=100):
        after = page[-1]
        pages += 1
        engine.write(KV, [(f"{pages * 97 % 50_000:06}+", b"x"), (f"-{after}", b"x")])
        engine.delete(KV, [page[0]])
    assert pages >= 500
    assert sorted_ids <= 50_000


class Moment(int):
    """A moment that counts how often it is looked at."""

    looks = 0

    def __le__(self, other: int) -> bool:
        Moment.looks += 1
        return int(self) <= other

    def __lt__(self, other: int) -> bool:
        Moment.looks += 1
        return int(self) < other


def test_a_purge_looks_at_none_of_many_rows_that_have_not_expired() -> None:
    engine = MemoryEngine().rows
    engine.create_collection(KV, {})
    engine.write(KV, [(f"{number}", b"1", False, Moment(1_000 + number)) for number in range(5_000)])
    Moment.looks = 0
    assert engine.purge(KV, now_ms=999, limit=100) == 0
    assert Moment.looks == 1
    assert engine.purge(KV, now_ms=1_001, limit=100) == 2
    assert Moment.looks < 100


def test_a_key_that_is_stored_anew_over_and_over_takes_no_more_memory_and_expires_once() -> None:
    engine = MemoryEngine().rows
    engine.create_collection(KV, {})
    for moment in range(10_000):
        engine.write(KV, [("a", b"1", False, moment), (b"n1", b"1", False, 20_000 - moment)])
    collection = engine._keyspaces["default_keyspace"]["kv"]
    assert len(collection.expiring.soonest) < 2_000
    assert engine.purge(KV, now_ms=9_998, limit=9) == 0
    assert engine.purge(KV, now_ms=9_999, limit=9) == 1
    assert engine.scan_ids(KV, limit=9) == [b"n1"]
    assert engine.purge(KV, now_ms=10_001, limit=9) == 1
    assert engine.purge(KV, now_ms=10**9, limit=9) == 0
