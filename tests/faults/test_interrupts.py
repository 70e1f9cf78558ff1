"""Ctrl-C at every single point of a call on a file: the store goes on as if the call had failed or succeeded whole.

CPython raises KeyboardInterrupt in the main thread at the entry of a Python function and after a call of C. Those are
the moments at which ``sys.setprofile`` is told of a "call" and of a "c_return", so an exception raised by the profiler
there is an interrupt there; counting them tries each in turn.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

import langchain_kv.engines.sqlite.backup  # noqa: F401 - no import is to be interrupted
from bodies import MemoryEngine, SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineError, UsageError
from langchain_kv.limits import SQLITE_IN_MAX
from langchain_kv.runtime import loop_thread, threads
from langchain_kv.runtime.threads import Mutex
from langchain_kv.runtime.work_queue import QueueBridge, run_aside
from langchain_kv.server.http.running import run_in_thread
from old_files import OLD

LEFT_OUT = threading.__file__ if sys.version_info >= (3, 14) else None
"""Since 3.14 an interrupt in the middle of Thread.start may leave a lock of Python's own taken for ever, without which
no thread of the process starts any more."""
KV = CollectionName("default_keyspace", "kv")
STUCK_S = 100
"""Seconds after which a call waits for ever: more than three times what it waits for a lock that others keep."""
MANY = [f"{number:05}" for number in range(SQLITE_IN_MAX + 1)]


def interrupted(call: Callable[[], object], moment: int, kept: list[object] | None = None) -> bool:
    """Run ``call`` with an interrupt at its ``moment``-th moment; return whether it lasted that long.

    What is interrupted with ``kept`` stays there, with all frames and what they hold, as in a Python shell.
    """
    passed = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal passed
        if event in ("call", "c_return") and frame.f_code.co_filename != LEFT_OUT:
            passed += 1
            if passed == moment + 1:  # the first is the entry of ``call`` itself
                raise KeyboardInterrupt

    # What an object of an earlier test has to say at its end is no moment of the call: when the collector finds it is
    # chance, and what is raised there Python passes over.
    gc.disable()
    try:
        sys.setprofile(profile)
        call()
    except KeyboardInterrupt as error:
        if kept is not None:
            kept.append(error)
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False


def in_another_thread(call: Callable[[], object]) -> object:
    """Return what ``call`` answers in a thread of its own, "stuck" where it does not end."""
    answers: list[object] = ["stuck"]

    def work() -> None:
        try:
            answers[0] = call()
        except BaseException as error:
            answers[0] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(STUCK_S)
    return answers[0]


def write_and_read(engine: SQLiteEngine, value: bytes) -> bytes | None:
    engine.write(KV, [("other", value)])
    return engine.read(KV, ["other"])[0]


def interrupt(*args: object) -> NoReturn:
    raise KeyboardInterrupt


class Ring:
    """An object that only the collector finds at its end."""

    def __init__(self) -> None:
        self.me = self


def test_the_end_of_an_earlier_object_is_no_moment_of_a_call() -> None:
    said: list[object] = []
    kept: list[object] = []

    def call() -> None:
        kept.append(weakref.ref(Ring(), said.append))
        kept.extend([] for _ in range(1_000))

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        assert not interrupted(lambda: (call(), kept.extend(said)), sys.maxsize)
    finally:
        gc.set_threshold(*before)
    assert len(kept) == 1_001


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SQLiteEngine]:
    engine = SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    engine.create_collection(KV, {})
    engine.write(KV, [(key, b"old") for key in MANY])
    engine.rows.write(KV, [(f"expired {number}", b"old", False, 1) for number in range(2)])
    yield engine
    assert in_another_thread(engine.close) is None
    # And nothing is left of it for the next one to trip over.
    again = SQLiteEngine(str(tmp_path / "kv.db"))
    assert write_and_read(again, b"again") == b"again"
    again.close()


CALLS: dict[str, Callable[[SQLiteEngine], object]] = {
    "read one": lambda engine: engine.read(KV, ["00001"]),
    "read in one transaction": lambda engine: engine.read(KV, MANY),
    "write": lambda engine: engine.write(KV, [("00001", b"new"), ("00002", b"new")]),
    "change": lambda engine: engine.modify(KV, ["00001", "00002"], lambda key, body: b"new"),
    "delete": lambda engine: engine.delete(KV, ["00001", "00002"]),
    "scan": lambda engine: engine.scan(KV, prefix="0000", limit=9),
    "list what has not expired": lambda engine: engine.scan_ids(KV, prefix="0000", limit=9, now_ms=1),
    "clear": lambda engine: engine.clear(KV, "0000"),
    "purge": lambda engine: engine.purge(KV, now_ms=1, limit=9),
    "make a collection": lambda engine: engine.create_collection(CollectionName("default_keyspace", "new"), {}),
}


KEPT = CollectionName("default_keyspace", "bytes")

OLD_CALLS: dict[str, Callable[[SQLiteEngine], object]] = {
    "read one": lambda engine: engine.read(KEPT, ["plain"]),
    "read in one transaction": lambda engine: engine.read(KEPT, ["plain", *MANY]),
    "scan": lambda engine: engine.scan(KEPT, limit=9),
    "list what has not expired": lambda engine: engine.scan_ids(KEPT, limit=9, now_ms=1),
    "write": lambda engine: engine.write(KEPT, [("other", b"new")]),
    "purge": lambda engine: engine.purge(KEPT, now_ms=1, limit=9),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_moment_leaves_a_store_that_goes_on(name: str, engine: SQLiteEngine) -> None:
    moment, going_on = 0, True
    while going_on:
        moment += 1
        engine.write(KV, [("00001", b"old"), ("00002", b"old")])
        going_on = interrupted(lambda: CALLS[name](engine), moment)
        where = f"{name}, moment {moment}"
        assert not engine._pool._using, where
        assert engine._pool.joined is None, where
        value = b"%d" % moment
        assert in_another_thread(lambda: write_and_read(engine, value)) == value, where  # noqa: B023
        assert write_and_read(engine, value + b"!") == value + b"!", where
        assert engine.read(KV, ["00001"]) == engine.read(KV, ["00002"]), where  # all or none
    assert moment > 20


VECTORS = CollectionName("default_keyspace", "vectors")
SOME_VECTORS = [(f"{number}", b'{"$vector":[%d,1]}' % number) for number in range(3)]

MORE_CALLS: dict[str, Callable[[SQLiteEngine], object]] = {
    **CALLS,
    "write vectors": lambda engine: engine.write(VECTORS, SOME_VECTORS),
    "find the nearest": lambda engine: engine.nearest(VECTORS, bytes(8), limit=1),
    "back up": lambda engine: engine.backup(f"{engine._pool.path}.copy", replace=True),
    "restore": lambda engine: engine.restore_to(f"{engine._pool.path}.restored", replace=True),
    "close": lambda engine: engine.close(),
}
sees_open_files = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux says which files are open")
ONLY_READ = [name for name in MORE_CALLS if name.startswith(("read", "scan", "list", "find", "back", "close"))]


@sees_open_files
@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "used before") for name in MORE_CALLS]
    + [(name, "read only") for name in ONLY_READ]
    + [(name, "first call") for name in ("read one", "write", "find the nearest")]
    + [("make a collection", "no file")],
)
def test_who_keeps_what_an_interrupt_says_keeps_no_file_open(name: str, mode: str, tmp_path: Path) -> None:
    """SQLite closes a connection only with the last of its statements, and a frame may hold a cursor."""
    path = str(tmp_path / "kv.db")
    if mode != "no file":
        with closing(SQLiteEngine(path, synchronous="normal")) as engine:
            engine.create_collection(KV, {})
            engine.write(KV, [(key, b"old") for key in MANY])
            engine.create_collection(VECTORS, {"vector": {"dimension": 2}})
            engine.write(VECTORS, SOME_VECTORS)
            engine.nearest(VECTORS, bytes(8), limit=1)
    moment, going_on, kept = 0, True, list[object]()
    while going_on:
        moment += 1
        if mode == "no file":
            path = str(tmp_path / f"{moment}.db")
        engine = SQLiteEngine(path, synchronous="normal", read_only=mode == "read only")
        if mode in ("used before", "read only"):
            engine.read(KV, ["00001"])
        going_on = interrupted(lambda: MORE_CALLS[name](engine), moment, kept)  # noqa: B023 - it is called at once
        engine.close()
        left = files_open(path)
        if mode in ("first call", "no file") or name == "restore":
            # Who is interrupted in the very moment in which it is opened does not know its number.
            left = [each for each in left if not each.removesuffix(" (deleted)").endswith(".lock")]
        assert not left, moment
        assert not [each for each in os.listdir(tmp_path) if ".new-" in each], moment
    assert moment > 20


@sees_open_files
def test_who_keeps_the_error_of_a_damaged_id_keeps_no_file_open(tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path, synchronous="normal")) as engine:
        engine.create_collection(VECTORS, {"vector": {"dimension": 2}})
        engine.write(VECTORS, SOME_VECTORS)
        engine.nearest(VECTORS, bytes(8), limit=1)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE vectors_1 SET id=CAST(x'ff' AS TEXT) WHERE id='0'")
            other.execute("DELETE FROM vectors_1 WHERE id='1'")
            other.commit()
        with pytest.raises(EngineError) as kept:
            engine.nearest(VECTORS, bytes(8), limit=1)
    assert not files_open(path)
    assert kept.traceback


def test_a_connection_that_cannot_be_opened_and_is_interrupted_is_none_to_be_closed(tmp_path: Path) -> None:
    def connect() -> None:
        with pytest.raises(sqlite3.OperationalError):
            Connection(opened, str(tmp_path / "missing.db"), "ro")

    moment, going_on = 0, True
    while going_on:
        moment += 1
        opened: list[Connection] = []
        going_on = interrupted(connect, moment)
        assert not [each for each in opened if not each.is_open], moment
    assert moment > 5


def files_open(path: str) -> list[str]:
    """Return which of a database's files this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [each for each in found if each.startswith(path)]


@pytest.mark.parametrize("name", ["read one", "write"])
def test_an_interrupt_of_the_first_call(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    engine.close()
    moment, going_on = 0, True
    while going_on:
        moment += 1
        engine = SQLiteEngine(path, synchronous="normal")
        going_on = interrupted(lambda: CALLS[name](engine), moment)  # noqa: B023 - it is called at once
        assert in_another_thread(lambda: write_and_read(engine, b"1")) == b"1", moment  # noqa: B023
        assert in_another_thread(engine.close) is None, moment
    assert moment > 100


@pytest.mark.parametrize(
    "name", ["read one", *(pytest.param(name, marks=pytest.mark.slow) for name in [*OLD_CALLS][1:])]
)
def test_an_interrupt_of_the_first_call_on_an_old_file(name: str, tmp_path: Path) -> None:
    """Which a write upgrades, and every read before looks at its version."""
    moment, going_on = 0, True
    while going_on:
        moment += 1
        path = str(shutil.copy(OLD, tmp_path / "old.db"))
        engine = SQLiteEngine(path, synchronous="normal")
        engine.read(KEPT, ["plain"])
        going_on = interrupted(lambda: OLD_CALLS[name](engine), moment)  # noqa: B023 - it is called at once
        with closing(SQLiteEngine(path, synchronous="normal")) as other:
            other.write(KEPT, [("new", b"{}")])  # which upgrades it
        for _ in range(2):
            assert engine.read(KEPT, ["new", "plain", "brace"]) == [b"{}", b"hello", b"{not json"], moment
        engine.write(KEPT, [("new", b"{1}")])
        assert in_another_thread(lambda: engine.read(KEPT, ["new"])) == [b"{1}"], moment  # noqa: B023
        assert in_another_thread(engine.close) is None, moment
    assert moment > 20


@pytest.mark.parametrize("what", ["a read", "a write"])
def test_an_interrupt_of_who_reads_or_writes_beside_the_other_keeps_nobody_from_writing(
    what: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "kv.db")
    with closing(SQLiteEngine(path, synchronous="normal")) as engine:
        engine.create_collection(KV, {})
        engine.write(KV, [("00001", b"1")])
    code = "import sys, langchain_kv; s = langchain_kv.KVStore('kv', sys.argv[1]); s.mset([('a', 1)]); print(); input()"
    command = [sys.executable, "-c", code, f"sqlite:{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:  # has it open, too
        assert elsewhere.stdout is not None
        elsewhere.stdout.readline()
        moment, going_on = 0, True
        while going_on:
            moment += 1
            with (
                closing(SQLiteEngine(path, read_only=True)) as reader,
                closing(SQLiteEngine(path, synchronous="normal")) as writer,
            ):
                if what == "a read":
                    going_on = interrupted(lambda: reader.read(KV, ["00001"]), moment)
                else:
                    reader.read(KV, ["00001"])
                    going_on = interrupted(lambda: write_and_read(writer, b"1"), moment)
                assert write_and_read(writer, b"2") == b"2", moment
                assert reader.read(KV, ["00001"]) != [None], moment
        elsewhere.communicate(b"\n", timeout=60)
    assert elsewhere.returncode == 0
    assert moment > 50


def test_an_interrupt_of_a_failing_change(engine: SQLiteEngine) -> None:
    def fail(key: object, body: bytes | None) -> bytes:
        raise ValueError("no")

    def change() -> None:
        with pytest.raises(ValueError, match="no"):
            engine.modify(KV, ["00001"], fail)

    moment, going_on = 0, True
    while going_on:
        moment += 1
        going_on = interrupted(change, moment)
        assert in_another_thread(lambda: write_and_read(engine, b"1")) == b"1", moment
        assert write_and_read(engine, b"2") == b"2", moment


def test_releasing_a_lock_that_is_not_held_does_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first, second = FileLock(path, wait_s=0.05), FileLock(path, wait_s=0.05)
    first.release()
    with first:
        second.release()
        assert in_another_thread(first.release) is None
        with pytest.raises(EngineError, match="Another process held"):
            second.acquire()
    with second:
        pass


def test_a_lock_file_whose_opening_was_interrupted_is_not_taken_for_one_that_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system gives the number of a file that is gone to the next one."""
    lock = FileLock(str(tmp_path / "lock"))
    with lock:
        earlier = os.stat(lock.path)
    lock.close()
    os.unlink(lock.path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    os.unlink(lock.path)
    found, stat = iter([earlier]), os.stat
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *args, **how: next(found, None) or stat(*args, **how))
        lock.acquire()
    is_there = os.path.exists(lock.path)
    lock.release()
    lock.close()
    assert is_there, "a file that was removed is locked"


def test_an_interrupt_while_a_call_is_hurried_hurries_no_later_one(engine: SQLiteEngine) -> None:
    pool = engine._pool
    connection = pool._open[0]
    moment, going_on = 0, True
    while going_on:
        moment += 1
        going_on = interrupted(lambda: pool.waits.limit(connection, time.monotonic() + 1), moment)
        pool.waits.limit(connection, pool.waits.deadline())
        assert connection.execute("PRAGMA busy_timeout").fetchone()[0] > 20_000, moment
    assert moment > 2


def test_a_store_is_not_closed_inside_a_change(engine: SQLiteEngine) -> None:
    def close(key: object, body: bytes | None) -> bytes:
        engine.close()
        return b"new"

    with pytest.raises(UsageError, match="close it before or after"):
        engine.modify(KV, ["00001"], close)
    assert engine.read(KV, ["00001"]) == [b"old"]


def test_an_interrupt_at_any_moment_leaves_a_lock_free() -> None:
    mutex = Mutex()

    def use() -> None:
        with mutex, mutex:
            len("")

    moment, going_on = 0, True
    while going_on:
        moment += 1
        going_on = interrupted(use, moment)
        assert in_another_thread(lambda: mutex.acquire(timeout=0) and mutex.release()) is None, moment
    assert moment > 2


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_moment_leaves_memory_to_others(name: str) -> None:
    engine = MemoryEngine()
    engine.create_collection(KV, {})
    moment, going_on = 0, True
    while going_on:
        moment += 1
        engine.drop_collection(CollectionName("default_keyspace", "new"))
        going_on = interrupted(lambda: CALLS[name](engine), moment)  # type: ignore[arg-type]
        assert in_another_thread(lambda: engine.read(KV, ["00001"])) != "stuck", moment
        assert in_another_thread(lambda: engine.write(KV, [("other", b"new")])) is None, moment
    assert moment > 2


# -- coroutines -------------------------------------------------------------------------------------------------------


def first_step(coroutine: Coroutine[Any, Any, Any], moment: int) -> bool:
    """Run a coroutine up to where it waits, with an interrupt, and give it up; return whether it lasted that long.

    A thread that it wakes has no turn before that: what is run all the same is run later.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(STUCK_S)
    try:
        was_interrupted = interrupted(lambda: coroutine.send(None), moment)
        coroutine.close()
    finally:
        sys.setswitchinterval(before)
    return was_interrupted


@pytest.mark.parametrize("start", ["the first", "a later"])
@pytest.mark.parametrize("lane", ["read", "read_long", "write"])
async def test_a_coroutine_that_is_interrupted_is_not_run_later_and_holds_up_no_other(lane: str, start: str) -> None:
    moment, going_on = 0, True
    while going_on:
        moment += 1
        ran: list[object] = []
        bridge = QueueBridge(f"{lane}, {moment}")
        run = getattr(bridge, lane)
        if start == "a later":
            await run(int)
        going_on = first_step(run(ran.append, "interrupted"), moment)
        await asyncio.gather(*(run(ran.append, number) for number in range(20)))
        assert ran == [*range(20)], moment
        assert in_another_thread(bridge.close) is None, moment
    assert moment > 10


@contextmanager
def interrupted_starts() -> Iterator[list[threading.Event]]:
    """Interrupt every start of a thread within the block once it runs; for each, give what happens at its end."""
    ends: list[threading.Event] = []
    start = threads.start

    def start_and_interrupt(run: Callable[[], None], name: str) -> NoReturn:
        end = threading.Event()
        ends.append(end)
        start(lambda: (run(), end.set())[0], name)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "start", start_and_interrupt)
        yield ends


async def test_a_thread_whose_start_was_interrupted_ends() -> None:
    """Two threads at one queue would tell each other's callers that they were interrupted."""
    bridge = QueueBridge("lost")
    with interrupted_starts() as ends, pytest.raises(KeyboardInterrupt):
        bridge.write(int).send(None)
    assert ends[0].wait(STUCK_S)
    assert await bridge.write(int, "5") == 5
    assert in_another_thread(bridge.close) is None


async def test_a_call_aside_that_is_interrupted_before_it_began_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    runs: list[Callable[[], None]] = []

    def interrupt(run: Callable[[], None], name: str) -> threads.Thread:
        runs.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_aside(lambda: ran.append(1), "aside").send(None)
    runs[0]()
    await asyncio.sleep(0)
    assert ran == []


def test_a_call_over_http_whose_thread_was_interrupted_at_its_start_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_thread, "_process", loop_thread._Process())
    with interrupted_starts() as ends, pytest.raises(KeyboardInterrupt):
        loop_thread.run(asyncio.sleep(0))
    assert ends[0].wait(STUCK_S)
    assert loop_thread.run(asyncio.sleep(0, "answer")) == "answer"
    loop_thread._at_exit()


def test_a_server_whose_start_was_interrupted_ends() -> None:
    with interrupted_starts() as ends, pytest.raises(KeyboardInterrupt), run_in_thread(MemoryEngine(), "token"):
        pass
    assert ends[0].wait(STUCK_S)
