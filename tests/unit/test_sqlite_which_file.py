"""Which file is it? One that is removed or replaced under those who have it open, and one that links lead to."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv import AstraDBStore, KVStore, SetupMode
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import file as sqlite_file
from langchain_kv.engines.sqlite import opening as sqlite_opening
from langchain_kv.errors import EngineError, EngineFileError, StoreError, UnknownCollectionError

KV = CollectionName("default_keyspace", "kv")
OTHER = CollectionName("default_keyspace", "other")

posix = pytest.mark.skipif(os.name != "posix", reason="an open file cannot be removed or replaced elsewhere")
pytestmark = posix


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


def make_file(path: str, value: bytes, *collections: CollectionName) -> None:
    """Make a file with one value, "k", in each collection; their tables are numbered in the order given."""
    with closing(SQLiteEngine(path)) as engine:
        for collection in collections or (KV,):
            engine.create_collection(collection, {"of": value.decode()})
            engine.write(collection, [("k", value), (f"k {value.decode()}", value)])


def remove(path: str) -> None:
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(path + ending):
            os.unlink(path + ending)


def replace(path: str, value: bytes) -> None:
    """Put another file in the place of one whose -wal is gone; its tables have other numbers."""
    make_file(f"{path}.other", value, OTHER, KV)
    remove(path)
    os.rename(f"{path}.other", path)


@pytest.fixture
def engine(path: str) -> Iterator[SQLiteEngine]:
    """An engine that has connections of every kind to a file, and remembers what it read there."""
    make_file(path, b"old")
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("k", b"old")])
        engine.read_with_settings(KV, ["k"])
        for _ in range(3):
            asyncio.run(engine.bridge.read_short(engine.read, KV, ["k"]))
        yield engine


READS: dict[str, tuple[Callable[[SQLiteEngine], Any], Callable[[bytes], Any]]] = {
    "a key": (lambda engine: engine.read(KV, ["k"]), lambda value: [value]),
    "keys": (lambda engine: engine.read(KV, ["k", "x"]), lambda value: [value, None]),
    "keys in one transaction": (lambda engine: engine.read(KV, ["k"] * 1_200), lambda value: [value] * 1_200),
    "no key": (lambda engine: engine.read(KV, []), lambda value: []),
    "with settings": (
        lambda engine: engine.read_with_settings(KV, ["k"]),
        lambda value: ({"of": value.decode()}, [value]),
    ),
    "a page": (
        lambda engine: engine.scan(KV, prefix="k ", limit=9),
        lambda value: [(f"k {value.decode()}", value)],
    ),
    "a page of ids": (lambda engine: engine.scan_ids(KV, limit=9), lambda value: ["k", f"k {value.decode()}"]),
    "a count": (lambda engine: engine.count(KV), lambda value: 2),
    "settings": (lambda engine: engine.settings(KV), lambda value: {"of": value.decode()}),
}

WAYS: dict[str, Callable[[SQLiteEngine, Callable[[SQLiteEngine], Any]], Any]] = {
    "plain": lambda engine, read: read(engine),
    "short": lambda engine, read: asyncio.run(engine.bridge.read_short(read, engine)),
    "async": lambda engine, read: asyncio.run(engine.bridge.read(read, engine)),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("way", WAYS)
def test_a_read_after_the_file_was_replaced_is_of_the_new_one(
    way: str, name: str, engine: SQLiteEngine, path: str
) -> None:
    read, expected = READS[name]
    assert WAYS[way](engine, read) == expected(b"old")
    replace(path, b"new")
    assert WAYS[way](engine, read) == expected(b"new")
    assert WAYS[way](engine, read) == expected(b"new")


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("way", WAYS)
def test_a_read_after_the_file_was_removed_says_so(way: str, name: str, engine: SQLiteEngine, path: str) -> None:
    remove(path)
    for _ in range(2):
        with pytest.raises(UnknownCollectionError, match=r"kv\.db was removed, or moved away, while it was in use"):
            WAYS[way](engine, READS[name][0])
    assert engine.collections("default_keyspace") == {}


WRITES: dict[str, Callable[[SQLiteEngine], Any]] = {
    "one": lambda engine: engine.write(KV, [("k", b"written")]),
    "several": lambda engine: engine.write(KV, [("k", b"written"), ("x", b"written")]),
    "a change": lambda engine: engine.modify(KV, ["k"], lambda key, body: b"written"),
    "a delete": lambda engine: engine.delete(KV, ["k"]),
    "a group": lambda engine: [
        outcome.error
        for outcome in engine.group([lambda: engine.write(KV, [("k", b"written")]), lambda: engine.delete(KV, ["x"])])
        if outcome.error is not None
    ],
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_after_the_file_was_replaced_goes_into_its_collection_in_the_new_one(
    name: str, engine: SQLiteEngine, path: str
) -> None:
    replace(path, b"new")
    assert WRITES[name](engine) in ([], None, 1)
    engine.close()
    with closing(SQLiteEngine(path)) as again:
        assert again.read(KV, ["k"]) == [None if name == "a delete" else b"written"]
        assert again.read(OTHER, ["k"]) == [b"new"]


@pytest.mark.parametrize("name", WRITES)
def test_a_write_after_the_file_was_removed_is_not_acknowledged(name: str, engine: SQLiteEngine, path: str) -> None:
    remove(path)
    for _ in range(2):
        try:
            errors = WRITES[name](engine)
        except StoreError as error:
            errors = [error]
        assert errors
        for error in errors:
            assert isinstance(error, UnknownCollectionError)
            assert "was removed, or moved away" in str(error)
            assert error.applied is False
    assert not os.path.exists(path)


def test_a_collection_made_after_the_file_was_removed_makes_a_new_one(engine: SQLiteEngine, path: str) -> None:
    remove(path)
    engine.create_collection(KV, {})
    assert engine.read(KV, ["k"]) == [None]
    engine.write(KV, [("k", b"new")])
    assert engine.read(KV, ["k"]) == [b"new"]


def test_a_file_that_comes_back_is_read_on_with_all_that_it_had(engine: SQLiteEngine, path: str) -> None:
    engine.write(KV, [("last", b"in the -wal")])
    os.rename(path, f"{path}.away")
    with pytest.raises(UnknownCollectionError):
        engine.read(KV, ["k"])
    os.rename(f"{path}.away", path)
    assert engine.read(KV, ["k", "last"]) == [b"old", b"in the -wal"]
    engine.write(KV, [("k", b"new")])
    engine.close()
    with closing(SQLiteEngine(path)) as again:
        assert again.read(KV, ["k", "last"]) == [b"new", b"in the -wal"]


def test_a_file_of_another_program_that_took_the_place_is_refused_untouched(engine: SQLiteEngine, path: str) -> None:
    remove(path)
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE theirs(x)")
    before = Path(path).read_bytes()
    for _ in range(2):
        with pytest.raises(EngineFileError, match="another program"):
            engine.read(KV, ["k"])
        with pytest.raises(EngineFileError, match="another program"):
            engine.write(KV, [("k", b"new")])
    engine.close()
    assert Path(path).read_bytes() == before


def test_closing_leaves_alone_what_another_file_has_beside_it(engine: SQLiteEngine, path: str) -> None:
    """The last connection to be closed removes the -wal by its name."""
    remove(path)
    with closing(SQLiteEngine(path)) as other:
        other.create_collection(KV, {})
        other.write(KV, [("c", b"3")])
        engine.close()
        other.write(KV, [("d", b"4")])
    with closing(SQLiteEngine(path)) as again:
        assert again.scan_ids(KV, limit=9) == ["c", "d"]


def test_a_read_that_is_under_way_ends_with_what_it_began_with(engine: SQLiteEngine, path: str) -> None:
    """And its connection is closed only then."""

    def during(connection: sqlite3.Connection) -> bytes:
        replace(path, b"new")
        assert engine.read(KV, ["k"]) == [b"new"]
        found: bytes = connection.execute("SELECT content FROM docs_1 WHERE id='k'").fetchone()[0]
        return found

    assert engine._pool.read(during) == b"old"
    engine.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_connections_to_files_that_are_gone_do_not_pile_up(path: str) -> None:
    engine = SQLiteEngine(path)
    counts = []
    for _ in range(10):
        engine.create_collection(KV, {})
        engine.write(KV, [("k", b"1")])
        assert engine.read(KV, ["k"]) == [b"1"]
        counts.append(len(os.listdir("/proc/self/fd")))
        remove(path)
    assert len(engine._pool._given_up) <= len(engine._pool._open) + 1
    engine.close()
    assert counts[-1] <= counts[1]


# -- stores -----------------------------------------------------------------------------------------------------------


def rebuild(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def take_away(folder: Path) -> None:
    remove(str(folder / "kv.db"))


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


GONE: dict[str, Callable[[Path], None]] = {
    "the folder made anew": rebuild,
    "the file removed": take_away,
    "moved": move_away,
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("ending", ["kept", "collected"])
def test_a_new_store_where_a_file_was_makes_a_new_one(how: str, ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    url = f"sqlite:{folder}/kv.db"
    old: KVStore | None = KVStore("kv", url)
    assert old is not None
    old.mset([("k", "old")])
    assert old.mget(["k"]) == ["old"]
    if ending == "collected":
        old = None
        gc.collect()
    GONE[how](folder)
    with KVStore("kv", url) as new:
        assert new.mget(["k"]) == [None]
        assert list(new.yield_keys()) == []
        new.mset([("k", "new")])
        if old is not None:
            assert old.mget(["k"]) == ["new"]
            old.mset([("k", "newer")])
            assert new.mget(["k"]) == ["newer"]
            old.close()
    with KVStore("kv", url) as again:
        assert again.mget(["k"]) == ["newer" if ending == "kept" else "new"]


@pytest.mark.parametrize("how", GONE)
async def test_the_same_in_coroutines(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    url = f"sqlite:{folder}/kv.db"
    old = AstraDBStore("kv", api_endpoint=url, setup_mode=SetupMode.ASYNC)
    await old.amset([("k", "old")])
    for _ in range(3):
        assert await old.amget(["k"]) == ["old"]
    GONE[how](folder)
    with pytest.raises(UnknownCollectionError, match="was removed, or moved away"):
        await old.amget(["k"])
    async with AstraDBStore("kv", api_endpoint=url, setup_mode=SetupMode.ASYNC) as new:
        assert await new.amget(["k"]) == [None]
        assert [key async for key in new.ayield_keys()] == []
        await new.amset([("k", "new")])
        assert await old.amget(["k"]) == ["new"]
    await old.aclose()


def test_a_store_sees_what_another_process_put_in_the_place(path: str) -> None:
    store = KVStore("kv", f"sqlite:{path}")
    store.mset([("k", "old")])
    code = "\n".join(
        [
            "import os, sys",
            "from langchain_kv import KVStore",
            "for ending in ('', '-wal', '-shm'):",
            "    os.unlink(sys.argv[1] + ending)",
            "store = KVStore('kv', 'sqlite:' + sys.argv[1])",
            "assert store.mget(['k']) == [None]",
            "store.mset([('k', 'new')])",
            "sys.stdin.read()",
            "store.close()",
        ]
    )
    child = subprocess.Popen([sys.executable, "-W", "error", "-c", code, path], stdin=subprocess.PIPE)
    try:
        while True:  # as long as the other process takes
            try:
                value = store.mget(["k"])
            except StoreError:
                continue
            if value != ["old"]:
                break
        while value == [None]:
            value = store.mget(["k"])
        assert value == ["new"]
        store.mset([("k", "newer")])
    finally:
        child.communicate(b"", timeout=60)
    assert child.returncode == 0
    store.close()
    with KVStore("kv", f"sqlite:{path}") as again:
        assert again.mget(["k"]) == ["newer"]


@pytest.mark.parametrize("kind", ["of the file", "of its folder"])
def test_a_link_that_leads_elsewhere_by_now(kind: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        with KVStore("kv", f"sqlite:{tmp_path}/{version}/kv.db") as store:
            store.mset([("k", version)])
    link = tmp_path / "current"

    def lead_to(version: str) -> str:
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / version / ("kv.db" if kind == "of the file" else ""))
        return f"sqlite:{link if kind == 'of the file' else link / 'kv.db'}"

    url = lead_to("1")
    old = KVStore("kv", url)
    assert old.mget(["k"]) == ["1"]
    lead_to("2")
    for call in (lambda: old.mget(["k"]), lambda: old.mset([("k", "3")]), lambda: list(old.yield_keys())):
        with pytest.raises(EngineError, match="leads elsewhere by now: open a new store"):
            call()
    with KVStore("kv", url) as new:
        assert new.mget(["k"]) == ["2"]
    lead_to("1")
    assert old.mget(["k"]) == ["1"]
    old.close()


# -- looking at a file while others are at work on it -----------------------------------------------------------------


@pytest.mark.parametrize("pages_written", [1, 2, 5])
def test_a_look_beside_a_checkpoint_of_another_process_finds_no_damage(
    pages_written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is written first, and the last page of it moments before the -wal goes: the look sees neither."""
    source, path = str(tmp_path / "source.db"), str(tmp_path / "kv.db")
    with closing(SQLiteEngine(source)) as engine:
        engine.create_collection(KV, {})
    with closing(SQLiteEngine(source)) as engine:
        engine.write(KV, [(f"{number:04}", b"x" * 1_000) for number in range(300)])
        subprocess.run(["cp", source, path], check=True)  # to open it here would drop the locks that SQLite holds
        subprocess.run(["cp", f"{source}-wal", f"{path}-wal"], check=True)
    old, new = Path(path).read_bytes(), Path(source).read_bytes()
    Path(path).write_bytes(new[: pages_written * 8_192] + old[pages_written * 8_192 :])

    look = sqlite_file.recognise
    looks = []

    def look_meanwhile(path: str) -> None:
        os.rename(f"{path}-wal", f"{path}.hidden")
        try:
            look(path)
        finally:
            os.rename(f"{path}.hidden", f"{path}-wal")
        looks.append(path)

    monkeypatch.setattr(sqlite_file, "recognise", look_meanwhile)
    monkeypatch.setattr(sqlite_opening, "recognise", look_meanwhile)
    with closing(SQLiteEngine(path)) as engine:
        assert engine.count(KV) == 300
    assert len(looks) == 2  # without the lock, and under it


def test_what_the_look_without_the_lock_cannot_read_is_looked_at_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(path, b"1")

    def fail(path: str) -> None:
        raise EngineError("as in a moment that passes")

    monkeypatch.setattr(sqlite_opening, "recognise", fail)
    with closing(SQLiteEngine(path)) as engine:
        assert engine.read(KV, ["k"]) == [b"1"]
        engine.write(KV, [("k", b"2")])


def test_a_cut_database_of_another_program_is_refused_untouched(path: str) -> None:
    """Though it looks damaged: an ordinary connection would touch it."""
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE theirs(x)")
        theirs.executemany("INSERT INTO theirs VALUES(?)", [("x" * 1_000,)] * 100)
        theirs.commit()
    os.truncate(path, 20_000)
    before = Path(path).read_bytes()
    with closing(SQLiteEngine(path)) as engine, pytest.raises(EngineFileError, match="another program"):
        engine.keyspaces()
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["kv.db"]


# -- what is remembered -----------------------------------------------------------------------------------------------


def test_what_was_seen_of_a_collection_that_was_undone_is_forgotten(path: str) -> None:
    """Its table's number goes to another collection."""
    make_file(path, b"1")
    first, second = KV._replace(name="first"), KV._replace(name="second")
    with closing(SQLiteEngine(path)) as engine:

        def make_and_fail(key: object, body: bytes | None) -> bytes:
            engine.create_collection(first, {"of": "first"})
            engine.write(first, [("k", b"undone")])
            assert engine.read(first, ["k"]) == [b"undone"]
            assert engine.read_with_settings(first, ["k"]) == ({"of": "first"}, [b"undone"])
            raise KeyError("undone")

        with pytest.raises(KeyError):
            engine.modify(KV, ["k"], make_and_fail)
        engine.create_collection(second, {"of": "second"})
        engine.write(second, [("k", b"second")])
        with pytest.raises(UnknownCollectionError):
            engine.read(first, ["k"])
        with pytest.raises(UnknownCollectionError):
            engine.write(first, [("k", b"lost")])
        assert engine.read_with_settings(second, ["k"]) == ({"of": "second"}, [b"second"])


# -- made durable -----------------------------------------------------------------------------------------------------

MADE: dict[str, Callable[[str], None]] = {
    "a new file": lambda path: make_file(path, b"1"),
    "a backup": lambda path: in_a_file(path, lambda engine: engine.backup(path)),
    "a backup that replaces": lambda path: in_a_file(path, lambda engine: engine.backup(path, replace=True)),
    "a restored file": lambda path: in_a_file(path, lambda engine: engine.restore_to(path)),
}


def in_a_file(path: str, work: Callable[[SQLiteEngine], None]) -> None:
    make_file(f"{path}.source", b"1")
    with closing(SQLiteEngine(f"{path}.source")) as engine:
        work(engine)


@pytest.mark.parametrize("kind", MADE)
def test_the_directory_is_flushed_once_the_file_has_its_name(
    kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a power cut takes the whole file, with all that was acknowledged."""
    folder = os.stat(os.path.dirname(path)).st_ino
    flushed: list[bool] = []
    flush = os.fsync

    def watch(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == folder:
            flushed.append(os.path.exists(path))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    MADE[kind](path)
    assert flushed
    assert flushed[-1]
