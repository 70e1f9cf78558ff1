"""A copy of a database that others go on using."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import Final

from langchain_kv.engines.sqlite.file import Translated, identity, new_file
from langchain_kv.errors import EngineError, EngineFileError

__all__ = ["back_up"]

_STEP_PAGES: Final = 1_024
"""Pages copied at a time, 8 MiB: between two steps Python handles signals, so that Ctrl-C ends a backup."""


def back_up(connection: sqlite3.Connection, source: str, file: str, *, replace: bool) -> None:
    """Copy the database behind ``connection`` to ``file``.

    All of it is read in one read transaction. Writers do not wait for that; only the ``-wal`` grows while it lasts.

    Args:
        connection: a connection for reading that nobody else uses meanwhile.
        source: the absolute path of its database.
        file: the absolute path of the copy.
        replace: whether to take the place of a file of that name.

    Raises:
        EngineFileError: something is there already, or may not be replaced.
        EngineError: reading or writing failed, or the copy is damaged as the database is. Nothing is left behind.
    """
    _require_place(source, file, replace)
    try:
        with new_file(file, replace=replace) as copy, Translated(f"Copying {source} to {file}"):
            _copy(connection, copy)
            _require_whole(copy, source)
    except FileExistsError:
        raise _is_there(file) from None


def _between_steps(status: int, left: int, pages: int) -> None:
    """Do nothing; that SQLite's copying calls Python at all is what lets a signal through."""


def _require_place(source: str, file: str, replace: bool) -> None:
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
    found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise EngineError(f"{source} is damaged ({found}), and so its copy, which was removed; keep the backup before")
