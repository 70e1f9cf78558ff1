"""The connections to one database file: shared by threads, within reach of ``close``, never inherited by a fork."""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from langchain_kv.engines.file_lock import FileLock
from langchain_kv.engines.sqlite_file import Synchronous, Translated, connect, create_file, identity, recognise
from langchain_kv.errors import EngineError, StoreClosedError, StoreError
from langchain_kv.sharing import keep_for_ever

__all__ = ["ConnectionPool"]

READERS_MAX: Final = 4
"""Connections for reading; more threads than that take turns (more made nothing faster, measured)."""

FORK_WAIT_S: Final = 10.0
"""Seconds that a fork waits for calls in flight to end."""

EXIT_WAIT_S: Final = 5.0
"""Seconds that the interpreter's exit waits for calls in flight to end."""

_logger = logging.getLogger("langchain_kv")


class _Threads(threading.local):
    """What each thread has for itself."""

    transaction: sqlite3.Connection | None = None


class ConnectionPool:
    """One connection for writing, a few for reading; opened at first use, under the file lock.

    Args:
        path: the absolute path of the database file, links resolved: two names of one file would have two locks.
        synchronous: whether a commit waits for the disk.
    """

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self.path = path
        self._synchronous: Synchronous = synchronous
        self._lock = FileLock(f"{path}.lock")
        self._translated = Translated(path)
        self._committing = Translated(path, applied=None)
        self._identity: tuple[int, int] | None = None
        self._closed = False
        self._held_for_fork = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._waiting = 0  # for a change: to wake nobody costs as much as to wake somebody
        self._threads = _Threads()
        self._open: list[sqlite3.Connection] = []  # all of them
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []  # for reading
        self._readers = 0  # for reading: open or being opened
        self._reading = 0  # calls in flight
        self._forking = False

    def has_file(self) -> bool:
        """Return whether there is a database to read."""
        if self._open:
            return True
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # a directory that this user may not look into hides no missing file
            raise EngineError(
                f"{self.path} cannot be looked at ({error.strerror}): check the permissions of its directory."
            ) from None
        return True

    def require_open(self) -> None:
        """Raise StoreClosedError after ``close``."""
        if self._closed:
            raise StoreClosedError(f"The store on {self.path} was closed; open a new one")

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def joined(self) -> sqlite3.Connection | None:
        """The connection of the transaction that this thread is in, None where it is in none."""
        return self._threads.transaction

    def take_reader(self) -> sqlite3.Connection:
        """Return a connection for reading; ``give_back`` ends its use. Waits while all are in use."""
        with self._mutex:
            if self._forking or not self._idle:
                self._wait_until(lambda: self._closed or (not self._forking and self._may_read()))
            self.require_open()
            self._reading += 1
            if self._idle:
                return self._idle.pop()
            self._readers += 1
        try:
            self._recognise()
            with self._lock:
                return self._connect()
        except BaseException:
            with self._mutex:
                self._reading -= 1
                self._readers -= 1
                self._changed.notify_all()
            raise

    def _may_read(self) -> bool:
        return bool(self._idle) or self._readers < READERS_MAX

    def give_back(self, connection: sqlite3.Connection) -> None:
        """End the use of a connection for reading."""
        with self._mutex:
            self._idle.append(connection)
            self._reading -= 1
            if self._waiting:
                self._changed.notify_all()

    def _wait_until(self, condition: Callable[[], object], wait_s: float | None = None) -> None:
        """Wait for ``condition``, or as long as ``wait_s``; the mutex is held on entering, on leaving, and to look."""
        self._waiting += 1
        try:
            self._changed.wait_for(condition, wait_s)
        finally:
            self._waiting -= 1

    # -- writing --------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold a write transaction: all or none of it is stored. Inside one of the same thread, a part of that one.

        Args:
            create: make the file if it is missing.
        """
        outer = self._threads.transaction
        if outer is not None:
            with self._part(outer):
                yield outer
            return
        self._recognise()
        with self._lock:
            connection = self._writing_connection(create)
            with self._translated:
                connection.execute("BEGIN IMMEDIATE")
            threads = self._threads
            threads.transaction = connection
            try:
                yield connection
                if threads is not self._threads:
                    raise EngineError(f"{self.path}: this process forked inside a transaction, which is its parent's")
                self._require_transaction(connection)
                with self._committing:
                    connection.execute("COMMIT")
            except BaseException:
                if threads is self._threads and connection.in_transaction:
                    with self._translated:
                        connection.execute("ROLLBACK")
                raise
            finally:
                threads.transaction = None

    @contextmanager
    def _part(self, connection: sqlite3.Connection) -> Iterator[None]:
        self._require_transaction(connection)
        with self._translated:
            connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if connection.in_transaction:
                with self._translated:
                    connection.execute("ROLLBACK TO part")
                    connection.execute("RELEASE part")
            raise
        with self._translated:
            connection.execute("RELEASE part")

    def _require_transaction(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:  # after some errors, a full disk among them, SQLite undoes all of it
            raise EngineError(f"{self.path}: an earlier error undid the whole transaction; try again")

    def _writing_connection(self, create: bool) -> sqlite3.Connection:
        self.require_open()
        if self._writer is None:
            if create and not os.path.lexists(self.path):
                create_file(self.path)
            self._writer = self._connect()
        elif identity(self.path) != self._identity:
            raise self._replaced()
        return self._writer

    def _replaced(self) -> EngineError:
        return EngineError(f"{self.path} was removed or replaced while it was open; close the store and open a new one")

    # -- opening and closing ----------------------------------------------------------------------------------------

    def _recognise(self) -> None:
        """Refuse a file that is not ours before the lock file is made beside it."""
        self.require_open()
        if not self._open and os.path.lexists(self.path):
            recognise(self.path)

    def _connect(self) -> sqlite3.Connection:
        """Open one more connection; the file lock is held."""
        self.require_open()
        _register(self)
        found = identity(self.path)
        if found in _LEFT_OVER:
            raise EngineError(
                f"{self.path} was in use at the moment this process was forked, and cannot be used here: start"
                " processes by 'spawn' or 'forkserver', or fork while no call is in flight"
            )
        if self._open and found != self._identity:
            raise self._replaced()
        connection = connect(self.path, self._synchronous)
        self._identity = found
        self._open.append(connection)
        return connection

    def close(self, wait_s: float | None = None) -> None:
        """Close every connection once the calls in flight have ended. Idempotent.

        Args:
            wait_s: seconds to wait for them; None waits as long as they last.

        Raises:
            EngineBusyError: the file lock was not free in time; call again.
        """
        with self._mutex:
            self._closed = True
            self._changed.notify_all()
            self._wait_until(lambda: not self._reading, wait_s)
            if self._reading:
                return
        if self._open:
            with self._lock:
                self._close_connections()
        with self._lock_of_threads():
            self._lock.close()
        _POOLS.discard(self)

    @contextmanager
    def _lock_of_threads(self) -> Iterator[None]:
        self._lock.lock_threads(-1)
        try:
            yield
        finally:
            self._lock.unlock_threads()

    def _close_connections(self) -> None:
        """Close all of them; the file lock is held and no call is in flight."""
        if identity(self.path) == self._identity:
            for connection in self._open:
                with self._translated:
                    connection.close()
        else:
            # The last to close removes the -wal by its name, which by now may be that of another database.
            keep_for_ever(self._open)
        self._open, self._idle, self._writer, self._readers = [], [], None, 0

    # -- forks ------------------------------------------------------------------------------------------------------
    #
    # A forked child must not share SQLite's state with its parent: the library would go on believing in locks that
    # POSIX does not pass on, the parent's last close would remove the -wal under the child, and what the child stores
    # after that is lost although it was acknowledged (reproduced). So the connections are closed before the fork, and
    # both open new ones.

    def before_fork(self) -> None:
        """Let the calls in flight end, hold off new ones, close the connections."""
        self._held_for_fork = False
        if self.joined is not None:
            return  # forking inside a transaction: its connection is left over
        deadline = time.monotonic() + FORK_WAIT_S
        with self._mutex:
            self._forking = True
            self._wait_until(lambda: not self._reading, FORK_WAIT_S)
            if self._reading:
                return
        self._held_for_fork = self._lock.lock_threads(max(deadline - time.monotonic(), 0))
        if self._held_for_fork and self._open:
            try:
                self._lock.lock_file(deadline)
            except StoreError:
                return
            try:
                self._close_connections()
            finally:
                self._lock.unlock_file()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held_for_fork:
            self._lock.unlock_threads()
        with self._mutex:
            self._forking = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Start anew. Connections that could not be closed are the parent's: never used here, never closed."""
        if self._open:
            keep_for_ever(self._open)
            _LEFT_OVER.add(self._identity)
        self._lock.after_fork_in_child()
        self._start_anew()


_LEFT_OVER: set[tuple[int, int] | None] = set()
"""The files of which this process inherited an open connection."""


class _Registry:
    """Guards the set of pools; held across a fork, so that no pool opens its first connection meanwhile."""

    lock = threading.Lock()


_POOLS: set[ConnectionPool] = set()
"""The pools that may have connections. It keeps them alive: one collected as garbage would close without the lock."""


def _register(pool: ConnectionPool) -> None:
    if pool not in _POOLS:
        with _Registry.lock:
            _POOLS.add(pool)


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
