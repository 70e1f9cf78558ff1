"""Every error of the operating system x every call of it x every operation, sync and async, on a file.

``run(cell)`` tries one cell and says what was wrong. The tests run them; ``python -m faults.file_matrix`` runs all of
them and writes the table of docs/reliability.md (`make reliability`).

The calls are patched: they fail for what is below the cell's folder while the fault lasts, and work again afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from langchain_kv import KVStore, SetupMode, StoreError, UnknownCollectionError
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import at_exit, file_lock
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.backups import restore
from langchain_kv.places.schemes import parse_url

__all__ = ["CELLS", "ERRORS", "Cell", "run"]

BEGIN, END = "<!-- begin: make reliability, files -->", "<!-- end: make reliability, files -->"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HANG_S = 20
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where it is, a disk's flushes are not waited for

ERRORS = (
    *("EACCES", "EPERM", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "EROFS"),
    *("EIO", "ESTALE", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOLCK", "EINTR", "EBUSY"),
)

CALLS: dict[str, tuple[str, ...]] = {
    "all": (),
    "stat": ("stat", "lstat"),
    "open": ("open",),
    "fstat": ("fstat",),
    "lock": ("flock",),
    "unlock": ("unlock",),
    "close": ("close",),
    "name": ("link", "rename", "replace"),
    "unlink": ("unlink",),
    "chmod": ("chmod",),
    "fsync": ("fsync",),
    "read, write": ("read", "write", "lseek", "ftruncate"),
}
"""Which calls fail together."""

_BY_PATH = ("open", "stat", "lstat", "link", "rename", "replace", "unlink", "chmod")
_BY_DESCRIPTOR = ("fstat", "close", "fsync", *CALLS["read, write"])

OLD = {"a": 1, "b": 2}
NEW = {"a": 10, "c": 30}
COLLECTION = CollectionName(DEFAULT_KEYSPACE, "c")


class Cell(NamedTuple):
    """One experiment: names of ERRORS, CALLS and OPERATIONS, and sync or async."""

    error: str
    call: str
    operation: str
    mode: str

    def __str__(self) -> str:
        return "-".join(self)


class Disk:
    """Patches the calls of the operating system for one folder; ``fault`` is what they raise, None: nothing."""

    def __init__(self, folder: str, call: str) -> None:
        self.fault: int | None = None
        self.met = 0
        self._folder = folder
        self._calls = CALLS[call]
        self._descriptors: set[int] = set()

    @contextmanager
    def patched(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in (*_BY_PATH, *_BY_DESCRIPTOR):
                stack.enter_context(patch.object(os, name, partial(self._call, name, getattr(os, name))))
            stack.enter_context(patch.object(file_lock.fcntl, "flock", partial(self._flock, file_lock.fcntl.flock)))
            yield

    def _call(self, name: str, original: Callable[..., Any], what: Any, *args: Any, **kwargs: Any) -> Any:
        if name in _BY_DESCRIPTOR or isinstance(what, int):
            is_ours = what in self._descriptors
        else:
            is_ours = os.fsdecode(what).startswith(self._folder)
        if name == "close":  # it is closed whatever the call says
            self._descriptors.discard(what)
            original(what, *args, **kwargs)
            self._meet(name, is_ours)
            return None
        self._meet(name, is_ours)
        result = original(what, *args, **kwargs)
        if name == "open" and is_ours:
            self._descriptors.add(result)
        return result

    def _flock(self, original: Callable[[int, int], None], descriptor: int, how: int) -> None:
        self._meet("unlock" if how == file_lock.fcntl.LOCK_UN else "flock", descriptor in self._descriptors)
        original(descriptor, how)

    def _meet(self, name: str, is_ours: bool) -> None:
        if is_ours and self.fault is not None and (not self._calls or name in self._calls):
            self.met += 1
            raise OSError(self.fault, os.strerror(self.fault))


class Bench:
    """What an operation of a cell works on."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = f"{folder}/kv.db"
        self.url = f"sqlite:{self.path}?synchronous=normal"
        self.store: KVStore | None = None

    def open(self, collection: str = "c", mode: SetupMode = SetupMode.SYNC) -> KVStore:
        return KVStore(collection, self.url, setup_mode=mode)

    @property
    def warm(self) -> KVStore:
        assert self.store is not None
        return self.store

    @property
    def cold(self) -> KVStore:
        """A store that did nothing yet, and is not the only one to be closed."""
        if self.store is None:
            self.store = self.open(mode=SetupMode.OFF)
        return self.store


def _first(bench: Bench) -> None:
    if bench.store is not None:
        bench.store.close()
    bench.store = bench.open()


async def _afirst(bench: Bench) -> None:
    bench.store = bench.store or bench.open(mode=SetupMode.ASYNC)
    await bench.store.amget(["x"])


def _create(bench: Bench) -> None:
    bench.open("d").close()


async def _acreate(bench: Bench) -> None:
    async with aclosing(bench.open("d", SetupMode.ASYNC)) as store:
        await store.amget(["x"])


async def _akeys(bench: Bench) -> list[str]:
    return [key async for key in bench.warm.ayield_keys()]


def _drop(bench: Bench) -> None:
    _engine(bench).drop_collection(COLLECTION)


async def _adrop(bench: Bench) -> None:
    await _engine(bench).bridge.write(_engine(bench).drop_collection, COLLECTION)


def _engine(bench: Bench) -> Any:
    return bench.warm._backend._engine  # type: ignore[attr-defined]


def _backup(bench: Bench) -> None:
    _engine(bench).backup(f"{bench.folder}/copy.db", replace=True)


def _restore(bench: Bench) -> None:
    restore(f"{bench.folder}/old.db", parse_url(bench.url))


class Operation(NamedTuple):
    """An operation, sync and async.

    Attributes:
        changes: what it changes: ``values``, ``collections``, ``file``; nothing where it reads.
        start: ``missing`` (no file), ``cold`` (one that nobody has open), ``warm``.
    """

    sync: Callable[[Bench], Any]
    asynchronous: Callable[[Bench], Any] | None
    changes: str = ""
    start: str = "warm"


_PAIRS = list(NEW.items())

OPERATIONS: dict[str, Operation] = {
    "first open, new file": Operation(_first, _afirst, "collections", "missing"),
    "first open": Operation(_first, _afirst, "", "cold"),
    "get, first": Operation(lambda b: b.cold.mget(["a"]), lambda b: b.cold.amget(["a"]), "", "cold"),
    "put, first": Operation(lambda b: b.cold.mset(_PAIRS), lambda b: b.cold.amset(_PAIRS), "put", "cold"),
    "get": Operation(lambda b: b.warm.mget(["a", "b"]), lambda b: b.warm.amget(list("abcdefgh"))),
    "put 1": Operation(lambda b: b.warm.mset(_PAIRS[:1]), lambda b: b.warm.amset(_PAIRS[:1]), "put 1"),
    "put": Operation(lambda b: b.warm.mset(_PAIRS), lambda b: b.warm.amset(_PAIRS), "put"),
    "delete": Operation(lambda b: b.warm.mdelete(["a", "b"]), lambda b: b.warm.amdelete(["a", "b"]), "delete"),
    "keys": Operation(lambda b: list(b.warm.yield_keys()), _akeys),
    "create": Operation(_create, _acreate, "create"),
    "drop": Operation(_drop, _adrop, "drop"),
    "clear": Operation(lambda b: b.warm.clear(), lambda b: b.warm.aclear(), "clear"),
    "backup": Operation(_backup, None, "backup"),
    "restore": Operation(_restore, None, "restore"),
    "close": Operation(lambda b: b.warm.close(), lambda b: b.warm.aclose()),
}

CHANGED: dict[str, dict[str, dict[str, Any]]] = {
    "": {"c": OLD},
    "put 1": {"c": {**OLD, "a": 10}},
    "put": {"c": {**OLD, **NEW}},
    "delete": {"c": {}},
    "create": {"c": OLD, "d": {}},
    "drop": {},
    "clear": {"c": {}},
    "backup": {"c": OLD},
    "restore": {"c": {"r": 7}},
    "collections": {"c": {}},
}
"""What the file holds once each change was carried out."""

CELLS = [
    Cell(error, call, name, mode)
    for error in ERRORS
    for call in CALLS
    for name, operation in OPERATIONS.items()
    for mode in ("sync", "async")
    if mode == "sync" or operation.asynchronous is not None
]


class Verdict(NamedTuple):
    """What came of a cell.

    Attributes:
        outcome: ``success``, or the name of the error.
        met: how often a call failed.
        wrong: what is not as it should be.
    """

    outcome: str
    met: int
    wrong: list[str]


def run(cell: Cell) -> Verdict:
    """Try the cell on a folder of its own."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        return asyncio.run(_run(cell, folder))


async def _run(cell: Cell, folder: str) -> Verdict:
    operation = OPERATIONS[cell.operation]
    bench, disk = Bench(folder), Disk(folder, cell.call)
    wrong: list[str] = []
    with disk.patched():
        if operation.changes == "restore":
            with KVStore("c", f"sqlite:{folder}/old.db") as store:
                store.mset([("r", 7)])
        if operation.start != "missing":
            with bench.open() as store:
                store.mset(list(OLD.items()))
        if operation.start == "warm":
            bench.store = bench.open()
            bench.store.mset([("a", 1)])
        before = _state(bench)
        disk.fault = getattr(errno, cell.error)
        error = await _perform(operation, cell.mode, bench)
        disk.fault = None
        _judge(cell, error, before, bench, wrong)
        if cell.call not in ("all", "unlink"):
            wrong += [f"{name} was left behind" for name in os.listdir(folder) if ".new-" in name]
        again = await _perform(operation, cell.mode, bench)
        if again is not None and not (cell.operation == "close" and error is None):
            wrong.append(f"the next call failed: {again!r}")
        elif _state(bench) != CHANGED[operation.changes if operation.start != "missing" else "collections"]:
            wrong.append(f"after the next call the file holds {_state(bench)}")
        try:
            await _go_on(bench, cell, wrong)
        except (StoreError, TimeoutError) as failure:
            wrong.append(f"afterwards the store failed: {failure!r}")
    return Verdict("success" if error is None else type(error).__name__, disk.met, wrong)


async def _perform(operation: Operation, mode: str, bench: Bench) -> BaseException | None:
    try:
        if mode == "sync":
            operation.sync(bench)
        else:
            assert operation.asynchronous is not None
            await asyncio.wait_for(operation.asynchronous(bench), HANG_S)
    except BaseException as error:
        return error
    return None


def _judge(cell: Cell, error: BaseException | None, before: dict[str, Any], bench: Bench, wrong: list[str]) -> None:
    operation = OPERATIONS[cell.operation]
    state, after = _state(bench), CHANGED[operation.changes]
    if operation.start == "missing":
        after = CHANGED["collections"]
    if error is None:
        if state != after and (cell.error, cell.operation) != ("ENOENT", "drop"):  # no file, no collection
            wrong.append(f"it succeeded, and the file holds {state}")
        return
    if not isinstance(error, StoreError):
        wrong.append(f"not a StoreError: {error!r}")
        return
    says_which = bench.folder in str(error) or isinstance(error, UnknownCollectionError)  # where no file is
    if not says_which or (isinstance(error, UnknownCollectionError) and cell.error != "ENOENT"):
        wrong.append(f"it does not say which file: {error}")
    if not operation.changes and error.applied is not False:
        wrong.append(f"a read, and applied is {error.applied}")
    if state != before and (error.applied is False or state != after):
        wrong.append(f"applied is {error.applied}, and the file holds {state}")
    if operation.changes == "backup" and os.path.exists(f"{bench.folder}/copy.db"):
        wrong.append("the backup failed, and is there")


def _state(bench: Bench) -> dict[str, Any]:
    """Return what the file holds, as anybody else sees it."""
    if not os.path.exists(bench.path):
        return {}
    connection = sqlite3.connect(f"file:{bench.path}?mode=rw", uri=True)
    try:
        tables = connection.execute("SELECT id, name FROM collections").fetchall()
        return {name: _values(connection, number) for number, name in tables}
    finally:
        connection.close()


def _values(connection: sqlite3.Connection, number: int) -> dict[str, Any]:
    rows = connection.execute(f"SELECT id, json_extract(CAST(content AS TEXT), '$.value') FROM docs_{number}")
    return dict(rows.fetchall())


async def _go_on(bench: Bench, cell: Cell, wrong: list[str]) -> None:
    """See that the store, or a new one, works, sync and async, and that nobody holds the lock."""
    store = bench.store if cell.operation not in ("close", "drop") and bench.store is not None else bench.open()
    store.mset([("x", 1)])
    await asyncio.wait_for(store.amset([("y", 2)]), HANG_S)
    if await asyncio.wait_for(store.amget(["x", "y"]), HANG_S) != [1, 2] or store.mget(["y", "x"]) != [2, 1]:
        wrong.append("values that were stored afterwards are not there")
    lock = FileLock(f"{bench.path}.lock", wait_s=0)
    with lock:
        lock.close()
    store.close()
    if bench.store is not None:
        bench.store.close()
    if [pool for pool in at_exit._OPEN if pool.path == os.path.realpath(bench.path)]:
        wrong.append("every store was closed, and the file is open")


# -- the page ------------------------------------------------------------------------------------------------------


def table(verdicts: dict[Cell, Verdict]) -> str:
    """Return the table, a row an error, and its last line, the sums."""
    lines = ["| the system says | cells | met the fault | went on all the same | ended with | wrong |\n"]
    lines.append("|---|---|---|---|---|---|\n")
    for error in ERRORS:
        row = [verdict for cell, verdict in verdicts.items() if cell.error == error and verdict.met]
        all_cells = sum(cell.error == error for cell in verdicts)
        ends = Counter(verdict.outcome for verdict in row)
        succeeded = ends.pop("success", 0)
        named = ", ".join(f"{name} ({count})" for name, count in sorted(ends.items()))
        wrong = sum(bool(verdict.wrong) for cell, verdict in verdicts.items() if cell.error == error)
        lines.append(f"| {error} | {all_cells} | {len(row)} | {succeeded} | {named} | {wrong} |\n")
    failures = sum(bool(verdict.wrong) for verdict in verdicts.values())
    met = sum(bool(verdict.met) for verdict in verdicts.values())
    return "".join(lines) + f"\n{len(verdicts)} cells, {met} of which met the fault, failures: {failures}.\n"


def main() -> int:
    """Try every cell, write the table into the page, and return 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m faults.file_matrix", description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name holds this text; the page is left as it is")
    only = parser.parse_args().only
    verdicts = {cell: run(cell) for cell in CELLS if only in str(cell)}
    for cell, verdict in verdicts.items():
        for text in verdict.wrong:
            print(f"{cell}: {text}", file=sys.stderr)
    made = table(verdicts)
    if only:
        print(made)
    else:
        page = PAGE.read_text()
        PAGE.write_text(f"{page[: page.index(BEGIN)]}{BEGIN}\n{made}{page[page.index(END) :]}")
        print(made.splitlines()[-1])
    return int(any(verdict.wrong for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
