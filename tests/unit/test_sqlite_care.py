"""A file's figures, a look whether it is whole, and its unused space given back while others write."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_kv import EngineError, KVByteStore, KVStore
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import care
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.backups import compact
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.files import FilePlace
from langchain_kv.runtime.clock import now_ms
from old_files import OLD

OPTIONS = BackendOptions("kv", DEFAULT_KEYSPACE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SQLiteEngine]:
    engine = SQLiteEngine(str(path))
    yield engine
    engine.close()


def filled(path: Path, count: int = 400) -> None:
    """Store values and delete nine of ten."""
    with KVByteStore("kv", f"sqlite:{path}") as store:
        store.mset([(f"k{n}", b"x" * 4_000) for n in range(count)])
        store.mdelete([f"k{n}" for n in range(count) if n % 10])


def test_a_file_is_smaller_afterwards_and_has_the_same_values(path: Path) -> None:
    filled(path)

    before, after = compact(FilePlace(str(path)), OPTIONS)

    assert before > 1_600_000
    assert after < before / 4
    assert path.stat().st_size <= after
    with KVByteStore("kv", f"sqlite:{path}") as store:
        assert dict(store.yield_items()) == {f"k{n}": b"x" * 4_000 for n in range(0, 400, 10)}


def test_a_store_that_is_open_goes_on_with_the_file_as_it_was(path: Path) -> None:
    filled(path)
    with KVByteStore("kv", f"sqlite:{path}") as store:
        assert store.mget(["k10"]) == [b"x" * 4_000]
        compact(FilePlace(str(path)), OPTIONS)
        store.mset([("new", b"1")])

        assert store.mget(["k10", "new", "k11"]) == [b"x" * 4_000, b"1", None]
        assert store.count() == 41


def test_a_reader_in_the_middle_of_a_scan_sees_all_and_the_file_shrinks_later(path: Path) -> None:
    filled(path)
    with KVByteStore("kv", f"sqlite:{path}") as store:
        items = store.yield_items()
        seen = [next(items)]
        compact(FilePlace(str(path)), OPTIONS)
        seen += items

        assert len({key for key, _ in seen}) == 40


WRITER = """
import sys
from langchain_kv import KVByteStore
with KVByteStore("kv", sys.argv[1]) as store:
    for n in range(1_000_000):
        store.mset([(f"w{n}", str(n).encode())])
        print(n, flush=True)
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_a_process_that_writes_meanwhile(path: Path) -> None:
    filled(path, 2_000)
    command = [sys.executable, "-c", WRITER, f"sqlite:{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged: list[int] = []
        going = threading.Event()

        def listen() -> None:
            for line in writer.stdout or ():
                acknowledged.append(int(line))
                going.set()

        listening = threading.Thread(target=listen)
        listening.start()
        assert going.wait(60)
        sizes = [compact(FilePlace(str(path)), OPTIONS) for _ in range(5)]
        begun = len(acknowledged)
        writer.kill()
        listening.join()

    assert sizes[0][1] < sizes[0][0] / 2
    assert begun > 1  # it wrote between
    with KVByteStore("kv", f"sqlite:{path}") as store:
        assert store.mget([f"w{n}" for n in acknowledged]) == [str(n).encode() for n in acknowledged]
        assert store.count("k") == 200
    assert problems_of(path) == []


def problems_of(path: Path) -> list[str]:
    engine = SQLiteEngine(str(path), read_only=True)
    try:
        return list(engine.look(care.problems))
    finally:
        engine.close()


def test_a_whole_file_has_no_problems_and_a_damaged_one_has(path: Path) -> None:
    filled(path)
    assert problems_of(path) == []

    data = bytearray(path.read_bytes())
    for start in range(3 * 8_192, len(data), 8_192):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)

    assert problems_of(path) != []


def test_the_figures_tell_what_has_expired(engine: SQLiteEngine, path: Path) -> None:
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset([("a", 1), ("b", 22)])
        store.mset([("c", 333)], ttl_s=1000)
    now = now_ms()

    (figures,) = engine.look(lambda connection: care.figures(connection, now))
    assert figures[:4] == (DEFAULT_KEYSPACE, "kv", 3, 0)
    assert figures.bytes >= len('{"_id":"a","value":1}' * 3)
    later = now + 2_000_000
    assert [each[:4] for each in engine.look(lambda connection: care.figures(connection, later))] == [
        (DEFAULT_KEYSPACE, "kv", 2, 1)
    ]


def test_the_facts_tell_free_pages_and_versions(engine: SQLiteEngine, path: Path) -> None:
    filled(path)

    facts = engine.look(lambda connection: care.facts(connection, str(path)))

    assert facts["pages_free"] > 100
    assert facts["pages"] * facts["page_bytes"] >= facts["pages_free"] * facts["page_bytes"] > 400_000
    assert (facts["tables_version"], facts["is_upgraded"]) == (2, True)


def test_a_file_that_is_not_there_is_an_error_and_is_not_made(path: Path) -> None:
    with pytest.raises(EngineError, match="no database"):
        compact(FilePlace(str(path)), OPTIONS)

    assert not path.exists()


def test_what_may_only_be_read_is_not_compacted(path: Path) -> None:
    filled(path)

    with pytest.raises(EngineError, match="mode=ro"):
        compact(FilePlace(str(path), read_only=True), OPTIONS)


def test_a_compaction_inside_a_change_is_refused(engine: SQLiteEngine, path: Path) -> None:
    filled(path)

    def change(_: object, row: object) -> object:
        engine.rewrite(care.compact)
        return row

    with pytest.raises(EngineError):
        engine.modify(CollectionName(DEFAULT_KEYSPACE, "kv"), ["k10"], change)  # type: ignore[arg-type]


def test_a_file_of_an_older_version_is_counted_as_it_is(path: Path) -> None:
    shutil.copy(OLD, path)
    engine = SQLiteEngine(str(path), read_only=True)
    try:
        found = engine.look(lambda connection: care.figures(connection, now_ms()))
        is_upgraded = engine.look(lambda connection: care.facts(connection, str(path)))["is_upgraded"]
    finally:
        engine.close()

    assert sum(each.keys for each in found) > 0
    assert all(each.expired == 0 and (each.bytes > 0) == (each.keys > 0) for each in found)
    assert is_upgraded is False
