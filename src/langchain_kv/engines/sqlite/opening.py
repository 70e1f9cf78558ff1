"""Which file a path means, and the connections that are open to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from langchain_kv.engines.sqlite.connection import Connection, File, Synchronous
from langchain_kv.engines.sqlite.copies import note_mark, require_no_other_changes
from langchain_kv.engines.sqlite.errors import Translated, gone
from langchain_kv.engines.sqlite.file import (
    closes_safely,
    connect,
    exists,
    identity,
    recognise,
    remove_empty_wal,
)
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.engines.sqlite.shared_memory import SharedMemory, shared_memory
from langchain_kv.engines.sqlite.waits import Waits
from langchain_kv.errors import EngineError, EngineFileError, StoreClosedError
from langchain_kv.runtime.forks import keep_for_ever

__all__ = ["LEFT_OVER", "OpenFile"]

T = TypeVar("T")

LEFT_OVER: Final[set[tuple[int, int] | None]] = set()
"""The files of which this process inherited an open connection."""


class OpenFile:
    """The connections to the file that a path means, opened and closed under the file lock.

    A file that is removed or replaced under the connections is noticed by each call: they are given up, and the file
    that has the name then is opened as if for the first time.

    Args:
        path: the database file; links are followed, once.
        synchronous: whether a commit waits for the disk.
        wait_s: seconds that a call waits for others in all: for the file lock, for connections, for other programs.

    Attributes:
        path: the absolute path, links resolved: two names of one file would have two locks.
        was_lost: whether the file was removed, or moved away, while it was open, and no other one was opened yet.
    """

    read_only = False

    _mutex: threading.Lock

    def __init__(self, path: str, synchronous: Synchronous, wait_s: float) -> None:
        self._name = os.path.abspath(path)
        self.path = os.path.realpath(path)
        self.was_lost = False
        self.waits = Waits(wait_s)
        self._synchronous: Synchronous = synchronous
        self._lock = FileLock(f"{self.path}.lock", self.waits.wait_s)
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.path}>"

    def _start_without_connections(self) -> None:
        self._file = File(None)  # which one the connections are of
        self._shared: SharedMemory | None = None  # theirs, kept as long as they are open
        self._open: list[Connection] = []  # all of them
        self._given_up: list[Connection] = []  # those of a file that has lost its name, until they are closed
        self._writer: Connection | None = None
        self._readers: list[Connection] = []
        self._quick: Connection | None = None  # the one whose calls wait for nobody
        self._using: dict[object, Connection | None] = {}  # by reading call in flight; None: being opened

    def require_open(self) -> None:
        """Raise StoreClosedError after ``close``."""
        if self._closed:
            raise StoreClosedError(f"The store on {self.path} was closed; open a new one")

    def _is_same_file(self) -> bool:
        """Return whether the connections are of the file that has the name now. All calls do this: it is short."""
        try:
            found = os.stat(self._name)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file.identity

    def _recognise(self) -> None:
        """Refuse a file that is not ours before the lock file is made beside it.

        Where other threads write, a fork must wait for it: it would leave SQLite's own locks taken in its child.
        """
        self.require_open()
        if not self._open and exists(self.path):
            try:
                recognise(self.path)
            except EngineFileError:
                raise
            except EngineError:
                # Others may be at work on it: what else there is to say is said under the lock. But no lock file is
                # left beside a file of somebody who then could not use it.
                if not os.access(self.path, os.R_OK) and exists(self.path):
                    raise

    def _connect(self, deadline: float, call: object = None) -> Connection:
        """Open one more connection, which ``call`` uses for reading; the file lock is held.

        Args:
            deadline: until when it waits for others.
            call: the reading call; None where it is not for one.
        """
        self.require_open()
        self._give_up()
        found = identity(self.path)
        if found is None:
            raise gone(self.path)
        self._require_not_left_over(found)
        self._close_given_up()
        if not self._open:  # also where the identity is the same: a number that nobody has open is given out again
            self._file = File(found)
        opened: list[Connection] = []
        try:
            if self._open:
                connection = self._make(deadline, opened)
            else:
                self._shared = shared_memory(found)
                connection = self._shared.open_to_write(self.path, partial(self._make, deadline, opened), deadline)
            self.waits.opened(connection)
            with Translated(self.path, wait_s=self.waits.wait_s):
                note_mark(connection, self._lock)
            if identity(self.path) != found:
                raise EngineError(f"{self.path} was replaced at this very moment; try again")
            connection.file = self._file
            self._admit(connection, call)
        except BaseException:
            for connection in opened:
                if connection not in self._open:
                    connection.close()
            raise
        self.was_lost = False
        return connection

    def _make(self, deadline: float, opened: list[Connection]) -> Connection:
        left_s = max(deadline - time.monotonic(), 0)
        if require_no_other_changes(self.path, self._lock):
            remove_empty_wal(self.path, self.waits.wait_s, left_s)
        return connect(self.path, self._synchronous, self.waits.wait_s, left_s, opened)

    def _admit(self, connection: Connection, call: object) -> None:
        """Count a connection among those that are open, and in use from then on where it is for a ``call``."""
        with self._mutex:
            self._open.append(connection)
            if call is not None:
                self._using[call] = connection
                self._readers.append(connection)

    def _require_not_left_over(self, found: tuple[int, int]) -> None:
        if found in LEFT_OVER:
            raise EngineError(
                f"{self.path} was in use at the moment this process was forked, and cannot be used here: start"
                " processes by 'spawn' or 'forkserver', or fork while no call is in flight"
            )

    def require_unchanged(self, connection: Connection) -> None:
        """Raise EngineBusyError where what ``connection`` read may not be one state of the database; here it is."""

    def _give_up(self) -> None:
        """Give up the connections, unless they are of the file that has the name now."""
        if os.path.realpath(self._name) != self.path:
            raise EngineError(
                f"{self._name} led to {self.path} when it was opened, and leads elsewhere by now: open a new store, or"
                " restart the server"
            )
        with self._mutex:
            found = identity(self.path)
            if self._open and found != self._file.identity:
                self.was_lost = found is None
                self._give_up_all()

    def _give_up_all(self) -> None:
        self._given_up += self._open
        self._open, self._readers, self._writer, self._quick = [], [], None, None

    def _locked(
        self, work: Callable[[], T], deadline: float | None = None, *, look: Callable[[], None] | None = None
    ) -> T:
        """Run ``work`` under the file lock."""
        try:
            self._lock.acquire(deadline, look=look)
            result = work()
            self._lock.release()
            return result
        except BaseException:
            self._lock.release()  # also where Ctrl-C came in the middle of that
            raise

    def _close_connections(self) -> None:
        """Close all of them; the file lock is held and no call is in flight."""
        with self._mutex:
            self._give_up_all()
        self._close_given_up()
        self._shared = None

    def _close_given_up(self) -> None:
        """Close those that no call uses any more; the file lock is held."""
        with self._mutex:
            in_use = list(self._using.values())
            unused = [connection for connection in self._given_up if connection not in in_use]
        found = identity(self.path) if unused else None
        for connection in unused:
            if closes_safely(connection, found):
                with Translated(self.path, wait_s=self.waits.wait_s):
                    connection.close()
            else:
                keep_for_ever(connection)
            self.waits.closed(connection)
            with self._mutex:
                self._given_up.remove(connection)  # last: what Ctrl-C left open here nobody would close any more
