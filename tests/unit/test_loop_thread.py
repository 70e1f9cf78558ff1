"""The loop thread: plain calls over coroutines, under interrupts, forks and the interpreter's end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_kv.errors import StoreError, UsageError
from langchain_kv.runtime import loop_thread

TIMEOUT_S = 30


async def _answer(value: object = 1) -> object:
    await asyncio.sleep(0)
    return value


async def _thread_id() -> int:
    return threading.get_ident()


def _in_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, warnings being errors."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def _assert_silent(done: subprocess.CompletedProcess[str], out: str = "") -> None:
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, out, "")


# -- run --------------------------------------------------------------------------------------------------------


def test_result_comes_back() -> None:
    assert loop_thread.run(_answer("x")) == "x"


def test_all_calls_run_on_one_other_thread() -> None:
    found = {loop_thread.run(_thread_id()) for _ in range(3)}
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_exception_of_the_coroutine_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        loop_thread.run(fail())


def test_exception_leaves_no_reference_cycle() -> None:
    class Mine(Exception):
        pass

    async def fail() -> None:
        raise Mine

    def calls() -> list[object]:
        return [found for found in gc.get_objects() if type(found) is loop_thread._Call]

    gc.collect()
    gc.disable()
    others = calls()  # which an exception that another test keeps may hold
    try:
        with pytest.raises(Mine):
            loop_thread.run(fail())
        loop_thread.run(_answer())
        assert not [found for found in calls() if not any(found is other for other in others)]
    finally:
        gc.enable()


def test_call_on_the_loop_thread_is_refused() -> None:
    async def nested() -> None:
        loop_thread.run(_answer())

    with pytest.raises(UsageError, match="use the async"):
        loop_thread.run(nested())


def test_cancelled_operation_is_an_error_of_ours() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    with pytest.raises(Exception, match="cancelled"):
        loop_thread.run(cancel_itself())


def test_many_threads_at_once_get_their_own_results() -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(100):
            if loop_thread.run(_answer((number, turn))) != (number, turn):
                wrong.append((number, turn))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_it_works_inside_a_running_loop_of_another_thread() -> None:
    async def main() -> object:
        return loop_thread.run(_answer("inner"))

    assert asyncio.run(main()) == "inner"


def test_importing_starts_no_thread() -> None:
    _assert_silent(
        _in_python("import threading, langchain_kv.runtime.loop_thread; print(threading.active_count())"), "1"
    )


@pytest.mark.slow
def test_asyncio_serves_where_uvloop_is_missing() -> None:
    code = """
        import asyncio, sys
        sys.modules["uvloop"] = None
        from langchain_kv.runtime import loop_thread
        async def kind(): return type(asyncio.get_running_loop()).__base__.__module__
        print(loop_thread.run(kind()))
    """
    _assert_silent(_in_python(code), "asyncio.unix_events")


# -- the loop outlives its work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_inside_a_coroutine_is_an_error_of_ours_and_the_loop_goes_on(error: type[BaseException]) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    thread = loop_thread.run(_thread_id())
    with pytest.raises(StoreError, match="interrupted") as told:
        loop_thread.run(fail())
    assert (told.value.retryable, told.value.applied) == (True, None)
    assert loop_thread.run(_thread_id()) == thread


def test_interrupt_of_one_operation_leaves_the_others_alone() -> None:
    let = threading.Event()

    async def wait() -> str:
        while not let.is_set():
            await asyncio.sleep(0.001)
        return "done"

    async def fail() -> None:
        raise SystemExit

    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(loop_thread.run, wait())
        with pytest.raises(StoreError):
            loop_thread.run(fail())
        let.set()
        assert other.result(TIMEOUT_S) == "done"


def test_loop_that_somebody_stops_goes_on() -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()

    loop_thread.run(stop())
    assert loop_thread.run(_answer("x")) == "x"


def test_operation_that_cannot_be_started_on_the_loop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        asyncio.get_running_loop().set_task_factory(_no_task)

    async def allow() -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _no_task(*_: object, **__: object) -> asyncio.Future[object]:
        asyncio.get_running_loop().set_task_factory(None)
        raise MemoryError

    loop_thread.run(refuse())
    with pytest.raises(MemoryError):
        loop_thread.run(_answer())
    assert loop_thread.run(_answer("x")) == "x"


@pytest.mark.slow
def test_thread_that_cannot_be_started_is_an_error_and_tried_again() -> None:
    code = """
        import threading
        from langchain_kv.runtime import loop_thread
        from langchain_kv.errors import StoreError
        async def answer(): return "answer"
        start = threading.Thread.start
        def refuse(thread): raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        try:
            loop_thread.run(answer())
        except StoreError as error:
            print(type(error).__name__, error.retryable)
        threading.Thread.start = start
        print(loop_thread.run(answer()))
    """
    _assert_silent(_in_python(code), "StoreError True\nanswer")


# -- iterate ----------------------------------------------------------------------------------------------------


class _Source:
    """Yields numbers and notes when it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.closed_by = 0

    async def pages(self) -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
                await asyncio.sleep(0)
        finally:
            self.closed_by = threading.get_ident()
            self.closed.set()


def test_iteration_yields_everything_in_order() -> None:
    assert list(loop_thread.iterate(_Source().pages())) == list(range(1000))


@pytest.mark.parametrize("how", ["close", "collect", "break"])
def test_abandoned_iteration_closes_its_source_on_the_loop(how: str) -> None:
    source = _Source()
    pages = loop_thread.iterate(source.pages())
    assert next(pages) == 0
    if how == "close":
        pages.close()
    elif how == "break":
        for _ in pages:
            break
    del pages
    gc.collect()
    assert source.closed.wait(TIMEOUT_S)
    assert source.closed_by == loop_thread.run(_thread_id())


def test_iteration_collected_on_the_loop_thread_does_not_wait_for_itself() -> None:
    source = _Source()
    box = [loop_thread.iterate(source.pages())]
    next(box[0])

    async def drop() -> None:
        box.clear()
        gc.collect()

    loop_thread.run(drop())
    assert source.closed.wait(TIMEOUT_S)


def test_iteration_passes_the_sources_exception_on() -> None:
    async def pages() -> AsyncIterator[int]:
        yield 1
        raise LookupError("broken")

    found = loop_thread.iterate(pages())
    assert next(found) == 1
    with pytest.raises(LookupError, match="broken"):
        next(found)


def test_plain_async_iterator_without_aclose_is_taken() -> None:
    class Plain:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(loop_thread.iterate(Plain())) == [1, 0]


# -- interrupts, forks, the end ---------------------------------------------------------------------------------

_INTERRUPTS = """
    import asyncio, os, random, signal, sys, threading, time
    from langchain_kv.runtime import loop_thread

    seed = int(sys.argv[1]); random.seed(seed); wanted = int(sys.argv[2])
    caught = 0; done = False; armed = False

    def on_interrupt(*_):
        global armed
        if armed:  # so that none comes between one try block and the next
            armed = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_interrupt)

    def interrupt():
        while not done:
            before = caught
            time.sleep(random.random() * 0.002)
            os.kill(os.getpid(), signal.SIGINT)
            give_up = time.monotonic() + 1
            while caught == before and not done and time.monotonic() < give_up:  # one may be lost in a destructor
                time.sleep(0.0001)

    async def work(kind):
        if kind == 0: return
        await asyncio.sleep((0, 0.0005, 30)[kind - 1])

    async def pages():
        while True:
            yield 1
            await asyncio.sleep(0.0003)

    async def orphans():
        for _ in range(50):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left: break
            await asyncio.sleep(0.01)
        return len(left)

    threading.Thread(target=interrupt, daemon=True).start()
    while caught < wanted:
        try:
            while True:
                armed = True
                if random.random() < 0.2:
                    for _ in zip(range(5), loop_thread.iterate(pages())): pass
                loop_thread.run(work(random.randrange(4)))
        except KeyboardInterrupt:
            caught += 1
    done = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("orphans", loop_thread.run(orphans()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("uvloop", [True, False])
def test_interrupts_at_random_moments_neither_hang_nor_lose_a_lock(uvloop: bool) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    prelude = "" if uvloop else "import sys; sys.modules['uvloop'] = None\n"
    done = _in_python(prelude + textwrap.dedent(_INTERRUPTS), str(seed), "1200")
    assert done.returncode == 0, (seed, done.stderr)
    assert done.stdout.startswith("orphans 0"), (seed, done.stdout, done.stderr)
    assert "un-acquired" not in done.stderr, (seed, done.stderr)


@pytest.mark.slow
def test_interrupt_cancels_the_operation() -> None:
    code = """
        import asyncio, os, signal, threading
        from langchain_kv.runtime import loop_thread
        cancelled = threading.Event()
        async def work():
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        try:
            loop_thread.run(work())
        except KeyboardInterrupt:
            print(cancelled.wait(10))
    """
    _assert_silent(_in_python(code), "True")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_forked_child_starts_a_loop_of_its_own_and_the_parents_goes_on(end: str) -> None:
    code = f"""
        import asyncio, gc, os, sys
        from langchain_kv.runtime import loop_thread
        async def name(): return id(asyncio.get_running_loop())
        async def nap(): await asyncio.sleep(0.01); return "parent"
        before = loop_thread.run(name())
        async def numbers():
            for n in range(3): yield n
        pages = loop_thread.iterate(numbers()); next(pages)
        child = os.fork()
        if child == 0:
            assert loop_thread.run(name()) != before
            try: next(pages)
            except ValueError as error: assert "forked" in str(error)
            else: raise SystemExit(3)
            del pages
            gc.collect()
            {end}
        assert os.waitpid(child, 0)[1] == 0
        print(loop_thread.run(asyncio.wait_for(nap(), 5)), list(pages))
    """
    _assert_silent(_in_python(code), "parent [1, 2]")


@pytest.mark.slow
@pytest.mark.parametrize("uvloop", [True, False])
def test_exit_with_a_call_in_flight_is_silent_and_quick(uvloop: bool) -> None:
    code = """
        import asyncio, threading
        from langchain_kv.runtime import loop_thread
        begun = threading.Event()
        async def long():
            begun.set()
            await asyncio.sleep(600)
        threading.Thread(target=lambda: loop_thread.run(long()), daemon=True).start()
        begun.wait()
    """
    prelude = "" if uvloop else "import sys; sys.modules['uvloop'] = None\n"
    _assert_silent(_in_python(prelude + textwrap.dedent(code)))


def test_exit_closes_what_the_loop_owns() -> None:
    code = """
        from langchain_kv.runtime import loop_thread
        async def numbers():
            try:
                while True: yield 1
            finally: print("closed")
        pages = loop_thread.iterate(numbers())
        next(pages)
    """
    _assert_silent(_in_python(code), "closed")


def test_exit_handler_of_the_user_may_still_call() -> None:
    code = """
        import atexit
        from langchain_kv.runtime import loop_thread
        async def one(): return 1
        from langchain_kv.errors import StoreClosedError
        def call():
            try:
                print(loop_thread.run(one()))
            except StoreClosedError:
                print("no thread")
        atexit.register(call)
    """
    done = _in_python(code)
    forbids = sys.version_info[:2] == (3, 12) and done.stdout == "no thread\n"  # which starts no threads then
    _assert_silent(done, "no thread" if forbids else "1")
