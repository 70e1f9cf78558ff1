"""Things that several stores of one process share, counted, closed with the last that used them, and forks of them."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - it has forks wait for it: imported in a fork's midst, it says so amiss
import ctypes
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from langchain_kv import threads

__all__ = ["HeldAcrossForks", "Shared", "importing", "keep_for_ever", "renew_in_child"]

T = TypeVar("T")

FORK_WAIT_S: Final = 10.0
"""Seconds that a fork waits for what other threads are at to end."""

_logger = logging.getLogger("langchain_kv")


class HeldAcrossForks:
    """A reentrant lock that a fork waits for, so that a child has nothing half done of what it guards.

    Attributes:
        lock: the lock itself; another one in a forked child.
    """

    def __init__(self) -> None:
        self.lock = threads.Mutex()
        self._forking: int | None = None  # the thread that holds it across a fork
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
            )

    def _before_fork(self) -> None:
        if self.lock.acquire(timeout=FORK_WAIT_S):
            self._forking = threads.get_ident()

    def _after_fork(self) -> None:
        if self._forking == threads.get_ident():  # another thread's fork may be waiting for it
            self._forking = None
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        self._forking = None
        self.lock = threads.Mutex()


importing: Final = HeldAcrossForks()
"""Held by whoever imports inside a function: a child that is forked meanwhile would have a module whose import never
ends, and wait for it for ever."""


def keep_for_ever(inherited: object) -> None:
    """Keep what a forked child inherited from being collected, also when the interpreter ends and clears its modules.

    Collecting it would close it, and take it away from the parent.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class Renewed(Protocol):
    """What has locks, threads or connections that a forked child must not use."""

    def _after_fork_in_child(self) -> None:
        """Start anew; leave what was inherited as it is."""


_renewed: Final[weakref.WeakSet[Renewed]] = weakref.WeakSet()


def renew_in_child(one: Renewed) -> None:
    """Have this start anew in every child that is forked as long as it lives."""
    _renewed.add(one)


def _renew() -> None:
    for one in list(_renewed):
        try:
            one._after_fork_in_child()
        except Exception:  # it is the others' turn all the same
            _logger.exception("Something inherited by a fork could not be started anew.")


class Shared(Generic[T]):
    """Counted resources by key.

    A forked child starts with none: what it inherited stays referenced and is never closed.

    Args:
        close: closes a resource whose last user was collected as garbage; it raises nothing.
    """

    def __init__(self, close: Callable[[T], None] | None = None) -> None:
        self._lock = threads.Mutex()
        self._items: dict[Hashable, tuple[T, int]] = {}
        self._left: deque[T] = deque()
        self._close = close
        renew_in_child(self)

    def acquire(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the resource of ``key``, made by ``make`` for its first user."""
        with self._lock:
            item, users = self._items[key] if key in self._items else (make(), 0)
            self._items[key] = (item, users + 1)
        self._release_left()
        return item

    def release(self, item: T) -> T | None:
        """End one use of ``item``; return it when that was the last use and the caller is to close it."""
        self._release_left()
        return self._release(item)

    def _release(self, item: T) -> T | None:
        with self._lock:
            key = next((key for key, (current, _) in self._items.items() if current is item), None)
            if key is None:  # inherited by a fork, or released already
                return None
            users = self._items[key][1]
            if users > 1:
                self._items[key] = (item, users - 1)
                return None
            del self._items[key]
            return item

    def release_with(self, user: object, item: T) -> weakref.finalize[..., Any]:
        """End one use of ``item`` when ``user`` is collected as garbage, unless what is returned is detached before.

        That may be at any point of any thread, where no lock can be taken. So it is only noted then, and done when the
        next use of anything here begins or ends.
        """
        noted = weakref.finalize(user, self._left.append, item)
        noted.atexit = False
        return noted

    def _release_left(self) -> None:
        while self._left:
            with suppress(IndexError):  # another thread's
                last = self._release(self._left.popleft())
                if last is not None and self._close is not None:
                    self._close(last)

    def _after_fork_in_child(self) -> None:
        self._lock = threads.Mutex()
        keep_for_ever((self._items, self._left))
        self._items = {}
        self._left = deque()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
