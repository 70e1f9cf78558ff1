"""When and how a store's collection is made: once, by whoever comes first, and again after a failure."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import warnings
from concurrent.futures import Future
from enum import Enum
from typing import TYPE_CHECKING, Any

from langchain_kv.errors import ConfigError, SetupPendingError

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend

__all__ = ["Setup", "SetupMode"]


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
        self._attempt: tuple[int, Future[None]] | None = None
        if mode is SetupMode.OFF and pre_delete:
            warnings.warn(
                "pre_delete_collection=True has no effect with SetupMode.OFF: nothing was deleted. Use SYNC or"
                " ASYNC, or delete"
                " the collection yourself.",
                UserWarning,
                stacklevel=5,  # whoever makes the store
            )
        elif mode is SetupMode.SYNC:
            backend.setup(pre_delete=pre_delete)
            self.done = True
        elif mode is SetupMode.ASYNC and _in_running_loop():
            self._start()

    def wait(self) -> None:
        """Return when the collection is there; on an event loop's own thread raise SetupPendingError rather than
        block it."""
        if self.done:
            return
        attempt = self._start()
        if _in_running_loop() and not attempt.done():
            raise SetupPendingError(
                "Asynchronous setup of the DB not finished. NB: a synchronous method was called on the event loop's"
                " thread before"
                " the set-up in SetupMode.ASYNC was done: await any of the asynchronous methods first, or use"
                " SetupMode.SYNC."
            )
        attempt.result()

    async def await_(self) -> None:
        """As ``wait``, without holding up the event loop. A waiter that is cancelled leaves the set-up running."""
        if not self.done:
            await asyncio.wrap_future(self._start())

    def _start(self) -> Future[None]:
        with self._lock:
            # A forked child has the parent's attempt, but not the thread that was to end it.
            if self._attempt is not None and self._attempt[0] == os.getpid():
                future = self._attempt[1]
                if not future.done() or future.exception() is None:
                    return future
            future = Future()
            # A running future cannot be cancelled: a cancelled waiter takes nothing away from the others.
            future.set_running_or_notify_cancel()
            self._attempt = (os.getpid(), future)
            # In the caller's context, which a token provider may read.
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(self._run, future), name="langchain-kv-setup", daemon=True)
            thread.start()
            return future

    def _run(self, future: Future[None]) -> None:
        try:
            self._backend.setup(pre_delete=self._pre_delete)
        except BaseException as error:
            future.set_exception(error)
        else:
            self.done = True
            future.set_result(None)


def _in_running_loop() -> bool:
    return asyncio._get_running_loop() is not None
