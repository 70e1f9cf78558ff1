"""The files that this process has open, at a fork and at its end."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from langchain_kv.errors import StoreError

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite.connections import ConnectionPool

__all__ = ["LEFT_OVER", "forget", "register"]

EXIT_WAIT_S: Final = 5.0
"""Seconds that the interpreter's exit waits for calls in flight to end."""

LEFT_OVER: set[tuple[int, int] | None] = set()
"""The files of which this process inherited an open connection."""

_logger = logging.getLogger("langchain_kv")


class _Registry:
    """Guards the set of pools; held across a fork, so that no pool opens its first connection meanwhile."""

    lock = threading.Lock()


_POOLS: set[ConnectionPool] = set()
"""The pools that may have connections. It keeps them alive: one collected as garbage would close without the lock."""


def register(pool: ConnectionPool) -> None:
    """Have the pool's connections closed before a fork and at the end."""
    if pool not in _POOLS:
        with _Registry.lock:
            _POOLS.add(pool)


def forget(pool: ConnectionPool) -> None:
    """The pool was closed."""
    _POOLS.discard(pool)


def _before_fork() -> None:
    _Registry.lock.acquire()
    for pool in list(_POOLS):
        pool.before_fork()


def _after_fork_in_parent() -> None:
    for pool in list(_POOLS):
        pool.after_fork_in_parent()
    _Registry.lock.release()


def _after_fork_in_child() -> None:
    _Registry.lock = threading.Lock()
    for pool in _POOLS:
        pool.after_fork_in_child()
    _POOLS.clear()


def _close_at_exit() -> None:
    for pool in list(_POOLS):
        try:
            pool.close(EXIT_WAIT_S)
        except StoreError as error:
            _logger.warning("%s was not closed: %s", pool.path, error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_at_exit)
