"""Async over plain calls: run an engine's blocking calls for coroutines, sparing them a thread hop a call."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from langchain_kv.errors import StoreClosedError

__all__ = ["Bridge", "InlineBridge", "Outcome", "QueueBridge", "WouldWait", "run_each"]

T = TypeVar("T")

DRAIN_MAX: Final = 256
"""Calls that are run before their results are handed out: bounds how long the first waits for the last."""


class WouldWait(Exception):
    """A call could not be run at once; it has done nothing."""


class Bridge(ABC):
    """How coroutines call an engine."""

    @abstractmethod
    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run a short reading call of the engine; return its result. Longer reads are several, so that others pass."""

    async def read_short(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As ``read``, for a call that reads a document or two: where nothing makes it wait it may run at once, on the
        loop's own thread."""
        return await self.read(call, *args, **kwargs)

    @abstractmethod
    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run a writing call of the engine; return its result once it is stored.

        A call that is cancelled while it still waits is dropped; one that has begun ends whole. Calls may be stored
        together; where that fails they are undone and run again one by one, so a call has no effects but those on the
        engine and on notes of its own that a second run overwrites.
        """

    def close(self) -> None:  # noqa: B027 - not every bridge has something to release
        """Release what the bridge itself has. Idempotent."""


class InlineBridge(Bridge):
    """Answers at once, on the loop's own thread: for engines that never wait."""

    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return call(*args, **kwargs)

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return call(*args, **kwargs)


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        result: what it returned; None where it raised.
        error: what it raised; None where it returned.
    """

    result: Any
    error: BaseException | None


RunCalls = Callable[[Sequence[Callable[[], Any]]], list[Outcome]]
"""Runs calls in order; answers the outcome of each, in the same order, and raises nothing."""


def run_each(calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
    """Run the calls one after the other, each for itself; return the outcome of each."""
    return [_run(call) for call in calls]


def _run(call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(call(), None)
    except StopIteration as error:  # which a future refuses to carry
        wrapped = RuntimeError("the call raised StopIteration")
        wrapped.__cause__ = error
        return Outcome(None, wrapped)
    except BaseException as error:  # it is its caller's, and this thread goes on
        return Outcome(None, error)


class QueueBridge(Bridge):
    """Two daemon threads, one for reads and one for writes; each drains its queue and wakes each event loop once.

    Safe from any number of loops and threads. The threads start with the first call. A forked child starts anew, with
    empty queues.

    Args:
        name: shown in the names of the threads.
        run_writes: how the writing thread runs what has gathered, such as in one transaction.
        run_at_once: runs a short read where it is called, or raises WouldWait; None: no call is run there. The way
            through a thread takes longer than reading a document does.
    """

    def __init__(
        self,
        name: str,
        *,
        run_writes: RunCalls = run_each,
        run_at_once: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._run_at_once = run_at_once
        self._reads = _Lane(f"langchain-kv reads {name}", run_each)
        self._writes = _Lane(f"langchain-kv writes {name}", run_writes)

    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self._reads.run(partial(call, *args, **kwargs))

    async def read_short(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if self._run_at_once is not None:
            try:
                result: T = self._run_at_once(partial(call, *args, **kwargs))
            except WouldWait:
                pass
            else:
                return result
        return await self.read(call, *args, **kwargs)

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self._writes.run(partial(call, *args, **kwargs))

    def close(self) -> None:
        """End both threads once they have run what is queued. Idempotent; later calls raise StoreClosedError."""
        self._reads.close()
        self._writes.close()


class _Job:
    """A call that waits for its turn, and the future of the coroutine that waits for it."""

    __slots__ = ("call", "future", "loop")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def __call__(self) -> Any:
        if (
            self.future.cancelled()
        ):  # read from another thread: it is one attribute, and a late answer only runs the call
            raise asyncio.CancelledError
        return self.call()


class _Lane:
    """One thread and its queue."""

    _all: ClassVar[weakref.WeakSet[_Lane]] = weakref.WeakSet()

    def __init__(self, name: str, run_calls: RunCalls) -> None:
        self._name = name
        self._run_calls = run_calls
        self._closed = False
        self._start_anew()
        self._all.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], T]) -> T:
        job = _Job(call, asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store was closed; open a new one")
            if self._thread is None:
                thread = threading.Thread(target=self._work, args=(self._queue,), name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._queue.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        with self._lock:
            thread = self._thread
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self, queue: SimpleQueue[_Job | None]) -> None:
        going_on = True
        while going_on:
            jobs, going_on = _drain(queue)
            _hand_out(jobs, self._run_calls(jobs))
            del jobs  # while this thread waits it keeps no batch alive


def _drain(queue: SimpleQueue[_Job | None]) -> tuple[list[_Job], bool]:
    """Wait for a job and take what has gathered; the second answer is False when the queue has ended."""
    jobs: list[_Job] = []
    while (job := queue.get()) is not None:
        jobs.append(job)
        if queue.empty() or len(jobs) == DRAIN_MAX:  # nobody else takes from it
            return jobs, True
    return jobs, False


def _hand_out(jobs: list[_Job], outcomes: list[Outcome]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, results in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(_settle, results)


def _settle(results: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in results:
        if future.done():  # cancelled
            continue
        if outcome.error is None:
            future.set_result(outcome.result)
        else:
            future.set_exception(outcome.error)


def _start_anew_in_child() -> None:
    for lane in list(_Lane._all):
        lane._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)
