"""A thread that removes for good, now and then, what has expired."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from langchain_kv.errors import StoreClosedError
from langchain_kv.runtime import threads

__all__ = ["Sweeper"]

_logger = logging.getLogger("langchain_kv")


class Sweeper:
    """The thread of one store.

    Args:
        sweep: removes what has expired; returns how many items that were.
        interval_s: seconds between two times.

    Attributes:
        future: done when the thread ends; cancelling it ends the thread.
    """

    def __init__(self, sweep: Callable[[], int], interval_s: float) -> None:
        self.future: Future[None] = Future()
        self._sweep = sweep
        self._interval_s = interval_s
        self._stop = threads.Event()
        self._ended = threads.Event()
        self._lock = threads.Mutex()  # of an event that one thread at a time may let happen
        self.future.add_done_callback(lambda _: self._tell())
        threads.start(self._run, "langchain-kv sweeper")

    def _tell(self) -> None:
        with self._lock:
            self._stop.set()

    def _run(self) -> None:
        try:
            while not self._is_told():
                try:
                    self._sweep()
                except StoreClosedError:
                    return
                except Exception:  # such as of a server that is away: the next time comes
                    _logger.exception("The sweep of what has expired failed; it is tried again")
        finally:
            self._ended.set()
            if not self.future.done():
                self.future.set_result(None)

    def _is_told(self) -> bool:
        self._stop.wait(self._interval_s)
        return self._stop.is_set()

    @property
    def is_running(self) -> bool:
        """Whether the thread was not told to stop and has not ended."""
        return not self._stop.is_set() and not self._ended.is_set()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Have the thread end; return whether it has, after at most so many seconds."""
        self._tell()
        self._ended.wait(-1 if timeout_s is None else timeout_s)
        return self._ended.is_set()
