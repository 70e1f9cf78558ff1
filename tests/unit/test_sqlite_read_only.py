"""A file that is only read: because the URL says so, or because this user may do no more. Nothing is made beside it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv import (
    EngineError,
    EngineFileError,
    KVByteStore,
    KVStore,
    SetupMode,
    UnknownCollectionError,
    UnsupportedError,
)
from langchain_kv.cli.main import run
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.read_only import ReadOnlyPool
from langchain_kv.errors import EngineBusyError
from old_files import OLD

KV = CollectionName("default_keyspace", "kv")
NOBODY = 65534
VALUES = {f"{number:04}": "x" * number for number in range(1_200)}

as_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may go into, as pytest's own may not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def path(folder: Path) -> str:
    path = str(folder / "kv.db")
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset(list(VALUES.items()))
    os.chmod(path, 0o644)
    return path


def snapshot(path: str) -> dict[str, tuple[bytes, int, int]]:
    folder = Path(path).parent
    return {
        found.name: (found.read_bytes(), found.stat().st_mode, found.stat().st_mtime_ns) for found in folder.iterdir()
    }


def expect_refused(call: Any, says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught:
        call()
    assert (caught.value.applied, caught.value.retryable) == (False, False)


# -- by wish ----------------------------------------------------------------------------------------------------------


def test_everything_is_read_and_nothing_made(path: str, face: Any) -> None:
    before = snapshot(path)
    with KVStore("kv", f"sqlite:{path}?mode=ro") as store:
        opened = face(store)
        assert opened.mget(["0003", "none", "0007"]) == ["xxx", None, "xxxxxxx"]
        assert opened.mget(list(VALUES)) == list(VALUES.values())
        assert dict(opened.items()) == VALUES
        assert len(opened.keys("001")) == 10
        assert snapshot(path) == before
    assert snapshot(path) == before


@pytest.mark.parametrize("mode", ["SYNC", "ASYNC", "OFF"])
def test_writes_are_refused_whatever_the_setup(mode: str, path: str, face: Any) -> None:
    before = snapshot(path)
    with KVStore("kv", f"sqlite:{path}?mode=ro", setup_mode=SetupMode[mode]) as store:
        opened = face(store)
        assert opened.mget(["0001"]) == ["x"]
        for pairs in ([("a", 1)], [("a", 1), ("b", 2)]):
            expect_refused(lambda pairs=pairs: opened.mset(pairs), "can only be read: .*mode=ro; leave that out")
            expect_refused(lambda pairs=pairs: opened.mdelete([key for key, _ in pairs]), "can only be read")
    assert snapshot(path) == before


def test_what_is_only_read_is_not_refreshed_by_reading(path: str, face: Any) -> None:
    with KVStore("kv", f"sqlite:{path}", ttl_s=10) as store:
        store.mset([("a", 1)])
    with pytest.raises(UnsupportedError, match=r"refresh_on_read needs .* file that is only read"):
        KVStore("kv", f"sqlite:{path}?mode=ro", ttl_s=100, refresh_on_read=True)
    with KVStore("kv", f"sqlite:{path}?mode=ro", ttl_s=100) as reader:
        assert face(reader).mget(["a"]) == [1]
        expect_refused(lambda: face(reader).update("a", lambda old: 2), "can only be read")


def test_a_collection_or_a_file_that_is_missing_is_not_made(path: str, folder: Path) -> None:
    expect_refused(lambda: KVStore("other", f"sqlite:{path}?mode=ro"), "can only be read")
    expect_refused(lambda: KVStore("kv", f"sqlite:{path}?mode=ro", pre_delete_collection=True), "can only be read")
    expect_refused(lambda: KVStore("kv", f"sqlite:{folder}/missing.db?mode=ro"), r"missing\.db can only be read")
    with KVStore("kv", f"sqlite:{folder}/missing.db?mode=ro", setup_mode=SetupMode.OFF) as store:
        with pytest.raises(UnknownCollectionError):
            store.mget(["a"])
    assert os.listdir(folder) == ["kv.db"]


def test_what_is_not_ours_is_refused_for_reading_too(folder: Path) -> None:
    (folder / "notes.db").write_text("my notes\n" * 1_000)
    with closing(sqlite3.connect(folder / "theirs.db")) as connection:
        connection.execute("CREATE TABLE theirs(x)")
    for name in ("notes.db", "theirs.db"):
        with closing(SQLiteEngine(str(folder / name), read_only=True)) as engine, pytest.raises(EngineFileError):
            engine.keyspaces()
    assert sorted(os.listdir(folder)) == ["notes.db", "theirs.db"]


def test_mode_rw_is_the_default(path: str) -> None:
    with KVStore("kv", f"sqlite:{path}?mode=rw&synchronous=normal") as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]


def test_a_backup_of_it_is_whole(path: str, folder: Path) -> None:
    copy = str(folder / "copy.db")
    assert run(["backup", f"sqlite:{path}?mode=ro", copy]) == 0
    with KVStore("kv", f"sqlite:{copy}") as store:
        assert dict(store.yield_items()) == VALUES


# -- while others write -----------------------------------------------------------------------------------------------


def test_what_another_stores_is_seen_at_once(path: str, face: Any) -> None:
    with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        seen = face(reader)
        assert seen.mget(["a"]) == [None]
        for number in range(3):
            with KVStore("kv", f"sqlite:{path}") as writer:
                writer.mset([("a", number)])
                assert seen.mget(["a"]) == [number]  # from the -wal
                writer.mset([("a", -number)])
                assert seen.mget(["a"]) == [-number]
            assert seen.mget(["a"]) == [-number]  # from the file


def test_a_file_that_is_replaced_is_read_anew(path: str, folder: Path, face: Any) -> None:
    with KVStore("kv", f"sqlite:{folder}/new.db") as store:
        store.mset([("a", "new")])
    with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        seen = face(reader)
        assert seen.mget(["a"]) == [None]
        os.replace(folder / "new.db", path)
        assert seen.mget(["a"]) == ["new"]


def test_a_file_that_is_written_over_is_read_anew(path: str, folder: Path, face: Any) -> None:
    """As ``cp`` does: it stays the same file, and the tables in it are others."""
    with KVStore("first", f"sqlite:{folder}/new.db") as first, KVStore("kv", f"sqlite:{folder}/new.db") as store:
        first.mset([("0001", "of another collection")])
        store.mset([("0001", "new")])
    with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        seen = face(reader)
        assert seen.mget(["0001"]) == ["x"]
        Path(path).write_bytes((folder / "new.db").read_bytes())
        assert seen.mget(["0001"]) == ["new"]
        assert seen.keys() == ["0001"]


def test_an_old_file_that_is_written_over_a_new_one_is_read_as_what_it_is(path: str, folder: Path, face: Any) -> None:
    old = OLD.read_bytes()
    shutil.copy(OLD, folder / "new.db")
    with KVStore("json", f"sqlite:{folder}/new.db") as store:
        store.mset([("number", 2)])  # which upgrades it
    with KVStore("json", f"sqlite:{folder}/new.db?mode=ro") as reader:
        seen = face(reader)
        for content, found in ((None, 2), (old, 1.5), ((folder / "new.db").read_bytes(), 2), (old, 1.5)):
            if content is not None:
                (folder / "new.db").write_bytes(content)
            assert seen.mget(["number", "big"]) == [found, 2**70]
            assert dict(seen.items())["number"] == found


@pytest.mark.parametrize("still_open", [True, False])
def test_an_old_file_is_read_and_not_upgraded(still_open: bool, folder: Path, face: Any) -> None:
    path = str(shutil.copy(OLD, folder / "old.db"))
    with KVStore("json", f"sqlite:{path}") as store:
        if still_open:
            assert store.mget(["number"]) == [1.5]
        before = snapshot(path)
        with (
            KVStore("json", f"sqlite:{path}?mode=ro") as values,
            KVByteStore("bytes", f"sqlite:{path}?mode=ro") as raw,
        ):
            assert face(values).mget(["number", "big", "absent"]) == [1.5, 2**70, None]
            assert face(raw).mget(["empty", "brace", "zero", "plain"]) == [b"", b"{not json", b"\0\0", b"hello"]
            assert dict(face(values).items())["number"] == 1.5
            assert len(face(values).keys()) == 21
            expect_refused(lambda: face(values).mset([("a", 1)]), "can only be read")
            assert snapshot(path) == before
            store.mset([("number", 2)])
            assert face(values).mget(["number", "big"]) == [2, 2**70]
            assert face(raw).mget(["empty", "brace"]) == [b"", b"{not json"]


def test_a_read_during_which_the_file_changes_is_done_again(path: str) -> None:
    with closing(SQLiteEngine(path, read_only=True)) as engine:
        calls: list[bytes | None] = []

        def query(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute("SELECT content FROM docs_1 WHERE id='0001'").fetchone()
            if not calls:
                with closing(SQLiteEngine(path)) as other:
                    other.write(KV, [("0001", b"new")])
            calls.append(row[0])
            return calls[-1]

        assert engine._pool.read(query) == b"new"
        assert calls == [b'{"_id":"0001","value":"x"}', b"new"]


def test_a_file_that_changes_with_every_read_is_busy_in_the_end(path: str) -> None:
    numbers = itertools.count()

    def query(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT 1 FROM docs_1").fetchone()
        with closing(SQLiteEngine(path)) as other:
            other.write(KV, [("0001", b"%d" % next(numbers))])  # a write of what is there already changes no file

    with closing(SQLiteEngine(path, read_only=True, wait_s=0.01)) as engine:
        with pytest.raises(EngineBusyError, match="was changed by another process while it was read"):
            engine._pool.read(query)


def test_a_backup_during_which_the_file_changes_is_not_kept(path: str, folder: Path, monkeypatch: Any) -> None:
    from langchain_kv.engines.sqlite import backup as sqlite_backup

    original, copies = sqlite_backup._require_whole, []

    def changing(copy: sqlite3.Connection, source: str) -> None:
        original(copy, source)
        copies.append(copy.execute("SELECT content FROM docs_1 WHERE id='0001'").fetchone()[0])
        if len(copies) == 1:
            with closing(SQLiteEngine(path)) as other:
                other.write(KV, [("0001", b"new")])

    monkeypatch.setattr(sqlite_backup, "_require_whole", changing)
    with closing(SQLiteEngine(path, read_only=True)) as engine:
        engine.backup(str(folder / "copy.db"))
    with closing(SQLiteEngine(str(folder / "copy.db"))) as engine:
        assert engine.read(KV, ["0001"]) == [b"new"]
    assert len(copies) == 2


@pytest.mark.slow
def test_readers_of_a_file_that_is_opened_written_and_closed_see_whole_batches_and_no_damage(path: str) -> None:
    code = """
        import sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        KV = CollectionName("default_keyspace", "kv")
        for number in range(150):
            engine = SQLiteEngine(sys.argv[1], synchronous="normal")
            engine.write(KV, [(f"{key:04}", b"%d" % number * 300, False, None) for key in range(1200)])
            engine.close()
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), path])
    failures: list[Any] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        keys = list(VALUES)
        with closing(SQLiteEngine(path, read_only=True)) as engine:
            while writer.poll() is None:
                try:
                    bodies = [body[:9] for body in engine.read(KV, keys) if body]
                    if len(bodies) != len(keys) or (len(set(bodies)) != 1 and bodies[0][:1] != b"{"):
                        failures.append(set(bodies))
                    reads += 1
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (writer.wait(), failures) == (0, [])
    assert reads > 0


# -- because this user may do no more ---------------------------------------------------------------------------------

PRELUDE = f"""
import asyncio, contextlib, encodings.idna, encodings.utf_8_sig, io, os, sys, tempfile
from langchain_kv import *
from langchain_kv.cli.main import run
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.engine import SQLiteEngine
path = sys.argv[1]
KV = CollectionName("default_keyspace", "kv")
with tempfile.TemporaryDirectory() as other:  # so that all modules are loaded
    with KVStore("kv", f"sqlite:{{other}}/kv.db") as store:
        store.mset([("a", 1)])
        asyncio.run(store.amget(["a"]))
        run(["get", "a", "--db", f"sqlite:{{other}}/kv.db", "--collection", "kv"])
        sys.stdout.flush()
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
def refused(call):
    try:
        call()
    except StoreError as error:
        return str(error)
    raise AssertionError("not refused")
"""


def run_as_nobody(code: str, path: str) -> str:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


READ_AND_REFUSE = """
    for mode in SetupMode:
        with KVStore("kv", f"sqlite:{path}", setup_mode=mode) as store:
            assert store.mget(["0003", "none"]) == ["xxx", None]
            assert asyncio.run(store.amget(["0003", "none"])) == ["xxx", None]
            assert len(list(store.yield_keys())) == 1200
            message = refused(lambda: store.mset([("a", 1)]))
            assert "can only be read: this user may not write " in message, message
            assert "can only be read" in refused(lambda: asyncio.run(store.amset([("a", 1), ("b", 2)])))
            assert "can only be read" in refused(lambda: store.mdelete(["0003"]))
    db = ["--db", f"sqlite:{path}", "--collection", "kv"]
    assert run(["get", "0003", *db]) == 0
    assert run(["keys", "--prefix", "000", *db]) == 0
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert run(["set", "a", "1", *db]) != 0
    assert "can only be read" in said.getvalue()
    with tempfile.TemporaryDirectory() as other:
        assert run(["backup", f"sqlite:{path}", f"{other}/copy.db"]) == 0
        with KVStore("kv", f"sqlite:{other}/copy.db") as copy:
            assert len(list(copy.yield_keys())) == 1200
"""


@as_root
@pytest.mark.parametrize(
    ("of_folder", "of_file"), [(0o555, 0o444), (0o755, 0o444), (0o755, 0o644), (0o755, 0o666), (0o777, 0o444)], ids=oct
)
def test_what_may_only_be_read_is_read_and_left_as_it_is(of_folder: int, of_file: int, path: str, folder: Path) -> None:
    os.chmod(path, of_file)
    before = snapshot(path)
    folder.chmod(of_folder)
    out = run_as_nobody(READ_AND_REFUSE, path).split()
    assert out[1:3] == ['"xxx"', "0000"]
    folder.chmod(0o755)
    assert snapshot(path) == before


@as_root
def test_a_new_database_where_nothing_may_be_written_is_refused(path: str, folder: Path) -> None:
    code = """
        message = refused(lambda: KVStore("kv", f"sqlite:{path}.new"))
        assert "can only be read: this user may not write " + os.path.dirname(path) in message, message
    """
    run_as_nobody(code, path)
    assert os.listdir(folder) == ["kv.db"]


LIVE = """
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["live"]) == [("live", b"1", False, None)], engine.read(KV, ["live"])
    assert asyncio.run(engine.bridge.read_short(engine.read, KV, ["live"])) == [("live", b"1", False, None)]
    assert len(engine.scan_ids(KV, limit=9999)) == 1201
    engine.close()
"""


@as_root
@pytest.mark.parametrize("still_open", [True, False])
def test_the_last_changes_of_another_are_read_while_it_is_open_and_after_it_was_killed(
    still_open: bool, path: str, folder: Path
) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("live", b"1")])
        for name in ("-wal", "-shm"):
            os.chmod(path + name, 0o644)
        if still_open:
            run_as_nobody(LIVE, path)
            return
        killed = folder / "killed"  # what a kill leaves
        killed.mkdir(mode=0o755)
        for name in ("", "-wal", "-shm"):
            shutil.copy(path + name, killed)
    before = snapshot(str(killed / "kv.db"))
    run_as_nobody(LIVE, str(killed / "kv.db"))
    assert snapshot(str(killed / "kv.db")) == before


@as_root
def test_changes_that_cannot_be_read_are_an_error_and_not_left_out(path: str, folder: Path) -> None:
    killed = folder / "killed"
    killed.mkdir(mode=0o755)
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("live", b"1")])
        os.chmod(f"{path}-wal", 0o644)
        for name in ("", "-wal"):
            shutil.copy(path + name, killed)
    code = """
        message = refused(lambda: SQLiteEngine(path).read(KV, ["0001"]))
        assert "last changes stand in" in message and "Open the database once where it may be written" in message
    """
    run_as_nobody(code, str(killed / "kv.db"))
    assert sorted(os.listdir(killed)) == ["kv.db", "kv.db-wal"]
    with closing(SQLiteEngine(str(killed / "kv.db"))) as engine:  # the advice
        assert engine.read(KV, ["live"]) == [b"1"]
    assert os.listdir(killed) == ["kv.db"]
    run_as_nobody(LIVE, str(killed / "kv.db"))


@as_root
def test_a_read_only_mount_is_read(path: str, folder: Path) -> None:
    mounted = folder / "mounted"
    mounted.mkdir()
    os.rename(path, mounted / "kv.db")
    bound = subprocess.run(["mount", "--bind", mounted, mounted], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mounted, mounted], check=True)
        with KVStore("kv", f"sqlite:{mounted}/kv.db") as store:
            assert store.mget(["0003"]) == ["xxx"]
            expect_refused(lambda: store.mset([("a", 1)]), "can only be read: this user may not write")
        assert os.listdir(mounted) == ["kv.db"]
    finally:
        subprocess.run(["umount", mounted], check=True)


# -- life -------------------------------------------------------------------------------------------------------------


def test_many_threads_and_coroutines_read_while_the_file_changes(path: str) -> None:
    with closing(SQLiteEngine(path, read_only=True)) as engine:
        done = threading.Event()
        failures: list[BaseException] = []

        async def read_short() -> None:
            while not done.is_set():
                await engine.bridge.read_short(engine.read, KV, ["0001"])
                await asyncio.sleep(0)

        def read() -> None:
            try:
                while not done.is_set():
                    assert engine.count(KV) >= 1_200
            except BaseException as error:
                failures.append(error)

        def run() -> None:
            try:
                asyncio.run(read_short())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=target) for target in (read, read, run)]
        for thread in threads:
            thread.start()
        for number in range(20):
            with closing(SQLiteEngine(path, synchronous="normal")) as writer:
                writer.write(KV, [(f"new {number}", b"1")])
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert isinstance(engine._pool, ReadOnlyPool)
        assert len(engine._pool._open) <= 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_both_sides_of_a_fork_read_on(path: str) -> None:
    code = """
        import os, sys, warnings
        from langchain_kv import KVStore
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        store = KVStore("kv", f"sqlite:{sys.argv[1]}?mode=ro")
        assert store.mget(["0001"]) == ["x"]
        pid = os.fork()
        assert store.mget(["0002"]) == ["xx"]
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
    """
    before = snapshot(path)
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(path) == before


def test_a_byte_store_and_the_server_read_it(path: str) -> None:
    from langchain_kv.server.http.running import run_in_thread

    with KVByteStore("bytes", f"sqlite:{path}") as store:
        store.mset([("a", b"\xff")])
    before = snapshot(path)
    with KVByteStore("bytes", f"sqlite:{path}?mode=ro") as store:
        assert store.mget(["a"]) == [b"\xff"]
    with closing(SQLiteEngine(path, read_only=True)) as engine:
        engine.create_keyspace("default_keyspace")  # as `lckv serve` does
        with run_in_thread(engine.rows, "token") as url, KVStore("kv", url, token="token") as client:
            assert client.mget(["0003"]) == ["xxx"]
            with pytest.raises(Exception, match="can only be read"):
                client.mset([("a", 1)])
    assert snapshot(path) == before
