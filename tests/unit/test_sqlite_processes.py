"""One file, several processes: at once, forked, killed; and the lock between them."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineBusyError, StoreClosedError, StoreError, UnknownCollectionError

KV = CollectionName("default_keyspace", "kv")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
posix = pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals and locks")

PRELUDE = f"""
import os, sys, threading, warnings
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from langchain_kv.engines.base import CollectionName
from bodies import SQLiteEngine
from langchain_kv.errors import *
KV = CollectionName("default_keyspace", "kv")
path = sys.argv[1]
# Python 3.12 and later warn of any fork while there are threads.
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must succeed in silence; return what it printed."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def check_file(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# -- at once --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_write_one_new_file_together(path: str) -> None:
    """All of them make it, none replaces another's; nothing is lost and nobody is told that the database is locked."""
    code = """
        worker = sys.argv[2]
        sys.stdin.readline()
        for number in range(40):
            engine = SQLiteEngine(path) if number % 10 == 0 else engine
            engine.create_collection(KV, {"by": worker}) if number == 0 else None
            engine.write(KV, [(f"{worker}-{number}-{part}", b"x" * 500) for part in range(5)])
            engine.modify(KV, ["count"], lambda doc_id, body: b"%d" % (int(body or b"0") + 1))
            engine.close() if number % 10 == 9 else None
    """
    workers = [start(code, path, str(worker)) for worker in range(4)]
    for worker in workers:
        tell(worker)
    for worker in workers:
        end(worker)
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["count"]) == [b"160"]
    assert engine.count(KV) == 4 * 40 * 5 + 1
    engine.close()
    check_file(path)
    assert sorted(os.listdir(os.path.dirname(path))) == ["kv.db"]


@pytest.mark.slow
def test_no_acknowledged_row_is_lost_while_others_open_checkpoint_and_close(path: str) -> None:
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    code = """
        print("ready", flush=True)
        threading.Thread(target=lambda: (sys.stdin.readline(), os._exit(0)), daemon=True).start()
        while True:
            engine = SQLiteEngine(path)
            engine.count(KV)
            engine.close()
    """
    others = [start(code, path) for _ in range(2)]
    for other in others:
        assert read_line(other) == "ready"
    for number in range(3_000):
        engine.write(KV, [(f"{number:05}", b"x" * 300)])
        if number % 100 == 0:
            engine.close()
            engine = SQLiteEngine(path, synchronous="normal")
    for other in others:
        tell(other)
        end(other)
    assert engine.count(KV) == 3_000
    engine.close()
    check_file(path)


@pytest.mark.slow
def test_another_process_that_opens_and_closes_takes_nothing_away(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [("before", b"1")])
    end(start("engine = SQLiteEngine(path); engine.count(KV); engine.close()", path))
    engine.write(KV, [("after", b"2")])
    assert (
        end(start("engine = SQLiteEngine(path); print(engine.scan_ids(KV, limit=9))", path)) == "['after', 'before']\n"
    )
    engine.close()


def test_a_collection_dropped_and_made_again_by_another_process(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {"first": 1})
    engine.write(KV, [("a", b"old")])
    assert engine.read(KV, ["a"]) == [b"old"]
    other = SQLiteEngine(path)  # connections and notes of its own, as another process has
    other.drop_collection(KV)
    for call in (
        lambda: engine.read(KV, ["a"]),
        lambda: engine.read(KV, []),
        lambda: engine.write(KV, [("b", b"1")]),
        lambda: engine.write(KV, [("b", b"1"), ("c", b"1")]),
        lambda: engine.delete(KV, ["b"]),
        lambda: engine.settings(KV),
        lambda: engine.scan(KV, limit=1),
    ):
        with pytest.raises(UnknownCollectionError):
            call()
    other.create_collection(CollectionName("default_keyspace", "another"), {})
    other.create_collection(KV, {"second": 2})
    assert engine.settings(KV) == {"second": 2}
    assert engine.scan_ids(KV, limit=9) == []
    engine.write(KV, [("b", b"new")])
    assert other.scan(KV, limit=9) == [("b", b"new")]
    assert other.count(CollectionName("default_keyspace", "another")) == 0
    engine.close()
    other.close()


def test_readers_and_writers_meet_a_collection_that_comes_and_goes(path: str) -> None:
    engine, other = SQLiteEngine(path, synchronous="normal"), SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    failures: list[BaseException] = []
    done = threading.Event()

    def use() -> None:
        try:
            while not done.is_set():
                for call in (
                    lambda: other.write(KV, [(f"{number}", b"x") for number in range(600)]),
                    lambda: other.read(KV, [f"{number}" for number in range(600)]),
                    lambda: other.scan_ids(KV, limit=1_000),
                ):
                    try:
                        found = call()
                    except UnknownCollectionError:
                        continue
                    if isinstance(found, list):  # all of a batch or none of it
                        assert len([item for item in found if item is not None]) in (0, 600)
        except BaseException as error:
            failures.append(error)

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    for _ in range(40):
        engine.drop_collection(KV)
        engine.create_collection(KV, {})
    done.set()
    for user in users:
        user.join()
    assert not failures
    engine.close()
    other.close()


# -- killed ---------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.slow
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_killed_writer_leaves_whole_batches_and_all_that_were_acknowledged(path: str, synchronous: str) -> None:
    code = """
        engine = SQLiteEngine(path, synchronous=sys.argv[2])
        engine.create_collection(KV, {})
        number = int(sys.argv[3])
        while True:
            engine.write(KV, [(f"{number:06}-{part}", b"%d" % number * 2_000) for part in range(10)])
            print(number, flush=True)
            number += 1
    """
    dice = random.Random(7)
    following = 0
    for _ in range(6):
        writer = start(code, path, synchronous, str(following))
        acknowledged = following - 1
        for _ in range(dice.randrange(1, 60)):
            acknowledged = int(read_line(writer))
        os.kill(writer.pid, signal.SIGKILL)
        with writer:
            assert writer.stdout is not None
            rest = writer.stdout.read().split("\n")[:-1]  # acknowledged before the kill, read after it
        acknowledged = int(rest[-1]) if rest else acknowledged
        engine = SQLiteEngine(path)
        found: dict[str, int] = {}
        for doc_id in engine.scan_ids(KV, limit=1_000_000):
            batch = str(doc_id).partition("-")[0]
            found[batch] = found.get(batch, 0) + 1
        engine.close()
        assert set(found.values()) == {10}
        assert acknowledged + 1 <= len(found) <= acknowledged + 2  # the one in flight may be stored or not
        following = len(found)
    check_file(path)


@posix
def test_the_lock_of_a_killed_process_is_free(path: str) -> None:
    code = """
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        def change(doc_id, body):
            print("inside", flush=True)
            sys.stdin.readline()
        engine.modify(KV, ["a"], change)
    """
    holder = start(code, path)
    assert read_line(holder) == "inside"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    engine = SQLiteEngine(path)
    engine.write(KV, [("a", b"1")])
    engine.close()


# -- forked ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)"])
@pytest.mark.parametrize("parent_closes_first", [True, False])
def test_a_forked_child_and_its_parent_both_go_on(path: str, ending: str, parent_closes_first: bool) -> None:
    """What each stores after the fork is kept, whoever closes first.

    Where a child shares its parent's connections, what it stores after the parent has closed is lost.
    """
    code = """
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        engine.write(KV, [("start", b"1")])
        engine.read(KV, ["start"])
        to_child, to_parent = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            engine.write(KV, [("child 1", b"1")])
            assert engine.read(KV, ["start", "child 1"]) == [b"1", b"1"]
            os.write(to_parent[1], b"x")
            os.read(to_child[0], 1)
            for number in range(50):
                engine.write(KV, [(f"child 2 {number:02}", b"1")])
            ENDING
        engine.write(KV, [("parent 1", b"1")])
        os.read(to_parent[0], 1)
        if int(sys.argv[2]):
            engine.close()
        os.write(to_child[1], b"x")
        assert os.waitpid(pid, 0)[1] == 0
        if not int(sys.argv[2]):
            engine.write(KV, [("parent 2", b"1")])
            assert engine.count(KV) == 54
            engine.close()
    """
    end(start(code.replace("ENDING", ending), path, str(int(parent_closes_first))))
    engine = SQLiteEngine(path)
    found = engine.scan_ids(KV, limit=99)
    assert len([doc_id for doc_id in found if str(doc_id).startswith("child 2")]) == 50
    assert {"start", "child 1", "parent 1"} <= set(found)
    engine.close()
    check_file(path)


@pytest.mark.slow
@needs_fork
def test_forks_while_threads_and_coroutines_are_at_work(path: str) -> None:
    code = """
        import asyncio
        engine = SQLiteEngine(path, synchronous="normal")
        engine.create_collection(KV, {})
        done = threading.Event()
        counts = [0, 0]
        def work(worker):
            while not done.is_set():
                engine.write(KV, [(f"{worker}-{counts[worker]}", b"x")])
                engine.read(KV, [f"{worker}-{number}" for number in range(600)])
                counts[worker] += 1
        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        async def child():
            rows = [[(f"c-{os.getpid()}-{number}", b"x")] for number in range(9)]
            await asyncio.gather(*(engine.bridge.write(engine.write, KV, row) for row in rows))
            await engine.bridge.read(engine.count, KV)
        async def parent():
            for number in range(8):
                write = asyncio.ensure_future(engine.bridge.write(engine.write, KV, [(f"a-{number}", b"x")]))
                await asyncio.sleep(0)
                pid = os.fork()
                if pid == 0:
                    asyncio.events._set_running_loop(None)
                    asyncio.run(child())
                    os._exit(0)
                await write
                assert os.waitpid(pid, 0)[1] == 0
        asyncio.run(parent())
        done.set()
        for thread in threads:
            thread.join()
        assert engine.count(KV) == 8 * 9 + 8 + sum(counts)
        engine.close()
    """
    end(start(code, path))
    check_file(path)


@needs_fork
def test_a_file_that_is_replaced_beside_a_fork_is_noticed(path: str, tmp_path: Path) -> None:
    other = CollectionName("default_keyspace", "other")
    for name, collections in (("kv.db", (KV, other)), ("restored.db", (other, KV))):
        with closing(SQLiteEngine(str(tmp_path / name))) as engine:
            for collection in collections:
                engine.create_collection(collection, {})
    code = """
        engine = SQLiteEngine(path)
        engine.write(KV, [("a", b"1")])
        if os.fork() == 0:  # which closes the parent's connections
            os._exit(0)
        os.wait()
        os.replace(sys.argv[2], path)
        engine.write(KV, [("b", b"2")])
        assert engine.read(KV, ["a", "b"]) == [None, b"2"]
        engine.close()
    """
    end(start(code, path, str(tmp_path / "restored.db")))
    with closing(SQLiteEngine(path)) as engine:
        assert engine.scan_ids(KV, limit=9) == ["b"]
        assert engine.scan_ids(other, limit=9) == []


@needs_fork
def test_a_fork_inside_a_single_statement_leaves_the_child_an_error(path: str) -> None:
    code = """
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        pids = []
        def statement(connection):
            pids.append(os.fork())
            if pids[0]:  # the parent goes on when the child has ended
                assert os.waitpid(pids[0], 0)[1] == 0
                connection.execute("INSERT INTO docs_1(id, content) VALUES('a', x'31')")
        try:
            engine._pool.change(statement, single=True)
        except EngineError as error:
            assert pids == [0] and "forked" in str(error), error
            sys.exit(0)
        if pids == [0]:
            os._exit(3)
        assert engine.read(KV, ["a"]) == [b"1"]
        engine.close()
    """
    end(start(code, path))
    check_file(path)


@pytest.mark.slow
@needs_fork
def test_a_fork_inside_a_transaction_leaves_the_child_an_error_and_the_parent_whole(path: str) -> None:
    code = """
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        pids = []
        def change(doc_id, body):
            pids.append(os.fork())
            return b"changed"
        try:
            engine.modify(KV, ["a"], change)
        except EngineError as error:
            assert pids == [0] and "forked" in str(error), error
            for again in (engine, SQLiteEngine(path)):
                try:
                    again.read(KV, ["a"])
                except EngineError as error:
                    assert "spawn" in str(error)
                else:
                    os._exit(2)
            sys.exit(0)
        if pids == [0]:
            os._exit(3)
        assert os.waitpid(pids[0], 0)[1] == 0
        engine.write(KV, [("b", b"2")])
        assert engine.read(KV, ["a", "b"]) == [b"changed", b"2"]
        # no close(): the exit does it
    """
    end(start(code, path))
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["a", "b"]) == [b"changed", b"2"]
    engine.close()


@pytest.mark.slow
@needs_fork
def test_a_fork_while_another_thread_writes_for_too_long_leaves_the_child_an_error_and_the_parent_whole(
    path: str,
) -> None:
    code = """
        from langchain_kv.engines.sqlite import connections as sqlite_connections
        sqlite_connections.FORK_WAIT_S = 0.05
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        inside, go_on = threading.Event(), threading.Event()
        def change(doc_id, body):
            inside.set()
            go_on.wait(30)
            return b"whole"
        writer = threading.Thread(target=lambda: engine.modify(KV, ["a"], change))
        writer.start()
        inside.wait(30)
        pid = os.fork()
        if pid == 0:
            for call in (lambda: engine.read(KV, ["a"]), lambda: engine.write(KV, [("child", b"1")])):
                try:
                    call()
                except EngineError as error:
                    assert "spawn" in str(error), error
                else:
                    os._exit(2)
            other = SQLiteEngine(path + ".other")  # another file is none of the parent's
            other.create_collection(KV, {})
            other.write(KV, [("child", b"1")])
            other.close()
            os._exit(0)
        go_on.set()
        writer.join()
        assert os.waitpid(pid, 0)[1] == 0
        engine.write(KV, [("b", b"2")])
        assert engine.scan(KV, limit=9) == [("a", b"whole"), ("b", b"2")]
        engine.close()
    """
    end(start(code, path))
    check_file(path)


@pytest.mark.slow
@needs_fork
def test_a_fork_carries_out_no_queued_write_twice_and_drops_none(path: str) -> None:
    code = """
        import asyncio
        engine = SQLiteEngine(path, synchronous="normal")
        engine.create_collection(KV, {})
        def add_one(doc_id, body):
            return b"%d" % (int(body or b"0") + 1)
        async def child():
            await engine.bridge.write(engine.modify, KV, ["child"], add_one)
        async def parent():
            pids = []
            for _ in range(5):
                calls = [asyncio.ensure_future(engine.bridge.write(engine.modify, KV, ["count"], add_one))
                         for _ in range(400)]
                await asyncio.sleep(0)  # now they are queued, and the first are being written
                pid = os.fork()
                if pid == 0:
                    asyncio.events._set_running_loop(None)
                    asyncio.run(child())
                    engine.close()
                    os._exit(0)
                pids.append(pid)
                await asyncio.gather(*calls)
            for pid in pids:
                assert os.waitpid(pid, 0)[1] == 0
        asyncio.run(parent())
        assert engine.read(KV, ["count", "child"]) == [b"2000", b"5"], engine.scan(KV, limit=9)
        engine.close()
    """
    end(start(code, path))
    check_file(path)


@needs_fork
def test_a_child_that_outlives_its_parent_holds_no_lock(path: str) -> None:
    code = """
        engine = SQLiteEngine(path)
        engine.create_collection(KV, {})
        if os.fork() == 0:
            os.close(1)
            os.close(2)
            sys.stdin.readline()
            os._exit(0)
        os._exit(0)
    """
    parent = start(code, path)
    assert parent.stdout is not None
    assert parent.stdout.read() == ""
    engine = SQLiteEngine(path)
    engine.write(KV, [("a", b"1")])
    engine.close()
    tell(parent)
    end(parent)


# -- threads, closing, the lock -------------------------------------------------------------------------------------


def test_readers_do_not_wait_for_a_writer(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [("a", b"old")])
    engine.read(KV, ["a"])
    seen: list[list[bytes | None]] = []

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        reader = threading.Thread(target=lambda: seen.append(engine.read(KV, ["a"])))
        reader.start()
        reader.join(30)
        return b"new"

    engine.modify(KV, ["a"], change)
    assert seen == [[b"old"]]
    assert engine.read(KV, ["a"]) == [b"new"]
    engine.close()


@pytest.mark.slow
def test_a_large_read_is_of_one_moment(path: str) -> None:
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    ids = [f"{number:04}" for number in range(1_500)]
    engine.write(KV, [(doc_id, b"0") for doc_id in ids])
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            engine.write(KV, [(doc_id, b"%d" % number) for doc_id in ids])

    writer = threading.Thread(target=write)
    writer.start()
    moments = [len(set(engine.read(KV, ids))) for _ in range(60)]
    done.set()
    writer.join()
    engine.close()
    assert set(moments) == {1}


def test_more_threads_than_connections(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [("a", b"1")])
    together = threading.Barrier(16)
    found: list[object] = []

    def read() -> None:
        together.wait()
        found.extend(engine.read(KV, ["a"])[0] for _ in range(50))

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"1"] * 800
    engine.close()


def read_for_ever(engine: SQLiteEngine) -> None:
    while True:
        engine.read(KV, ["a"])


def test_close_from_another_thread_lets_calls_end_and_refuses_new_ones(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    inside, go_on = threading.Event(), threading.Event()

    def change(doc_id: DocId, body: bytes | None) -> bytes:
        inside.set()
        go_on.wait(30)
        return b"whole"

    writer = threading.Thread(target=lambda: engine.modify(KV, ["a"], change))
    writer.start()
    inside.wait(30)
    closer = threading.Thread(target=engine.close)
    closer.start()
    with pytest.raises(StoreClosedError):
        read_for_ever(engine)
    assert closer.is_alive()
    go_on.set()
    writer.join()
    closer.join()
    assert not os.path.exists(f"{path}-wal")
    again = SQLiteEngine(path)
    assert again.read(KV, ["a"]) == [b"whole"]
    again.close()


@pytest.mark.parametrize("repetition", range(5))
def test_close_while_threads_work_ends_in_answers_or_store_closed(path: str, repetition: int) -> None:
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    unexpected: list[BaseException] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                engine.write(KV, [("a", b"1")])
                engine.read(KV, ["a"])
        except StoreClosedError:
            pass
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.close()
    for thread in threads:
        thread.join()
    assert not unexpected


def test_a_lock_held_too_long_is_an_error_that_may_be_retried(path: str) -> None:
    engine = SQLiteEngine(path, wait_s=0.05)
    engine.create_collection(KV, {})
    other = FileLock(f"{os.path.realpath(path)}.lock")
    with other:
        told = r"Another process held .*kv\.db\.lock for 0.05 s"
        told += f", at the end process {os.getpid()};" if sys.platform == "linux" else ";"
        with pytest.raises(EngineBusyError, match=told) as caught:
            engine.write(KV, [("a", b"1")])
    assert (caught.value.retryable, caught.value.applied) == (True, False)
    engine.write(KV, [("a", b"1")])
    engine.close()


def test_a_thread_that_holds_the_lock_too_long(path: str) -> None:
    lock = FileLock(f"{path}.lock", wait_s=0.05)

    def take() -> Exception:
        with pytest.raises(EngineBusyError, match="Another thread") as caught:
            lock.acquire()
        return caught.value

    with ThreadPoolExecutor(1) as another:
        with lock:
            assert another.submit(take).result()
        with lock:
            pass
    lock.close()


def test_connections_that_cannot_be_closed_at_the_end_are_left_as_they_are(path: str) -> None:
    """Collected as garbage, they would close without the lock."""
    code = """
        engine = SQLiteEngine(path, wait_s=0.1)
        engine.create_collection(KV, {})
        engine.write(KV, [("a", b"1")])
        print("open", flush=True)
        sys.stdin.readline()
    """
    program = start(code, path)
    assert read_line(program) == "open"
    with FileLock(f"{path}.lock"):
        tell(program)
        _, told = program.communicate(timeout=60)
        assert "was not closed" in told
        assert program.returncode == 0
        assert os.path.exists(f"{path}-wal")
    engine = SQLiteEngine(path)
    assert engine.read(KV, ["a"]) == [b"1"]
    engine.close()


def test_the_lock_excludes_threads_and_other_holders(path: str) -> None:
    locks = [FileLock(f"{path}.lock"), FileLock(f"{path}.lock")]
    inside, most = 0, 0

    def work(lock: FileLock) -> None:
        nonlocal inside, most
        for _ in range(100):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work, args=(locks[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)
    for lock in locks:
        lock.close()


@posix
def test_a_removed_lock_file_is_made_anew_and_shared_again(path: str) -> None:
    first, second = FileLock(f"{path}.lock", wait_s=0.05), FileLock(f"{path}.lock", wait_s=0.05)
    with first:
        pass
    os.unlink(f"{path}.lock")
    with second, pytest.raises(EngineBusyError):
        first.__enter__()
    first.close()
    second.close()


def test_an_outside_program_that_holds_the_database_is_waited_for_and_named(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine._pool._writer.execute("PRAGMA busy_timeout=50")  # type: ignore[union-attr]
    with closing(sqlite3.connect(path, isolation_level=None)) as outsider:
        outsider.execute("BEGIN IMMEDIATE")
        with pytest.raises(EngineBusyError, match="Another program"):
            engine.write(KV, [("a", b"1")])
        assert engine.count(KV) == 0
        outsider.execute("ROLLBACK")
    engine.write(KV, [("a", b"1")])
    engine.close()


def test_an_error_of_the_engine_never_shows_a_stored_value(path: str) -> None:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    with pytest.raises(StoreError) as caught:
        engine.write(KV, [("a", b"secret value"), ("b\ud800", b"secret value")])
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}"
    engine.close()
