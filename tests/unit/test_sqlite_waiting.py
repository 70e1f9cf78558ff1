"""A call on a file waits for others no longer than its deadline, whoever holds what; and the journal mode is ours."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv import KVStore, SetupMode
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineBusyError

KV = CollectionName("default_keyspace", "kv")
DEADLINE_S = 0.3
AT_ONCE = 40
SOON_S = 10
"""Far more than DEADLINE_S, however slow the machine, and less than 30 s, or AT_ONCE deadlines one after the other."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "kv.db")
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset([("a", 1)])
    return path


@contextmanager
def held_lock(path: str) -> Iterator[None]:
    lock = FileLock(f"{path}.lock")
    with lock:
        yield
    lock.close()


@contextmanager
def held_by_program(path: str, mode: str, *statements: str) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        assert connection.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        for statement in statements:
            connection.execute(statement).fetchall()
        yield


EXCLUSIVE = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN IMMEDIATE", "UPDATE keyspaces SET name=name")

# Who holds what; and whether that keeps others from reading.
HOLDERS: dict[str, tuple[Callable[[str], Any], bool]] = {
    "a process with the lock": (held_lock, True),
    "a writer": (lambda path: held_by_program(path, "wal", "BEGIN IMMEDIATE"), False),
    "the only user": (lambda path: held_by_program(path, "wal", *EXCLUSIVE), True),
    "a reader without a log": (lambda path: held_by_program(path, "delete", "BEGIN", "SELECT * FROM docs_1"), False),
    "a writer without a log": (lambda path: held_by_program(path, "delete", "BEGIN IMMEDIATE"), False),
    "the only user without a log": (lambda path: held_by_program(path, "delete", "BEGIN EXCLUSIVE"), True),
}


async def at_once(call: Callable[[int], Any]) -> list[Any]:
    return await asyncio.gather(*map(call, range(AT_ONCE)), return_exceptions=True)


def in_threads(call: Callable[[int], Any]) -> list[Any]:
    outcomes: list[Any] = []

    def run(number: int) -> None:
        try:
            outcomes.append(call(number))
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


CALLS: dict[str, Callable[[KVStore], list[Any]]] = {
    "mset": lambda store: in_threads(lambda number: store.mset([(f"{number}", 1)])),
    "mset of many": lambda store: in_threads(lambda number: store.mset([(f"{number}", 1), ("b", 1)])),
    "mdelete": lambda store: in_threads(lambda number: store.mdelete([f"{number}"])),
    "amset": lambda store: asyncio.run(at_once(lambda number: store.amset([(f"{number}", 1)]))),
    "amdelete": lambda store: asyncio.run(at_once(lambda number: store.amdelete([f"{number}", "b"]))),
}
READS: dict[str, Callable[[KVStore], list[Any]]] = {
    "mget": lambda store: in_threads(lambda number: store.mget([f"{number}", "a"])),
    "yield_keys": lambda store: in_threads(lambda number: list(store.yield_keys())),
    "amget": lambda store: asyncio.run(at_once(lambda number: store.amget([f"{number}", "a"]))),
    "amget of many": lambda store: asyncio.run(at_once(lambda number: store.amget([f"{key}" for key in range(9)]))),
}


FAST = [("the only user", False), ("a process with the lock", True)]
# Those who want the file for themselves, or another journal mode, would wait for one that is open.
CASES = [*((holder, False) for holder in HOLDERS), ("a process with the lock", True), ("a writer", True)]


@pytest.mark.parametrize("call", [*CALLS, *READS])
@pytest.mark.parametrize(
    ("holder", "opened_before"),
    [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow) for case in CASES],
)
def test_all_calls_end_soon_after_the_deadline(call: str, holder: str, opened_before: bool, path: str) -> None:
    hold, keeps_readers_out = HOLDERS[holder]
    store = KVStore("kv", f"sqlite:{path}", deadline_s=DEADLINE_S, setup_mode=SetupMode.OFF)
    if opened_before:
        in_threads(lambda _: store.mget(["a"]))
        store.mset([("a", 1)])
    with hold(path):
        started = time.monotonic()
        outcomes = {**CALLS, **READS}[call](store)
        assert time.monotonic() - started < SOON_S
    assert len(outcomes) == AT_ONCE
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors:
        assert isinstance(error, EngineBusyError), error
        assert (error.applied, error.retryable) == (False, True)
        assert f"for {DEADLINE_S} s" in str(error)
    if call not in READS or (keeps_readers_out and not opened_before):
        assert len(errors) == AT_ONCE
    elif not keeps_readers_out:
        assert not errors
    else:  # of threads some may have to open a connection more
        assert len(errors) < AT_ONCE
    store.mset([("c", 3)])
    assert store.mget(["a", "c"]) == [1, 3]
    assert sorted(store.yield_keys()) == ["a", "c"]
    store.close()


def test_opening_ends_soon_after_the_deadline(path: str) -> None:
    with held_by_program(path, "delete", "BEGIN EXCLUSIVE"):
        started = time.monotonic()
        for mode in (SetupMode.SYNC, SetupMode.ASYNC):
            with pytest.raises(EngineBusyError):
                KVStore("kv", f"sqlite:{path}", deadline_s=DEADLINE_S, setup_mode=mode).mget(["a"])
        assert time.monotonic() - started < SOON_S


async def test_who_came_later_may_wait_longer(path: str) -> None:
    """Calls that are written together have each a deadline of its own."""
    with closing(SQLiteEngine(path, wait_s=5)) as engine:
        engine.write(KV, [("a", b"1")])

        class Call:
            def __init__(self, key: str, asked_at: float) -> None:
                self.key, self.asked_at = key, asked_at

            def __call__(self) -> None:
                engine.write(KV, [(self.key, b"1")])

        now = time.monotonic()
        calls = [Call("early", now - 100), Call("late", now + 100), Call("later", now + 100)]
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.5, other.execute, ["ROLLBACK"])
            timer.start()
            early, late, later = engine.group(calls)
            timer.join()
        assert isinstance(early.error, EngineBusyError)
        assert (late.error, later.error) == (None, None)
        assert engine.read(KV, ["early", "late", "later"]) == [None, b"1", b"1"]


@pytest.mark.parametrize("deadline_s", [86_400 * 30, 999_999_999])
def test_a_deadline_beyond_all_bounds_is_one(deadline_s: float, path: str, face: Any) -> None:
    with KVStore("kv", f"sqlite:{path}", deadline_s=deadline_s) as store:
        face(store).mset([("b", 2)])
        assert face(store).mget(["a", "b"]) == [1, 2]


# -- the journal mode -------------------------------------------------------------------------------------------------


def journal_mode(path: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_journal_mode_that_another_program_set_is_ours_again_once_the_file_is_opened(mode: str, path: str) -> None:
    with held_by_program(path, mode):
        pass
    with KVStore("kv", f"sqlite:{path}") as store:
        assert store.mget(["a"]) == [1]
    assert journal_mode(path) == "wal"


def test_a_program_at_work_keeps_its_journal_mode_as_long_as_it_is(path: str) -> None:
    with held_by_program(path, "delete", "BEGIN", "SELECT * FROM docs_1"):
        with KVStore("kv", f"sqlite:{path}") as store:
            assert store.mget(["a"]) == [1]
    assert journal_mode(path) == "delete"
    with KVStore("kv", f"sqlite:{path}") as store:
        assert store.mget(["a"]) == [1]
    assert journal_mode(path) == "wal"
