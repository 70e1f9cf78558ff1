"""The lock file beside a database: who may use it, when it goes away, and that it excludes at every moment."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineBusyError

KV = CollectionName("default_keyspace", "kv")
NOBODY = 65534

posix = pytest.mark.skipif(os.name != "posix", reason="uses POSIX modes")
as_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root, to become others")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may go into, as pytest's own may not."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "kv.db")


def opened(path: str) -> SQLiteEngine:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [("a", b"1")])
    return engine


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    prelude = """
import os, sys
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import EngineError
KV = CollectionName("default_keyspace", "kv")
"""
    command = [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rights(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


# -- who may use it ---------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("database", "lock"),
    [(0o600, 0o600), (0o640, 0o600), (0o644, 0o600), (0o660, 0o660), (0o664, 0o660), (0o666, 0o666), (0o400, 0o600)],
    ids=oct,
)
def test_who_may_write_the_database_may_lock_it_and_nobody_else(database: int, lock: int, path: str) -> None:
    opened(path).close()
    os.chmod(path, database)
    held = FileLock(f"{path}.lock")
    with held:
        assert rights(f"{path}.lock")[0] == lock
    held.close()


@as_root
def test_root_locks_the_database_of_a_user_with_a_file_of_the_user(path: str) -> None:
    opened(path).close()
    os.chown(path, NOBODY, NOBODY)
    with closing(opened(path)):
        for name in ("", "-wal", "-shm", ".lock"):
            assert rights(path + name) == (0o600, NOBODY, NOBODY)


@as_root
@pytest.mark.parametrize("kind", ["symlink", "link"])
def test_no_file_that_was_there_changes_hands(kind: str, path: str, folder: Path) -> None:
    """Whoever may write the directory could otherwise have root give away any file."""
    opened(path).close()
    os.chown(path, NOBODY, NOBODY)
    os.chmod(path, 0o666)
    precious = folder / "precious"
    precious.touch(mode=0o600)
    (os.symlink if kind == "symlink" else os.link)(precious, f"{path}.lock")
    opened(path).close()
    assert rights(str(precious)) == (0o600, 0, 0)


BECOME_ANOTHER = f"""
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


@as_root
@pytest.mark.parametrize("mode", [0o666, 0o660])
def test_a_database_that_was_opened_to_others_is_used_by_them(mode: int, path: str, folder: Path) -> None:
    opened(path).close()
    folder.chmod(0o777)
    os.chown(path, 0, NOBODY)
    os.chmod(path, mode)
    code = """
        engine = SQLiteEngine(sys.argv[1])
        assert engine.read(KV, ["a"]) == [("a", b"1", False, None)]
        engine.write(KV, [("b", b"2", False, None)])
        engine.close()
    """
    done = run(f"SQLiteEngine('x').close()\n{BECOME_ANOTHER}" + textwrap.dedent(code), path)
    assert (done.returncode, done.stderr) == (0, "")
    with closing(SQLiteEngine(path)) as engine:
        assert engine.read(KV, ["b"]) == [b"2"]


@as_root
def test_a_lock_file_with_fewer_rights_than_the_database_is_named_with_its_mode(path: str, folder: Path) -> None:
    with closing(opened(path)):
        folder.chmod(0o777)
        for name in ("", "-wal", "-shm"):
            os.chmod(path + name, 0o666)
        code = """
            try:
                SQLiteEngine(sys.argv[1]).write(KV, [("b", b"2", False, None)])
            except EngineError as error:
                print(error)
        """
        done = run(f"SQLiteEngine('x').close()\n{BECOME_ANOTHER}" + textwrap.dedent(code), path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kv.db.lock: Permission denied; its mode is 0600: give it the rights of the database" in done.stdout


# -- when it goes away ------------------------------------------------------------------------------------------------


def test_it_stays_as_long_as_somebody_has_the_database_open(path: str, folder: Path) -> None:
    first, second = opened(path), opened(path)
    first.close()
    assert os.path.exists(f"{path}.lock")
    second.close()
    assert os.listdir(folder) == ["kv.db"]


def test_it_is_not_removed_while_another_holds_it(path: str) -> None:
    engine = opened(path)
    other = FileLock(f"{path}.lock")
    with other:
        os.rename(f"{path}-wal", f"{path}-elsewhere")  # so that this one would be the last
        taken = engine._pool._open.copy()
        engine._pool._open.clear()
        engine.close()
        assert os.path.exists(f"{path}.lock")
    for connection in taken:
        connection.close()
    other.close()


def test_those_who_remove_it_and_those_who_wait_for_it_exclude_each_other(path: str) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(100):
            lock = FileLock(f"{path}.lock")
            with lock:
                inside += 1
                most = max(most, inside)
                turns += 1
                inside -= 1
            assert lock.lock_threads(-1)
            lock.remove()
            lock.close()
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most, turns) == (0, 1, 400)


@pytest.mark.skipif(sys.platform != "linux", reason="the queue is Linux's")
@pytest.mark.parametrize("waiters", [1, 5])
def test_who_takes_it_again_and_again_lets_others_go_first(path: str, waiters: int) -> None:
    turns, is_over = 0, False
    waited: list[int] = []  # how many turns of the first

    def hog() -> None:
        nonlocal turns
        lock = FileLock(f"{path}.lock")
        while not is_over:
            with lock:
                time.sleep(0.005)  # a commit
                turns += 1
        lock.close()

    def wait() -> None:
        lock = FileLock(f"{path}.lock")
        for _ in range(15):
            before = turns
            with lock:
                waited.append(turns - before)
            time.sleep(0.002)
        lock.close()

    others = [threading.Thread(target=wait) for _ in range(waiters)]
    first = threading.Thread(target=hog)
    for thread in (first, *others):
        thread.start()
    for thread in others:
        thread.join()
    is_over = True
    first.join()
    # Chance says who is next: with five waiting the median was 2 to 6 turns in 40 runs. With one and no queue: 3,000.
    assert sorted(waited)[len(waited) // 2] <= 50


@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGSTOP])
def test_who_is_next_and_is_stopped_keeps_nobody_waiting(path: str, ends: signal.Signals) -> None:
    code = f"import sys\nfrom {FileLock.__module__} import FileLock\nprint(flush=True)\nFileLock(sys.argv[1]).acquire()"
    held, other = FileLock(f"{path}.lock"), FileLock(f"{path}.lock", wait_s=20)
    with subprocess.Popen([sys.executable, "-c", code, f"{path}.lock"], stdout=subprocess.PIPE) as waiting:
        try:
            with held:
                assert waiting.stdout is not None
                waiting.stdout.readline()
                time.sleep(0.1)
                waiting.send_signal(ends)
            with other:
                pass
        finally:
            waiting.kill()
    for lock in (held, other):
        lock.close()


def test_who_gives_up_leaves_the_queue(path: str) -> None:
    held, late, other = (FileLock(f"{path}.lock", wait_s=wait_s) for wait_s in (1, 0, 0))
    with held, pytest.raises(EngineBusyError):
        late.acquire()
    with other:
        pass
    for lock in (held, late, other):
        lock.close()


# -- the end of a process whose folder is gone ------------------------------------------------------------------------

GONE = {
    "the folder": "shutil.rmtree(folder)",
    "the file": "os.unlink(path)",
    "all files": "[os.unlink(os.path.join(folder, name)) for name in os.listdir(folder)]",
    "another file": "os.unlink(path); pathlib.Path(path).write_text('theirs')",
}


@pytest.mark.parametrize("gone", ["the folder", *(pytest.param(gone, marks=pytest.mark.slow) for gone in [*GONE][1:])])
@pytest.mark.parametrize("ending", ["pass", pytest.param("engine.close()", marks=pytest.mark.slow)])
def test_nothing_is_said_at_the_end_of_what_is_gone(gone: str, ending: str, tmp_path: Path) -> None:
    code = f"""
        import asyncio, pathlib, shutil
        folder, path = sys.argv[1], os.path.join(sys.argv[1], "kv.db")
        os.mkdir(folder)
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {{}})
        asyncio.run(engine.bridge.write(engine.write, KV, [("a", b"1", False, None)]))
        asyncio.run(engine.bridge.read_short(engine.read, KV, ["a"]))
        {GONE[gone]}
        {ending}
    """
    done = run(code, str(tmp_path / "folder"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
