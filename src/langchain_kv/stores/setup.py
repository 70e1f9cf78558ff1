"""When and how a store's collection is made: once, by whoever comes first, and again after a failure."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import Future
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from langchain_kv.errors import ConfigError, SetupPendingError
from langchain_kv.runtime.callers import remember_caller, warn_caller

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
    """The set-up of one store. A failed attempt is reported to those who waited for it, and tried again by the next
    call.

    Attributes:
        done: whether there is nothing left to do; read without a lock on every operation.
    """

    def __init__(self, backend: Backend, mode: SetupMode, *, pre_delete: bool) -> None:
        self.mode = mode
        self.done = mode is SetupMode.OFF
        self._backend = backend
        self._pre_delete = pre_delete
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
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
        """Return when the collection is there; on an event loop's own thread raise SetupPendingError rather than
        block it."""
        if self.done:
            return
        if not _in_running_loop():
            self._start().future.result()
            return
        # Whether the thread has ended is chance. What the loop was told, in a turn of its own, is not.
        attempt = self._attempt
        if attempt is None or attempt.is_told or attempt.pid != os.getpid():
            attempt = self._start()
        if not attempt.is_noticed:
            raise SetupPendingError(
                "Asynchronous setup of the DB not finished. NB: a synchronous method was called on the event loop's"
                " thread before the set-up in SetupMode.ASYNC was done: await any of the asynchronous methods first, or"
                " use SetupMode.SYNC."
            )
        attempt.is_told = True
        attempt.future.result()

    async def await_(self) -> None:
        """As ``wait``, without holding up the event loop. A waiter that is cancelled leaves the set-up running."""
        if self.done:
            return
        attempt = self._start()
        try:
            await asyncio.wrap_future(attempt.future)
        except Exception:
            attempt.is_told = True
            raise
        self.done = True

    def _start(self) -> _Attempt:
        with self._lock:
            attempt = self._attempt
            # A forked child has the parent's attempt, but not the thread that was to end it.
            if attempt is not None and attempt.pid == os.getpid() and not attempt.has_failed():
                return attempt
            attempt = self._attempt = _Attempt()
            # In the caller's context, which a token provider may read.
            context = contextvars.copy_context()
            context.run(remember_caller)
            thread = threading.Thread(
                target=context.run, args=(self._run, attempt), name="langchain-kv-setup", daemon=True
            )
            thread.start()
            return attempt

    def _run(self, attempt: _Attempt) -> None:
        failure: BaseException | None = None
        try:
            self._backend.open(clear=self._pre_delete)
        except BaseException as error:
            failure = error

        attempt.future.set_result(None) if failure is None else attempt.future.set_exception(failure)

        def notice() -> None:
            attempt.is_noticed = True
            self.done = self.done or failure is None

        try:
            attempt.loop.call_soon_threadsafe(notice) if attempt.loop is not None else notice()
        except RuntimeError:  # that loop is closed
            notice()


class _Attempt:
    """One try of a set-up, in a thread.

    Attributes:
        is_noticed: whether it ended, and the loop that it was started in, if any, had a turn since.
        is_told: whether somebody was told of its failure.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio._get_running_loop()
        self.is_noticed = False
        self.is_told = False
        self.future: Future[None] = Future()
        # A running future cannot be cancelled: a cancelled waiter takes nothing away from the others.
        self.future.set_running_or_notify_cancel()

    def has_failed(self) -> bool:
        return self.future.done() and self.future.exception() is not None


def _in_running_loop() -> bool:
    return asyncio._get_running_loop() is not None
