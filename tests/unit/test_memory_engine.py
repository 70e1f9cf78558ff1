"""What only the engine in memory does: shared by name, copied by a fork, quick to page."""

from __future__ import annotations

import os
import sys

import pytest

from langchain_kv.engines import ids as ids_module
from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.engines.memory import MemoryEngine, memory_engine

KV = CollectionName("default_keyspace", "kv")


def test_one_database_a_name(request: pytest.FixtureRequest) -> None:
    name = request.node.nodeid
    first = memory_engine(name)
    first.create_collection(KV, {})
    first.write(KV, [("a", b"1")])
    first.close()
    assert memory_engine(name) is first
    assert memory_engine(name).read(KV, ["a"]) == [b"1"]
    assert memory_engine(f"{name} other").collections("default_keyspace") == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of a fork while the test runner has threads")
def test_a_fork_inside_a_change_leaves_both_a_working_copy() -> None:
    engine = MemoryEngine()
    engine.create_collection(KV, {})
    pids: list[int] = []

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        pids.append(os.fork())
        return b"changed"

    engine.modify(KV, ["a"], change)
    if pids == [0]:
        engine.write(KV, [("child", b"1")])
        os._exit(0 if engine.scan_ids(KV, limit=9) == ["a", "child"] else 1)
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
