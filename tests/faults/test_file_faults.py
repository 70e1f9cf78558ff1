"""What the operating system may say of a file's folder, met by every operation; the table finds what is wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults import file_matrix
from faults.file_matrix import CELLS, ERRORS, Cell, Verdict
from langchain_kv import KVStore, StoreError
from langchain_kv.engines.sqlite import connections as sqlite_connections
from langchain_kv.engines.sqlite import file_lock
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.testing import DataAPIServer

QUICK = [cell for cell in CELLS if (cell.error, cell.call) == ("EIO", "all")]


@pytest.mark.parametrize("cell", QUICK, ids=str)
def test_error_of_the_system_is_an_error_of_ours_and_passes(cell: Cell) -> None:
    assert file_matrix.run(cell).wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_error_of_every_call_of_the_system_is_an_error_of_ours_and_passes(error: str) -> None:
    cells = [cell for cell in CELLS if cell.error == error and (cell.call == "all" or error in ("EIO", "EACCES"))]
    assert {cell: verdict.wrong for cell in cells if (verdict := file_matrix.run(cell)).wrong} == {}


# -- the table finds what is wrong -----------------------------------------------------------------------------------


@contextmanager
def _raw_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def is_current(lock: FileLock) -> bool:
        return bool(os.stat(lock.path))

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "_is_current", is_current)
        yield


@contextmanager
def _error_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def unlock(lock: FileLock) -> None:
        if lock._descriptor is not None:
            file_lock._unlock(lock._descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "unlock_file", unlock)
        yield


@contextmanager
def _half_a_batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    write = SQLiteEngine.write

    def halves(engine: SQLiteEngine, collection: Any, documents: Any) -> None:
        write(engine, collection, documents[:1])

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteEngine, "write", halves)
        yield


@contextmanager
def _never_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_connections.ConnectionPool, "close", lambda *_: None)
        yield


WRONG = {
    "raw errors": (_raw_errors, Cell("EIO", "stat", "put", "sync"), "not a StoreError"),
    "an error after the commit": (_error_after_the_commit, Cell("EIO", "unlock", "put", "sync"), "not a StoreError"),
    "half a batch": (_half_a_batch, Cell("EIO", "fsync", "put", "async"), "the file holds"),
    "a file that stays open": (_never_closed, Cell("EIO", "fsync", "get", "sync"), "file is open"),
}


@pytest.mark.parametrize("name", WRONG)
def test_engine_that_is_wrong_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, cell, text = WRONG[name]
    assert cell in CELLS
    assert file_matrix.run(cell).wrong == []
    with wrong(monkeypatch):
        found = _run_whatever_comes(cell)
    assert text in found


def _run_whatever_comes(cell: Cell) -> str:
    try:
        return " ".join(file_matrix.run(cell).wrong)
    except Exception as error:  # what comes after the fault may fail, too
        return repr(error)


def test_table_tells_of_a_cell_that_failed() -> None:
    verdicts = {
        Cell("EIO", "all", "get", "sync"): Verdict("EngineError", 1, []),
        Cell("EIO", "all", "put", "sync"): Verdict("success", 2, ["bad"]),
    }
    table = file_matrix.table(verdicts)
    assert "| EIO | 2 | 2 | 1 | EngineError (1) | 1 |" in table
    assert "2 cells, 2 of which met the fault, failures: 1." in table


# -- some of them on a real folder -------------------------------------------------------------------------------------


async def test_store_whose_folder_is_away_for_a_moment_goes_on_sync_and_async(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    store = KVStore("c", f"sqlite:{folder}/kv.db")
    await store.amset([("a", 1)])
    folder.rename(tmp_path / "away")
    folder.touch()
    found = await asyncio.wait_for(
        asyncio.gather(*(store.amset([("a", number)]) for number in range(8)), return_exceptions=True), 30
    )
    assert {getattr(error, "applied", "none") for error in found} == {False}
    folder.unlink()
    (tmp_path / "away").rename(folder)
    await asyncio.wait_for(store.amset([("a", 2)]), 30)
    assert store.mget(["a"]) == [2]
    await store.aclose()


async def test_clients_of_a_server_whose_folder_is_away_are_all_answered_and_it_writes_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with DataAPIServer(f"sqlite:{folder}/kv.db") as server:
        store = KVStore("c", server.url, token=server.token, deadline_s=1)
        await store.amset([("a", 0)])
        folder.rename(tmp_path / "away")
        folder.touch()
        writes = [store.amset([(f"k{number}", number)]) for number in range(32)]
        found = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 60)
        assert all(isinstance(error, StoreError) for error in found)
        folder.unlink()
        (tmp_path / "away").rename(folder)
        await asyncio.wait_for(store.amset([("a", 1)]), 60)
        assert await store.amget(["a"]) == [1]
        await store.aclose()


def test_store_whose_close_failed_is_closed_by_the_next_call(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    store = KVStore("c", f"sqlite:{folder}/kv.db")
    store.mset([("a", 1)])
    folder.rename(tmp_path / "away")
    folder.symlink_to(folder)
    with pytest.raises(StoreError, match="go in a circle"):
        store.close()
    folder.unlink()
    (tmp_path / "away").rename(folder)
    store.close()
    assert not (folder / "kv.db-wal").exists()  # the last connection is closed


WITHOUT_FILES = """
import os, resource, sys, threading
from contextlib import suppress
from langchain_kv import EngineError, KVStore

store = KVStore("c", "sqlite:" + sys.argv[1])
store.mset([("a", 1)])
limit = len(os.listdir("/dev/fd")) + 8
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
taken = []
with suppress(OSError):
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))

def read():  # on a connection of its own
    try:
        told.append(store.mget(["a"]))
    except EngineError as error:
        told.append((error.retryable, error.applied, str(error)))

def at_once():
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

told = []
while all(answer == [1] for answer in told) and len(told) < 4_000:
    at_once()
errors = [answer for answer in told if answer != [1]]
assert errors, "none needed a file"
for retryable, applied, text in errors:
    assert (retryable, applied) == (True, False), text
    assert "close some of this process's files, or raise its limit" in text, text
for one in taken:
    os.close(one)
told.clear()
at_once()
assert told == [[1]] * 8, told
store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no such limit")
def test_a_process_that_may_open_no_more_files_is_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_FILES, str(tmp_path / "kv.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
