"""The connections to one database file: shared by threads, within reach of ``close``, never inherited by a fork."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from langchain_kv.engines.os_errors import require_folder
from langchain_kv.engines.sqlite.at_exit import forget, keep
from langchain_kv.engines.sqlite.connection import Connection, Synchronous
from langchain_kv.engines.sqlite.copies import what_stands_beside
from langchain_kv.engines.sqlite.errors import Translated
from langchain_kv.engines.sqlite.file import create_file, exists
from langchain_kv.engines.sqlite.file_lock import LOCK_WAIT_S
from langchain_kv.engines.sqlite.opening import LEFT_OVER, OpenFile
from langchain_kv.engines.sqlite.schema import COLUMNS, upgrade
from langchain_kv.errors import EngineBusyError, EngineError, UsageError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import FORK_WAIT_S, keep_for_ever, watch_forks
from langchain_kv.runtime.work_queue import WouldWait

__all__ = ["ConnectionPool"]

T = TypeVar("T")

READERS_MAX: Final = 4
"""Connections for reading; more threads than that take turns (more made nothing faster, measured)."""

LOOK_AGAIN_S: Final = 1.0
"""Seconds after which a waiting call looks again by itself: Ctrl-C may take the place of a wake-up."""


class _Threads(threads.Local):  # type: ignore[misc] # it is threading.local
    """What each thread has for itself."""

    transaction: Connection | None = None


class ConnectionPool(OpenFile):
    """One connection for writing, a few for reading; opened at first use, under the file lock.

    Ctrl-C may raise KeyboardInterrupt in the main thread at the entry of any function and after any call. Therefore
    connections are lent to functions, not handed out: a context manager's own way in and out could be cut short, and
    would leave a transaction open or a connection taken.

    Args:
        path: the database file; links are followed, once.
        synchronous: whether a commit waits for the disk.
        wait_s: seconds that a call waits for others in all: for the file lock, for connections, for other programs.
    """

    def __init__(self, path: str, synchronous: Synchronous, wait_s: float = LOCK_WAIT_S) -> None:
        super().__init__(path, synchronous, wait_s)
        self._translated = Translated(self.path, wait_s=self.waits.wait_s)
        self._committing = Translated(self.path, applied=None, wait_s=self.waits.wait_s)
        self._start_anew()
        watch_forks(self)

    def _start_anew(self) -> None:
        self._start_without_connections()
        self._mutex = threads.Mutex()
        self._changed = threads.Condition(self._mutex)
        self._waiting = 0  # for a change: to wake nobody costs as much as to wake somebody
        self._threads = _Threads()
        self._wants_quick = False
        self._forking = False

    def has_file(self, *, look: bool = True) -> bool:
        """Return whether there is a database.

        Args:
            look: whether to look if an open file still is the one that has the name; ``change`` does so itself.
        """
        if not self._open:
            return exists(self.path)
        if look and self._threads.transaction is None and not self._is_same_file():
            self._give_up()
            return exists(self.path)
        return True

    def check_writable(self) -> None:
        """Refuse a path at which no file can be made."""
        if not self.has_file():
            require_folder(self.path)

    def _connect(self, deadline: float, call: object = None) -> Connection:
        keep(self)
        return super()._connect(deadline, call)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def joined(self) -> Connection | None:
        """The connection of the transaction that this thread is in, None where it is in none."""
        return self._threads.transaction

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what ``query`` answers about a connection for reading; waits while all of them are in use.

        In a transaction of this thread it is that one's connection, which sees what was changed.
        """
        joined = self._threads.transaction
        if joined is not None:
            with self._translated:
                return query(joined)
        call = object()
        deadline = self.waits.deadline()
        try:
            connection = self._reader(call, deadline)
            with self._translated:
                self.waits.limit(connection, deadline)
                answer = query(connection)
        finally:
            self._using.pop(call, None)  # one call of C: nothing can come between
            if self._waiting:
                self._wake()
        if self._wants_quick:
            self._open_quick()
        return answer

    def _reader(self, call: object, deadline: float) -> Connection:
        """Give ``call`` a connection; it is in use as long as ``call`` is in ``_using``."""
        with self._mutex:
            if not self._may_read():
                self._wait_until(lambda: self._closed or self._may_read(), deadline - time.monotonic())
                if not (self._closed or self._may_read()):
                    raise EngineBusyError(
                        f"{self.path} was read by {READERS_MAX} other threads for {self.waits.wait_s:g} s; try again"
                        " later"
                    )
            self.require_open()
            connection = self._using[call] = self._idle()
        if connection is None:
            connection = self._locked(lambda: self._connect(deadline, call), deadline, look=self._recognise)
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
            if not self._is_same_file():
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
        with self._mutex:
            is_wanted, self._wants_quick = self._wants_quick, False
        if not is_wanted or not self._lock.lock_threads(0):
            return
        call = object()
        try:
            with suppress(EngineError), self._translated:
                now = time.monotonic()
                self._lock.lock_file(now)
                connection = self._connect(now, call)  # in use, so that nobody closes it meanwhile
                connection.execute("PRAGMA busy_timeout=0")
                with self._mutex:
                    if connection in self._readers:
                        self._readers.remove(connection)
                        self._quick = connection
        finally:
            self._lock.release()
            self._using.pop(call, None)
            if self._waiting:
                self._wake()

    def _idle(self) -> Connection | None:
        in_use = self._using.values()
        for connection in self._readers:
            if connection not in in_use:
                return connection
        return None

    def _may_read(self) -> bool:
        return len(self._using) < READERS_MAX and not self._forking

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

    def change(self, work: Callable[[Connection], T], *, create: bool = False, single: bool = False) -> T:
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
        deadline = self.waits.deadline()
        try:
            self._lock.acquire(deadline, look=None if self._open else self._recognise)
            threads.transaction = connection = self._writing_connection(create, deadline)
            self.waits.limit(connection, deadline)
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

    def _part(self, connection: Connection, work: Callable[[Connection], T]) -> T:
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

    def _require_transaction(self, connection: Connection) -> None:
        if not connection.in_transaction:  # after some errors, a full disk among them, SQLite undoes all of it
            raise EngineError(f"{self.path}: an earlier error undid the whole transaction; try again")

    def _writing_connection(self, create: bool, deadline: float) -> Connection:
        self.require_open()
        writer = self._writer
        if writer is None or writer not in self._open or not self._is_same_file():
            if create and not exists(self.path):
                create_file(self.path)
            self._writer = writer = self._connect(deadline)
        elif writer.in_transaction:  # what could not be undone when it failed
            with self._translated:
                writer.execute("ROLLBACK")
        if writer.file.columns is None:  # also where an earlier call failed to
            self.waits.limit(writer, deadline)
            with self._translated:
                upgrade(writer)
            writer.file.columns = COLUMNS
        return writer

    # -- opening and closing ----------------------------------------------------------------------------------------

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
        if (self._open or self._given_up) and exists(self.path):
            self._locked(self._close_connections)
        self._lock.lock_threads(-1)
        try:
            # Where the file is gone its directory may be, too, and there is nothing that a lock could keep in order.
            self._close_connections()
            if what_stands_beside(self.path) is None:  # the last removes both
                self._lock.remove()
            self._lock.close()
        finally:
            self._lock.release()
        forget(self)

    # -- forks ------------------------------------------------------------------------------------------------------
    #
    # A forked child must not share SQLite's state with its parent: the library would go on believing in locks that
    # POSIX does not pass on, the parent's last close would remove the -wal under the child, and what the child stores
    # after that is lost although it was acknowledged (reproduced). So the connections are closed before the fork, and
    # both open new ones.

    def before_fork(self) -> None:
        """Let the calls in flight end, hold off new ones, close the connections. Whatever fails, the fork goes on."""
        if self.joined is not None:
            return  # forking inside a transaction: its connection is left over
        deadline = time.monotonic() + FORK_WAIT_S
        with self._mutex:
            self._forking = True
            self._wait_until(lambda: not self._using, FORK_WAIT_S)
            if self._using:
                return
        if self._lock.lock_threads(max(deadline - time.monotonic(), 0)) and (self._open or self._given_up):
            try:
                self._lock.lock_file(deadline)
                self._close_connections()
            finally:
                self._lock.unlock_file()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self.joined is None:
            self._lock.release()
        with self._mutex:
            self._forking = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Start anew. Connections that could not be closed are the parent's: never used here, never closed."""
        if self._open or self._given_up:
            keep_for_ever((self._open, self._given_up))
            LEFT_OVER.update(connection.file.identity for connection in (*self._open, *self._given_up))
        self._lock.after_fork_in_child()
        self._start_anew()
        forget(self)
