"""Full disks, permissions, damaged and foreign files: what is said, what is stored, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.errors import EngineError, EngineFileError

KV = CollectionName("default_keyspace", "kv")
PAGE = 8192
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX permissions and limits")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


def filled(path: str, count: int = 500, size: int = 1_000) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [(f"{number:04}", b"%04d" % number * (size // 4)) for number in range(count)])
    engine.close()


def names(folder: str | Path) -> list[str]:
    return sorted(os.listdir(folder))


def end(script: str, *arguments: str) -> str:
    """Run a child that must succeed in silence; return what it printed."""
    prelude = """
        import os, resource, signal, sys
        from langchain_kv.engines.base import CollectionName
        from langchain_kv.engines.sqlite.engine import SQLiteEngine
        from langchain_kv.errors import *
        KV = CollectionName("default_keyspace", "kv")
        path = sys.argv[1]
        def refused(call):
            try:
                call()
            except EngineError as error:
                return error
            raise AssertionError("not refused")
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(script)
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- refused, untouched -----------------------------------------------------------------------------------------------


def foreign_database(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs(x)")


def newer_database(path: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


def truncated(path: str, length: int) -> None:
    filled(path)
    os.truncate(path, length)


FILES = {
    "text": lambda path: Path(path).write_text("my notes\n" * 2_000),
    "zeros": lambda path: Path(path).write_bytes(bytes(3 * PAGE)),
    "another program's database": foreign_database,
    "a newer version's database": newer_database,
    "cut within the header": lambda path: truncated(path, 60),
    "cut within the first page": lambda path: truncated(path, 5_000),
    "cut after the first page": lambda path: truncated(path, PAGE),
    "cut in the middle": lambda path: truncated(path, 20 * PAGE + 100),
    "cut after a few pages": lambda path: truncated(path, PAGE * 3),
}


DAMAGED = {"cut within the first page", "cut after the first page", "cut in the middle", "cut after a few pages"}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_whole_database_of_ours_is_refused_untouched_and_nothing_is_left_beside_it(
    kind: str, path: str
) -> None:
    FILES[kind](path)
    before = Path(path).read_bytes(), os.stat(path).st_mtime_ns
    engine = SQLiteEngine(path)
    for call in (
        lambda: engine.create_collection(KV, {}),
        lambda: engine.read(KV, ["0001"]),
        lambda: engine.write(KV, [("a", b"1")]),
        engine.keyspaces,
        lambda: engine.backup(f"{path}.copy"),
    ):
        with pytest.raises(EngineError, match=r"kv\.db") as caught:
            call()
        assert caught.value.applied is False
    engine.close()
    assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == before
    # Only the lock tells damage from what others do to the file at this moment.
    may_be_there = {"kv.db.lock"} if kind in DAMAGED else set()
    assert set(names(os.path.dirname(path))) - may_be_there == {"kv.db"}


def test_a_directory_is_refused_and_nothing_is_left_beside_it(path: str) -> None:
    os.mkdir(path)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match="not a regular file"):
        engine.create_collection(KV, {})
    engine.close()
    assert names(os.path.dirname(path)) == ["kv.db"]
    assert names(path) == []


def test_a_fifo_is_refused_without_waiting_for_its_other_end(path: str) -> None:
    os.mkfifo(path)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineFileError, match="not a regular file"):
        engine.keyspaces()
    engine.close()
    assert names(os.path.dirname(path)) == ["kv.db"]


def test_a_device_is_refused_and_nothing_is_left_beside_it() -> None:
    before = names("/dev")
    engine = SQLiteEngine("/dev/null")
    with pytest.raises(EngineFileError, match="not a regular file"):
        engine.create_collection(KV, {})
    engine.close()
    assert [name for name in names("/dev") if name not in before] == []
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


# -- cut off in the middle of a checkpoint ----------------------------------------------------------------------------


def cut_off_checkpoint(folder: Path, pages_written: int) -> str:
    """Return a file as a kill in the middle of a checkpoint leaves it: some pages written, the -wal whole."""
    source, path = str(folder / "source.db"), str(folder / "kv.db")
    engine = SQLiteEngine(source)
    engine.create_collection(KV, {})
    engine.close()
    engine = SQLiteEngine(source)
    engine.write(KV, [(f"{number:04}", b"x" * 1_000) for number in range(300)])
    # Copied by another process: to open the file in this one would drop the locks that SQLite holds here.
    subprocess.run(["cp", source, path], check=True)
    subprocess.run(["cp", f"{source}-wal", f"{path}-wal"], check=True)
    engine.close()
    old, new = Path(path).read_bytes(), Path(source).read_bytes()
    written = pages_written * PAGE
    Path(path).write_bytes(new[:written] + old[written:])
    assert len(new) > len(old)
    return path


@pytest.mark.parametrize("pages_written", [0, 1, 2, 5, 30])
def test_a_database_whose_checkpoint_was_cut_off_opens_whole(pages_written: int, tmp_path: Path) -> None:
    """SQLite writes the header first: until the rest follows, the file is shorter than it says."""
    engine = SQLiteEngine(cut_off_checkpoint(tmp_path, pages_written))
    assert engine.count(KV) == 300
    assert engine.read(KV, ["0000", "0299"]) == [b"x" * 1_000] * 2
    engine.write(KV, [("a", b"1")])
    engine.close()


# -- damaged in the middle --------------------------------------------------------------------------------------------


def answers(engine: SQLiteEngine, keys: list[str]) -> tuple[dict[str, bytes | None], dict[str, EngineError]]:
    found: dict[str, bytes | None] = {}
    failed: dict[str, EngineError] = {}
    for key in keys:
        try:
            (found[key],) = engine.read(KV, [key])
        except EngineError as error:
            failed[key] = error
    return found, failed


@pytest.mark.slow
@pytest.mark.parametrize("filling", [b"\xee", b"\0", b"\xff"])
def test_whichever_page_is_damaged_every_key_is_answered_right_or_named(filling: bytes, path: str) -> None:
    filled(path, 200)
    original = Path(path).read_bytes()
    keys = [f"{number:04}" for number in range(200)]
    answered, named = 0, 0
    for page in range(1, len(original) // PAGE):
        Path(path).write_bytes(original[: page * PAGE] + filling * PAGE + original[(page + 1) * PAGE :])
        engine = SQLiteEngine(path)
        found, failed = answers(engine, keys)
        engine.close()
        assert all(body == key.encode() * 250 for key, body in found.items()), f"page {page}"
        for error in failed.values():
            assert "restore" in str(error)
        answered, named = answered + len(found), named + len(failed)
    assert answered > 4 * named > 0  # most pages hold a few values: the other keys are answered


def test_an_error_of_a_batch_names_the_keys_that_cannot_be_read(path: str) -> None:
    filled(path, 200)
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // PAGE // 2 * PAGE
    content[middle : middle + PAGE] = b"\xee" * PAGE
    Path(path).write_bytes(content)
    engine = SQLiteEngine(path)
    keys = [f"{number:04}" for number in range(200)]
    found, failed = answers(engine, keys)
    assert 0 < len(failed) <= 12
    with pytest.raises(EngineError) as caught:
        engine.read(KV, keys)
    for key in list(failed)[:5]:
        assert repr(key) in str(caught.value)
    assert ("more" in str(caught.value)) == (len(failed) > 5)
    assert "restore a backup, lckv restore FILE sqlite:/" in str(caught.value)
    assert engine.read(KV, list(found)) == list(found.values())
    assert engine.scan_ids(KV, limit=999) == keys  # the keys stand on other pages than the values
    with pytest.raises(EngineError, match="restore"):
        engine.scan(KV, limit=999)
    engine.close()


def test_a_damaged_database_is_not_backed_up_as_if_it_were_whole(path: str, tmp_path: Path) -> None:
    filled(path, 200)
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // PAGE // 2 * PAGE
    content[middle : middle + PAGE] = b"\xee" * PAGE
    Path(path).write_bytes(content)
    engine = SQLiteEngine(path)
    with pytest.raises(EngineError, match="is damaged"):
        engine.backup(str(tmp_path / "copy.db"))
    engine.close()
    assert names(tmp_path) == ["kv.db"]


# -- full -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system lets root mount nothing")
    yield str(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(engine: SQLiteEngine) -> tuple[int, EngineError]:
    """Write batches until one is refused; return how many were acknowledged, and the error."""
    for number in range(10_000):
        try:
            engine.write(KV, [(f"{number:04}-{part}", b"%04d" % number * 250) for part in range(10)])
        except EngineError as error:
            return number, error
    raise AssertionError("the disk never was full")


def test_a_full_disk_keeps_what_was_acknowledged_says_so_and_passes(small_disk: str) -> None:
    path = os.path.join(small_disk, "kv.db")
    ballast = Path(small_disk, "ballast")
    ballast.write_bytes(bytes(1_000_000))
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    acknowledged, error = fill_up(engine)
    assert acknowledged > 5
    assert "full; free some space" in str(error)
    assert (error.applied, type(error)) == (False, EngineError)
    assert engine.count(KV) == acknowledged * 10
    for number in (0, acknowledged - 1):
        assert engine.read(KV, [f"{number:04}-9"]) == [b"%04d" % number * 250]
    with pytest.raises(EngineError, match="full; free some space"):
        engine.backup(os.path.join(small_disk, "copy.db"))
    assert names(small_disk) == ["ballast", "kv.db", "kv.db-shm", "kv.db-wal", "kv.db.lock"]
    ballast.unlink()
    engine.write(KV, [("after", b"1")])
    assert engine.count(KV) == acknowledged * 10 + 1
    engine.close()
    again = SQLiteEngine(path)
    assert again.count(KV) == acknowledged * 10 + 1
    again.close()


async def test_of_calls_committed_together_a_full_disk_refuses_only_those_that_need_it(small_disk: str) -> None:
    path = os.path.join(small_disk, "kv.db")
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    large = [(f"{number:04}", b"x" * 1_000) for number in range(3_500)]
    results = await asyncio.gather(
        engine.bridge.write(engine.write, KV, [("small 1", b"1")]),
        engine.bridge.write(engine.write, KV, large),
        engine.bridge.write(engine.write, KV, [("small 2", b"1")]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), EngineError, type(None)]
    assert engine.scan_ids(KV, limit=9_999) == ["small 1", "small 2"]
    engine.close()


def test_no_new_database_is_left_behind_on_a_full_disk(small_disk: str) -> None:
    Path(small_disk, "ballast").write_bytes(bytes(3_000_000))
    Path(small_disk, "rest").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4_096 - 8_192))
    engine = SQLiteEngine(os.path.join(small_disk, "kv.db"))
    with pytest.raises(EngineError, match="full; free some space") as caught:
        engine.create_collection(KV, {})
    assert caught.value.applied is False
    engine.close()
    assert names(small_disk) == ["ballast", "rest"]


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_keeps_what_was_acknowledged(path: str) -> None:
    """As a quota does, by an error that is none of a full disk."""
    script = """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        acknowledged = 0
        def fill():
            global acknowledged
            while True:
                engine.write(KV, [(f"{acknowledged:04}-{part}", b"x" * 1000, False, None) for part in range(10)])
                acknowledged += 1
        error = refused(fill)
        assert error.applied is False, error
        assert "check the disk and its free space" in str(error), error
        assert acknowledged > 5
        assert engine.count(KV) == acknowledged * 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        engine.write(KV, [("after", b"1", False, None)])
        engine.close()
        print(acknowledged)
    """
    acknowledged = int(end(script, path))
    engine = SQLiteEngine(path)
    assert engine.count(KV) == acknowledged * 10 + 1
    engine.close()


# -- not permitted ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may go into, as pytest's own may not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for found in [folder, *folder.rglob("*")]:
        found.chmod(0o700)
    shutil.rmtree(folder)


AS_NOBODY = f"""
        if os.geteuid() == 0:  # for whom permissions do not hold
            SQLiteEngine(path).close()
            os.setgroups([])
            os.setgid({NOBODY})
            os.setuid({NOBODY})
"""


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {found.name: (found.read_bytes(), found.stat().st_mode) for found in folder.iterdir()}


@pytest.mark.slow
def test_a_file_that_may_not_be_read_is_named_and_nothing_is_left_beside_it(open_folder: Path) -> None:
    path = str(open_folder / "kv.db")
    filled(path)
    os.chmod(path, 0)
    open_folder.chmod(0o777)
    script = """
        error = refused(lambda: engine.read(KV, ["0001"]))
        assert "accessible to this user" in str(error), error
        assert os.listdir(os.path.dirname(path)) == ["kv.db"]
    """
    end(f"{AS_NOBODY}\n        engine = SQLiteEngine(path)\n{script}", path)


@pytest.mark.slow
def test_a_directory_that_may_be_written_but_not_listed_will_do(open_folder: Path) -> None:
    open_folder.chmod(0o733)
    path = str(open_folder / "kv.db")
    script = """
        engine.create_collection(KV, {})
        engine.write(KV, [("a", b"1", False, None)])
        engine.backup(path + ".copy")
        engine.close()
    """
    end(f"{AS_NOBODY}\n        engine = SQLiteEngine(path)\n{script}", path)
    assert names(open_folder) == ["kv.db", "kv.db.copy"]
