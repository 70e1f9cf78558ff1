"""A database file that is only read: by wish, or because this user may not write there. Nothing is made beside it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, NoReturn, TypeVar

from langchain_kv.engines.sqlite.connection import Connection, File, Synchronous
from langchain_kv.engines.sqlite.connections import ConnectionPool
from langchain_kv.engines.sqlite.file import connect_read_only, exists, identity
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.engines.sqlite.shared_memory import SharedMemory, shared_memory
from langchain_kv.errors import EngineBusyError, EngineError, StoreError

__all__ = ["ReadOnlyPool", "open_pool"]

T = TypeVar("T")

CLOCK_TICK_S: Final = 0.02
"""Seconds within which two changes of a file may leave it the same time of change."""

PAUSE_S: Final = 0.002

CLOSING_S: Final = 1.0
"""Seconds that another process may take between removing the ``-shm`` and the ``-wal``: nothing is unclosed then."""

_PASSING: Final = (sqlite3.SQLITE_READONLY_CANTLOCK, sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT)
"""What a reader that may not write meets while others open, recover or close the database."""


def open_pool(path: str, synchronous: Synchronous, wait_s: float, *, read_only: bool) -> ConnectionPool:
    """Return the connections to a file: for reading only where that is asked for, or all that this user may do.

    Args:
        path: the database file; links are followed, once.
        synchronous: whether a commit waits for the disk.
        wait_s: seconds that a call waits for others.
        read_only: whether nothing is to be written, although it could be.
    """
    if read_only:
        return ReadOnlyPool(path, "it was opened by a URL with mode=ro; leave that out to write", wait_s)
    file = os.path.realpath(path)
    for place in (file, os.path.dirname(file)):
        if os.path.exists(place) and not _may_write(place):
            return ReadOnlyPool(
                path, f"this user may not write {place}; give the right to, and open a new store", wait_s
            )
    return ConnectionPool(path, synchronous, wait_s)


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


class _Stamp(NamedTuple):
    """What a connection was opened on.

    Attributes:
        file: which file.
        content: what changes with its content; None where SQLite itself looks after that.
    """

    file: tuple[int, int]
    content: tuple[int, int, int] | None


class _Opened(NamedTuple):
    """What is kept for a connection while it is open: what of, and what it shares that others cannot write then."""

    stamp: _Stamp
    shared: SharedMemory | None


class _ThreadLock(FileLock):
    """Excludes threads only, and makes no file."""

    def lock_file(self, deadline: float) -> None:
        """Do nothing."""


class ReadOnlyPool(ConnectionPool):
    """Connections that read, and neither change nor make any file.

    Where nobody has the database open, the file alone is all of it, and is read as one that does not change
    (``immutable``), because SQLite could not read it otherwise without making files. That it did not change is looked
    at after each read. Where another process has it open, or did not close it, its ``-wal`` is read, too, which SQLite
    makes safe.

    Args:
        path: the database file; links are followed, once.
        why: what to say to who wants to write.
        wait_s: seconds that a call waits for others.
    """

    read_only = True

    def __init__(self, path: str, why: str, wait_s: float) -> None:
        super().__init__(path, "full", wait_s)
        self._why = why
        self._lock = _ThreadLock(f"{self.path}.lock")
        self._opened_on: dict[Connection, _Opened] = {}

    def has_file(self, *, look: bool = True) -> bool:
        """Return whether there is a database."""
        return exists(self.path)

    def read(self, query: Callable[[Connection], T]) -> T:
        """As of the base; what was read of a file that changed meanwhile is read again."""
        deadline = self.waits.deadline()
        used: list[Connection] = []

        def noted(connection: Connection) -> T:
            used.append(connection)
            return query(connection)

        while True:
            try:
                answer = super().read(noted)
            except StoreError as error:
                passes = getattr(error.__cause__, "sqlite_errorcode", 0) in _PASSING
                if not passes and (not used or self._is_current(used[-1])):
                    raise
                time.sleep(PAUSE_S)
            else:
                if self._is_current(used[-1]):
                    return answer
            self._drop_stale()
            if self.joined is not None or time.monotonic() > deadline:
                raise self._changed_meanwhile()

    def require_unchanged(self, connection: Connection) -> None:
        """Raise EngineBusyError where what ``connection`` read may not be one state of the database."""
        if not self._is_current(connection):
            raise self._changed_meanwhile()

    def change(self, work: Callable[[Connection], T], *, create: bool = False, single: bool = False) -> T:
        """Refuse to."""
        self.check_writable()

    def check_writable(self) -> NoReturn:
        """Refuse to be written to."""
        self.require_open()
        raise EngineError(f"{self.path} can only be read: {self._why}")

    # -- connections ------------------------------------------------------------------------------------------------

    def _recognise(self) -> None:
        self.require_open()  # a connection that cannot write needs no look before

    def let_go(self, shared: SharedMemory, deadline: float) -> bool:
        """As ``shared_memory.Reader`` says. Later calls open new connections."""
        with self._mutex:
            sharing = [each for each in self._open if self._opened_on[each].shared is shared]
            self._drop(sharing)
            self._wait_until(lambda: not any(self._is_in_use(each) for each in sharing), deadline - time.monotonic())
            self._drop(sharing)
            left = [each for each in sharing if each in self._open]
            self._readers += left
            return not left

    def _connect(self, deadline: float, call: object = None) -> Connection:
        self.require_open()
        closed_by = min(time.monotonic() + CLOSING_S, deadline)
        while True:
            stamp = self._stamp()
            self._require_not_left_over(stamp.file)
            try:
                return self._open_one(stamp, deadline, call)
            except EngineError:
                is_final = self._describes(stamp) and (stamp.content is not None or time.monotonic() > closed_by)
                if is_final or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)

    def _open_one(self, stamp: _Stamp, deadline: float, call: object) -> Connection:
        if stamp.content is not None:
            return self._make_of(stamp, None, deadline, call)
        made: list[Connection] = []
        shared = shared_memory(stamp.file)
        make = partial(self._make_of, stamp, shared, deadline, call)
        if shared.open_to_read(self.path, self, lambda: made.append(make()), deadline):
            with self._mutex:
                if made[0] in self._opened_on:
                    self._opened_on[made[0]] = _Opened(stamp, None)
        return made[0]

    def _make_of(self, stamp: _Stamp, shared: SharedMemory | None, deadline: float, call: object) -> Connection:
        opened: list[Connection] = []
        try:
            connection = connect_read_only(
                self.path,
                immutable=stamp.content is not None,
                wait_s=self.waits.wait_s,
                left_s=max(deadline - time.monotonic(), 0),
                opened=opened,
            )
            if identity(self.path) != stamp.file:
                raise EngineError(f"{self.path} was replaced at this very moment; try again")
            self._opened_on[connection] = _Opened(stamp, shared)
            self.waits.opened(connection)
            with self._mutex:
                # What was remembered of it holds as long as its content does: a copy may have been written over the
                # file.
                same = [other.file for other in self._open if self._opened_on[other].stamp == stamp]
                self._file = connection.file = same[0] if same else File(stamp.file)
                self._admit(connection, call)
        except BaseException:
            for connection in opened:
                if connection not in self._open:
                    self._opened_on.pop(connection, None)
                    connection.close()
            raise
        return connection

    def _close_connections(self) -> None:
        with self._mutex:  # also while they are being closed: who is told that none is open goes by that
            for connection in (*self._open, *self._given_up):
                self.waits.closed(connection)
                connection.close()
            self._open, self._given_up, self._readers, self._quick, self._opened_on = [], [], [], None, {}

    def _drop_stale(self) -> None:
        """Use no connection to what the file was before it changed; close those that no call uses."""
        with self._mutex:
            if self._forking:
                return  # all are closed, and a child would inherit SQLite's own locks, taken for this
            self._drop([each for each in self._open if not self._is_current(each)])

    def _drop(self, connections: list[Connection]) -> None:
        """Have no call begin with these; close those that none uses. The mutex is held."""
        self._readers = [each for each in self._readers if each not in connections]
        if self._quick in connections:
            self._quick = None
        for connection in connections:
            if connection in self._open and not self._is_in_use(connection):
                connection.close()  # first: what Ctrl-C left open here nobody would close any more
                self.waits.closed(connection)
                self._open.remove(connection)
                self._opened_on.pop(connection, None)

    def _is_in_use(self, connection: Connection) -> bool:
        return connection in self._using.values()

    # -- whether the file changed -----------------------------------------------------------------------------------

    def _stamp(self) -> _Stamp:
        """Return what the file is now."""
        while True:
            try:
                found = os.stat(self.path)
            except OSError as error:
                raise EngineError(
                    f"Cannot open {self.path}: {error.strerror}; check the path and its permissions"
                ) from error
            file = (found.st_dev, found.st_ino)
            if self._has_more():
                return _Stamp(file, None)
            age_s = time.time() - found.st_mtime
            if not 0 <= age_s < CLOCK_TICK_S:
                return _Stamp(file, (found.st_size, found.st_mtime_ns, found.st_ctime_ns))
            time.sleep(CLOCK_TICK_S - age_s)  # the next change has another time

    def _has_more(self) -> bool:
        """Return whether there may be more of the database than its file: another has it open, or did not close it."""
        try:
            return os.stat(f"{self.path}-wal").st_size > 0 or os.path.exists(f"{self.path}-shm")
        except OSError:
            return False

    def _describes(self, stamp: _Stamp) -> bool:
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        content = None if self._has_more() else (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return stamp == ((found.st_dev, found.st_ino), content)

    def _is_current(self, connection: Connection) -> bool:
        opened = self._opened_on.get(connection)
        return opened is not None and self._describes(opened.stamp)

    def _changed_meanwhile(self) -> EngineError:
        return EngineBusyError(f"{self.path} was changed by another process while it was read; try again")
