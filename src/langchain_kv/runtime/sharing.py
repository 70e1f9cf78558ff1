"""Things that several stores of one process share, counted, closed with the last that used them, and forks of them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Generic, TypeVar

__all__ = ["Shared", "keep_for_ever"]

T = TypeVar("T")


def keep_for_ever(inherited: object) -> None:
    """Keep what a forked child inherited from being collected, also when the interpreter ends and clears its modules.

    Collecting it would close it, and take it away from the parent.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class Shared(Generic[T]):
    """Counted resources by key.

    A forked child starts with none: what it inherited stays referenced and is never closed.
    """

    _all: ClassVar[weakref.WeakSet[Shared[Any]]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[Hashable, tuple[T, int]] = {}
        self._all.add(self)

    def acquire(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the resource of ``key``, made by ``make`` for its first user."""
        with self._lock:
            item, users = self._items[key] if key in self._items else (make(), 0)
            self._items[key] = (item, users + 1)
            return item

    def release(self, key: Hashable, item: T) -> T | None:
        """End one use of ``item``; return it when that was the last use and the caller is to close it."""
        with self._lock:
            current, users = self._items.get(key, (None, 0))
            if current is not item:  # inherited by a fork, or released already
                return None
            if users > 1:
                self._items[key] = (item, users - 1)
                return None
            del self._items[key]
            return item

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        keep_for_ever(self._items)
        self._items = {}


def _forget_inherited() -> None:
    for shared in list(Shared._all):
        shared._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)
