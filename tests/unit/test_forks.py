"""Forks at bad moments: what is taken before one is given back, and a child waits for nobody who is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langchain_kv import KVStore, StoreError
from langchain_kv.engines.sqlite.connections import ConnectionPool
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.engines.sqlite.read_only import ReadOnlyPool
from langchain_kv.runtime import forks
from langchain_kv.runtime.forks import HeldAcrossForks, importing, renew_in_child, watch_forks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # 3.12 warns of forks beside threads
]

CHILD_S = 30


def in_child(work: Callable[[], object]) -> int:
    """Fork; return the child's exit status: 0 where ``work`` returned something true, in time."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(CHILD_S)
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def holding() -> Iterator[Callable[[Callable[[threading.Event, threading.Event], None]], threading.Event]]:
    """Run something on a thread until it says that it holds something; the answer lets it go on."""
    started: list[tuple[threading.Thread, threading.Event]] = []

    def hold(work: Callable[[threading.Event, threading.Event], None]) -> threading.Event:
        held, let = threading.Event(), threading.Event()
        thread = threading.Thread(target=work, args=(held, let))
        started.append((thread, let))
        thread.start()
        assert held.wait(30)
        return let

    yield hold
    for thread, let in started:
        let.set()
        thread.join(30)


# -- what is taken is given back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "no directory", "unreadable"])
def test_a_folder_that_vanished_hinders_no_later_fork(how: str, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    stores = [KVStore("notes", f"sqlite:{folder}/kv.db") for folder in folders]
    for store in stores:
        store.mset([("a", 1)])
    assert in_child(lambda: True) == 0
    for folder in folders[:2]:
        aside = folder.with_name(f"{folder.name}.away")
        folder.rename(aside)
        if how == "no directory":
            folder.touch()
        elif how == "unreadable":
            folder.symlink_to(folder)  # a link to itself cannot be looked into by anybody, root included
    for turn in range(3):
        expected = [turn or 1]
        assert in_child(lambda: stores[3].mget(["a"]) == expected) == 0  # noqa: B023 - called at once
        for store in stores[:2]:
            with pytest.raises(StoreError):
                store.mset([("a", 0)])
        stores[3].mset([("a", turn + 1)])
    for folder in folders[:2]:
        if how != "removed":
            folder.unlink()
        folder.with_name(f"{folder.name}.away").rename(folder)
    for store in stores:
        store.mset([("a", 9)])
        assert store.mget(["a"]) == [9]
        store.close()


@pytest.mark.parametrize("part", ["before_fork", "after_fork_in_parent"])
@pytest.mark.parametrize("error", [OSError(5, "x"), StoreError("x"), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_a_hook_that_fails_for_one_file_keeps_nothing_from_the_others(
    part: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [KVStore("notes", f"sqlite:{tmp_path}/{number}.db") for number in range(3)]
    for store in stores:
        store.mset([("a", 1)])
    original = getattr(ConnectionPool, part)

    def failing(pool: ConnectionPool) -> None:
        original(pool)
        if pool.path.endswith("1.db"):
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(ConnectionPool, part, failing)
        assert in_child(lambda: stores[0].mget(["a"]) == stores[2].mget(["a"]) == [1]) == 0
    assert in_child(lambda: [store.mget(["a"]) for store in stores] == [[1]] * 3) == 0
    for store in stores:
        store.mset([("a", 2)])
        store.close()


def test_a_fork_that_waits_for_one_file_in_vain_gives_the_others_back(
    tmp_path: Path, holding: Callable[..., threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_kv.engines.sqlite.connections.FORK_WAIT_S", 0.05)
    stores = [KVStore("notes", f"sqlite:{tmp_path}/{number}.db") for number in range(3)]
    pool = stores[1]._backend._engine._pool  # type: ignore[attr-defined]

    def work(held: threading.Event, let: threading.Event) -> None:
        pool.read(lambda connection: (held.set(), let.wait(30)))

    let = holding(work)
    assert in_child(lambda: [store.mset([("a", 1)]) for store in (stores[0], stores[2])]) == 0
    let.set()
    for store in stores:
        store.mset([("a", 2)])
        store.close()


def test_a_lock_held_across_forks_is_free_again_on_both_sides() -> None:
    guard = HeldAcrossForks()
    for _ in range(3):
        with guard.lock:
            assert in_child(lambda: guard.lock.acquire(timeout=1)) == 0  # forked by its own holder
        assert in_child(lambda: guard.lock.acquire(timeout=1)) == 0
    found: list[bool] = []

    def take() -> None:
        found.append(guard.lock.acquire(timeout=1))
        guard.lock.release()  # every later fork of this process asks for it

    other = threading.Thread(target=take)
    other.start()
    other.join()
    assert found == [True]


def test_a_fork_that_comes_while_another_thread_forks_takes_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_kv.runtime.forks.FORK_WAIT_S", 0.01)
    guard = HeldAcrossForks()
    guard._before_fork()
    other = threading.Thread(target=lambda: (guard._before_fork(), guard._after_fork()))  # in vain
    other.start()
    other.join()
    guard._after_fork()
    with pytest.raises(RuntimeError):
        guard.lock.release()  # it is not held any more


@pytest.mark.parametrize("error", [RuntimeError("cannot"), KeyboardInterrupt()], ids=repr)
def test_one_thing_that_cannot_start_anew_in_a_child_keeps_nothing_from_the_others(error: BaseException) -> None:
    class Thing:
        anew = False
        fails = False

        def _after_fork_in_child(self) -> None:
            if self.fails:
                raise error
            self.anew = True

    things = [Thing() for _ in range(6)]
    for number, thing in enumerate(things):
        thing.fails = number % 2 == 0
        renew_in_child(thing)
    assert in_child(lambda: [thing.anew for thing in things] == [False, True] * 3) == 0


class Watcher:
    """Notes what it is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told
        watch_forks(self)

    def before_fork(self) -> None:
        self._told.append("before")

    def after_fork_in_parent(self) -> None:
        self._told.append("parent")

    def after_fork_in_child(self) -> None:
        self._told.append("child")


def test_who_watches_forks_is_told_before_and_on_both_sides() -> None:
    told: list[str] = []
    watcher = Watcher(told)
    assert in_child(lambda: told == ["before", "child"]) == 0
    assert told == ["before", "parent"]
    assert watcher


def test_a_watcher_that_nobody_else_keeps_is_told_to_go_on_all_the_same() -> None:
    told: list[str] = []
    watchers: list[Watcher] = []

    class Last(Watcher):
        def before_fork(self) -> None:
            super().before_fork()
            watchers.clear()

    watchers.append(Last(told))
    gone = weakref.ref(watchers[0])
    assert in_child(lambda: True) == 0
    assert told == ["before", "parent"]
    assert gone() is None


def test_an_interrupt_between_two_hooks_keeps_nothing_from_the_rest() -> None:
    called: list[int] = []

    class Interrupted(list[Callable[[], None]]):
        """A list after whose every change Ctrl-C comes once."""

        come = 0

        def pop(self, *_: object) -> Callable[[], None]:
            done = super().pop()
            self.come += 1
            if self.come == 1:
                raise KeyboardInterrupt
            return done

    hooks = Interrupted([lambda number=number: called.append(number) for number in range(4)])
    with pytest.raises(KeyboardInterrupt):
        forks._call_all(hooks)
    assert called == [3, 2, 1, 0]


def test_the_lock_of_imports_is_taken_last_and_given_back_first() -> None:
    """Who holds another one may import meanwhile."""
    guard = HeldAcrossForks()
    seen: list[tuple[bool, bool]] = []

    def is_free(lock: threading.Lock) -> bool:
        found: list[bool] = []

        def look() -> None:
            found.append(lock.acquire(blocking=False))
            if found[0]:
                lock.release()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return found[0]

    class Looking(Watcher):
        def before_fork(self) -> None:
            seen.append((is_free(importing.lock), is_free(guard.lock)))

        after_fork_in_parent = before_fork

    looking = Looking([])
    assert in_child(lambda: True) == 0
    assert seen == [(True, False), (True, False)]
    assert looking


# -- in the middle of what another thread does -------------------------------------------------------------------------


def test_a_child_forked_in_the_middle_of_an_import_of_ours_finds_it_done(
    holding: Callable[..., threading.Event],
) -> None:
    done: list[int] = []

    def work(held: threading.Event, let: threading.Event) -> None:
        with importing.lock:
            held.set()
            let.wait(0.3)  # the fork, which comes at once, waits for this
            done.append(1)

    holding(work)
    assert in_child(lambda: done == [1] and importing.lock.acquire(timeout=1)) == 0


LAZY = {
    "langchain_kv.stores.base": 'KVStore("c", "memory:")',
    "langchain_core": 'KVStore("c", "memory:")',
    "langchain_kv.engines.sqlite.engine": 'KVStore("c", f"sqlite:{folder}/{os.getpid()}.db")',
    "langchain_kv.engines.memory": 'KVStore("c", "memory:")',
    "langchain_kv.backends.engine": 'KVStore("c", "memory:")',
    "msgspec": 'KVStore("c", "memory:")',
    "orjson": 'KVStore("c", "memory:")',
    "sqlite3": 'KVStore("c", f"sqlite:{folder}/{os.getpid()}.db")',
    "aiohttp": 'KVStore("c", "http://127.0.0.1:9", token="t", setup_mode=SetupMode.OFF)',
    "uvloop": 'KVStore("c", "http://127.0.0.1:9", token="t", setup_mode=SetupMode.OFF)',
    "langchain_kv.runtime.loop_thread": 'KVStore("c", "http://127.0.0.1:9", token="t", setup_mode=SetupMode.OFF)',
}


@pytest.mark.slow
@pytest.mark.parametrize("module", LAZY)
def test_a_child_forked_while_another_thread_uses_a_store_for_the_first_time_goes_on(
    module: str, tmp_path: Path
) -> None:
    code = f"""
        import importlib.abc, os, signal, sys, threading, time
        import langchain_kv
        def KVStore(*arguments, **named): return langchain_kv.KVStore(*arguments, **named)
        class SetupMode: OFF = "OFF"
        folder = {str(tmp_path)!r}
        begun = threading.Event()
        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == {module!r} and not begun.is_set():
                    begun.set()
                    time.sleep(0.5)  # within this the main thread forks, unless it waits
        if {module!r} in sys.modules:
            print("imported before", flush=True)
            raise SystemExit
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=lambda: {LAZY[module]})
        thread.start()
        assert begun.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            {LAZY[module]}
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        thread.join()
        print("child", status, flush=True)
        os._exit(0)
    """
    done = subprocess.run(
        # From 3.12 on Python warns of each fork of a process that has threads.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() in ("child 0", "imported before"), done.stderr
    assert not done.stderr


@pytest.mark.slow
def test_what_is_imported_late_is_imported_where_a_store_is_made(tmp_path: Path) -> None:
    """Later imports, on threads that nobody sees, would not be what a fork waits for."""
    code = f"""
        import asyncio, sys
        from langchain_kv import KVByteStore, KVStore
        from langchain_kv.testing import DataAPIServer
        async def use(store, value):
            await store.amset([("a", value), ("b", value)])
            await store.amget([f"k{{number}}" for number in range(2000)])
            assert [key async for key in store.ayield_keys()] == ["a", "b"]
            assert [item async for item in store.ayield_items()] == [("a", value), ("b", value)]
            await store.amdelete(["a", "b"])
            await store.aclose()
        def run(make, value):
            store = make()
            before = set(sys.modules)
            store.mset([("a", value)])
            assert store.mget(["a"]) == [value]
            asyncio.run(use(store, value))
            print(sorted(set(sys.modules) - before))
        with DataAPIServer() as server:
            named = server.url.replace("127.0.0.1", "localhost")
            for url in ("memory:", "sqlite:{tmp_path}/kv.db", server.url, named):
                run(lambda: KVStore("values", url, token=server.token), {{"x": [1, 2.5, "text"]}})
                run(lambda: KVByteStore("bytes", url, token=server.token), b"value")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["[]"] * 8, done.stderr


def test_a_child_forked_during_the_first_opening_of_a_file_can_open_it(
    tmp_path: Path, holding: Callable[..., threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread has the file's lock, and no connection yet."""
    monkeypatch.setattr("langchain_kv.engines.sqlite.connections.FORK_WAIT_S", 0.05)
    path = str(tmp_path / "kv.db")
    KVStore("c", f"sqlite:{path}").close()
    pool = ConnectionPool(path, "full")

    def work(held: threading.Event, let: threading.Event) -> None:
        pool._locked(lambda: (held.set(), let.wait(30)))

    let = holding(work)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(CHILD_S)
            os.read(read, 1)  # until the parent's thread has given the lock back
            found = pool.read(lambda connection: connection.execute("SELECT count(*) FROM collections").fetchone())
            os._exit(0 if found == (1,) else 1)
        finally:
            os._exit(2)
    let.set()
    pool.close()
    os.write(write, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("use", ["read", "change"])
def test_a_fork_waits_for_the_look_at_a_file_that_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """SQLite has locks of its own meanwhile: the child would wait for them for ever."""
    path = str(tmp_path / "kv.db")
    with KVStore("c", f"sqlite:{path}") as store:
        store.mset([("a", 1)])
    looks: list[str] = []

    def slow_look(path: str) -> None:
        looks.append("begun")
        looking.set()
        time.sleep(0.2)
        looks.append("ended")

    looking = threading.Event()
    monkeypatch.setattr("langchain_kv.engines.sqlite.opening.recognise", slow_look)
    pool = ConnectionPool(path, "full")
    thread = threading.Thread(target=getattr(pool, use), args=(lambda connection: None,))
    thread.start()
    assert looking.wait(30)
    assert in_child(lambda: looks == ["begun", "ended"]) == 0
    thread.join(30)
    pool.close()


def test_a_fork_waits_for_what_the_closing_of_a_removed_file_closes(
    tmp_path: Path, holding: Callable[..., threading.Event]
) -> None:
    path = tmp_path / "kv.db"
    with KVStore("c", f"sqlite:{path}") as store:
        store.mset([("a", 1)])
    pool = ConnectionPool(str(path), "full")
    pool.read(lambda connection: None)
    path.unlink()

    def work(held: threading.Event, let: threading.Event) -> None:
        pool._lock.lock_threads(-1)
        held.set()
        let.wait(30)
        pool._lock.release()

    let = holding(work)
    thread = threading.Thread(target=pool.close)
    thread.start()
    thread.join(0.2)
    assert pool._open  # they are closed by who excludes the other threads, and so a fork
    let.set()
    thread.join(30)
    assert not pool._open


def test_a_connection_to_an_older_state_of_a_file_is_not_closed_while_a_fork_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "kv.db"
    with KVStore("c", f"sqlite:{path}") as store:
        store.mset([("a", 1)])
    pool = ReadOnlyPool(str(path), "it is a test", 1.0)
    pool.read(lambda connection: None)
    os.utime(path)
    pool._forking = True  # what a fork does first of all
    opened = list(pool._open)
    pool._drop_stale()
    assert pool._open == opened != []
    pool.after_fork_in_parent()
    pool._drop_stale()
    assert pool._open == []
    pool.close()


def test_a_child_forked_while_a_pool_is_made_knows_every_other_one(
    tmp_path: Path, holding: Callable[..., threading.Event]
) -> None:
    store = KVStore("c", f"sqlite:{tmp_path}/kv.db")
    store.mset([("a", 1)])

    def work(held: threading.Event, let: threading.Event) -> None:
        with forks._beginning.lock:
            held.set()
            let.wait(0.2)

    holding(work)
    assert in_child(lambda: store.mget(["a"]) == [1]) == 0
    store.close()


def test_a_file_lock_that_another_thread_holds_is_a_new_one_in_the_child(
    tmp_path: Path, holding: Callable[..., threading.Event]
) -> None:
    lock = FileLock(str(tmp_path / "x.lock"), wait_s=20)

    def work(held: threading.Event, let: threading.Event) -> None:
        with lock:
            held.set()
            let.wait(30)

    let = holding(work)

    def child() -> bool:
        lock.after_fork_in_child()
        return lock._threads.acquire(timeout=1) and lock._descriptor is None

    assert in_child(child) == 0
    let.set()
