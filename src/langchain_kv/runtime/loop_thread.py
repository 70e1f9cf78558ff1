"""Plain calls over coroutines: one daemon thread of this process runs an event loop, and whole operations run on it.

A caller hands a coroutine over and waits for its end: one hop an operation. Where gevent or eventlet make greenlets
of threads, this one is a thread all the same, and a caller that waits for it lets other greenlets run. The loop is
uvloop where it is installed. It starts with the first call; a forked child starts one of its own, and leaves alone what
it inherited. Nothing that is raised ends the loop.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - while the interpreter ends, when a first call may come, it is too late
import encodings.idna  # noqa: F401 - a look-up imports it, and a child forked meanwhile would wait for that for ever
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from langchain_kv.errors import StoreClosedError, StoreError, UsageError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import keep_for_ever, renew_in_child
from langchain_kv.runtime.work_queue import run_aside

if TYPE_CHECKING:
    _Base = asyncio.SelectorEventLoop
else:
    try:
        from uvloop import Loop as _Base
    except ImportError:
        _Base = asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop

__all__ = ["iterate", "owns", "run"]

T = TypeVar("T")

_EXIT_WAIT_S: Final = 1.0
_END: Final = object()

_logger = logging.getLogger("langchain_kv")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on the loop thread; return its result, or raise its exception.

    What a signal handler raises in the waiting caller (KeyboardInterrupt) cancels the coroutine and is passed on.

    Raises:
        UsageError: the caller is the loop thread itself, which would wait for ever.
        StoreClosedError: the interpreter is shutting down.
    """
    return _Call(coroutine).result()


def iterate(source: AsyncIterator[T]) -> Generator[T, None, None]:
    """Yield what ``source`` yields; each step is one hop to the loop thread.

    The source is closed on the loop when the returned generator is closed or collected; that is not waited for, because
    a generator may be collected anywhere, by any thread.

    Raises:
        UsageError: as ``run``; also where the process was forked since the first step.
    """
    step: _Call[Any] | None = None
    try:
        while True:
            previous, step = step, _Call(_step(source))
            if previous is not None and previous.worker is not step.worker:
                step.discard()
                step = previous
                raise UsageError("The process was forked during this iteration: start a new one in the child.")
            item = step.result()
            if item is _END:
                return
            yield item
    finally:
        if step is not None:
            step.worker.close_soon(source, step)


def owns(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether ``loop`` is the one that runs on the loop thread."""
    worker = _process.worker
    return worker is not None and worker.loop is loop


async def _step(source: AsyncIterator[T]) -> T | object:
    # A coroutine must not raise StopAsyncIteration: Python makes a RuntimeError of it.
    return await anext(source, _END)


class _Call(Generic[T]):
    """One coroutine on its way: started, waited for, cancelled."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._failure: BaseException | None = None
        try:
            self.worker = _current_worker()
            if self.worker.is_this_thread():
                raise UsageError(
                    "A blocking call on langchain-kv's own event-loop thread would wait for itself: use the async"
                    " method there."
                )
        except BaseException:
            coroutine.close()
            raise

    def result(self) -> T:
        """Submit the coroutine and wait for its end."""
        loop = self.worker.loop
        self._done = threads.taken_lock()
        # The submission stands inside: an interrupt between it and the wait would else leave the operation running.
        try:
            loop.call_soon_threadsafe(self._start)
            self._done.wait()
        except BaseException as error:
            try:
                loop.call_soon_threadsafe(self._cancel)
            except RuntimeError:
                self._coroutine.close()
                if isinstance(error, RuntimeError):
                    raise StoreClosedError("The interpreter is shutting down: finish before it ends.") from error
            raise
        return self._outcome()

    def discard(self) -> None:
        """Give up a call that was never submitted."""
        self._coroutine.close()

    async def settled(self) -> None:
        """Wait, on the loop, until the coroutine has ended."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _start(self) -> None:
        try:
            self._task = self.worker.loop.create_task(self._coroutine)
            self._task.add_done_callback(self._finish)
        except BaseException as error:  # it is the caller's, who would wait for ever
            self._failure = error
            self._cancel()
            self._done.release()

    def _cancel(self) -> None:
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        try:
            if not task.cancelled():
                task.exception()  # marks it as seen, where the caller was interrupted and does not look
        finally:
            # At exit the waiting daemon threads stay where they are: an exception in them would only be noise.
            if not self.worker.is_exiting:
                self._done.release()

    def _outcome(self) -> T:
        # Kept, an exception, its traceback and this call would make a cycle.
        task, failure, self._task, self._failure = self._task, self._failure, None, None
        if failure is not None:
            raise failure
        if task is None or task.cancelled():
            raise StoreError("The operation was cancelled on langchain-kv's event loop: repeat it.")
        try:
            return task.result()
        except (KeyboardInterrupt, SystemExit) as error:  # meant for the loop's thread, not for the caller's
            failed = StoreError("The operation was interrupted on langchain-kv's event loop: repeat it.")
            failed.retryable, failed.applied = True, None
            raise failed from error
        finally:
            del task


class _Worker:
    """An event loop and the daemon thread that runs it. Once that has started, it is the process's own."""

    def __init__(self) -> None:
        self.is_exiting = False
        self.is_wound_up = False
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself refers to its tasks weakly
        self.loop = _new_loop()
        try:
            self._thread = threads.start(self._main, "langchain-kv-loop")
            _process.worker = self
        except StoreError:
            self.loop.close()
            raise
        except BaseException:  # Ctrl-C; where the thread runs by now, it ends
            self.is_wound_up = True
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.loop.stop)
            raise

    def is_this_thread(self) -> bool:
        return self._thread.ident == threads.get_ident()

    def close_soon(self, source: AsyncIterator[Any], step: _Call[Any]) -> None:
        """Close an async iterator on the loop, after its last step has ended; do not wait."""
        if self is not _process.worker:  # inherited by a fork, the parent closes it; or the interpreter is ending
            _left.append(source)
            return
        with suppress(RuntimeError):  # the loop is closed: the interpreter is ending
            self.loop.call_soon_threadsafe(self._spawn, _close, source, step)

    def stop(self) -> None:
        """Cancel everything, let the loop close what it owns, and wait a moment for it."""
        self.is_exiting = True
        self.loop.call_soon_threadsafe(self._spawn, self._wind_up)
        self._thread.join(_EXIT_WAIT_S)

    def _main(self) -> None:
        while not (self.is_wound_up or self.loop.is_closed()):
            try:
                self.loop.run_forever()
            except BaseException as error:  # a task's KeyboardInterrupt or SystemExit: that is its caller's to get
                _logger.debug("langchain-kv's event loop goes on after %r.", error)
        self.loop.close()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        task = self.loop.create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        self.is_wound_up = True
        self.loop.stop()


async def _close(source: AsyncIterator[Any], step: _Call[Any]) -> None:
    await step.settled()
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


class _Loop(_Base):
    """A loop whose look-ups take no thread of libuv's or of an executor.

    A forked child that ends by ``exit`` would join the former, and crash; where somebody patched threads, the latter
    would be greenlets that never get their turn.
    """

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await _look_up(host, port, **hints)


def _new_loop() -> asyncio.AbstractEventLoop:
    if issubclass(_Base, asyncio.SelectorEventLoop):
        return _Loop(threads.real("selectors", "DefaultSelector")())
    return _Loop()


async def _look_up(host: Any, port: Any, *, flags: int = 0, **hints: Any) -> Any:
    getaddrinfo = threads.real("socket", "getaddrinfo")
    try:
        return getaddrinfo(host, port, flags=flags | socket.AI_NUMERICHOST, **hints)
    except socket.gaierror:  # a name: asking for it can take long
        return await run_aside(partial(getaddrinfo, host, port, flags=flags, **hints), "langchain-kv look-up")


class _Process:
    """What this process has of it."""

    def __init__(self) -> None:
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self.lock = threads.Mutex()
        self.worker: _Worker | None = None

    def _after_fork_in_child(self) -> None:
        # The parent's loop shares its epoll with the child: closing or collecting it here would end the parent's
        # connections.
        keep_for_ever(self.worker)
        self._start_anew()


_process = _Process()
_left: list[object] = []
keep_for_ever(_left)  # nobody closes these, the interpreter's end neither


def _current_worker() -> _Worker:
    worker = _process.worker
    if worker is None or worker.loop.is_closed():
        with _process.lock:
            worker = _process.worker
            if worker is None or worker.loop.is_closed():
                worker = _Worker()
    return worker


def _at_exit() -> None:
    worker, _process.worker = _process.worker, None
    if worker is not None:
        worker.stop()


# At import, so that the exit handlers of whoever imports this run before it and may still use their stores.
atexit.register(_at_exit)
