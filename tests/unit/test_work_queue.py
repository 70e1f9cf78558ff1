"""The bridge from coroutines to plain calls: order, cancellation, errors, loops, forks."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from langchain_kv.errors import StoreClosedError, StoreError
from langchain_kv.runtime import threads
from langchain_kv.runtime.work_queue import (
    ASIDE_MAX,
    DRAIN_MAX,
    TELL_TRIES,
    AsideBridge,
    InlineBridge,
    Outcome,
    QueueBridge,
    run_aside,
    run_each,
)


@pytest.fixture
def bridge() -> Iterator[QueueBridge]:
    made = QueueBridge("test")
    yield made
    made.close()


class Gate:
    """A call that says when it has begun and ends when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.let.wait(30)
        return "through"


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_answers_and_arguments_pass(bridge: QueueBridge) -> None:
    assert await bridge.read(divmod, 7, 2) == (3, 1)
    assert await bridge.write(int, "ff", base=16) == 255


async def test_inline_runs_on_the_loops_own_thread() -> None:
    assert await InlineBridge().read(threading.get_ident) == threading.get_ident()
    assert await InlineBridge().write(int, "ff", base=16) == 255


async def test_long_calls_leave_the_loops_own_thread() -> None:
    assert await InlineBridge().read_long(threading.get_ident) != threading.get_ident()
    assert await InlineBridge().write_long(int, "ff", base=16) == 255


async def test_calls_aside_have_threads_of_their_own_up_to_a_bound() -> None:
    bridge, let = AsideBridge(), threading.Event()
    begun: list[int] = []

    def wait() -> bool:
        begun.append(threading.get_ident())
        return let.wait(30)

    calls = [asyncio.ensure_future(bridge.write(wait)) for _ in range(2 * ASIDE_MAX)]
    await settled(lambda: len(begun) == ASIDE_MAX)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len({*begun, threading.get_ident()}) == ASIDE_MAX + 1 == len(begun) + 1
    let.set()
    assert await asyncio.gather(*calls) == [True] * 2 * ASIDE_MAX


async def test_a_long_read_holds_up_neither_reads_nor_writes(bridge: QueueBridge) -> None:
    gate = Gate()
    long = asyncio.create_task(bridge.read_long(gate))
    await settled(gate.begun.is_set)
    assert await bridge.read(divmod, 7, 2) == (3, 1)
    assert await bridge.write(divmod, 7, 2) == (3, 1)
    assert not long.done()
    gate.let.set()
    assert await long == "through"


async def test_calls_run_aside_reads_on_one_thread_and_writes_on_another(bridge: QueueBridge) -> None:
    reads = set(await asyncio.gather(*(bridge.read(threading.get_ident) for _ in range(50))))
    writes = set(await asyncio.gather(*(bridge.write(threading.get_ident) for _ in range(50))))
    assert len(reads) == len(writes) == 1
    assert len({threading.get_ident()} | reads | writes) == 3


async def test_no_thread_starts_before_the_first_call() -> None:
    bridge = QueueBridge("idle")
    assert not [thread for thread in threading.enumerate() if "idle" in thread.name]
    await bridge.read(int)
    assert [thread.name for thread in threading.enumerate() if "idle" in thread.name] == ["langchain-kv reads idle"]
    bridge.close()
    assert not [thread for thread in threading.enumerate() if "idle" in thread.name]


async def test_calls_run_in_the_order_they_came(bridge: QueueBridge) -> None:
    ran: list[int] = []
    count = 3 * DRAIN_MAX + 1
    await asyncio.gather(*(bridge.write(ran.append, number) for number in range(count)))
    assert ran == list(range(count))


async def test_reads_pass_while_a_write_takes_long(bridge: QueueBridge) -> None:
    gate = Gate()
    write = asyncio.ensure_future(bridge.write(gate))
    await bridge.read(gate.begun.wait, 30)
    assert await bridge.read(int, "5") == 5
    assert not write.done()
    gate.let.set()
    assert await write == "through"


async def test_an_exception_goes_to_its_own_caller_only(bridge: QueueBridge) -> None:
    def fail(error: BaseException) -> None:
        raise error

    class Unusual(BaseException):
        pass

    errors = [ValueError("a"), Unusual(), KeyError("b")]
    calls: list[Any] = [
        bridge.write(int, "1"),
        *(bridge.write(fail, error) for error in errors),
        bridge.write(int, "2"),
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert found == [1, *errors, 2]
    with pytest.raises(RuntimeError, match="StopIteration"):
        await bridge.read(next, iter([]))
    assert await bridge.read(int, "3") == 3


async def test_a_cancelled_call_that_still_waits_is_dropped(bridge: QueueBridge) -> None:
    gate, ran = Gate(), []
    first = asyncio.ensure_future(bridge.write(gate))
    await settled(gate.begun.is_set)
    second = asyncio.ensure_future(bridge.write(ran.append, "second"))
    third = asyncio.ensure_future(bridge.write(ran.append, "third"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.let.set()
    await asyncio.gather(first, third)
    assert ran == ["third"]


async def test_a_cancelled_call_that_has_begun_ends_whole(bridge: QueueBridge) -> None:
    gate, ran = Gate(), []

    def call() -> None:
        gate()
        ran.append("ended")

    task = asyncio.ensure_future(bridge.write(call))
    await settled(gate.begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.let.set()
    await bridge.write(int)
    assert ran == ["ended"]


async def test_what_gathers_while_one_runs_is_run_together() -> None:
    groups: list[int] = []

    def run_writes(calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        groups.append(len(calls))
        return run_each(calls)

    bridge = QueueBridge("groups", run_writes=run_writes)
    gate = Gate()
    first = asyncio.ensure_future(bridge.write(gate))
    await settled(gate.begun.is_set)
    others = asyncio.gather(*(bridge.write(int, number) for number in range(DRAIN_MAX + 5)))
    await asyncio.sleep(0)
    gate.let.set()
    assert await first == "through"
    assert await others == list(range(DRAIN_MAX + 5))
    assert groups == [1, DRAIN_MAX, 5]
    bridge.close()


async def test_a_loop_is_woken_once_for_all_its_answers(bridge: QueueBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    original, wakes = loop.call_soon_threadsafe, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        wakes.append(1)
        return original(*args, **kwargs)

    gate = Gate()
    first = asyncio.ensure_future(bridge.read(gate))
    await settled(gate.begun.is_set)
    others = asyncio.gather(*(bridge.read(int) for _ in range(64)))
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    gate.let.set()
    await asyncio.gather(first, others)
    assert len(wakes) == 2


def test_loops_one_after_the_other_and_side_by_side(bridge: QueueBridge) -> None:
    async def use() -> list[int]:
        return await asyncio.gather(*(bridge.write(int, number) for number in range(100)))

    assert asyncio.run(use()) == asyncio.run(use()) == list(range(100))
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(use()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(100))] * 4


def test_a_loop_closed_meanwhile_harms_nobody(bridge: QueueBridge) -> None:
    gate = Gate()

    async def leave() -> None:
        task = asyncio.ensure_future(bridge.read(gate))
        await settled(gate.begun.is_set)
        task.cancel()

    asyncio.run(leave())
    gate.let.set()
    assert asyncio.run(bridge.read(int, "7")) == 7


async def test_a_thread_that_waits_keeps_no_argument_alive(bridge: QueueBridge) -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    assert await bridge.write(repr, large)
    del large
    await bridge.read(int)
    await settled(lambda: gc.collect() >= 0 and gone() is None)


async def test_close_ends_what_is_queued_then_refuses(bridge: QueueBridge) -> None:
    gate, ran = Gate(), []
    first = asyncio.ensure_future(bridge.write(gate))
    await settled(gate.begun.is_set)
    others = [asyncio.ensure_future(bridge.write(ran.append, number)) for number in range(10)]
    await asyncio.sleep(0)
    closer = threading.Thread(target=bridge.close)
    closer.start()
    gate.let.set()
    await asyncio.gather(first, *others)
    closer.join()
    assert ran == list(range(10))
    with pytest.raises(StoreClosedError):
        await bridge.write(int)
    with pytest.raises(StoreClosedError):
        await bridge.read(int)
    bridge.close()


async def test_close_from_the_bridges_own_thread_does_not_wait_for_itself() -> None:
    bridge = QueueBridge("own")
    await bridge.write(bridge.close)
    with pytest.raises(StoreClosedError):
        await bridge.write(int)


# -- a lane outlives its work ------------------------------------------------------------------------------------------


class Broken(BaseException):
    """Nothing that anybody foresees."""


@pytest.mark.parametrize(
    "error",
    [OSError(5, "gone"), MemoryError(), AssertionError("x"), StopIteration(), RecursionError(), Broken()],
    ids=repr,
)
async def test_what_the_runner_of_writes_raises_is_the_outcome_of_its_calls_and_later_ones_go_on(
    error: BaseException,
) -> None:
    broken = [True]

    def run_writes(calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        if broken[0]:
            raise error
        return run_each(calls)

    bridge = QueueBridge("broken", run_writes=run_writes)
    found = await asyncio.gather(*(bridge.write(int, number) for number in range(8)), return_exceptions=True)
    assert all(one is error or one.__cause__ is error for one in found if isinstance(one, BaseException))
    assert not [one for one in found if isinstance(one, int)]
    broken[0] = False
    assert await bridge.write(int, 5) == 5
    bridge.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("lane", "applied"), [("read", False), ("write", None)])
async def test_an_interrupt_in_a_lane_ends_no_event_loop_but_is_told(
    bridge: QueueBridge, error: type[BaseException], lane: str, applied: bool | None
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(StoreError, match="interrupted") as told:
        await getattr(bridge, lane)(fail)
    assert (told.value.applied, told.value.retryable) == (applied, True)
    assert isinstance(told.value.__cause__, error)
    assert await getattr(bridge, lane)(int, "5") == 5


async def test_a_runner_that_forgets_an_outcome_leaves_no_caller_waiting() -> None:
    bridge = QueueBridge("short", run_writes=lambda calls: run_each(calls)[:-1])
    with pytest.raises(StoreError, match="interrupted"):
        await bridge.write(int)
    bridge.close()


def throw_into(thread: int, error: type[BaseException]) -> None:
    """Raise ``error`` wherever the thread is, as soon as it runs Python code."""
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, Broken])
async def test_a_thread_that_is_interrupted_between_two_jobs_answers_all_that_follow(
    bridge: QueueBridge, error: type[BaseException]
) -> None:
    thread = await bridge.write(threading.get_ident)
    for _ in range(20):
        throw_into(thread, error)
        found = await asyncio.wait_for(
            asyncio.gather(*(bridge.write(int, number) for number in range(3)), return_exceptions=True), 30
        )
        assert all(one in (0, 1, 2) or isinstance(one, StoreError | error) for one in found)
    assert await bridge.write(threading.get_ident) == thread


async def test_a_thread_that_is_interrupted_at_random_runs_no_write_twice_and_answers_every_one(
    bridge: QueueBridge,
) -> None:
    ran: list[int] = []
    thread = await bridge.write(threading.get_ident)
    for turn in range(50):
        writes = [asyncio.ensure_future(bridge.write(ran.append, turn * 10 + number)) for number in range(10)]
        await asyncio.sleep(0)
        throw_into(thread, Broken)
        await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 30)
    await bridge.write(int)
    assert len(set(ran)) == len(ran)


async def test_a_thread_that_ended_all_the_same_is_replaced(
    bridge: QueueBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bridge._writes, "_turn", lambda: False)
        waiting = asyncio.ensure_future(bridge.write(int, "4"))
        await asyncio.sleep(0)
        assert bridge._writes._thread is not None
        await asyncio.to_thread(bridge._writes._thread.join)
    assert await asyncio.wait_for(bridge.write(int, "5"), 30) == 5
    assert await waiting == 4


class Deaf(asyncio.SelectorEventLoop):
    """An event loop that refuses to be told for some time."""

    refusals = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise OSError("deaf")
        return super().call_soon_threadsafe(*args, **kwargs)


def test_a_loop_that_cannot_be_told_at_once_is_told_again(bridge: QueueBridge) -> None:
    async def use() -> int:
        loop.refusals = TELL_TRIES - 1
        return await asyncio.wait_for(bridge.read(int, "5"), 30)

    loop = Deaf()
    try:
        assert loop.run_until_complete(use()) == 5
    finally:
        loop.close()


def test_a_loop_that_is_never_told_does_not_keep_others_waiting(
    bridge: QueueBridge, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Deaf()
    task = loop.create_task(bridge.read(int, "1"))
    loop.call_soon(loop.stop)
    loop.refusals = 1000
    loop.run_forever()
    assert asyncio.run(bridge.read(int, "5")) == 5
    assert "could not be told" in caplog.text
    task.cancel()
    loop.refusals = 0
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


async def test_a_call_aside_has_a_thread_of_its_own_and_its_error_comes_back() -> None:
    assert await run_aside(threading.get_ident, "aside") != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await run_aside(lambda: 1 // 0, "aside")


async def test_a_call_aside_runs_here_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Callable[[], None], name: str) -> None:
        raise StoreError("no thread")

    monkeypatch.setattr(threads, "start", refuse)
    assert await run_aside(threading.get_ident, "aside") == threading.get_ident()


@pytest.mark.slow
def test_coroutines_on_memory_work_in_an_exit_handler_also_long_ones() -> None:
    code = """
        import asyncio, atexit, concurrent.futures.thread
        from langchain_kv import KVStore
        store = KVStore("c", "memory:")
        async def use():
            await store.amset([(f"k{number}", number) for number in range(5000)])
            assert await store.amget([f"k{number}" for number in range(5000)]) == list(range(5000))
            await store.aclose()
            print("done")
        atexit.register(lambda: asyncio.run(use()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


async def test_a_lane_whose_thread_cannot_be_started_says_so_and_starts_it_later(
    bridge: QueueBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(StoreError, match=r"cannot start a thread.*ulimit"):
            await bridge.write(int)
    assert await bridge.write(int, "5") == 5


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="this platform does not fork")
def test_a_forked_child_starts_anew() -> None:
    code = """
        import asyncio, os, threading, warnings
        from langchain_kv.runtime.work_queue import QueueBridge
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        bridge = QueueBridge("test")
        gate = threading.Event()
        async def main():
            ran = []
            held = asyncio.ensure_future(bridge.write(gate.wait))
            waiting = asyncio.ensure_future(bridge.write(ran.append, "once"))
            await bridge.read(int)
            pid = os.fork()
            if pid == 0:
                asyncio.events._set_running_loop(None)
                assert asyncio.run(bridge.read(int, "5")) == asyncio.run(bridge.write(int, "5")) == 5
                assert ran == []
                os._exit(0)
            gate.set()
            await asyncio.gather(held, waiting)
            assert ran == ["once"]
            assert os.waitpid(pid, 0)[1] == 0
        asyncio.run(main())
        bridge.close()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
