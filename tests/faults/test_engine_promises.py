"""What an engine promises of a write or a read that something comes in the way of: a power cut, a kill, a failure,
another thread. Each test fails without one line of the engines, without which no other does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bodies import MemoryEngine, SQLiteEngine
from langchain_kv import KVStore
from langchain_kv.engines import memory
from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.errors import StoreError

KV = CollectionName("default_keyspace", "kv")
OTHER = CollectionName("default_keyspace", "other")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


@pytest.fixture
def engine(path: str) -> Iterator[SQLiteEngine]:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    yield engine
    engine.close()


def run_sql(path: str, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)


# -- a power cut ------------------------------------------------------------------------------------------------------

WRITES = """
import asyncio, os, sys
from langchain_kv import KVByteStore
def acknowledged(what):
    os.write(2, f"acknowledged {what}\\n".encode())
store = KVByteStore("kv", sys.argv[1])
acknowledged("the collection")
store.mset([("a", b"1")])
acknowledged("one key")
store.mset([("a", b"1"), ("b", b"2")])
acknowledged("two keys")
asyncio.run(store.amset([("c", b"1")]))
acknowledged("one key, awaited")
async def together():
    await asyncio.gather(*(store.amset([(f"{number}", b"1")]) for number in range(5)))
asyncio.run(together())
acknowledged("several calls together")
store.mdelete(["a"])
acknowledged("one deletion")
store.mdelete(["b", "c"])
acknowledged("two deletions")
os._exit(0)
"""


def traced(url: str, folder: Path) -> dict[str, bool]:
    """Return by what was acknowledged whether all that had been written to the file or its log was flushed by then."""
    log = folder / "trace"
    calls = "trace=pwrite64,write,fdatasync,fsync"
    command = ["strace", "-f", "-y", "-s", "80", "-e", calls, "-o", str(log), sys.executable, "-c", WRITES, url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    unflushed: set[str] = set()
    found = {}
    for line in log.read_text(errors="replace").splitlines():
        call = re.search(r"(\w+)\(\d+<([^>]*)>", line)
        if call is None:
            continue
        name, file = call.groups()
        if '"acknowledged ' in line:
            found[re.findall(r'"acknowledged ([\w, ]+)', line)[0]] = not unflushed
        elif name in ("fsync", "fdatasync"):
            unflushed.discard(file)
        elif file.endswith((".db", ".db-wal")):
            unflushed.add(file)
    return found


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which sees the flushes")


@needs_strace
@pytest.mark.slow
def test_whatever_is_acknowledged_was_flushed_to_the_disk(path: str, tmp_path: Path) -> None:
    found = traced(f"sqlite:{path}", tmp_path)
    assert found == dict.fromkeys(re.findall(r'^acknowledged\("(.*)"\)', WRITES, re.MULTILINE), True)


@needs_strace
@pytest.mark.slow
def test_a_store_that_says_normal_flushes_less(path: str, tmp_path: Path) -> None:
    found = traced(f"sqlite:{path}?synchronous=normal", tmp_path)
    assert list(found.values()).count(False) == 7


def test_the_name_of_a_new_file_is_flushed_to_the_disk(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[int, list[str]]] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, os.listdir(os.path.dirname(path))))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.close()
    folder = os.stat(os.path.dirname(path)).st_ino
    assert (folder, True) in [(found, "kv.db" in names) for found, names in flushed]


# -- a failure or a kill in the middle of a call ----------------------------------------------------------------------


@pytest.fixture
def stumbling(engine: SQLiteEngine, path: str) -> SQLiteEngine:
    """An engine with documents a, b and c, where neither changing nor deleting b is possible."""
    engine.write(KV, [(key, b"old") for key in "abc"])
    for event in ("DELETE", "UPDATE"):
        run_sql(
            path,
            f"CREATE TRIGGER on_{event} BEFORE {event} ON docs_1 WHEN OLD.id='b'"
            " BEGIN SELECT RAISE(ABORT, 'stumbled'); END",
        )
    return engine


CALLS: dict[str, Any] = {
    "delete": lambda engine: engine.delete(KV, ["a", "b", "c"]),
    "write": lambda engine: engine.write(KV, [("new", b"1"), ("b", b"1")]),
    "modify": lambda engine: engine.modify(KV, ["a", "b"], lambda doc_id, body: b"1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_in_the_middle_changes_nothing(call: str, stumbling: SQLiteEngine) -> None:
    with pytest.raises(StoreError) as caught:
        CALLS[call](stumbling)
    assert caught.value.applied is False
    assert stumbling.scan(KV, limit=9) == [(key, b"old") for key in "abc"]


def test_a_call_that_failed_holds_up_nobody(stumbling: SQLiteEngine, path: str) -> None:
    with pytest.raises(StoreError):
        CALLS["delete"](stumbling)
    with closing(SQLiteEngine(path, wait_s=1)) as another:
        another.write(KV, [("d", b"new")])
    assert stumbling.read(KV, ["d"]) == [b"new"]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_in_the_middle_changes_nothing_beside_others(call: str, stumbling: SQLiteEngine) -> None:
    outcomes = stumbling.group(
        [
            lambda: stumbling.write(KV, [("before", b"1")]),
            lambda: CALLS[call](stumbling),
            lambda: stumbling.write(KV, [("c", b"after")]),
        ]
    )
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert stumbling.scan(KV, limit=9) == [("a", b"old"), ("b", b"old"), ("before", b"1"), ("c", b"after")]


@pytest.mark.parametrize("count", [2, 600])
@pytest.mark.parametrize(
    "call", ["engine.delete(KV, keys)", "engine.write(KV, [(key, b'new', False, None) for key in keys])"]
)
def test_a_kill_in_the_middle_of_a_call_leaves_all_as_it_was(
    call: str, count: int, engine: SQLiteEngine, path: str
) -> None:
    keys = [f"{number:03}" for number in range(count)]
    engine.write(KV, [(key, b"old") for key in keys])
    for event in ("DELETE", "UPDATE"):
        run_sql(
            path, f"CREATE TRIGGER on_{event} AFTER {event} ON docs_1 WHEN OLD.id='{keys[-1]}' BEGIN SELECT die(); END"
        )
    code = f"""
        import os, signal, sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        KV = CollectionName("default_keyspace", "kv")
        keys = [f"{{number:03}}" for number in range({count})]
        engine = SQLiteEngine(sys.argv[1])
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        engine._pool.change(lambda connection: connection.create_function("die", 0, die))
        {call}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert engine.read(KV, keys) == [b"old"] * count


def test_what_a_transaction_made_and_undid_is_not_remembered(engine: SQLiteEngine, path: str) -> None:
    """The number of its table goes to another collection, which must not get its documents, nor its settings."""

    def make_and_fail(doc_id: DocId, body: bytes | None) -> bytes:
        engine.create_collection(OTHER, {"first": 1})
        engine.write(OTHER, [("a", b"1")])
        engine.read_with_settings(OTHER, ["a"])
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        engine.modify(KV, ["b"], make_and_fail)
    third = CollectionName("default_keyspace", "third")
    with closing(SQLiteEngine(path)) as another:
        another.create_collection(third, {"third": 3})
        another.create_collection(OTHER, {"second": 2})
    engine.write(OTHER, [("c", b"3")])
    assert engine.read_with_settings(third, ["c"]) == ({"third": 3}, [None])
    assert engine.read_with_settings(OTHER, ["c"]) == ({"second": 2}, [b"3"])


# -- another process --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(engine: SQLiteEngine, path: str) -> None:
    code = """
        import os, sys, warnings
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        engine = SQLiteEngine(sys.argv[1])
        def change(doc_id, body):
            if os.fork() == 0:
                print("forked", flush=True)
                sys.stdin.read()  # until the test has ended
                os._exit(0)
            sys.stdin.read()
        engine.modify(CollectionName("default_keyspace", "kv"), ["a"], change)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        parent.wait()
        with closing(SQLiteEngine(path, wait_s=1)) as other:
            other.write(KV, [("b", b"2")])
            assert other.read(KV, ["a", "b"]) == [None, b"2"]


@pytest.mark.parametrize("count", [501, 1_700])
def test_a_read_of_many_documents_is_of_one_moment(count: int, engine: SQLiteEngine, path: str) -> None:
    keys = [f"{number:04}" for number in range(count)]
    engine.write(KV, [(key, b"old") for key in keys])
    engine.count(KV)
    (reader,) = engine._pool._readers
    with closing(SQLiteEngine(path)) as other:
        statements: list[str] = []

        def follow(statement: str) -> None:
            if statement.startswith("SELECT id, "):
                statements.append(statement)
                if len(statements) == 2:
                    other.write(KV, [(key, b"new") for key in keys])

        reader.set_trace_callback(follow)
        assert set(engine.read(KV, keys)) == {b"old"}
        reader.set_trace_callback(None)
    assert len(statements) == -(-count // 500)
    assert set(engine.read(KV, keys)) == {b"new"}


# -- another thread, in memory ----------------------------------------------------------------------------------------


class _Watched(dict[Any, Any]):
    """A dictionary that is used only while this thread holds the lock of all databases in memory."""

    def _check(self) -> None:
        assert memory._guard.lock._is_owned(), "used without the lock"  # type: ignore[attr-defined]

    def __getitem__(self, key: Any) -> Any:
        self._check()
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._check()
        return super().get(key, default)

    def __contains__(self, key: Any) -> bool:
        self._check()
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return super().__iter__()

    def __len__(self) -> int:
        self._check()
        return super().__len__()

    def items(self) -> Any:
        self._check()
        return super().items()

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        super().update(*args, **kwargs)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._check()
        return super().setdefault(key, default)

    def pop(self, *args: Any) -> Any:
        self._check()
        return super().pop(*args)


def _keep_change(doc_id: DocId, body: bytes | None) -> bytes:
    return b"changed"


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.read(KV, ["a"]),
        lambda engine: engine.read_with_settings(KV, ["a"]),
        lambda engine: engine.write(KV, [("b", b"2")]),
        lambda engine: engine.modify(KV, ["a"], _keep_change),
        lambda engine: engine.delete(KV, ["a"]),
        lambda engine: engine.scan(KV, limit=9),
        lambda engine: engine.scan_ids(KV, limit=9),
        lambda engine: engine.scan_ids(KV, limit=9, now_ms=2),
        lambda engine: engine.count(KV),
        lambda engine: engine.clear(KV),
        lambda engine: engine.clear(KV, "a"),
        lambda engine: engine.purge(KV, now_ms=2, limit=9),
        lambda engine: engine.settings(KV),
        lambda engine: engine.create_collection(OTHER, {}),
        lambda engine: engine.drop_collection(KV),
        lambda engine: engine.collections("default_keyspace"),
        lambda engine: engine.create_keyspace("more"),
        lambda engine: engine.drop_keyspace("default_keyspace"),
        lambda engine: engine.keyspaces(),
    ],
    ids=lambda call: call.__code__.co_names[0],
)
def test_in_memory_nothing_is_read_or_changed_without_the_lock(call: Any) -> None:
    engine = MemoryEngine()
    engine.create_collection(KV, {})
    engine.write(KV, [("a", b"1")])
    engine.rows.write(KV, [("expired", b"1", False, 1)])
    collection = engine._keyspaces[KV.keyspace][KV.name]
    collection.rows = _Watched(collection.rows)
    collection.expiring.moments = _Watched(collection.expiring.moments)
    engine.rows._keyspaces = _Watched({name: _Watched(found) for name, found in engine._keyspaces.items()})
    call(engine)


# -- the same key twice -----------------------------------------------------------------------------------------------


def test_a_key_that_is_given_twice_is_deleted_once(face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[DocId]] = []
    original = memory.MemoryEngine.delete

    def delete(engine: memory.MemoryEngine, collection: CollectionName, ids: list[DocId]) -> int:
        asked.append(list(ids))
        return original(engine, collection, ids)

    monkeypatch.setattr(memory.MemoryEngine, "delete", delete)
    with KVStore("kv", "memory:twice") as store:
        face(store).mset([("a", 1), ("b", 2)])
        face(store).mdelete(["b", "a", "b", "a", "c", "b"])
        assert face(store).keys() == []
    assert asked == [["b", "a", "c"]]
