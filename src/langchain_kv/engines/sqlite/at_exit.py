"""The files that this process has open, until it ends."""

from __future__ import annotations

import atexit
import logging
from typing import Final, Protocol

from langchain_kv.errors import StoreError
from langchain_kv.runtime.forks import keep_for_ever

__all__ = ["forget", "keep"]

EXIT_WAIT_S: Final = 5.0
"""Seconds that the interpreter's exit waits for calls in flight to end."""

_logger = logging.getLogger("langchain_kv")


class Pool(Protocol):
    """The connections to one file, as the end sees them."""

    path: str

    def close(self, wait_s: float) -> None: ...


_OPEN: Final[set[Pool]] = set()
"""The pools that may have connections. It keeps them alive: one collected as garbage would close without the lock."""

keep_for_ever(_OPEN)  # also those that could not be closed in time, when the interpreter clears its modules


def keep(pool: Pool) -> None:
    """Keep the pool alive, and have its connections closed at the end of the process."""
    _OPEN.add(pool)


def forget(pool: Pool) -> None:
    """The pool has no connections any more."""
    _OPEN.discard(pool)


def _close_at_exit() -> None:
    for pool in list(_OPEN):
        try:
            pool.close(EXIT_WAIT_S)
        except StoreError as error:
            _logger.warning("%s was not closed: %s", pool.path, error)


atexit.register(_close_at_exit)
