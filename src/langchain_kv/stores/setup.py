"""When and how a store's collection is made: once, by whoever comes first, and again after a failure."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from langchain_kv.errors import ConfigError, SetupPendingError, StoreError
from langchain_kv.runtime import threads
from langchain_kv.runtime.callers import remember_caller, warn_caller
from langchain_kv.runtime.forks import renew_in_child

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend

__all__ = ["AnySetupMode", "Setup", "SetupMode"]


class SetupMode(Enum):
    """When a store makes its collection.

    Attributes:
        SYNC: in the constructor, which returns when the collection is there.
        ASYNC: in the background, at once where an event loop runs, else at first use; calls wait for it.
        OFF: never; the collection must exist.
    """

    SYNC = 1
    ASYNC = 2
    OFF = 3

    @classmethod
    def of(cls, mode: Any) -> SetupMode:
        """Return the member; those of other packages' enums match by name."""
        try:
            return cls[getattr(mode, "name", mode)]
        except (KeyError, TypeError):
            raise ConfigError(f"setup_mode must be SetupMode.SYNC, ASYNC or OFF, got {mode!r:.60}.") from None


AnySetupMode = SetupMode | Enum | Literal["SYNC", "ASYNC", "OFF"]
"""What may be given: a member, one of that name of another package's enum, or the name."""


class Setup:
    """The set-up of one store.

    A failed attempt is reported to those who waited for it, and tried again by the next call.

    Attributes:
        done: whether there is nothing left to do; read without a lock on every operation.
    """

    def __init__(self, backend: Backend, mode: SetupMode, *, pre_delete: bool) -> None:
        self.done = mode is SetupMode.OFF
        self._backend = backend
        self._pre_delete = pre_delete
        self._attempt: _Attempt | None = None
        self._after_fork_in_child()
        renew_in_child(self)
        if mode is SetupMode.OFF and pre_delete:
            warn_caller(
                "pre_delete_collection=True has no effect with SetupMode.OFF: nothing was deleted. Use SYNC or ASYNC,"
                " or delete the collection yourself."
            )
        elif mode is SetupMode.SYNC:
            backend.open(clear=pre_delete)
            self.done = True
        elif mode is SetupMode.ASYNC and _in_running_loop():
            self._start()

    def wait(self) -> None:
        """Return when the collection is there; raise SetupPendingError rather than block an event loop's own thread."""
        if self.done:
            return
        if not _in_running_loop():
            self._start().wait()
            self.done = True
            return
        # Whether the thread has ended is chance. What the loop was told, in a turn of its own, is not.
        attempt = self._attempt
        if attempt is None or attempt.is_told:
            attempt = self._start()
        if not attempt.is_noticed and not attempt.is_over_elsewhere():
            raise SetupPendingError(
                "Asynchronous setup of the DB not finished. NB: a synchronous method was called on the event loop's"
                " thread before the set-up in SetupMode.ASYNC was done: await any of the asynchronous methods first, or"
                " use SetupMode.SYNC."
            )
        attempt.is_told = True
        attempt.wait()
        self.done = True

    async def await_(self) -> None:
        """As ``wait``, without holding up the event loop. A waiter that is cancelled leaves the set-up running."""
        if self.done:
            return
        attempt = self._start()
        try:
            await attempt.await_()
        except Exception:
            attempt.is_told = True
            raise
        self.done = True

    def _start(self) -> _Attempt:
        with self._lock:
            attempt = self._attempt
            if attempt is not None and not attempt.has_failed():
                return attempt
            attempt = self._attempt = _Attempt()
        # In the caller's context, which a token provider may read.
        context = contextvars.copy_context()
        context.run(remember_caller)
        run: Callable[[], None] = partial(context.run, self._run, attempt)
        try:
            threads.start(run, "langchain-kv-setup")
        except StoreError:  # as at the interpreter's end
            run()
        except BaseException:  # Ctrl-C; who knows whether the thread will run
            if attempt.begin():
                self._end(attempt, _interrupted())
            raise
        return attempt

    def _run(self, attempt: _Attempt) -> None:
        if not attempt.begin():
            return
        error: BaseException | None = None
        try:
            self._backend.open(clear=self._pre_delete)
        except (KeyboardInterrupt, SystemExit) as interrupt:  # not meant for those who wait
            error = _interrupted()
            error.__cause__ = interrupt
        except BaseException as failure:
            error = failure
        finally:
            self._end(attempt, error)

    def _end(self, attempt: _Attempt, error: BaseException | None) -> None:
        attempt.end(error)

        def notice() -> None:
            attempt.is_noticed = True
            self.done = self.done or error is None

        try:
            attempt.loop.call_soon_threadsafe(notice) if attempt.loop is not None else notice()
        except RuntimeError:  # that loop is closed
            notice()

    def _after_fork_in_child(self) -> None:
        # The thread that was to end the parent's attempt is not here, nor one that may have held the lock.
        self._lock = threads.Mutex()
        self._attempt = None


def _interrupted() -> StoreError:
    error = StoreError("The set-up of the collection was interrupted: repeat the call.")
    error.retryable, error.applied = True, None
    return error


class _Attempt:
    """One try of a set-up, in a thread, and those who wait for it, in threads and on event loops.

    Attributes:
        is_noticed: whether it ended, and the loop that it was started in, if any, had a turn since.
        is_told: whether somebody was told of its failure.
    """

    def __init__(self) -> None:
        self.loop = asyncio._get_running_loop()
        self.is_noticed = False
        self.is_told = False
        self.is_over = False
        self.error: BaseException | None = None
        self._has_begun = False
        self._lock = threads.Mutex()
        self._waiting: list[Callable[[], object]] = []

    def has_failed(self) -> bool:
        return self.is_over and self.error is not None

    def is_over_elsewhere(self) -> bool:
        """Return whether it is over, and was started in another loop, which may never have a turn again."""
        return self.is_over and self.loop is not asyncio._get_running_loop()

    def begin(self) -> bool:
        """Return whether the caller is the one to carry it out, or to end it."""
        with self._lock:
            is_first, self._has_begun = not self._has_begun, True
            return is_first

    def end(self, error: BaseException | None) -> None:
        with self._lock:
            self.error, self.is_over = error, True
        for tell in self._waiting:
            with suppress(Exception):  # such as of a loop that was closed meanwhile: nobody waits there any more
                tell()

    def wait(self) -> None:
        done = threads.taken_lock()
        if self._tell(done.release):
            done.wait()
        if self.error is not None:
            raise self.error

    async def await_(self) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        if self._tell(lambda: loop.call_soon_threadsafe(settle)):
            await done
        if self.error is not None:
            raise self.error

    def _tell(self, tell: Callable[[], object]) -> bool:
        """Have ``tell`` called when it is over; return False where it is over already."""
        with self._lock:
            if not self.is_over:
                self._waiting.append(tell)
            return not self.is_over


def _in_running_loop() -> bool:
    return asyncio._get_running_loop() is not None
