"""A file that a process reads by one store and writes by another: SQLite's view of its ``-shm`` is one for both."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv import KVStore
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import shared_memory
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.errors import EngineBusyError

KV = CollectionName("default_keyspace", "kv")


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "kv.db")
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset([("a", 0)])
    return path


@contextmanager
def open_elsewhere(path: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process keep the file open, whose ``-wal`` and ``-shm`` stand beside it then."""
    code = """
        import sys
        from langchain_kv import KVStore
        with KVStore("kv", f"sqlite:{sys.argv[1]}") as store:
            store.mset([("elsewhere", 1)])
            print("open", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "open\n"
            yield other
        finally:
            other.communicate(timeout=60)
        assert other.returncode == 0


def test_what_was_opened_to_be_read_does_not_keep_this_process_from_writing(path: str, face: Any) -> None:
    with open_elsewhere(path), KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        assert face(reader).mget(["a", "elsewhere"]) == [0, 1]
        with KVStore("kv", f"sqlite:{path}") as store:
            assert face(store).mget(["a"]) == [0]
            for number in range(3):
                face(store).mset([("a", number)])
                assert face(reader).mget(["a"]) == [number]
            face(store).mset([(f"{number}", number) for number in range(1_000)])
            assert face(store).update("a", lambda old: (old or 0) + 1) == 3
        assert face(reader).mget(["a", "999"]) == [3, 999]
        with KVStore("kv", f"sqlite:{path}") as store:
            face(store).mset([("a", "again")])
        assert face(reader).mget(["a"]) == ["again"]


def test_nor_does_one_that_was_killed_elsewhere(path: str) -> None:
    with open_elsewhere(path) as other:
        other.kill()
        other.wait()
        with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
            assert reader.mget(["elsewhere"]) == [1]
            with KVStore("kv", f"sqlite:{path}") as store:
                store.mset([("a", 1)])
                assert reader.mget(["a", "elsewhere"]) == [1, 1]
        other.returncode = 0


def test_another_name_of_the_file_is_the_same_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with open_elsewhere(path), KVStore("kv", f"sqlite:{tmp_path}/link/kv.db?mode=ro") as reader:
        assert reader.mget(["a"]) == [0]
        with KVStore("kv", f"sqlite:{path}") as store:
            store.mset([("a", 1)])
        assert reader.mget(["a"]) == [1]


def test_who_writes_waits_for_a_read_under_way_and_says_so_where_it_does_not_end(path: str) -> None:
    reading, done = threading.Event(), threading.Event()

    def query(connection: Any) -> Any:
        reading.set()
        assert done.wait(60)
        return connection.execute("SELECT count(*) FROM docs_1").fetchone()[0]

    with open_elsewhere(path), closing(SQLiteEngine(path, read_only=True)) as reader:
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(reader._pool.read(query)))
        thread.start()
        assert reading.wait(60)
        with closing(SQLiteEngine(path, wait_s=0.05)) as hurried:
            with pytest.raises(EngineBusyError, match="read by a store of this process that only reads") as caught:
                hurried.write(KV, [("b", b"1")])
            assert caught.value.applied is False
            # Its reads would make the -shm its own as well.
            with pytest.raises(EngineBusyError, match="read by a store of this process"):
                hurried.read(KV, ["a"])
            with closing(SQLiteEngine(path)) as patient:
                threading.Timer(0.1, done.set).start()
                patient.write(KV, [("b", b"1")])
            hurried.write(KV, [("c", b"1")])
        thread.join()
        assert counts == [2]
        assert reader.count(KV) == 4


def test_a_connection_that_could_not_be_closed_in_time_is_used_again(path: str) -> None:
    with open_elsewhere(path), closing(SQLiteEngine(path, read_only=True)) as reader:

        def query(connection: Any) -> None:
            with closing(SQLiteEngine(path, wait_s=0.01)) as writer, pytest.raises(EngineBusyError):
                writer.write(KV, [("b", b"1")])

        reader._pool.read(query)
        opened = list(reader._pool._open)
        assert reader.read(KV, ["a"]) != [None]
        assert (len(opened), reader._pool._open) == (1, opened)


@contextmanager
def read_under_way(reader: SQLiteEngine) -> Iterator[threading.Event]:
    """Have a thread read for as long as the event is not set."""
    reading, done = threading.Event(), threading.Event()

    def query(connection: Any) -> None:
        connection.execute("SELECT 1 FROM docs_1").fetchone()
        reading.set()
        assert done.wait(60)

    thread = threading.Thread(target=lambda: reader._pool.read(query))
    thread.start()
    try:
        assert reading.wait(60)
        yield done
    finally:
        done.set()
        thread.join()


def test_who_writes_waits_for_no_read_where_another_store_of_the_process_writes(path: str) -> None:
    with closing(SQLiteEngine(path)) as first, closing(SQLiteEngine(path, read_only=True)) as reader:
        first.write(KV, [("b", b"1")])
        with read_under_way(reader), closing(SQLiteEngine(path, wait_s=0)) as second:
            second.write(KV, [("c", b"1")])
            first.write(KV, [("d", b"1")])
        first.close()
        with read_under_way(reader):  # which has shared what the first had
            with closing(SQLiteEngine(path, wait_s=0)) as third:
                third.write(KV, [("e", b"1")])
        assert reader.count(KV) == 5


def test_reads_go_on_while_one_who_writes_waits_for_a_long_one(path: str) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with closing(SQLiteEngine(path, wait_s=30)) as writer:
                writer.write(KV, [("b", b"1")])
        except BaseException as error:
            failures.append(error)

    with open_elsewhere(path), closing(SQLiteEngine(path, read_only=True)) as reader, read_under_way(reader) as done:
        writing = threading.Thread(target=write)
        writing.start()
        with closing(SQLiteEngine(path, read_only=True, wait_s=5)) as other:
            for _ in range(3):
                assert (reader.count(KV), other.count(KV)) == (2, 2)
                assert writing.is_alive()
        done.set()
        writing.join()
        assert not failures
        assert reader.count(KV) == 3


def test_a_connection_that_is_being_made_ready_is_not_closed(path: str, monkeypatch: Any) -> None:
    original, tried = Connection.execute, []

    def execute(connection: Connection, statement: str, *values: Any) -> Any:
        if statement == "PRAGMA busy_timeout=0":
            shared = shared_memory.shared_memory((os.stat(path).st_dev, os.stat(path).st_ino))
            let_go = threading.Thread(target=lambda: tried.append(reader._pool.let_go(shared, 0)))
            let_go.start()
            let_go.join()
            assert original(connection, "SELECT 1").fetchone() == (1,)
        return original(connection, statement, *values)

    with open_elsewhere(path), closing(SQLiteEngine(path, read_only=True)) as reader:
        monkeypatch.setattr(Connection, "execute", execute)
        reader._pool._wants_quick = True
        reader.read(KV, ["a"])
        assert tried == [False]
        assert reader.read(KV, ["a"]) != [None]


def test_a_file_that_nobody_has_open_is_shared_with_nobody(path: str) -> None:
    with closing(SQLiteEngine(path, read_only=True)) as reader:

        def query(connection: Any) -> bool:
            with closing(SQLiteEngine(path, wait_s=0.5)) as writer:
                writer.write(KV, [("a", b"1")])
            return True

        assert reader._pool.read(query)


def test_nothing_is_kept_of_files_that_are_closed(path: str) -> None:
    with open_elsewhere(path), KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        assert reader.mget(["a"]) == [0]
        with KVStore("kv", f"sqlite:{path}") as store:
            store.mset([("a", 1)])
        found = os.stat(path)
    gc.collect()
    shared_memory.shared_memory((0, 0))
    assert (found.st_dev, found.st_ino) not in shared_memory._files.shared


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_both_sides_of_a_fork_write_while_they_read(path: str) -> None:
    code = """
        import os, sys, warnings
        from langchain_kv import KVStore
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        reader = KVStore("kv", f"sqlite:{sys.argv[1]}?mode=ro")
        assert reader.mget(["elsewhere"]) == [1]
        store = KVStore("kv", f"sqlite:{sys.argv[1]}")
        pid = os.fork()
        for number in range(200):
            assert reader.mget(["a"]) == [0]
            store.mset([(f"{bool(pid)}", number)])
            assert reader.mget([f"{bool(pid)}"]) == [number]
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        store.close()
        reader.close()
    """
    with open_elsewhere(path):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("is_open_elsewhere", [True, False])
def test_threads_and_coroutines_read_while_others_open_write_and_close(path: str, is_open_elsewhere: bool) -> None:
    """Each moment at which one opens is met by each at which another closes."""
    done = threading.Event()
    failures: list[BaseException] = []

    def in_a_thread(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                done.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read(reader: KVStore) -> None:
        while not done.is_set():
            assert reader.mget(["a"]) == [0]

    async def read_by_coroutines(reader: KVStore) -> None:
        while not done.is_set():
            assert await reader.amget(["a"]) == [0]

    def read_and_close() -> None:
        while not done.is_set():
            with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
                assert reader.mget(["a"]) == [0]

    async def read_some(reader: KVStore) -> None:
        assert await asyncio.gather(*[reader.amget(["a"]) for _ in range(6)]) == [[0]] * 6

    def read_and_close_by_coroutines() -> None:
        while not done.is_set():
            with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
                asyncio.run(read_some(reader))

    def write(name: str) -> None:
        for number in range(15):
            with KVStore("kv", f"sqlite:{path}") as store:
                store.mset([(name, number)])
                assert store.mget([name, "a"]) == [number, 0]

    def run(reader: KVStore) -> None:
        readers = [in_a_thread(lambda: read(reader)), in_a_thread(read_and_close)]
        readers.append(in_a_thread(lambda: asyncio.run(read_by_coroutines(reader))))
        readers.append(in_a_thread(read_and_close_by_coroutines))
        for writer in [in_a_thread(lambda name=name: write(name)) for name in ("b", "c")]:
            writer.join()
        done.set()
        for thread in readers:
            thread.join()

    with KVStore("kv", f"sqlite:{path}?mode=ro") as reader:
        if is_open_elsewhere:
            with open_elsewhere(path):
                run(reader)
        else:
            run(reader)
        assert not failures
        assert reader.mget(["b", "c"]) == [14, 14]
