"""What goes wrong with a database file, in this package's errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from types import TracebackType
from typing import Final

from langchain_kv.engines import os_errors
from langchain_kv.engines.ids import lone_surrogate
from langchain_kv.engines.sqlite.copies import restore_command
from langchain_kv.errors import (
    DataAPIError,
    EngineBusyError,
    EngineError,
    EngineFileError,
    InvalidValueError,
    StoreError,
)
from langchain_kv.limits import FILE_WAIT_S

__all__ = ["Translated", "gone", "is_damage", "kind_of", "missing_table", "not_ours"]


class Translated:
    """A context that turns what sqlite3 raises into this package's errors, naming the file. Holds no state.

    Args:
        path: the database file.
        applied: what the errors say about the write, where SQLite leaves that open. Most do not: the record of the
            commit is the last to be written.
        doing: what the errors begin with, in the place of the path.
        wait_s: seconds that statements wait for other programs, for the error that says so.
    """

    def __init__(
        self, path: str, *, applied: bool | None = False, doing: str = "", wait_s: float = FILE_WAIT_S
    ) -> None:
        self._path = path
        self._applied = applied
        self._wait_s = wait_s
        self._doing = doing or path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, UnicodeEncodeError):
            raise lone_surrogate(error.object) from None
        if isinstance(error, UnicodeDecodeError):  # sqlite3 shows SQLite's message, which has damaged bytes in it
            advice = f"the file is damaged; restore a backup: {restore_command(self._path)}"
            raise EngineError(f"{self._doing}: its schema cannot be read ({error}); {advice}") from error
        if isinstance(error, sqlite3.OperationalError) and str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from error
        if isinstance(error, sqlite3.Error):
            translated = _translate(error, self._path, self._doing, self._wait_s)
            if not isinstance(translated, InvalidValueError):
                translated.applied = False if _is_before_commit(error) else self._applied
            raise translated from error


_INTERRUPTED: Final = "user-defined function raised exception"
"""What sqlite3 makes of Ctrl-C in a function of ours that SQLite calls: these raise nothing themselves."""


def _is_before_commit(error: sqlite3.Error) -> bool:
    """Return whether nothing was stored: what failed comes before the record of the commit, or a lock or damage did."""
    return getattr(error, "sqlite_errorcode", 0) in _FAILED_BEFORE or kind_of(error) in _BEFORE_COMMIT


_FAILED_BEFORE: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)


_BEFORE_COMMIT: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether SQLite met a page that is not as it wrote it."""
    return kind_of(error) == sqlite3.SQLITE_CORRUPT


def missing_table(path: str, collection: str) -> EngineError:
    """Make the error of a collection that is listed and has no table."""
    return EngineError(
        f"{path} names {collection!r}, whose table is missing; the file is damaged: restore a backup,"
        f" {restore_command(path)}"
    )


def kind_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the rest are its details


def _translate(error: sqlite3.Error, path: str, doing: str, wait_s: float) -> StoreError:
    code = kind_of(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EngineBusyError(f"Another program held {path} locked for {wait_s:g} s; try again later")
    if code == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InvalidValueError(f"SQLite cannot hold a document that large ({error}); store a smaller one")
    if code == sqlite3.SQLITE_NOTADB:
        return EngineFileError(not_ours(path, "it is not an SQLite file, or its beginning is damaged"))
    if code == sqlite3.SQLITE_CANTOPEN and (lack := _lack_of_files()) is not None:
        return os_errors.failed(f"{doing}: {error}", lack, "")
    advice = {
        sqlite3.SQLITE_FULL: "the disk or the quota is full; free some space and try again",
        sqlite3.SQLITE_READONLY: "it can only be read; make the file and its directory writable",
        sqlite3.SQLITE_PERM: "make the file and its directory accessible to this user",
        sqlite3.SQLITE_CANTOPEN: "check that the file and its directory exist and are accessible to this user",
        sqlite3.SQLITE_CORRUPT: f"the file is damaged; restore a backup: {restore_command(path)}",
        sqlite3.SQLITE_IOERR: "reading or writing the disk failed; check the disk and its free space",
    }.get(code, "this is not expected; please report it")
    return EngineError(f"{doing}: {error}; {advice}")


def _lack_of_files() -> OSError | None:
    """Return what the operating system says where no file can be opened at all. SQLite does not tell why one cannot."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None


def gone(path: str) -> DataAPIError:
    """Make the error of a file that is gone, for those who had it open: a store, or a client of the server."""
    return DataAPIError.of(
        "UNKNOWN_COLLECTION_OR_TABLE",
        f"{path} was removed, or moved away, while it was in use, and its collections with it: bring it back, or create"
        " the collection anew, as a new store does, which makes a new file",
    )


def not_ours(path: str, why: str) -> str:
    """Return the text of the error of a file that is not ours."""
    return f"{path} is not a database of langchain-kv ({why}); it was left untouched. Choose another path"
