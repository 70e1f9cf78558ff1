"""The bridge from coroutines to plain calls: order, cancellation, errors, loops, forks."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from langchain_kv.errors import StoreClosedError
from langchain_kv.runtime.work_queue import DRAIN_MAX, InlineBridge, Outcome, QueueBridge, run_each


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
