"""What other programs leave beside a database: nothing that is the database's own is ever taken for another one's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.errors import EngineBusyError, EngineError, EngineFileError

KV = CollectionName("default_keyspace", "kv")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="an open file cannot be replaced elsewhere")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database in which "a" is "now", and a backup of it, copy.db, in which it is "good"."""
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path)) as engine:
        engine.create_collection(KV, {})
        engine.write(KV, [("a", b"good")])
        engine.backup(copy_of(path))
        engine.write(KV, [("a", b"now")])
    return path


def copy_of(path: str) -> str:
    return str(Path(path).with_name("copy.db"))


def value(path: str, **how: float) -> bytes | None:
    with closing(SQLiteEngine(path, **how)) as engine:  # type: ignore[arg-type]
        return engine.read(KV, ["a"])[0]


def write(path: str, value: bytes) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("a", value)])


def restore(path: str) -> None:
    with closing(SQLiteEngine(copy_of(path))) as backup:
        backup.restore_to(path)


def move_over_what_was_killed(path: str) -> None:
    """Put the backup in place by hand, where a process that was killed left its lock file with its note."""
    with closing(SQLiteEngine(path)) as engine:
        engine.read(KV, ["a"])
        note = Path(f"{path}.lock").read_text()
    os.replace(copy_of(path), path)
    Path(f"{path}.lock").write_text(note)


def beside(path: str) -> set[str]:
    return {name.removeprefix("kv.db") for name in os.listdir(os.path.dirname(path)) if name.startswith("kv.db")}


@contextmanager
def another_program(path: str, mode: str) -> Iterator[sqlite3.Connection]:
    """Read the database as the sqlite3 command does, without our lock, and keep it open."""
    with closing(sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM keyspaces").fetchone()
        yield connection


@pytest.mark.parametrize("put", [restore, move_over_what_was_killed])
def test_a_file_that_a_program_only_read_is_opened(put: object, path: str) -> None:
    assert callable(put)
    put(path)
    with another_program(path, "ro"):
        pass
    assert beside(path) >= {"-wal", "-shm"}
    assert value(path) == b"good"
    assert beside(path) == {""}


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_restored_file_is_opened_while_a_program_reads_it(mode: str, path: str) -> None:
    restore(path)
    with another_program(path, mode) as program:
        write(path, b"new")
        assert program.execute("SELECT count(*) FROM docs_1").fetchone() == (1,)
    assert value(path) == b"new"


def test_a_file_that_cannot_be_told_from_another_is_opened_once_the_program_that_reads_it_ends(path: str) -> None:
    move_over_what_was_killed(path)
    with another_program(path, "ro"):
        with pytest.raises(EngineBusyError, match="Another program held"):
            value(path, wait_s=0.05)
        assert beside(path) >= {"-wal", "-shm"}, "what a program uses was removed"
    assert value(path) == b"good"


@pytest.mark.parametrize("who", ["a store", "another program"])
def test_an_empty_wal_of_a_database_that_is_still_open_mixes_nothing(who: str, path: str) -> None:
    """Both would share one index of the -wal; and the last changes that it names would be forgotten."""
    with closing(SQLiteEngine(path)) as store, another_program(path, "rw") as program:
        assert store.read(KV, ["a"]) == [b"now"]
        if who == "another program":
            store.close()
        else:
            program.close()
        assert os.path.getsize(f"{path}-wal") == 0
        os.replace(copy_of(path), path)
        if who == "another program":
            Path(f"{path}.lock").write_text("0" * 32)
        with closing(SQLiteEngine(path)) as engine:
            engine.write(KV, [("a", b"new")])
            if who == "another program":
                program.execute("UPDATE docs_1 SET content=CAST('BAD' AS BLOB)")
                program.close()
            else:
                assert store.read(KV, ["a"]) == [b"new"]
                store.close()
            assert engine.read(KV, ["a"]) == [b"new"]
    assert value(path) == b"new"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_changes_of_another_database_are_never_removed(path: str) -> None:
    with another_program(path, "rw") as program:
        program.execute("UPDATE docs_1 SET content=CAST('last' AS BLOB)")
        os.replace(copy_of(path), path)
        Path(f"{path}.lock").write_text("0" * 32)
        before = Path(f"{path}-wal").read_bytes()
        with pytest.raises(EngineFileError, match="was put in the place of another database"):
            value(path)
        assert Path(f"{path}-wal").read_bytes() == before


def test_a_restore_that_is_refused_leaves_no_lock_file(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
        connection.execute("PRAGMA journal_mode=DELETE")
    with pytest.raises(EngineError, match="say to replace it"):
        restore(path)
    assert beside(path) == {""}


def test_a_restore_under_an_open_store_leaves_it_a_lock_to_share(path: str) -> None:
    with closing(SQLiteEngine(path)) as store, closing(SQLiteEngine(path)) as other:
        store.write(KV, [("a", b"1")])
        restore(path)
        assert beside(path) == {""}
        store.write(KV, [("a", b"2")])
        other.write(KV, [("a", b"3")])
        assert store.read(KV, ["a"]) == [b"3"]
    assert beside(path) == {""}
