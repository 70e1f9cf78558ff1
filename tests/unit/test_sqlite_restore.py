"""A backup put in the place of a database: by ``restore``, and by hand, with what the database left beside it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import backup as sqlite_backup
from langchain_kv.engines.sqlite.connection import Connection, File
from langchain_kv.engines.sqlite.file import closes_safely
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineError, EngineFileError
from langchain_kv.places.files import FilePlace
from langchain_kv.places.schemes import parse_url

KV = CollectionName("default_keyspace", "kv")
KEYS = [f"{number:03}" for number in range(100)]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="an open file cannot be replaced elsewhere")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database in which every key has the value "now", and has a backup, copy.db, in which it has "good"."""
    path = str(tmp_path / "kv.db")
    fill(path, b"good")
    with closing(SQLiteEngine(path)) as engine:
        engine.backup(str(tmp_path / "copy.db"))
    fill(path, b"now")
    return path


def fill(path: str, value: bytes) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.create_collection(KV, {})
        engine.write(KV, [(key, value) for key in KEYS])


def values(path: str) -> set[bytes | None]:
    with closing(SQLiteEngine(path)) as engine:
        return set(engine.read(KV, KEYS))


def restore(copy: str, path: str, **how: bool) -> None:
    with closing(SQLiteEngine(copy)) as backup:
        backup.restore_to(path, **how)


def copy_of(path: str) -> str:
    return str(Path(path).with_name("copy.db"))


def crash(path: str, value: str) -> None:
    """Have a process write to the database and be killed: the -wal stays."""
    code = """
        import os, signal, sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        engine = SQLiteEngine(sys.argv[1])
        rows = [(f"{number:03}", sys.argv[2].encode(), False, None) for number in range(100)]
        engine.write(CollectionName("default_keyspace", "kv"), rows)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path, value], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.path.getsize(f"{path}-wal") > 0


def names(path: str) -> list[str]:
    return sorted(os.listdir(os.path.dirname(path)))


# -- restore ----------------------------------------------------------------------------------------------------------


def test_a_backup_takes_the_place_of_the_database_and_stays(path: str) -> None:
    restore(copy_of(path), path)
    assert values(path) == {b"good"}
    assert values(copy_of(path)) == {b"good"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_what_a_killed_process_left_is_not_mixed_in(path: str) -> None:
    crash(path, "BAD")
    restore(copy_of(path), path)
    assert not os.path.exists(f"{path}-wal")
    assert values(path) == {b"good"}


def test_a_database_that_was_removed_and_left_its_wal_is_restored(path: str) -> None:
    crash(path, "BAD")
    os.unlink(path)
    restore(copy_of(path), path)
    assert values(path) == {b"good"}


def test_a_database_is_restored_where_there_was_none(path: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    restore(path, other)
    assert values(other) == {b"now"}
    assert stat.S_IMODE(os.stat(other).st_mode) == 0o600


def test_a_backup_that_is_in_use_is_copied_with_its_last_changes(path: str) -> None:
    with closing(SQLiteEngine(copy_of(path))) as backup:
        backup.write(KV, [(key, b"better") for key in KEYS])
        assert os.path.getsize(f"{copy_of(path)}-wal") > 0
        restore(copy_of(path), path)
    assert values(path) == {b"better"}


async def test_who_has_the_database_open_goes_on_with_the_backup(path: str) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("later", b"1")])
        for _ in range(3):
            await engine.bridge.read_short(engine.read, KV, ["later"])
        restore(copy_of(path), path)
        assert await engine.bridge.read_short(engine.read, KV, ["later"]) == [None]
        assert set(engine.read(KV, KEYS)) == {b"good"}
        await engine.bridge.write(engine.write, KV, [("after", b"1")])
        assert engine.scan_ids(KV, limit=999) == [*KEYS, "after"]
    assert values(path) == {b"good"}


def test_readers_and_writers_of_other_processes_go_on_through_restores(path: str) -> None:
    """None sees a mixture, none gets an error, and what is written after a restore stays."""
    code = """
        import sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        KV = CollectionName("default_keyspace", "kv")
        keys = [f"{number:03}" for number in range(100)]
        engine = SQLiteEngine(sys.argv[1], synchronous="normal")
        print("begun", flush=True)
        import threading
        done = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
        number = 0
        while not done.is_set():
            number += 1
            engine.write(KV, [(key, b"%d" % number, False, None) for key in keys])
            seen = {row[1] for row in engine.read(KV, keys)}
            assert len(seen) == 1, seen
        engine.write(KV, [(key, b"last", False, None) for key in keys])
        engine.close()
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), path]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
    for _ in range(20):
        restore(copy_of(path), path)
    for child in children:
        _, error = child.communicate("", timeout=60)
        assert (child.returncode, error) == (0, "")
    assert values(path) == {b"last"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_the_copy_belongs_to_who_owned_the_database_and_has_its_mode(path: str) -> None:
    os.chmod(path, 0o660)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(path, 12_345, 54_321)
    restore(copy_of(path), path)
    found = os.stat(path)
    assert stat.S_IMODE(found.st_mode) == 0o660
    if is_root:
        assert (found.st_uid, found.st_gid) == (12_345, 54_321)


def damaged(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[3 * 8_192 : 4 * 8_192] = b"\xee" * 8_192
    Path(path).write_bytes(content)


def of_another_program(path: str) -> None:
    os.unlink(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs(x)")


BAD: dict[str, tuple[Callable[[str], object], str]] = {
    "missing": (os.unlink, "There is no backup at"),
    "damaged": (damaged, "damaged"),
    "cut": (lambda path: os.truncate(path, 20_000), "damaged"),
    "empty": (lambda path: os.truncate(path, 0), "There is no backup"),
    "of another program": (of_another_program, "another program"),
    "text": (lambda path: Path(path).write_text("my notes\n" * 2_000), "not an SQLite file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_sound_backup_changes_nothing(kind: str, path: str) -> None:
    spoil, message = BAD[kind]
    spoil(copy_of(path))
    crash(path, "later")
    before = {name: Path(path + name).read_bytes() for name in ("", "-wal")}
    with pytest.raises(EngineError, match=message):
        restore(copy_of(path), path)
    assert {name: Path(path + name).read_bytes() for name in ("", "-wal")} == before
    assert not [name for name in names(path) if ".new-" in name]
    assert values(path) == {b"later"}


def test_the_database_itself_is_no_backup_of_it(path: str, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    for source, target in ((path, path), (str(tmp_path / "link.db"), path), (path, str(tmp_path / "link.db"))):
        with pytest.raises(EngineFileError, match="is the database itself"):
            restore(source, target)
    assert values(path) == {b"now"}


def test_a_link_is_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    restore(copy_of(path), str(tmp_path / "link.db"))
    assert (tmp_path / "link.db").is_symlink()
    assert values(path) == {b"good"}


def text(path: str) -> None:
    Path(path).write_text("my notes\n" * 2_000)


def newer(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize("make", [text, of_another_program, newer])
def test_what_may_be_somebody_elses_is_replaced_only_on_demand(make: Callable[[str], None], path: str) -> None:
    make(path)
    before = Path(path).read_bytes()
    with pytest.raises(EngineFileError, match="say to replace it"):
        restore(copy_of(path), path)
    assert Path(path).read_bytes() == before
    assert not [name for name in names(path) if ".new-" in name]
    restore(copy_of(path), path, replace=True)
    assert values(path) == {b"good"}


@pytest.mark.parametrize("spoil", [damaged, lambda path: os.truncate(path, 20_000)])
def test_a_damaged_database_is_replaced(spoil: Callable[[str], None], path: str) -> None:
    spoil(path)
    restore(copy_of(path), path)
    assert values(path) == {b"good"}


def test_a_directory_is_never_replaced(path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EngineFileError, match="not a regular file"):
        restore(path, str(tmp_path / "folder"), replace=True)


def test_nobody_writes_or_opens_while_the_place_is_taken(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    take = sqlite_backup._take_place

    def watch(temporary: str, path: str, lock: FileLock) -> None:
        with pytest.raises(EngineError, match="Another process held"):
            FileLock(f"{path}.lock", wait_s=0).acquire()
        taken.append(path)
        take(temporary, path, lock)

    monkeypatch.setattr(sqlite_backup, "_take_place", watch)
    restore(copy_of(path), path)
    assert taken == [os.path.realpath(path)]


@pytest.mark.parametrize("note", ["a note", "no note"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_restore_that_is_killed_leaves_the_old_or_asks_to_be_repeated(moment: str, note: str, path: str) -> None:
    crash(path, "last")
    if note == "no note":
        Path(f"{path}.lock").unlink(missing_ok=True)
    code = """
        import os, signal, sys
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        copy, path, moment = sys.argv[1:]
        replace = os.replace
        def end(source, target):
            if moment == "after":
                replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        os.replace = end
        SQLiteEngine(copy).restore_to(path)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), copy_of(path), path, moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if moment == "before":
        assert values(path) == {b"last"}
        return
    with pytest.raises(EngineFileError, match="lckv restore FILE"):
        values(path)
    restore(copy_of(path), path)
    assert values(path) == {b"good"}


# -- by hand ----------------------------------------------------------------------------------------------------------


def moved(copy: str, path: str) -> None:
    os.replace(copy, path)


def copied(copy: str, path: str) -> None:
    """As ``cp`` does: the file stays the same one, with another content."""
    Path(path).write_bytes(Path(copy).read_bytes())


@pytest.mark.parametrize("put", [moved, copied])
def test_a_backup_put_beside_the_wal_of_another_is_refused_until_it_is_restored(
    put: Callable[[str, str], None], path: str
) -> None:
    crash(path, "BAD")
    put(copy_of(path), path)
    before = {name: Path(path + name).read_bytes() for name in ("", "-wal")}
    for _ in range(2):
        with pytest.raises(EngineFileError, match="was put in the place of another database") as caught:
            values(path)
    assert {name: Path(path + name).read_bytes() for name in ("", "-wal")} == before
    # The advice, followed.
    os.rename(path, f"{path}.aside")
    command, verb, file, url = shlex.split(str(caught.value).partition("put it in place: ")[2])
    assert (command, verb, file) == ("lckv", "restore", "FILE")
    place = parse_url(url)
    assert isinstance(place, FilePlace)
    restore(f"{path}.aside", place.path)
    assert values(path) == {b"good"}


def test_a_backup_moved_over_a_database_in_use_is_refused_to_all(path: str) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [(key, b"BAD") for key in KEYS])
        moved(copy_of(path), path)
        for _ in range(2):
            with pytest.raises(EngineFileError, match="was put in the place of another database"):
                engine.read(KV, KEYS)
            with pytest.raises(EngineFileError, match="was put in the place of another database"):
                engine.write(KV, [("a", b"1")])
            with pytest.raises(EngineFileError, match="was put in the place of another database"):
                values(path)
        os.rename(path, f"{path}.aside")
        restore(f"{path}.aside", path)
        assert set(engine.read(KV, KEYS)) == {b"good"}
    assert values(path) == {b"good"}


def test_the_index_of_another_wal_is_not_taken_for_the_new_ones(path: str) -> None:
    """Where only the -wal was removed: the -shm of a process that is still there says what was in it."""
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [(key, b"BAD") for key in KEYS])
        moved(copy_of(path), path)
        os.unlink(f"{path}-wal")
        fill(path, b"new")
        assert set(engine.read(KV, KEYS)) == {b"new"}
    assert values(path) == {b"new"}


def test_a_new_database_does_not_take_the_index_of_a_removed_one(path: str) -> None:
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [(key, b"BAD") for key in KEYS])
        os.unlink(path)
        os.unlink(f"{path}-wal")
        fill(path, b"new")
        assert set(engine.read(KV, KEYS)) == {b"new"}
    assert values(path) == {b"new"}


def test_a_backup_put_in_the_place_of_a_closed_database_opens(path: str) -> None:
    moved(copy_of(path), path)
    assert values(path) == {b"good"}
    crash(path, "later")
    assert values(path) == {b"later"}


def test_a_database_copied_with_all_that_it_has_beside_it_opens(path: str, tmp_path: Path) -> None:
    """Whole folders are copied, or brought back, as they were at the moment of a crash."""
    crash(path, "last")
    folder = tmp_path / "saved"
    folder.mkdir()
    for ending in ("", "-wal", ".lock"):
        shutil.copy(path + ending, folder)
    crash(path, "later")
    for ending in ("", "-wal", ".lock"):
        shutil.copy(folder / f"kv.db{ending}", path + ending)
    assert values(path) == {b"last"}
    assert values(str(folder / "kv.db")) == {b"last"}


def test_what_a_killed_process_left_is_replayed(path: str) -> None:
    crash(path, "last")
    assert values(path) == {b"last"}


@pytest.mark.parametrize("note", ["", "short", "removed"])
def test_without_a_note_in_the_lock_file_a_wal_is_taken_as_it_was_before(note: str, path: str) -> None:
    crash(path, "last")
    if note == "removed":
        Path(f"{path}.lock").unlink(missing_ok=True)
    else:
        Path(f"{path}.lock").write_text(note)
    assert values(path) == {b"last"}


def without_a_mark(path: str) -> None:
    """Make it a file as it was before there were marks."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE file_mark")
    Path(f"{path}.lock").unlink(missing_ok=True)


def test_a_file_of_before_is_told_from_its_backup_too(path: str) -> None:
    without_a_mark(path)
    assert values(path) == {b"now"}
    with closing(SQLiteEngine(path)) as engine:
        engine.backup(f"{path}.second")
    crash(path, "BAD")
    moved(f"{path}.second", path)
    with pytest.raises(EngineFileError, match="was put in the place of another database"):
        values(path)


def test_a_file_of_before_replays_what_a_killed_process_left(path: str) -> None:
    without_a_mark(path)
    crash(path, "last")
    assert values(path) == {b"last"}
    crash(path, "later")
    assert values(path) == {b"later"}


def test_the_note_is_flushed_before_anything_is_written_to_a_new_wal(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut an older note would call the database's own -wal another's."""
    moved(copy_of(path), path)
    Path(f"{path}.lock").write_text("0" * 32)  # as a process that was killed leaves it
    lock = os.stat(f"{path}.lock").st_ino
    flushed: list[tuple[str, int]] = []
    flush = os.fsync

    def watch(descriptor: int) -> None:
        flush(descriptor)
        if os.fstat(descriptor).st_ino == lock:
            flushed.append((Path(f"{path}.lock").read_text(), os.path.getsize(f"{path}-wal")))

    monkeypatch.setattr(os, "fsync", watch)
    before = Path(f"{path}.lock").read_text()
    with closing(SQLiteEngine(path)) as engine:
        engine.write(KV, [("a", b"1")])
    ((note, written),) = flushed
    assert (len(note), note != before, written) == (32, True, 0)


@pytest.mark.parametrize(
    ("found", "closes"),
    [((1, 5), True), (None, True), ((1, 6), True), ((2, 6), True), ((2, 5), False)],
    ids=["the same", "none", "another", "another on another disk", "another that has its number on another disk"],
)
def test_a_connection_is_closed_where_sqlite_spares_the_wal_of_a_file_that_took_the_name(
    found: tuple[int, int] | None, closes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    with closing(Connection([], str(tmp_path / "kv.db"), "rwc")) as connection:
        connection.file = File((1, 5))
        assert closes_safely(connection, found) is closes
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 39, 0))  # not measured
        assert closes_safely(connection, found) is (found == (1, 5))


async def test_many_at_once_open_a_file_for_the_first_time(path: str) -> None:
    Path(f"{path}.lock").unlink(missing_ok=True)
    found = await asyncio.gather(*(asyncio.to_thread(values, path) for _ in range(8)))
    assert found == [{b"now"}] * 8
