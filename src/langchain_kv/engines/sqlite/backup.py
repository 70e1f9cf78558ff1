"""A copy of a database that others go on using, and such a copy put in the place of a database."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from langchain_kv.engines.os_errors import failed
from langchain_kv.engines.sqlite.aside import Aside
from langchain_kv.engines.sqlite.copies import give_new_mark, require_note, what_stands_beside
from langchain_kv.engines.sqlite.errors import Translated
from langchain_kv.engines.sqlite.file import identity, make_file, recognise
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineError, EngineFileError

__all__ = ["back_up", "require_place", "require_replaceable", "restore"]

_STEP_PAGES: Final = 1_024
"""Pages copied at a time, 8 MiB: between two steps Python handles signals, so that Ctrl-C ends a backup."""


def back_up(
    connection: sqlite3.Connection, source: str, file: str, *, replace: bool, check: Callable[[], None]
) -> None:
    """Copy the database behind ``connection`` to ``file``.

    All of it is read in one read transaction. Writers do not wait for that; only the ``-wal`` grows while it lasts.

    Args:
        connection: a connection for reading that nobody else uses meanwhile.
        source: the absolute path of its database.
        file: the absolute path of the copy.
        replace: whether to take the place of a file of that name.
        check: called before the copy gets its name; what it raises is passed on.

    Raises:
        EngineFileError: something is there already, or may not be replaced.
        EngineError: reading or writing failed, or the copy is damaged as the database is. Nothing is left behind.
    """
    require_place(source, file, replace)
    try:
        _make_copy(connection, source, file, os.replace if replace else None, check)
    except FileExistsError:
        raise _is_there(file) from None


def restore(
    connection: sqlite3.Connection, source: str, path: str, *, replace: bool, check: Callable[[], None]
) -> None:
    """Put a copy of the database behind ``connection`` in the place of the one at ``path``, at one moment.

    Processes that have that one open, through this package, go on with the copy from their next call on. What it had
    beside it, its last changes included, is removed with it.

    Args:
        connection: a connection for reading that nobody else uses meanwhile.
        source: the absolute path of its database, a backup.
        path: the absolute path of the database to be, links resolved; need not exist.
        replace: whether to take also the place of what is not recognised as a database of this package.
        check: as of ``back_up``.

    Raises:
        EngineFileError: what is there may not be replaced.
        EngineError: reading or writing failed, or the backup is damaged. Then all is as it was.
    """

    def take_place(temporary: str, path: str) -> None:
        lock = FileLock(f"{path}.lock")
        try:
            with lock:
                require_replaceable(source, path, replace)
                _take_place(temporary, path, lock)
        finally:
            try:
                # Its note is of the database before, and tells nothing once all that this one had beside it is gone.
                if what_stands_beside(path) is None:
                    lock.remove()
            finally:
                lock.close()

    require_replaceable(source, path, replace)
    _make_copy(connection, source, path, take_place, check)


def _make_copy(
    connection: sqlite3.Connection,
    source: str,
    file: str,
    give_name: Callable[[str, str], None] | None,
    check: Callable[[], None],
) -> None:
    def fill(copy: sqlite3.Connection) -> None:
        with Translated(source, doing=f"Copying {source} to {file}"):
            _copy(connection, copy)
            _require_whole(copy, source)
            check()
            give_new_mark(copy)

    make_file(file, fill, give_name)


def _between_steps(status: int, left: int, pages: int) -> None:
    """Do nothing; that SQLite's copying calls Python at all is what lets a signal through."""


def require_place(source: str, file: str, replace: bool) -> None:
    """Refuse a name that is taken, or whose taking would mix two databases."""
    if identity(source) == identity(file):
        raise EngineFileError(f"{file} is the database itself; choose another path for the backup")
    if os.path.lexists(file):
        if not replace:
            raise _is_there(file)
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise EngineFileError(f"{file} is not a regular file and is not replaced; choose another path")
    for beside in (f"{file}-wal", f"{file}-journal"):
        if os.path.lexists(beside):
            raise EngineFileError(
                f"{beside} is there: a database of that name is in use or was not closed, and SQLite would mix the two."
                " Close it, or choose another path for the backup"
            )


def require_replaceable(source: str, path: str, replace: bool) -> None:
    """Refuse the place of what a backup may not take: the backup's own, and what may be somebody else's."""
    if identity(source) == identity(path):
        raise EngineFileError(f"{source} is the database itself, and not a backup of it; there is nothing to restore")
    if not os.path.lexists(path):
        return
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise EngineFileError(f"{path} is not a regular file and is not replaced; choose another path")
    if replace or os.stat(path).st_size == 0:
        return
    try:
        recognise(path)
    except EngineFileError as error:
        raise EngineFileError(
            f"{path} is not replaced, as it may be somebody else's: it is not a database that this langchain-kv knows,"
            " or its beginning is damaged; choose another path, or say to replace it"
        ) from error


def _take_place(temporary: str, path: str, lock: FileLock) -> None:
    """Give the copy the name of the database, and remove what that one had beside it. The lock is held."""
    # Should this process end in the middle, the note tells the -wal of the old one from the copy: that is refused until
    # it is restored once more.
    require_note(path, lock)
    with suppress(FileNotFoundError):
        _keep_owner(temporary, os.stat(path))
    os.replace(temporary, path)
    for beside in (f"{path}-wal", f"{path}-shm", f"{path}-journal"):
        try:
            os.unlink(beside)
        except FileNotFoundError:
            pass
        except OSError as error:
            made = failed(
                f"{path} has its place, but {beside} of the database before cannot be removed, and until it is nothing"
                " is opened",
                error,
                "restore it once more",
            )
            made.applied = None
            raise made from error


def _keep_owner(temporary: str, old: os.stat_result) -> None:
    """Let those use the copy who could use the old file; root may restore what another user's service reads."""
    if os.name == "posix":
        with suppress(PermissionError):
            os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _is_there(file: str) -> EngineFileError:
    return EngineFileError(f"{file} is there already and was left as it is; choose another path, or say to replace it")


def _copy(connection: sqlite3.Connection, copy: sqlite3.Connection) -> None:
    """Copy within a read transaction: without one, each write of others would make SQLite begin anew."""
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM keyspaces").fetchone()  # with the first read the moment is fixed
        connection.backup(copy, pages=_STEP_PAGES, progress=_between_steps)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _require_whole(copy: sqlite3.Connection, source: str) -> None:
    """Read all of the copy: one of a damaged database would help nobody on the day it is needed."""
    found = Aside(copy, "PRAGMA quick_check(1)").answer()
    if found != "ok":
        raise EngineError(f"{source} is damaged ({found}), and so its copy, which was removed; keep an older backup")
