"""When the collection is made: the modes, failures, cancellation, threads, and a forked child."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import linecache
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from langchain_kv import AstraDBStore, KVByteStore, KVStore
from langchain_kv.errors import ConfigError, SetupPendingError, StoreError
from langchain_kv.stores.setup import Setup, SetupMode
from places import open_place


class FakeBackend:
    """Counts set-ups; each waits for ``go`` and fails while ``failures`` last."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[bool] = []
        self.failures = failures
        self.go = threading.Event()
        self.go.set()

    def open(self, *, clear: bool = False) -> None:
        self.calls.append(clear)
        assert self.go.wait(10)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("set-up failed")


def make(backend: FakeBackend, mode: SetupMode, *, pre_delete: bool = False) -> Setup:
    return Setup(backend, mode, pre_delete=pre_delete)  # type: ignore[arg-type]


class Theirs(enum.Enum):
    SYNC = 10
    ASYNC = 20
    OFF = 30


@pytest.mark.parametrize("mode", list(SetupMode))
def test_modes_of_other_packages_match_by_name(mode: SetupMode) -> None:
    assert SetupMode.of(Theirs[mode.name]) is mode
    assert SetupMode.of(mode) is mode


@pytest.mark.parametrize("mode", [None, 1, "LATER", object()])
def test_another_mode_is_refused(mode: Any) -> None:
    with pytest.raises(ConfigError, match="SYNC, ASYNC or OFF"):
        SetupMode.of(mode)


def test_sync_is_done_in_the_constructor_and_raises_there() -> None:
    backend = FakeBackend()
    assert make(backend, SetupMode.SYNC, pre_delete=True).done
    assert backend.calls == [True]
    with pytest.raises(ConnectionError):
        make(FakeBackend(failures=1), SetupMode.SYNC)


def test_off_does_nothing_and_says_so_when_asked_to_delete() -> None:
    backend = FakeBackend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(backend, SetupMode.OFF).done
    with pytest.warns(UserWarning, match="no effect"):
        make(backend, SetupMode.OFF, pre_delete=True)
    assert backend.calls == []


def test_async_without_a_loop_starts_at_first_use() -> None:
    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    assert backend.calls == []
    setup.wait()
    setup.wait()
    assert backend.calls == [False]
    assert setup.done


async def test_async_starts_at_once_where_a_loop_runs() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    with pytest.raises(SetupPendingError, match="not finished"):
        setup.wait()
    backend.go.set()
    await setup.await_()
    setup.wait()
    assert backend.calls == [False]


def test_a_set_up_in_the_background_sees_the_callers_context() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen = []

    class Seeing(FakeBackend):
        def open(self, *, clear: bool = False) -> None:
            seen.append(request.get())

    request.set("mine")
    make(Seeing(), SetupMode.ASYNC).wait()
    assert seen == ["mine"]


async def test_a_sync_call_from_another_thread_waits() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    waiting = asyncio.get_running_loop().run_in_executor(None, setup.wait)
    backend.go.set()
    await waiting
    assert setup.done


async def test_a_cancelled_waiter_takes_nothing_from_the_others() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(setup.await_(), 0.01)
    others = [asyncio.ensure_future(setup.await_()) for _ in range(3)]
    await asyncio.sleep(0)
    others[0].cancel()
    backend.go.set()
    await asyncio.gather(*others[1:])
    assert backend.calls == [False]


async def test_a_failed_set_up_is_tried_again_by_the_next_call() -> None:
    backend = FakeBackend(failures=1)
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    waiters = [asyncio.ensure_future(setup.await_()) for _ in range(2)]
    await asyncio.sleep(0)
    backend.go.set()
    assert [type(error) for error in await asyncio.gather(*waiters, return_exceptions=True)] == [ConnectionError] * 2
    assert not setup.done
    await setup.await_()
    assert setup.done
    assert len(backend.calls) == 2


def test_many_threads_share_one_attempt() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    threads = [threading.Thread(target=setup.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    backend.go.set()
    for thread in threads:
        thread.join(10)
    assert backend.calls == [False]


def test_a_plain_call_that_waited_is_the_last_to_wait() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    with asyncio.Runner() as stopped:
        stopped.run(begin(setup))
        backend.go.set()
        setup.wait()  # the loop had no turn since
        assert setup.done


@pytest.mark.parametrize("closes", [False, True])
def test_an_attempt_that_is_over_is_believed_on_another_loop(closes: bool) -> None:
    async def here() -> None:
        setup.wait()

    backend = FakeBackend(failures=1)
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    with asyncio.Runner() as stopped:
        stopped.run(begin(setup))
        with pytest.raises(SetupPendingError):
            asyncio.run(here())
        attempt = setup._attempt
        assert attempt is not None
        if closes:
            stopped.close()
        backend.go.set()
        with pytest.raises(ConnectionError):
            attempt.wait()
        with pytest.raises(ConnectionError):
            asyncio.run(here())
        with pytest.raises(SetupPendingError):  # begun anew
            asyncio.run(here())
        assert setup._attempt is not None
        setup._attempt.wait()
        asyncio.run(here())
        assert setup.done


async def begin(setup: Setup) -> None:
    setup._start()


def test_two_event_loops_wait_for_one_attempt() -> None:
    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    asyncio.run(setup.await_())
    asyncio.run(setup.await_())
    assert backend.calls == [False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_set_up_makes_its_own_attempt() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    setup._start()
    child = os.fork()
    if child == 0:
        try:
            backend.go.set()
            setup.wait()
            os._exit(0 if setup.done else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    backend.go.set()
    setup.wait()


# -- a synchronous call on the loop's thread ---------------------------------------------------------------------------


async def test_a_sync_call_on_the_loop_is_too_early_however_fast_the_set_up_was() -> None:
    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    assert setup._attempt is not None
    setup._attempt.wait()  # the thread is done; the loop had no turn since
    for _ in range(3):
        with pytest.raises(SetupPendingError):
            setup.wait()
    await setup._attempt.await_()
    await asyncio.sleep(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_a_thread_begins_a_set_up_waits_for_no_lock() -> None:
    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    with setup._lock:  # as another thread would hold it
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(20)
                setup.wait()
                os._exit(0 if setup.done else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_where_no_thread_can_be_started_it_is_done_at_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    if mode == "sync":
        setup.wait()
    else:
        asyncio.run(setup.await_())
    assert setup.done
    assert backend.calls == [False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_set_up_is_told_as_such_and_it_is_tried_again(error: type[BaseException]) -> None:
    class Interrupted(FakeBackend):
        def open(self, *, clear: bool = False) -> None:
            super().open()
            if len(self.calls) == 1:
                raise error

    setup = make(Interrupted(), SetupMode.ASYNC)
    with pytest.raises(StoreError, match="interrupted"):
        setup.wait()
    setup.wait()
    assert setup.done


def test_ctrl_c_while_the_thread_is_started_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    backend = FakeBackend()
    setup = make(backend, SetupMode.ASYNC)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            setup.wait()
    setup.wait()
    assert backend.calls == [False]


@pytest.mark.parametrize("url", ["memory:early", "sqlite:{}"])
async def test_a_sync_call_too_early_is_the_same_error_on_every_embedded_target(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path / "kv.db")
    KVStore("kv", url).close()
    for _ in range(20):
        store = KVStore("kv", url, setup_mode="ASYNC")
        with pytest.raises(SetupPendingError):
            store.mget(["a"])
        assert await store.amget(["a"]) == [None]
        assert store.mget(["a"]) == [None]
        await store.aclose()


async def test_a_failed_set_up_is_told_to_the_next_sync_call_on_the_loop_and_then_tried_again() -> None:
    backend = FakeBackend(failures=1)
    setup = make(backend, SetupMode.ASYNC)
    with pytest.raises(SetupPendingError):
        setup.wait()
    attempt = setup._attempt
    assert attempt is not None
    with pytest.raises(ConnectionError):
        attempt.wait()
    while not attempt.is_noticed:
        await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        setup.wait()
    with pytest.raises(SetupPendingError):
        setup.wait()
    await setup.await_()
    setup.wait()
    assert len(backend.calls) == 2


# -- warnings ---------------------------------------------------------------------------------------------------------


def indexed_collection(place: Any) -> str:
    name: str = place.new_name()
    place.create(name, {})
    return name


def line_of_warning(caught: list[warnings.WarningMessage]) -> str:
    (one,) = caught
    return linecache.getline(one.filename, one.lineno)


@pytest.mark.parametrize("place_name", ["memory", "sqlite", "http+memory"])
def test_a_warning_points_at_the_line_that_made_the_store(place_name: str, tmp_path: Path) -> None:
    class Own(KVStore):
        pass

    with open_place(place_name, tmp_path) as place:
        name = indexed_collection(place)
        for kind in (KVStore, KVByteStore, Own):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                kind(name, place.url, **place.arguments).close()  # here
            assert "# here" in line_of_warning(caught)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            AstraDBStore(name, api_endpoint=place.url, **place.arguments).close()  # here
        assert "# here" in line_of_warning(caught)


def test_a_warning_of_a_set_up_in_the_background_points_at_who_began_it(tmp_path: Path) -> None:
    with open_place("sqlite", tmp_path) as place:
        name = indexed_collection(place)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = KVStore(name, place.url, setup_mode="ASYNC")
            store.mget(["a"])  # here
        assert "# here" in line_of_warning(caught)
        store.close()


def test_the_warning_that_nothing_was_deleted_points_at_the_line_that_made_the_store() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        KVStore("kv", "memory:", setup_mode="OFF", pre_delete_collection=True).close()  # here
    assert "# here" in line_of_warning(caught)


async def test_a_loop_that_was_closed_takes_nothing_from_the_others_that_wait() -> None:
    backend = FakeBackend()
    backend.go.clear()
    setup = make(backend, SetupMode.ASYNC)
    closed = asyncio.new_event_loop()
    task = closed.create_task(setup.await_())
    closed.call_soon(closed.stop)
    await asyncio.get_running_loop().run_in_executor(None, closed.run_forever)
    closed.close()
    other = asyncio.ensure_future(setup.await_())
    await asyncio.sleep(0)
    backend.go.set()
    await asyncio.wait_for(other, 10)
    task._log_destroy_pending = False  # type: ignore[attr-defined] # it is what this test is about
