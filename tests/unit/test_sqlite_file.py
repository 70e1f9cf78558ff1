"""The database file: how it is made, recognised and refused, and what is said when it fails."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv import KVByteStore, KVStore
from langchain_kv.engines.base import KEEP, CollectionName, Keep
from langchain_kv.engines.sqlite.file import APPLICATION_ID, has_wal_reset_bug
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.engines.sqlite.schema import SCHEMA_VERSION
from langchain_kv.errors import (
    EngineError,
    EngineFileError,
    InvalidKeyError,
    StoreClosedError,
    UnknownCollectionError,
    UnknownKeyspaceError,
)
from langchain_kv.runtime import clock

KV = CollectionName("default_keyspace", "kv")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


def filled(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [(f"{number:04}", b"x" * 1_000) for number in range(500)])
    engine.close()


def run(code: str, *arguments: str, flags: tuple[str, ...] = ("-W", "error")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# -- made -----------------------------------------------------------------------------------------------------------


def test_reading_makes_no_file(path: str, tmp_path: Path) -> None:
    engine = SQLiteEngine(path)
    assert engine.keyspaces() == ["default_keyspace"]
    assert engine.collections("default_keyspace") == {}
    engine.drop_collection(KV)
    engine.drop_keyspace("default_keyspace")
    elsewhere = CollectionName("other", "kv")
    calls = [
        lambda at: engine.read(at, ["a"]),
        lambda at: engine.write(at, [("a", b"1")]),
        lambda at: engine.modify(at, ["a"], lambda doc_id, body: b"1"),
        lambda at: engine.delete(at, ["a"]),
        lambda at: engine.scan(at, limit=1),
        lambda at: engine.scan_ids(at, limit=1),
        engine.count,
        engine.clear,
        engine.settings,
    ]
    for call in calls:
        with pytest.raises(UnknownCollectionError):
            call(KV)
        with pytest.raises(UnknownKeyspaceError):
            call(elsewhere)
    for refused in (
        lambda: engine.collections("other"),
        lambda: engine.drop_collection(elsewhere),
        lambda: engine.create_collection(elsewhere, {}),
    ):
        with pytest.raises(UnknownKeyspaceError):
            refused()
    engine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_private_and_marked(path: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        engine.write(KV, [("a", b"1")])
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["kv.db", "kv.db-wal", "kv.db-shm", "kv.db.lock"], 0o600)
    engine.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["kv.db"]
    with closing(sqlite3.connect(path)) as connection:
        pragmas = ("application_id", "user_version", "page_size", "journal_mode")
        found = [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]
    assert found == [APPLICATION_ID, SCHEMA_VERSION, 8192, "wal"]


def test_an_empty_file_is_a_new_one(path: str, tmp_path: Path) -> None:
    Path(path).touch(mode=0o640)
    before = os.stat(path)
    engine = SQLiteEngine(path)
    assert engine.keyspaces() == ["default_keyspace"]
    with pytest.raises(UnknownCollectionError):
        engine.read(KV, ["a"])
    assert os.stat(path).st_size == 0
    engine.create_collection(KV, {})
    engine.write(KV, [("a", b"1")])
    engine.close()
    assert [found.name for found in tmp_path.iterdir()] == ["kv.db"]
    after = os.stat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    with closing(sqlite3.connect(path)) as connection:
        pragmas = ("application_id", "user_version", "page_size", "journal_mode")
        found = [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]
    assert found == [APPLICATION_ID, SCHEMA_VERSION, 8192, "wal"]
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["a"]) == [b"1"]
    engine.close()


def test_a_kill_while_an_empty_file_is_filled_leaves_one_that_can_be_used(path: str) -> None:
    code = """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size=1")  # so that pages reach the file before the end of the transaction
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE part(x)")
        connection.execute("INSERT INTO part VALUES(zeroblob(1000000))")
        os._exit(0)
    """
    Path(path).touch()
    assert run(code, path).returncode == 0
    assert os.path.exists(f"{path}-journal")
    os.truncate(path, 0)
    filled(path)
    assert os.listdir(os.path.dirname(path)) == ["kv.db"]


def test_what_is_left_of_another_database_is_not_mixed_into_an_empty_file(path: str) -> None:
    Path(path).touch()
    Path(f"{path}-wal").write_bytes(b"the last changes of a database that was moved")
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match=r"kv\.db is empty, but .*kv\.db-wal is there"):
        engine.create_collection(KV, {})
    engine.close()
    assert os.stat(path).st_size == 0


def test_a_file_system_without_modes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "fchown"):
        monkeypatch.setattr(os, name, refuse)
    filled(path)
    engine = SQLiteEngine(path)
    assert engine.count(KV) == 500
    engine.backup(f"{path}.copy")
    engine.close()


def test_any_path_is_taken_literally(tmp_path: Path) -> None:
    path = str(tmp_path / "a b%41?mode=ro#é.db")
    filled(path)
    assert os.path.exists(path)
    engine = SQLiteEngine(path)
    assert engine.count(KV) == 500
    engine.close()


def test_two_names_of_one_file_are_one_database_with_one_lock(path: str, tmp_path: Path) -> None:
    link = str(tmp_path / "link.db")
    os.symlink(path, link)
    first, second = SQLiteEngine(link), SQLiteEngine(path)
    first.create_collection(KV, {})
    second.write(KV, [("a", b"1")])
    assert first.read(KV, ["a"]) == [b"1"]
    assert not os.path.exists(f"{link}.lock")
    first.close()
    second.close()


def test_a_file_that_appears_meanwhile_is_not_replaced(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.link

    def link_too_late(source: str, target: str) -> None:
        Path(target).write_text("theirs")
        original(source, target)

    monkeypatch.setattr(os, "link", link_too_late)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match="not a database of langchain-kv"):
        engine.create_collection(KV, {})
    engine.close()
    assert Path(path).read_text() == "theirs"
    assert sorted(os.listdir(os.path.dirname(path))) == ["kv.db"]


def test_a_file_system_without_hard_links(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    filled(path)
    assert sorted(os.listdir(os.path.dirname(path))) == ["kv.db"]


def test_what_is_left_of_another_database_is_not_mixed_in(path: str) -> None:
    leftover = Path(f"{path}-wal")
    leftover.write_bytes(b"the last changes of a database that was moved")
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match=r"kv\.db-wal"):
        engine.create_collection(KV, {})
    engine.close()
    assert leftover.read_bytes() == b"the last changes of a database that was moved"
    assert not os.path.exists(path)


KEPT = {
    "json": {"n": [1, None, "é"]},
    "refused": {"$a": 1},
    "bytes": b"\xff\0{",
    "brace": b"{",
    "escape": b"\1",
    "zero": b"\0",
    "nothing": b"",
}
"""What the rows of FORMATS keep."""

SETTINGS_KEPT = '{"indexing": {"allow": ["_id"]}}'
DOCUMENTS_KEPT = {
    "json": b'{"_id":"json","value":{"n":[1,null,"\xc3\xa9"]}}',
    "refused": b'{"_id":"refused","value":"{\\"$a\\":1}","encoding":"json"}',
}

FORMATS: dict[int, dict[str, Any]] = {
    1: {
        "tables": [
            "CREATE TABLE collections( id INTEGER PRIMARY KEY AUTOINCREMENT, keyspace TEXT NOT NULL, name TEXT NOT"
            " NULL, settings TEXT NOT NULL, UNIQUE(keyspace, name) )",
            "CREATE TABLE docs_1(id BLOB PRIMARY KEY NOT NULL, body BLOB NOT NULL)",
            "CREATE TABLE file_mark(mark TEXT NOT NULL)",  # which a langchain-kv that does not know it need not read
            "CREATE TABLE keyspaces(name TEXT PRIMARY KEY NOT NULL)",
        ],
        "settings": [SETTINGS_KEPT],
        "columns": "id, body",
        "rows": {
            **{key: (document,) for key, document in DOCUMENTS_KEPT.items()},
            "bytes": (b"\xff\x00{",),
            "brace": (b"\x01{",),
            "escape": (b"\x01\x01",),
            "zero": (b"\x01\x00",),
            "nothing": (b"\x01",),
        },
    },
    2: {
        "tables": [
            "CREATE INDEX docs_1_expiry ON docs_1(expires_at) WHERE expires_at IS NOT NULL",
            "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, keyspace TEXT NOT NULL, name TEXT NOT"
            " NULL, settings TEXT NOT NULL, made_in INTEGER NOT NULL DEFAULT 1, UNIQUE(keyspace, name))",
            "CREATE TABLE docs_1(id BLOB PRIMARY KEY NOT NULL, is_raw INTEGER NOT NULL DEFAULT 0, expires_at INTEGER,"
            " content BLOB NOT NULL)",
            "CREATE TABLE file_mark(mark TEXT NOT NULL)",
            "CREATE TABLE keyspaces(name TEXT PRIMARY KEY NOT NULL)",
            "CREATE TRIGGER older BEFORE INSERT ON collections WHEN NEW.made_in<2 BEGIN SELECT RAISE(ABORT, 'the file"
            " was upgraded to version 2: end this program and install the newer langchain-kv'); END",
        ],
        "settings": [SETTINGS_KEPT],
        "columns": "id, content, is_raw, expires_at",
        "rows": {
            **{key: (document, 0, None) for key, document in DOCUMENTS_KEPT.items()},
            "bytes": (b"\xff\x00{", 1, None),
            "brace": (b"{", 1, None),
            "escape": (b"\x01", 1, None),
            "zero": (b"\x00", 1, None),
            "nothing": (b"", 1, None),
        },
    },
}
"""What is in a file of each version. Where this must change, SCHEMA_VERSION is raised, and what was is still read."""

EXPIRING = {
    "json": (b'{"_id":"json","value":1,"expires_at":{"$date":4102444800000}}', 0, 4102444800000),
    "bytes": (b"\xff{", 1, 4102444800000),
}
"""The rows of version 2 that expire with the year 2099."""


def content(path: str) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        statements = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        columns = FORMATS[version]["columns"]
        return {
            "tables": sorted(" ".join(statement.split()) for (statement,) in statements),
            "settings": [settings for (settings,) in connection.execute("SELECT settings FROM collections")],
            "columns": columns,
            "rows": {row[0]: row[1:] for row in connection.execute(f"SELECT {columns} FROM docs_1")},
        }


def test_the_version_of_the_format_changes_with_the_format(path: str) -> None:
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset([(key, value) for key, value in KEPT.items() if not isinstance(value, bytes)])
    with KVByteStore("kv", f"sqlite:{path}") as store:
        store.mset([(key, value) for key, value in KEPT.items() if isinstance(value, bytes)])
    assert content(path) == FORMATS[SCHEMA_VERSION]


def test_the_version_of_the_format_changes_with_that_of_what_expires(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_now_ns", lambda: (4102444800 - 100) * 10**9)
    with KVStore("kv", f"sqlite:{path}", ttl_s=100) as store:
        store.mset([("json", 1)])
    with KVByteStore("kv", f"sqlite:{path}", ttl_s=100) as store:
        store.mset([("bytes", b"\xff{")])
    assert content(path)["rows"] == EXPIRING


@pytest.fixture(params=FORMATS)
def of_version(request: pytest.FixtureRequest, path: str) -> int:
    """Make a file of a version by SQL alone, as its own langchain-kv made it."""
    version: int = request.param
    made = FORMATS[version]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in sorted(made["tables"], key=lambda statement: "TABLE" not in statement):
            connection.execute(statement)
        connection.execute("INSERT INTO keyspaces VALUES('default_keyspace')")
        connection.execute("INSERT INTO file_mark VALUES('0123456789abcdef0123456789abcdef')")
        made_in = "" if version == 1 else f", {version}"
        row = f"1, 'default_keyspace', 'kv', ?{made_in}"
        connection.executemany(f"INSERT INTO collections VALUES({row})", [made["settings"]])
        for doc_id, row in made["rows"].items():
            marks = ", ".join("?" * (1 + len(row)))
            connection.execute(f"INSERT INTO docs_1({made['columns']}) VALUES({marks})", (doc_id, *row))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("PRAGMA journal_mode=WAL")
    return version


def require_kept(path: str) -> None:
    json = [key for key, value in KEPT.items() if not isinstance(value, bytes)]
    raw = [key for key, value in KEPT.items() if isinstance(value, bytes)]
    with KVStore("kv", f"sqlite:{path}") as store, KVByteStore("kv", f"sqlite:{path}") as byte_store:
        assert store.mget([*json, "absent"]) == [*(KEPT[key] for key in json), None]
        assert byte_store.mget([*raw, "absent"]) == [*(KEPT[key] for key in raw), None]
        assert sorted(store.yield_keys()) == sorted(KEPT)


def test_a_file_of_every_version_is_read_as_it_is(of_version: int, path: str) -> None:
    before = Path(path).read_bytes()
    require_kept(path)
    require_kept(f"{path}?mode=ro")
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["kv.db"]
    assert content(path) == FORMATS[of_version]


@pytest.mark.parametrize("keys", [["absent"], ["absent", "too"]])
def test_a_file_of_every_version_is_of_this_one_after_the_first_write(
    keys: list[str], of_version: int, path: str
) -> None:
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mdelete(keys)
    require_kept(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found, wanted = content(path), FORMATS[SCHEMA_VERSION]
    assert found["rows"] == wanted["rows"]
    assert found["settings"] == wanted["settings"]
    assert wanted["tables"][0] in found["tables"]


# -- refused --------------------------------------------------------------------------------------------------------


def foreign_database(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs(x)")


def newer_database(path: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")


def older_database(path: str) -> None:
    """Of a version before the first, which nobody wrote."""
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=0")


def negative_database(path: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=-1")


FOREIGN = {
    "text": (lambda path: Path(path).write_text("my notes\n" * 1_000), "not a database of langchain-kv"),
    "short": (lambda path: Path(path).write_text("x"), "not a database of langchain-kv"),
    "sqlite": (foreign_database, "another program"),
    "newer": (newer_database, f"schema version {SCHEMA_VERSION + 1}.* Install the newer langchain-kv"),
    "older": (older_database, "another program"),
    "negative": (negative_database, "another program"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_not_ours_is_refused_untouched(kind: str, path: str) -> None:
    make, message = FOREIGN[kind]
    make(path)
    before = Path(path).read_bytes(), os.stat(path).st_mtime_ns
    engine = SQLiteEngine(path)
    for call in (
        lambda: engine.create_collection(KV, {}),
        lambda: engine.read(KV, ["a"]),
        engine.keyspaces,
        lambda: engine.write(KV, [("a", b"1")]),
    ):
        with pytest.raises(EngineFileError, match=message) as caught:
            call()
        assert path in str(caught.value)
        assert caught.value.applied is False
    engine.close()
    assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == before
    assert os.listdir(os.path.dirname(path)) == ["kv.db"]


def test_a_foreign_database_with_unfinished_business_keeps_it(path: str) -> None:
    """Its program was killed: the last rows stand in the -wal, which an ordinary connection would replay and remove."""
    code = """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE theirs(x)")
        connection.execute("INSERT INTO theirs VALUES('theirs')")
        os._exit(0)
    """
    assert run(code, path).returncode == 0
    before = {name: Path(path + name).read_bytes() for name in ("", "-wal")}
    assert before["-wal"]
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError):
        engine.keyspaces()
    engine.close()
    assert {name: Path(path + name).read_bytes() for name in ("", "-wal")} == before


def test_a_directory_is_refused(path: str) -> None:
    os.mkdir(path)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match="not a regular file"):
        engine.create_collection(KV, {})
    engine.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    engine = SQLiteEngine(str(tmp_path / "nowhere" / "kv.db"))
    with pytest.raises(EngineError, match=r"nowhere does not exist"):
        engine.create_collection(KV, {})
    engine.close()


def test_a_file_instead_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = SQLiteEngine(str(tmp_path / "file" / "kv.db"))
    with pytest.raises(EngineError, match="Not a directory"):
        engine.create_collection(KV, {})
    engine.close()


def test_a_directory_that_cannot_be_written_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int, mode: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # permissions do not hold for root
    engine = SQLiteEngine(path)
    with pytest.raises(EngineError, match=r"kv\.db\.lock: Permission denied"):
        engine.create_collection(KV, {})
    engine.close()


# -- damaged, full, gone ----------------------------------------------------------------------------------------------


def test_damage_is_said_with_what_to_do(path: str) -> None:
    filled(path)
    content = bytearray(Path(path).read_bytes())
    content[8192:] = b"\xee" * (len(content) - 8192)
    Path(path).write_bytes(content)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineError, match=r"kv\.db: .*malformed; the file is damaged; .* lckv restore FILE sqlite:/"):
        engine.read(KV, ["0001"])
    for keys in ("a", "ab"):  # one is written by a single statement, several in a transaction
        with pytest.raises(EngineError, match="restore") as caught:
            engine.write(KV, [(key, b"1") for key in keys])
        assert caught.value.applied is False
        with pytest.raises(EngineError, match="restore") as caught:
            engine.delete(KV, keys)
        assert caught.value.applied is False
    engine.close()


def limited(engine: SQLiteEngine, pages: int) -> None:
    """Let the disk be full: SQLite refuses to grow past so many pages, by the same error code."""
    engine.keyspaces()
    engine._pool.change(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))


def test_a_full_disk_changes_nothing_and_passes(path: str) -> None:
    filled(path)
    engine = SQLiteEngine(path)
    limited(engine, 1)  # the present size
    with pytest.raises(EngineError, match="full; free some space") as caught:
        engine.write(KV, [(f"new{number}", b"y" * 5_000) for number in range(1_000)])
    assert caught.value.applied is False
    with pytest.raises(EngineError, match="full; free some space") as caught:
        engine.write(KV, [("one", b"y" * 100_000)])
    assert caught.value.applied is False
    assert engine.count(KV) == 500
    engine.delete(KV, ["0001"])
    assert engine.count(KV) == 499
    limited(engine, 1_000_000)
    engine.write(KV, [(f"new{number}", b"y" * 5_000) for number in range(100)])
    assert engine.count(KV) == 599
    engine.close()


def test_a_part_of_a_change_fails_by_the_same_errors(path: str) -> None:
    filled(path)
    engine = SQLiteEngine(path)
    outcomes = engine.group([lambda: engine.write(KV, [("\ud800", b"{}")]), lambda: engine.write(KV, [("b", b"{}")])])
    assert isinstance(outcomes[0].error, InvalidKeyError)
    assert outcomes[1].error is None
    limited(engine, 1)

    def change(_: object, __: object) -> Keep:
        engine.write(KV, [("one", b"y" * 100_000)])
        return KEEP

    with pytest.raises(EngineError, match="full"):
        engine.modify(KV, ["0001"], change)
    engine.close()


def test_nothing_to_do_waits_for_nobody(path: str) -> None:
    filled(path)
    engine = SQLiteEngine(path)
    engine.read(KV, ["0001"])
    with FileLock(f"{path}.lock"):
        assert engine.group([]) == []
    engine.close()


def test_a_missing_table_is_said(path: str) -> None:
    filled(path)
    engine = SQLiteEngine(path)
    engine.read(KV, ["0001"])
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE docs_1")
    for call in (
        lambda: engine.read(KV, ["0001"]),
        lambda: engine.write(KV, [("a", b"1")]),
        lambda: engine.write(KV, [("a", b"1"), ("b", b"1")]),
        lambda: engine.scan_ids(KV, limit=1),
    ):
        with pytest.raises(EngineError, match="'kv', whose table is missing"):
            call()
    engine.close()


async def test_a_full_disk_fails_only_the_call_that_needs_it(path: str) -> None:
    filled(path)
    engine = SQLiteEngine(path)
    limited(engine, 1)
    large = [(f"new{number}", b"y" * 5_000) for number in range(1_000)]
    results = await asyncio.gather(
        engine.bridge.write(engine.write, KV, [("0001", b"small")]),
        engine.bridge.write(engine.write, KV, large),
        engine.bridge.write(engine.delete, KV, ["0002"]),
        return_exceptions=True,
    )
    assert results[0] is None
    assert isinstance(results[1], EngineError)
    assert results[2] == 1
    assert engine.read(KV, ["0001", "0002", "new1"]) == [b"small", None, None]
    engine.close()


# -- what opens the file ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_but_sqlite_opens_the_database_file(path: str) -> None:
    code = """
        import sys
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "os.open") else None)
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        at = CollectionName("default_keyspace", "kv")
        for _ in range(2):
            engine = SQLiteEngine(sys.argv[1])
            engine.create_collection(at, {})
            engine.write(at, [("a", b"1", False, None)])
            engine.read(at, ["a"])
            engine.close()
        print("\\n".join(found for found in opened if sys.argv[1] in found))
    """
    done = run(code, path)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {f"{path}.lock"}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "os._exit(0)"])
def test_exit_without_close_is_silent_and_keeps_everything(path: str, ending: str) -> None:
    code = f"""
        import asyncio, os, sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        at = CollectionName("default_keyspace", "kv")
        engine = SQLiteEngine(sys.argv[1])
        engine.create_collection(at, {{}})
        async def main():
            await engine.bridge.write(engine.write, at, [("a", b"1", False, None)])
            await engine.bridge.read(engine.read, at, ["a"])
        asyncio.run(main())
        {ending}
    """
    done = run(code, path, flags=("-W", "error"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.path.exists(f"{path}-wal") == (ending == "os._exit(0)")
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["a"]) == [b"1"]
    engine.close()


def test_a_closed_engine_says_so(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.close()
    filled(path)
    for call in (
        lambda: engine.read(KV, ["a"]),
        lambda: engine.write(KV, [("a", b"1")]),
        engine.keyspaces,
        lambda: engine.collections("default_keyspace"),
        lambda: engine.create_keyspace("ks"),
        lambda: engine.create_collection(KV, {}),
        lambda: engine.drop_collection(KV),
        lambda: engine.drop_keyspace("ks"),
    ):
        with pytest.raises(StoreClosedError, match=r"kv\.db"):
            call()


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 0), False),
    ],
)
def test_versions_of_sqlite_with_the_wal_reset_bug(version: tuple[int, int, int], affected: bool) -> None:
    assert has_wal_reset_bug(version) is affected


def test_nothing_is_logged_above_debug_when_a_database_is_opened(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    filled(path)
    assert caplog.records == []


def test_a_file_that_may_not_be_looked_at_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    monkeypatch.setattr("os.lstat", refuse)
    with pytest.raises(EngineError, match=r"Cannot look at .*kv\.db"):
        engine.read(CollectionName("default_keyspace", "c"), ["a"])


def test_a_lock_file_that_is_removed_again_and_again_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(str(tmp_path / "x.lock"))
    stat = os.stat

    def remove_first(path: object, *arguments: object, **named: object) -> os.stat_result:
        if path == lock.path:
            os.unlink(lock.path)
        return stat(path, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", remove_first)
        with pytest.raises(EngineError, match="find out what removes it"):
            lock.acquire()
    with lock:
        assert lock._descriptor is not None
    lock.close()
