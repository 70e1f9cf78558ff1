"""How long a call on a file waits for others in all: other threads, other processes, other programs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from langchain_kv.engines.sqlite.file import set_wait
from langchain_kv.runtime import threads

__all__ = ["Waits"]

T = TypeVar("T")

LONGEST_S: Final = 86_400.0
"""Seconds that a call waits at most, whatever it is told: SQLite counts them in milliseconds of 32 bits."""


class _Threads(threads.Local):  # type: ignore[misc] # it is threading.local
    deadline: float | None = None  # of the call that this thread runs for somebody else, who has waited already


class Waits:
    """The deadlines of the calls on one file. Instants are of ``time.monotonic``.

    Args:
        wait_s: seconds that a call waits.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = min(wait_s, LONGEST_S)
        self._threads = _Threads()
        self._hurried: set[sqlite3.Connection] = set()  # whose statements wait less than they might

    def deadline(self) -> float:
        """Return until when a call that begins now may wait."""
        return self._threads.deadline or time.monotonic() + self.wait_s

    def run_until(self, deadline: float, call: Callable[[], T]) -> T:
        """Return what ``call`` answers, whose calls on this thread wait no longer than ``deadline``."""
        self._threads.deadline = deadline
        try:
            return call()
        finally:
            self._threads.deadline = None

    def limit(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Let the statements of a connection wait for other programs only as long as their call still may."""
        left_s = deadline - time.monotonic()
        if left_s < 0.9 * self.wait_s:  # to say so takes a statement, which a call that waited for nobody is spared
            self._hurried.add(connection)  # first: were it interrupted in between, later calls would wait as little
            set_wait(connection, left_s)
        elif connection in self._hurried:
            set_wait(connection, self.wait_s)
            self._hurried.discard(connection)

    def opened(self, connection: sqlite3.Connection) -> None:
        """Note a connection that was opened with the time that was left then."""
        self._hurried.add(connection)

    def closed(self, connection: sqlite3.Connection) -> None:
        """Forget a connection."""
        self._hurried.discard(connection)
