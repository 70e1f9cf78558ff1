"""The files that this process has open, at a fork and at its end."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from langchain_kv.errors import StoreError
from langchain_kv.sharing import HeldAcrossForks

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite_connections import ConnectionPool

__all__ = ["LEFT_OVER", "forget", "keep", "register"]

EXIT_WAIT_S: Final = 5.0
"""Seconds that the interpreter's exit waits for calls in flight to end."""

LEFT_OVER: set[tuple[int, int] | None] = set()
"""The files of which this process inherited an open connection."""

_logger = logging.getLogger("langchain_kv")


_ALL: Final[weakref.WeakSet[ConnectionPool]] = weakref.WeakSet()
"""Every pool: also one without connections may be in the middle of something when another thread forks."""

_OPEN: Final[set[ConnectionPool]] = set()
"""The pools that may have connections. It keeps them alive: one collected as garbage would close without the lock."""

_forking: list[ConnectionPool] = []
"""The pools that wait for a fork to be over."""


def register(pool: ConnectionPool) -> None:
    """Have a new pool look after itself around forks."""
    with _making.lock:
        _ALL.add(pool)


def keep(pool: ConnectionPool) -> None:
    """Have the pool's connections closed before a fork and at the end."""
    _OPEN.add(pool)


def forget(pool: ConnectionPool) -> None:
    """The pool was closed."""
    _OPEN.discard(pool)


# An error in one of these would keep the others from what they have to give back, and the next fork from its turn.


def _before_fork() -> None:
    _forking.extend(_ALL)
    for pool in _forking:
        with _told(pool):
            pool.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        pool = _forking.pop()
        with _told(pool):
            pool.after_fork_in_parent()


def _after_fork_in_child() -> None:
    _forking.clear()
    for pool in list(_ALL):
        with _told(pool):
            pool.after_fork_in_child()
    _OPEN.clear()


@contextmanager
def _told(pool: ConnectionPool) -> Iterator[None]:
    try:
        yield
    except StoreError as error:  # the child is told so, should it use the file
        _logger.debug("%s could not be closed before a fork: %s", pool.path, error)
    except Exception:
        _logger.exception("%s was not made ready for a fork, or not after it.", pool.path)


def _close_at_exit() -> None:
    for pool in list(_OPEN):
        try:
            pool.close(EXIT_WAIT_S)
        except StoreError as error:
            _logger.warning("%s was not closed: %s", pool.path, error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
_making: Final = HeldAcrossForks()
"""Held while a pool is made. It is registered last, so a fork takes it first and gives it back last: no pool begins its
life between what is done before a fork and what is done after it."""
atexit.register(_close_at_exit)
