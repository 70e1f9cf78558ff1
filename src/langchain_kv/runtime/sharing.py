"""Things that several stores of one process share, counted, closed with the last that used them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import keep_for_ever, renew_in_child

__all__ = ["Shared"]

T = TypeVar("T")


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
