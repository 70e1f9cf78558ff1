"""Async over plain calls: run an engine's blocking calls for coroutines, sparing them a thread hop a call."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from langchain_kv.errors import EngineError, StoreClosedError, StoreError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

if TYPE_CHECKING:
    import asyncio  # loaded by whoever runs an event loop; who makes plain calls only saves it

__all__ = ["AsideBridge", "Bridge", "InlineBridge", "Outcome", "QueueBridge", "WouldWait", "run_aside", "run_each"]

T = TypeVar("T")

DRAIN_MAX: Final = 256
"""Calls that are run before their results are handed out: bounds how long the first waits for the last."""

TELL_TRIES: Final = 3
"""How often an event loop is told of its results that cannot be told; only a closed one is known to refuse."""

ASIDE_MAX: Final = 16
"""Calls of one loop on one engine that have threads of their own at once; others wait for their turn."""

_logger = logging.getLogger("langchain_kv")


class WouldWait(Exception):
    """A call could not be run at once; it has done nothing."""


class Bridge(ABC):
    """How coroutines call an engine."""

    @abstractmethod
    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run a short reading call of the engine; return its result. Longer reads are several, so that others pass."""

    async def read_short(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As ``read``, for a call that reads a document or two, and may run at once on the loop's own thread."""
        return await self.read(call, *args, **kwargs)

    async def read_long(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As ``read``, for a call that reads many documents as of one moment: other reads do not wait for it."""
        return await self.read(call, *args, **kwargs)

    async def write_long(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As ``write``, for a call that writes many documents."""
        return await self.write(call, *args, **kwargs)

    @abstractmethod
    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run a writing call of the engine; return its result once it is stored.

        A call that is cancelled while it still waits is dropped; one that has begun ends whole. Calls may be stored
        together; where that fails they are undone and run again one by one, so a call has no effects but those on the
        engine and on notes of its own that a second run overwrites.
        """

    def close(self) -> None:  # noqa: B027 - not every bridge has something to release
        """Release what the bridge itself has. Idempotent."""


class AsideBridge(Bridge):
    """Runs each call on a thread of its own."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        import asyncio

        # Not in the loop's executor, which asyncio.run could not end in an exit handler (3.12).
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(ASIDE_MAX)):
            return await run_aside(partial(call, *args, **kwargs), "langchain-kv call")

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self.read(call, *args, **kwargs)


class InlineBridge(AsideBridge):
    """Answers at once, on the loop's own thread: for engines that never wait. What is long runs in a thread."""

    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return call(*args, **kwargs)

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return call(*args, **kwargs)

    async def read_long(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await super().read(call, *args, **kwargs)

    async def write_long(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await super().read(call, *args, **kwargs)


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
    except BaseException as error:  # it is its caller's, and this thread goes on
        return Outcome(None, error)


class QueueBridge(Bridge):
    """Daemon threads for reads, long reads and writes; each drains its queue and wakes each event loop once.

    Safe from any number of loops and threads. A thread starts with its first call. A child's queues are empty.

    Args:
        name: shown in the names of the threads.
        run_reads: how the reading thread runs what has gathered.
        run_writes: how the writing thread runs what has gathered, such as in one transaction.
        run_at_once: runs a short read where it is called, or raises WouldWait; None: no call is run there. The way
            through a thread takes longer than reading a document does.
    """

    def __init__(
        self,
        name: str,
        *,
        run_reads: RunCalls = run_each,
        run_writes: RunCalls = run_each,
        run_at_once: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._run_at_once = run_at_once
        self._reads = _Lane(f"langchain-kv reads {name}", run_reads, changes=False)
        self._long_reads = _Lane(f"langchain-kv long reads {name}", run_reads, changes=False)
        self._writes = _Lane(f"langchain-kv writes {name}", run_writes, changes=True)

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

    async def read_long(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self._long_reads.run(partial(call, *args, **kwargs))

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self._writes.run(partial(call, *args, **kwargs))

    def close(self) -> None:
        """End the threads once they have run what is queued. Idempotent; later calls raise StoreClosedError."""
        self._reads.close()
        self._long_reads.close()
        self._writes.close()


class _Job:
    """A call that waits for its turn, since ``asked_at``, and the future of the coroutine that waits for it.

    Attributes:
        outcome: how it ended; None before it begins.
    """

    __slots__ = ("asked_at", "call", "changes", "future", "loop", "outcome")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop, *, changes: bool) -> None:
        self.asked_at = time.monotonic()
        self.call = call
        self.loop = loop
        self.changes = changes
        self.future: asyncio.Future[Any] = loop.create_future()
        self.outcome: Outcome | None = None

    def __call__(self) -> Any:
        if (
            self.future.cancelled()
        ):  # read from another thread: it is one attribute, and a late answer only runs the call
            import asyncio

            raise asyncio.CancelledError
        return self.call()


class _Lane:
    """One thread and its queue.

    The thread outlives whatever is raised in it. A job stays in the queue until its caller was told how it ended, so
    none is lost where the thread is cut short, and none is run twice.
    """

    def __init__(self, name: str, run_calls: RunCalls, *, changes: bool) -> None:
        self._name = name
        self._run_calls = run_calls
        self._changes = changes
        self._closed = False
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self._lock = threads.Mutex()
        self._jobs: deque[_Job] = deque()
        self._idle = threads.Lock()  # the thread waits for it where there are no jobs
        self._idle.acquire()
        self._thread: threads.Thread | None = None
        self._worker: object = None  # stands for the thread that takes jobs away, if there is one

    _after_fork_in_child = _start_anew

    async def run(self, call: Callable[[], T]) -> T:
        import asyncio

        job = _Job(call, asyncio.get_running_loop(), changes=self._changes)
        try:
            with self._lock:
                if self._closed:
                    raise StoreClosedError("the store was closed; open a new one")
                if self._worker is None:
                    self._start()
                self._jobs.append(job)
                self._wake()
            result: T = await job.future
            return result
        except BaseException:
            job.future.cancel()  # Ctrl-C, once the job was in the queue: it is not run at some later time
            raise

    def _start(self) -> None:
        """Start the thread. The lock is held, for which the thread waits.

        Where Ctrl-C comes before it is noted, it ends at once. Whether a thread is alive is nothing to go by: asked in
        the moment of a Ctrl-C, Python takes it for ended from then on (3.11).
        """
        worker = object()
        self._thread = threads.start(partial(self._work, worker), self._name)
        self._worker = worker

    def close(self) -> None:
        with self._lock:
            thread = self._thread
            self._closed = True
            self._wake()
        if thread is not None and thread.ident != threads.get_ident():
            thread.join()

    def _wake(self) -> None:
        if self._idle.locked():
            self._idle.release()

    def _work(self, worker: object) -> None:
        with self._lock:
            if self._worker is not worker:
                return
        going_on = True
        try:
            while going_on:
                try:
                    while going_on:
                        going_on = self._turn()
                except BaseException:  # not of a call: the next turn tells the callers that are concerned
                    going_on = True
        finally:
            self._worker = None

    def _turn(self) -> bool:
        """Run what has gathered, and tell the callers; return whether there may be more."""
        while not self._jobs:
            if self._closed:
                return False
            self._idle.acquire()
        # Without the lock, for which it might have to wait: only this thread takes jobs away.
        jobs = [self._jobs[at] for at in range(min(len(self._jobs), DRAIN_MAX))]
        new = [job for job in jobs if job.outcome is None]
        for job in new:
            job.outcome = _CUT_SHORT  # until more is known
        if new:
            for job, outcome in zip(new, self._outcomes(new), strict=True):
                job.outcome = outcome
        _hand_out(jobs)
        for _ in jobs:
            self._jobs.popleft()
        return True  # while this thread waits it keeps no batch alive

    def _outcomes(self, jobs: list[_Job]) -> list[Outcome]:
        try:
            return self._run_calls(jobs)
        except BaseException as error:
            return [Outcome(None, error)] * len(jobs)


async def run_aside(call: Callable[[], T], name: str) -> T:
    """Run a call that may block on a thread of its own, or here where none starts, as at the interpreter's end."""
    import asyncio

    job = _Job(call, asyncio.get_running_loop(), changes=True)

    def run() -> None:
        try:
            job.outcome = _run(job)
        finally:
            _hand_out([job])

    try:
        try:
            threads.start(run, name)
        except StoreError:
            return call()
        result: T = await job.future
        return result
    except BaseException:
        job.future.cancel()  # Ctrl-C: where the thread did not begin with the call, it does not any more
        raise


_CUT_SHORT: Final = Outcome(None, KeyboardInterrupt())


def _hand_out(jobs: list[_Job]) -> None:
    """Tell the loops of the jobs how they ended, each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for job in jobs:
        outcome = job.outcome or _CUT_SHORT
        if outcome.error is not None:
            outcome = Outcome(None, _carried(outcome.error, job.changes))
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, results in by_loop.items():
        _tell(loop, results)


def _carried(error: BaseException, changes: bool) -> BaseException:
    """Return what a future can carry and an event loop survives, in place of an error."""
    if isinstance(error, StopIteration):
        carried: Exception = RuntimeError("the call raised StopIteration")
    elif isinstance(error, KeyboardInterrupt | SystemExit):  # which would end the caller's event loop
        carried = EngineError("The thread that ran this call was interrupted: repeat the call.")
        carried.retryable = True
        carried.applied = None if changes else False
    else:
        return error
    carried.__cause__ = error
    return carried


def _tell(loop: asyncio.AbstractEventLoop, results: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for tries_left in reversed(range(TELL_TRIES)):
        try:
            loop.call_soon_threadsafe(_settle, results)
            return
        except BaseException:  # whatever it is, the callers of other loops are to be told, too
            if loop.is_closed():  # nobody waits any more
                return
            if not tries_left:
                _logger.exception("An event loop could not be told that its calls have ended: they wait for ever.")


def _settle(results: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in results:
        if future.done():  # cancelled, or told before
            continue
        if outcome.error is None:
            future.set_result(outcome.result)
        else:
            future.set_exception(outcome.error)
