"""What tells a database from its copies, and from what another one left beside it.

SQLite takes any ``-wal`` that bears a database's name. Where a copy was put in the place of a database that was not
closed, it would mix the last changes of the one into the other. So each copy is made with a *mark* of its own, a random
text, and the lock file beside a database has a note of the mark of the one that was last opened there.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import suppress
from typing import Final

from langchain_kv.engines.sqlite.connection import lend
from langchain_kv.engines.sqlite.file_lock import NOTE_LENGTH, FileLock
from langchain_kv.errors import EngineFileError

__all__ = [
    "give_new_mark",
    "note_mark",
    "of_another",
    "remove_what_is_empty",
    "require_no_other_changes",
    "require_note",
    "restore_command",
    "what_stands_beside",
]

_NO_MARK: Final = "0" * NOTE_LENGTH
"""Stands for the mark of a file that was made before there were any."""


def restore_command(path: str) -> str:
    """Return the command that puts a backup, FILE, in the place of the database."""
    return f"lckv restore FILE {shlex.quote('sqlite:' + path.replace('%', '%25').replace('?', '%3F'))}"


def give_new_mark(connection: sqlite3.Connection) -> None:
    """Tell the database from all others from now on."""
    connection.executescript(
        "BEGIN; CREATE TABLE IF NOT EXISTS file_mark(mark TEXT NOT NULL); DELETE FROM file_mark;"
        f" INSERT INTO file_mark VALUES('{os.urandom(NOTE_LENGTH // 2).hex()}'); COMMIT;"
    )


def what_stands_beside(path: str) -> str | None:
    """Return the ``-wal`` or ``-shm`` beside a database, None where there is neither: it was closed."""
    for ending in ("-wal", "-shm"):  # no generator: one that is not finished would swallow a Ctrl-C
        if os.path.lexists(f"{path}{ending}"):
            return f"{path}{ending}"
    return None


def require_no_other_changes(path: str, lock: FileLock) -> bool:
    """Refuse a database beside which the ``-wal`` of another one stands with changes in it. The lock is held.

    Returns:
        Whether an empty one, or a ``-shm``, stands there that may be another's, or that of a program that read the
        database and takes no lock of ours.

    Raises:
        EngineFileError: it was put in the place of that one, which was in use or not closed. Nothing was opened.
    """
    note = lock.note()
    beside = what_stands_beside(path)
    if beside is None or not note:
        return False
    mark = _settled_mark(path)
    if mark is None or mark == note:
        return False
    with suppress(FileNotFoundError):
        if os.stat(f"{path}-wal").st_size:
            raise of_another(path, beside)
    return True


def of_another(path: str, beside: str) -> EngineFileError:
    """Make the error of a database beside which another one's file stands."""
    return EngineFileError(
        f"{path} was put in the place of another database, whose {beside} is still there: SQLite would mix the two,"
        f" so nothing was opened. Move {path} to another name, FILE, and put it in place: {restore_command(path)}"
    )


def note_mark(connection: sqlite3.Connection, lock: FileLock) -> None:
    """Note whose ``-wal`` will stand beside the database, before anything is written to it. The lock is held."""
    mark = _mark(connection)
    if len(mark) == NOTE_LENGTH and mark != lock.note():
        lock.set_note(mark)


def require_note(path: str, lock: FileLock) -> None:
    """Have a note of whose ``-wal`` stands beside the database, before its place is taken. The lock is held."""
    if not lock.note():
        lock.set_note(_settled_mark(path) or "unknown".ljust(NOTE_LENGTH))


def remove_what_is_empty(path: str) -> str | None:
    """Remove what a database of that name, which is gone, left beside it; return what holds changes, untouched."""
    for leftover in (f"{path}-wal", f"{path}-journal"):
        with suppress(OSError):
            if os.stat(leftover).st_size:
                return leftover
    # Nobody's changes are in these. A process that has the old file open goes on with them, though without a name.
    for leftover in (f"{path}-wal", f"{path}-journal", f"{path}-shm"):
        with suppress(OSError):
            os.unlink(leftover)
    return None


def _settled_mark(path: str) -> str | None:
    """Return the mark that stands in the file itself, whatever a ``-wal`` says; None where that cannot be told."""

    def look(connection: sqlite3.Connection) -> str:
        connection.execute("PRAGMA writable_schema=ON")  # as it may be shorter than its header says
        return _mark(connection)

    try:
        mark = lend(path, "ro&immutable=1", look)
    except sqlite3.Error:
        return None
    return mark if len(mark) == NOTE_LENGTH else None


def _mark(connection: sqlite3.Connection) -> str:
    try:
        row = connection.execute("SELECT mark FROM file_mark").fetchone()
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table"):
            return _NO_MARK
        raise
    return str(row[0]) if row is not None else ""
