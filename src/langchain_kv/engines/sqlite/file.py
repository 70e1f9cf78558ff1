"""The database file: making it, recognising it, connecting to it, and saying what went wrong with it.

Nothing here or elsewhere opens the database file, its ``-wal`` or its ``-shm`` other than through sqlite3: closing
such a descriptor drops the POSIX locks that SQLite holds on the file, and then acknowledged rows get lost.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from langchain_kv.engines.ids import lone_surrogate
from langchain_kv.engines.sqlite.schema import SCHEMA_VERSION, make_schema
from langchain_kv.errors import EngineBusyError, EngineError, EngineFileError, InvalidValueError, StoreError

__all__ = [
    "APPLICATION_ID",
    "Synchronous",
    "Translated",
    "connect",
    "create_file",
    "exists",
    "has_wal_reset_bug",
    "identity",
    "is_damage",
    "missing_table",
    "new_file",
    "recognise",
]

APPLICATION_ID: Final = int.from_bytes(b"lckv")
"""Marks the file as ours (``PRAGMA application_id``)."""

BUSY_WAIT_S: Final = 30.0
"""Seconds that SQLite itself waits for a lock: only for programs other than ours, which do not take the file lock."""

WAL_SIZE_KEPT_BYTES: Final = 64 * 1024 * 1024
"""A larger ``-wal`` is cut to this size when it starts again."""

Synchronous = Literal["full", "normal"]

_logger = logging.getLogger("langchain_kv")


def create_file(path: str) -> None:
    """Make an empty database at ``path``, mode 0600, whole from the first moment it can be seen. The file lock is held.

    Does nothing where somebody else's file appears at ``path`` meanwhile.
    """
    for leftover in (f"{path}-wal", f"{path}-journal"):
        if _size(leftover):
            raise EngineFileError(
                f"{path} is missing, but {leftover} is there: it belongs to a database that was moved or removed, and"
                " SQLite would mix it into a new one. Bring the database back, or remove what is left of it"
            )
    with suppress(FileExistsError), new_file(path) as connection:
        make_schema(connection)
        connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def new_file(path: str, *, replace: bool = False) -> Iterator[sqlite3.Connection]:
    """Give a connection to a new private file, which gets the name ``path`` once the block has ended well.

    Whatever fails, nothing is left behind.

    Args:
        path: its name to be.
        replace: whether to take the place of what has that name.

    Raises:
        FileExistsError: something has that name, and ``replace`` is False.
        EngineError: the file cannot be made or written.
    """
    temporary = f"{path}.new-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with (
            Translated(temporary),
            closing(sqlite3.connect(_uri(temporary, "rwc"), uri=True, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA page_size=8192")
            # With this the file comes into being, still without content.
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            os.chmod(temporary, 0o600)
            yield connection
        _name(temporary, path, replace)
    except FileExistsError:
        raise
    except OSError as error:
        raise EngineError(f"Cannot make {path}: {error.strerror}; check its directory's permissions") from error
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(temporary + ending)
    _make_name_durable(os.path.dirname(path))


def _name(temporary: str, path: str, replace: bool) -> None:
    if replace:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links; the file lock keeps other processes of ours away meanwhile
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(temporary, path)


def _make_name_durable(folder: str) -> None:
    if os.name != "posix":
        return
    with suppress(OSError):  # some file systems do not offer it, and a directory need not be readable
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def connect(path: str, synchronous: Synchronous) -> sqlite3.Connection:
    """Open a connection to an existing database of ours, for use by one thread at a time. The file lock is held.

    Raises:
        EngineFileError: the file is not ours or of a newer version; it was not changed.
        EngineError: it cannot be opened.
    """
    recognise(path)
    with Translated(path):
        connection = sqlite3.connect(
            _uri(path, "rw"), uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_WAIT_S
        )
        try:
            _require_ours(path, connection)  # the newest state, from the -wal
            connection.execute(f"PRAGMA synchronous={synchronous.upper()}")
            connection.execute(f"PRAGMA fullfsync={int(synchronous == 'full')}")  # macOS: down to the disk
            connection.execute(f"PRAGMA journal_size_limit={WAL_SIZE_KEPT_BYTES}")
        except BaseException:
            connection.close()
            raise
    return connection


def recognise(path: str) -> None:
    """Refuse what is not a database of ours, without touching it or leaving anything beside it. Needs no lock.

    Raises:
        EngineFileError: the file is not ours or of a newer version.
        EngineError: it cannot be opened, or is damaged.
    """
    _require_file(path)
    # As one that never changes, because an ordinary connection may touch a file that is not ours: it replays and
    # removes a -wal that it finds.
    with Translated(path), closing(sqlite3.connect(_uri(path, "ro&immutable=1"), uri=True)) as look:
        if _size(f"{path}-wal"):
            # A checkpoint that is under way, or was cut off by a kill, writes the header first: until the rest of the
            # -wal follows the file is shorter than it says, which is damage to a look that sees no -wal.
            look.execute("PRAGMA writable_schema=ON")
        _require_ours(path, look)


def exists(path: str) -> bool:
    """Return whether something is at the path.

    Raises:
        EngineError: its directory may not be looked into, which hides no missing file.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise EngineError(
            f"{path} cannot be looked at ({error.strerror}): check the permissions of its directory."
        ) from None
    return True


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at ``path`` from any other, None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"Cannot look at {path}: {error.strerror}") from error
    return (found.st_dev, found.st_ino)


def _require_file(path: str) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise EngineError(f"Cannot open {path}: {error.strerror}; check the path and its permissions") from error
    if not stat.S_ISREG(found.st_mode):
        raise EngineFileError(f"{path} is not a regular file; choose another path for the database")
    if found.st_size == 0:
        raise EngineFileError(_not_ours(path, "it is empty"))


def _require_ours(path: str, connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise EngineFileError(_not_ours(path, "it is a database of another program"))
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= SCHEMA_VERSION:
        raise EngineFileError(
            f"{path} has schema version {version}, and this langchain-kv reads versions up to {SCHEMA_VERSION}; the"
            " file was left untouched. Install the newer langchain-kv that wrote it, or choose another path"
        )


def _not_ours(path: str, why: str) -> str:
    return f"{path} is not a database of langchain-kv ({why}); it was left untouched. Choose another path"


def _uri(path: str, mode: str) -> str:
    return f"{Path(path).as_uri()}?mode={mode}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


class Translated:
    """A context that turns what sqlite3 raises into this package's errors, naming the file. Holds no state.

    Args:
        path: the database file.
        applied: what the errors say about the write, where SQLite leaves that open. Most do not: the record of the
            commit is the last to be written.
    """

    def __init__(self, path: str, *, applied: bool | None = False) -> None:
        self._path = path
        self._applied = applied

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, UnicodeEncodeError):
            raise lone_surrogate(error.object) from None
        if isinstance(error, sqlite3.Error):
            translated = _translate(error, self._path)
            if not isinstance(translated, InvalidValueError):
                translated.applied = False if _is_before_commit(error) else self._applied
            raise translated from error


def _is_before_commit(error: sqlite3.Error) -> bool:
    """Return whether nothing was stored: it met a lock, or damage, or failed to read, or to write what goes before the
    record of the commit."""
    return getattr(error, "sqlite_errorcode", 0) in _FAILED_BEFORE or _kind(error) in _BEFORE_COMMIT


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
    return _kind(error) == sqlite3.SQLITE_CORRUPT


def missing_table(path: str, collection: str) -> EngineError:
    """Make the error of a collection that is listed and has no table."""
    return EngineError(
        f"{path} names {collection!r}, whose table is missing; the file is damaged: restore it from a backup"
    )


def _kind(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the rest are its details


def _translate(error: sqlite3.Error, path: str) -> StoreError:
    code = _kind(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EngineBusyError(f"Another program held {path} locked for {BUSY_WAIT_S:g} s; try again later")
    if code == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InvalidValueError(f"SQLite cannot hold a document that large ({error}); store a smaller one")
    if code == sqlite3.SQLITE_NOTADB:
        return EngineFileError(_not_ours(path, "it is not an SQLite file, or its beginning is damaged"))
    advice = {
        sqlite3.SQLITE_FULL: "the disk or the quota is full; free some space and try again",
        sqlite3.SQLITE_READONLY: "it can only be read; make the file and its directory writable",
        sqlite3.SQLITE_PERM: "make the file and its directory accessible to this user",
        sqlite3.SQLITE_CANTOPEN: "check that the file and its directory exist and are accessible to this user",
        sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
        sqlite3.SQLITE_IOERR: "reading or writing the disk failed; check the disk and its free space",
    }.get(code, "this is not expected; please report it")
    return EngineError(f"{path}: {error}; {advice}")


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Return whether this SQLite can lose rows when one program checkpoints while another commits."""
    return version < (3, 51, 3) and not ((3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0))


if has_wal_reset_bug(sqlite3.sqlite_version_info):
    _logger.debug(
        "SQLite %s can lose rows when a program that does not take the .lock file checkpoints the database during"
        " a commit; langchain-kv itself takes it. Fixed in SQLite 3.51.3.",
        sqlite3.sqlite_version,
    )
