"""A backup while others write: of one moment, whole, and nobody waits for it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.engines.sqlite import backup as sqlite_backup
from langchain_kv.errors import EngineError, EngineFileError, StoreClosedError, UsageError

KV = CollectionName("default_keyspace", "kv")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


def filled(path: str, megabytes: int) -> SQLiteEngine:
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {"indexing": {"allow": ["_id"]}})
    for number in range(megabytes):
        engine.write(KV, [(f"old-{number:04}-{part:04}", b"x" * 1_000) for part in range(1_000)])
    return engine


WRITER = """
    import os, sys, time
    from langchain_kv.engines.base import CollectionName
    from langchain_kv.engines.sqlite.engine import SQLiteEngine
    KV = CollectionName("default_keyspace", "kv")
    path, writer = sys.argv[1:]
    engine = SQLiteEngine(path)
    number, worst_s = 0, 0.0
    while not os.path.exists(f"{path}.done"):
        began = time.perf_counter()
        engine.write(KV, [(f"{writer}-{number:06}-{part}", b"%06d" % number * 100, False, None) for part in range(10)])
        worst_s = max(worst_s, time.perf_counter() - began)
        number += 1
        if number == 20:
            print("writing", flush=True)
            worst_s = 0.0
    engine.close()
    print(number, worst_s)
"""


def batches(path: str, writer: int) -> list[int]:
    """Return the numbers of a writer's batches in the file, each whole."""
    engine = SQLiteEngine(path)
    found = engine.scan(KV, prefix=f"{writer}-", limit=10**9)
    engine.close()
    parts: dict[int, int] = {}
    for doc_id, body in found:
        number = int(str(doc_id).split("-")[1])
        assert body == b"%06d" % number * 100
        parts[number] = parts.get(number, 0) + 1
    assert set(parts.values()) <= {10}, "half a batch"
    return sorted(parts)


def stored(engine: SQLiteEngine, writer: int) -> int:
    """Return how many batches of a writer are stored now."""
    return len(engine.scan_ids(KV, prefix=f"{writer}-", limit=10**9)) // 10


@pytest.mark.slow
def test_a_backup_while_two_processes_write_is_of_one_moment(path: str, tmp_path: Path) -> None:
    engine = filled(path, 50)
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WRITER), path]
    writers = [
        subprocess.Popen([*command, str(writer)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for writer in range(2)
    ]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
    for _ in range(20):  # a lock is fair in the long run only: one backup may begin and end while a writer waits
        before = [stored(engine, writer) for writer in range(2)]
        began = time.perf_counter()
        engine.backup(str(tmp_path / "copy.db"), replace=True)
        took_s = time.perf_counter() - began
        after = [stored(engine, writer) for writer in range(2)]
        if all(after[writer] > before[writer] for writer in range(2)):
            break
    Path(f"{path}.done").touch()
    for process in writers:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
        number, worst_s = out.split()
        print(f"backup {took_s:.2f} s; a writer: {number} batches, longest wait {float(worst_s) * 1000:.0f} ms")
    engine.close()
    for writer in range(2):
        assert after[writer] > before[writer]  # they did write meanwhile
        copied = batches(str(tmp_path / "copy.db"), writer)
        assert copied == list(range(len(copied)))  # a prefix: none is missing before one that is there
        assert before[writer] <= len(copied) <= after[writer]
    copy = SQLiteEngine(str(tmp_path / "copy.db"))
    assert copy.settings(KV) == {"indexing": {"allow": ["_id"]}}
    assert len(copy.scan_ids(KV, prefix="old-", limit=10**9)) == 50_000
    copy.close()


def test_what_is_written_between_two_steps_is_not_in_the_copy(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one read transaction around all steps, SQLite would begin anew after each write of another."""
    monkeypatch.setattr(sqlite_backup, "_STEP_PAGES", 1)
    engine = filled(path, 1)
    steps = 0

    def write_more(_: object) -> None:
        nonlocal steps
        steps += 1
        if steps % 20 == 0:
            engine.write(KV, [(f"new-{steps}", b"1")])

    monkeypatch.setattr(sqlite_backup, "_between_steps", lambda *left: write_more(left))
    engine.backup(str(tmp_path / "copy.db"))
    assert 100 < steps < 400
    copy = SQLiteEngine(str(tmp_path / "copy.db"))
    assert copy.count(KV) == 1_000
    copy.close()
    assert engine.count(KV) == 1_000 + steps // 20
    engine.close()


def test_a_writer_does_not_wait_for_a_backup(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = filled(path, 1)
    done: list[bool] = []

    def write_in_another_thread(*_: object) -> None:
        writer = threading.Thread(target=lambda: engine.write(KV, [("new", b"1")]))
        writer.start()
        writer.join(30)
        done.append(not writer.is_alive())

    monkeypatch.setattr(sqlite_backup, "_between_steps", write_in_another_thread)
    engine.backup(str(tmp_path / "copy.db"))
    assert done
    assert all(done)
    engine.close()


def test_what_stands_in_the_wal_is_in_the_copy(path: str, tmp_path: Path) -> None:
    engine = filled(path, 1)
    engine.write(KV, [("last", b"1")])
    assert os.path.getsize(f"{path}-wal") > 0
    engine.backup(str(tmp_path / "copy.db"))
    engine.close()
    copy = SQLiteEngine(str(tmp_path / "copy.db"))
    assert copy.read(KV, ["last"]) == [b"1"]
    copy.close()


def test_a_backup_inside_a_change_is_refused_at_once(path: str, tmp_path: Path) -> None:
    engine = filled(path, 1)

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        engine.backup(str(tmp_path / "copy.db"))
        return b"changed"

    with pytest.raises(UsageError, match="before or after"):
        engine.modify(KV, ["a"], change)
    assert engine.read(KV, ["a"]) == [None]
    engine.close()
    assert not (tmp_path / "copy.db").exists()


def test_a_failing_backup_leaves_nothing_and_the_engine_goes_on(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = filled(path, 1)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("as from a disk that fails")

    monkeypatch.setattr(sqlite_backup, "_between_steps", fail)
    for _ in range(6):  # more often than there are connections
        with pytest.raises(EngineError, match="as from a disk that fails"):
            engine.backup(str(tmp_path / "copy.db"))
    assert not [name for name in os.listdir(tmp_path) if "copy" in name]
    engine.write(KV, [("a", b"1")])
    assert engine.count(KV) == 1_001
    engine.close()


def test_a_file_that_appears_meanwhile_is_not_replaced(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = filled(path, 1)
    copy = tmp_path / "copy.db"
    monkeypatch.setattr(sqlite_backup, "_between_steps", lambda *_: copy.write_text("theirs"))
    with pytest.raises(EngineFileError, match="is there already"):
        engine.backup(str(copy))
    assert copy.read_text() == "theirs"
    engine.close()
    with pytest.raises(StoreClosedError):
        engine.backup(str(tmp_path / "other.db"))


def test_the_copy_passes_sqlites_own_check(path: str, tmp_path: Path) -> None:
    engine = filled(path, 1)
    engine.backup(str(tmp_path / "copy.db"))
    engine.close()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
