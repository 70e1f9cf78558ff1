"""A checkpoint that meets a commit: with the engine's file lock nothing is lost, whatever the version of SQLite.

    python tests/faults/wal_guard.py --runs 20

SQLite before 3.51.3 can lose acknowledged rows when one connection checkpoints at the moment another commits. In each
run processes commit one row after another through the engine while others checkpoint in a tight loop, under the lock
that the engine itself takes for that. For contrast, runs in which the lock does nothing are counted beside.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.engines.sqlite.file import has_wal_reset_bug
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import StoreError

KV = CollectionName("default_keyspace", "kv")
WRITERS = 2
CHECKPOINTERS = 2


class Result(NamedTuple):
    """What a run found."""

    acknowledged: int
    checkpoints: int
    lost: int
    damage: str

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.damage)


def take_the_lock_out() -> None:
    """Leave the engine's lock without effect between processes, as if it had none."""
    FileLock.lock_file = lambda self, deadline: None  # type: ignore[method-assign]
    FileLock.unlock_file = lambda self: None  # type: ignore[method-assign]


def work(role: str, path: str, number: int, locked: bool, seconds: float) -> None:
    """Write or checkpoint for so long; print how often, and what went wrong."""
    if not locked:
        take_the_lock_out()
    engine = SQLiteEngine(path, synchronous="normal")
    count, failure = 0, ""
    deadline = time.monotonic() + seconds
    try:
        if role == "checkpointer":
            connection, lock = engine._pool.read(lambda connection: connection), engine._pool._lock
            while time.monotonic() < deadline:
                with lock:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                count += 1
        else:
            while time.monotonic() < deadline:
                engine.write(KV, [(f"{number}-{count:08}", b"x" * 300, False, None)])
                count += 1
    except (StoreError, sqlite3.Error) as error:
        failure = str(error)
    print(count, failure, flush=True)
    os._exit(0)  # without closing: whatever was acknowledged counts


def run(seconds: float, *, locked: bool) -> Result:
    """Let writers and checkpointers work on a new file for so long; return what became of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "kv.db"))
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        engine.close()
        roles = [("writer", number) for number in range(WRITERS)]
        roles += [("checkpointer", number) for number in range(CHECKPOINTERS)]
        processes = [(role, number, _start(role, path, number, locked, seconds)) for role, number in roles]
        rows, checkpoints, damage = [], 0, ""
        for role, number, process in processes:
            count, _, failure = process.communicate()[0].strip().partition(" ")
            damage = damage or failure
            if role == "writer":
                rows += [f"{number}-{row:08}" for row in range(int(count))]
            else:
                checkpoints += int(count)
        lost, found = _count_lost(path, rows)
        return Result(len(rows), checkpoints, lost, damage or found)


def _start(role: str, path: str, number: int, locked: bool, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, path, str(number), str(int(locked)), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _count_lost(path: str, rows: list[str]) -> tuple[int, str]:
    """Return how many rows are missing, and what is wrong with the file."""
    engine = SQLiteEngine(path)
    try:
        found = set(engine.scan_ids(KV, limit=sys.maxsize))
    except StoreError as error:
        return 0, str(error)
    finally:
        engine.close()
    with closing(sqlite3.connect(path)) as connection:
        try:
            checked = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            checked = str(error)
    return len(set(rows) - found), "" if checked == "ok" else checked


def main() -> int:
    if sys.argv[1:2] == ["--role"]:
        role, path, number, locked, seconds = sys.argv[2:]
        work(role, path, int(number), locked == "1", float(seconds))
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20, help="with the lock (default 20)")
    parser.add_argument("--contrast", type=int, default=5, help="without it (default 5); these do not count")
    parser.add_argument("--seconds", type=float, default=20, help="of each run (default 20)")
    options = parser.parse_args()
    known = "has the fault" if has_wal_reset_bug(sqlite3.sqlite_version_info) else "does not have the fault"
    print(f"SQLite {sqlite3.sqlite_version} {known}; {WRITERS} writers, {CHECKPOINTERS} checkpointers\n")
    print("| lock | runs | rows acknowledged | checkpoints | runs with losses or damage | rows lost |")
    print("|---|---|---|---|---|---|", flush=True)
    failed = _row("as it is", [run(options.seconds, locked=True) for _ in range(options.runs)])
    _row("taken out", [run(options.seconds, locked=False) for _ in range(options.contrast)])
    return int(failed > 0)


def _row(name: str, results: list[Result]) -> int:
    failed = sum(result.failed for result in results)
    sums = [sum(result[column] for result in results) for column in range(3)]
    print(f"| {name} | {len(results)} | {sums[0]:,} | {sums[1]:,} | {failed} | {sums[2]:,} |", flush=True)
    for damage in sorted({result.damage for result in results if result.damage}):
        print(f"  damage: {damage}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
