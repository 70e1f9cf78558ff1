"""The connections to one database file: shared by threads, within reach of ``close``, never inherited by a fork."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from langchain_kv.engines.sqlite.file import Synchronous, Translated, connect, create_file, exists, identity, recognise
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.engines.sqlite.forks import LEFT_OVER, forget, register
from langchain_kv.engines.sqlite.schema import upgrade
from langchain_kv.errors import EngineError, StoreClosedError, StoreError, UsageError
from langchain_kv.runtime.sharing import keep_for_ever
from langchain_kv.runtime.work_queue import WouldWait

__all__ = ["ConnectionPool"]

T = TypeVar("T")

READERS_MAX: Final = 4
"""Connections for reading; more threads than that take turns (more made nothing faster, measured)."""

FORK_WAIT_S: Final = 10.0
"""Seconds that a fork waits for calls in flight to end."""

LOOK_AGAIN_S: Final = 1.0
"""Seconds after which a waiting call looks again by itself: Ctrl-C may take the place of a wake-up."""


class _Threads(threading.local):
    """What each thread has for itself."""

    transaction: sqlite3.Connection | None = None


class ConnectionPool:
    """One connection for writing, a few for reading; opened at first use, under the file lock.

    Ctrl-C may raise KeyboardInterrupt in the main thread at the entry of any function and after any call. Therefore
    connections are lent to functions, not handed out: a context manager's own way in and out could be cut short, and
    would leave a transaction open or a connection taken.

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
        self._readers: list[sqlite3.Connection] = []
        self._quick: sqlite3.Connection | None = None  # the one whose calls wait for nobody
        self._wants_quick = False
        self._using: dict[object, sqlite3.Connection | None] = {}  # by reading call in flight; None: being opened
        self._forking = False

    def has_file(self) -> bool:
        """Return whether there is a database to read."""
        return bool(self._open) or exists(self.path)

    def require_open(self) -> None:
        """Raise StoreClosedError after ``close``."""
        if self._closed:
            raise StoreClosedError(f"The store on {self.path} was closed; open a new one")

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def joined(self) -> sqlite3.Connection | None:
        """The connection of the transaction that this thread is in, None where it is in none."""
        return self._threads.transaction

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``query`` answers about a connection for reading; waits while all of them are in use.

        In a transaction of this thread it is that one's connection, which sees what was changed.
        """
        joined = self._threads.transaction
        if joined is not None:
            with self._translated:
                return query(joined)
        call = object()
        try:
            connection = self._reader(call)
            with self._translated:
                return query(connection)
        finally:
            self._using.pop(call, None)  # one call of C: nothing can come between
            if self._waiting:
                self._wake()

    def _reader(self, call: object) -> sqlite3.Connection:
        """Give ``call`` a connection; it is in use as long as ``call`` is in ``_using``."""
        with self._mutex:
            if self._forking or not self._may_read():
                self._wait_until(lambda: self._closed or (not self._forking and self._may_read()))
            self.require_open()
            connection = self._using[call] = self._idle()
            wants_quick, self._wants_quick = self._wants_quick, False
        if connection is None:
            self._recognise()
            connection = self._locked(self._connect)
            with self._mutex:
                self._using[call] = connection
                self._readers.append(connection)
        if wants_quick:
            self._open_quick()
        return connection

    def read_at_once(self, call: Callable[[], T]) -> T:
        """Return what ``call`` answers, whose reads on this thread wait for no lock: neither of this process's nor of
        SQLite's. What it may wait for is the disk.

        Raises:
            WouldWait: it would have to wait, or failed in a way that waiting may help; run it where it may wait.
        """
        threads, user = self._threads, object()
        if threads.transaction is not None or not self._mutex.acquire(blocking=False):
            raise WouldWait
        try:
            quick = self._quick
            self._wants_quick = quick is None
            if quick is None or self._forking or self._closed or quick in self._using.values():
                raise WouldWait
            self._using[user] = quick
        finally:
            self._mutex.release()
        try:
            threads.transaction = quick  # whatever reads on this thread takes it
            return call()
        except EngineError as error:
            raise WouldWait from error
        finally:
            threads.transaction = None
            self._using.pop(user, None)
            if self._waiting:
                self._wake()

    def _open_quick(self) -> None:
        """Open the connection whose statements fail where others wait, or leave that to a later read."""
        if not self._lock.lock_threads(0):
            return
        try:
            with suppress(EngineError), self._translated:
                self._lock.lock_file(time.monotonic())
                connection = self._connect()
                connection.execute("PRAGMA busy_timeout=0")
                self._quick = connection
        finally:
            self._lock.release()

    def _idle(self) -> sqlite3.Connection | None:
        in_use = self._using.values()
        for connection in self._readers:
            if connection not in in_use:
                return connection
        return None

    def _may_read(self) -> bool:
        return len(self._using) < READERS_MAX

    def _wake(self) -> None:
        with self._mutex:
            self._changed.notify_all()

    def _wait_until(self, condition: Callable[[], object], wait_s: float = math.inf) -> None:
        """Wait for ``condition``, or as long as ``wait_s``; the mutex is held on entering, on leaving, and to look."""
        deadline = time.monotonic() + wait_s
        self._waiting += 1
        try:
            while not condition() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, LOOK_AGAIN_S))
        finally:
            self._waiting -= 1

    # -- writing --------------------------------------------------------------------------------------------------

    def change(self, work: Callable[[sqlite3.Connection], T], *, create: bool = False, single: bool = False) -> T:
        """Run ``work`` in a write transaction, return its answer: all or none of what it does is stored.

        Inside a transaction of the same thread it becomes a part of that one, which can be undone by itself.

        Args:
            work: gets the connection; what it raises undoes what it did.
            create: make the file if it is missing.
            single: what it changes, it changes by one statement, which needs no BEGIN and no COMMIT to be all or none.
        """
        threads = self._threads
        if threads.transaction is not None:
            if single:
                with self._translated:
                    return self._part(threads.transaction, work)
            return self._part(threads.transaction, work)
        if not self._open:
            self._recognise()
        try:
            self._lock.acquire()
            threads.transaction = connection = self._writing_connection(create)
            if single:
                with self._committing:
                    result = work(connection)
                self._require_this_process(threads)
            else:
                with self._translated:
                    connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                self._require_this_process(threads)
                self._require_transaction(connection)
                with self._committing:
                    connection.execute("COMMIT")
            threads.transaction = None
            self._lock.give_back()
            return result
        except BaseException:
            try:
                self._end(threads)
            except BaseException:  # Ctrl-C in the middle of it
                self._end(threads)
                raise
            raise

    def _end(self, threads: _Threads) -> None:
        """Undo what this thread began and did not commit, and let others in. Idempotent, from any point on."""
        connection = threads.transaction
        if connection is not None and threads is self._threads and connection.in_transaction:
            with suppress(sqlite3.Error):  # the error that led here says more; the next change tries once more
                connection.execute("ROLLBACK")
        threads.transaction = None
        self._lock.release()

    def _part(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        self._require_transaction(connection)
        with self._translated:
            connection.execute("SAVEPOINT part")
        try:
            result = work(connection)
        except BaseException:
            if connection.in_transaction:
                with self._translated:
                    connection.execute("ROLLBACK TO part")
                    connection.execute("RELEASE part")
            raise
        with self._translated:
            connection.execute("RELEASE part")
        return result

    def _require_this_process(self, threads: _Threads) -> None:
        if threads is not self._threads:
            raise EngineError(f"{self.path}: this process forked inside a transaction, which is its parent's")

    def _require_transaction(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:  # after some errors, a full disk among them, SQLite undoes all of it
            raise EngineError(f"{self.path}: an earlier error undid the whole transaction; try again")

    def _writing_connection(self, create: bool) -> sqlite3.Connection:
        self.require_open()
        if self._writer is None:
            if create and not os.path.lexists(self.path):
                create_file(self.path)
            connection = self._connect()
            with self._translated:
                upgrade(connection)
            self._writer = connection
        else:
            self._require_same_file()
            if self._writer.in_transaction:  # what could not be undone when it failed
                with self._translated:
                    self._writer.execute("ROLLBACK")
        return self._writer

    def _require_same_file(self) -> None:
        if identity(self.path) != self._identity:
            raise EngineError(
                f"{self.path} was removed or replaced while it was open; close the store and open a new one"
            )

    # -- opening and closing ----------------------------------------------------------------------------------------

    def _recognise(self) -> None:
        """Refuse a file that is not ours before the lock file is made beside it."""
        self.require_open()
        if not self._open and os.path.lexists(self.path):
            recognise(self.path)

    def _connect(self) -> sqlite3.Connection:
        """Open one more connection; the file lock is held."""
        self.require_open()
        register(self)
        found = identity(self.path)
        if found in LEFT_OVER:
            raise EngineError(
                f"{self.path} was in use at the moment this process was forked, and cannot be used here: start"
                " processes by 'spawn' or 'forkserver', or fork while no call is in flight"
            )
        if self._identity is not None:  # also where a fork had all connections closed
            self._require_same_file()
        connection = connect(self.path, self._synchronous)
        self._identity = found
        self._open.append(connection)
        return connection

    def close(self, wait_s: float = math.inf) -> None:
        """Close every connection once the calls in flight have ended. Idempotent.

        Args:
            wait_s: seconds to wait for them.

        Raises:
            EngineBusyError: the file lock was not free in time; call again.
            UsageError: this thread is inside a change.
        """
        if self.joined is not None:
            raise UsageError(f"{self.path} cannot be closed inside a change of it: close it before or after")
        with self._mutex:
            self._closed = True
            self._changed.notify_all()
            self._wait_until(lambda: not self._using, wait_s)
            if self._using:
                return
        if self._open:
            self._locked(self._close_connections)
        self._lock.lock_threads(-1)
        try:
            self._lock.close()
        finally:
            self._lock.release()
        forget(self)

    def _locked(self, work: Callable[[], T]) -> T:
        """Run ``work`` under the file lock."""
        try:
            with self._lock:
                return work()
        except BaseException:
            self._lock.release()  # Ctrl-C at the entry of the lock's own __exit__
            raise

    def _close_connections(self) -> None:
        """Close all of them; the file lock is held and no call is in flight."""
        if identity(self.path) == self._identity:
            for connection in self._open:
                with self._translated:
                    connection.close()
        else:
            # The last to close removes the -wal by its name, which by now may be that of another database.
            keep_for_ever(self._open)
        self._open, self._readers, self._writer, self._quick = [], [], None, None

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
            self._wait_until(lambda: not self._using, FORK_WAIT_S)
            if self._using:
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
            LEFT_OVER.add(self._identity)
        self._lock.after_fork_in_child()
        self._start_anew()
