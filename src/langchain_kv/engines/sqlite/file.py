"""The database file: making it, recognising it, connecting to it, and saying what went wrong with it.

Nothing here or elsewhere opens the database file, its ``-wal`` or its ``-shm`` other than through sqlite3: closing such
a descriptor drops the POSIX locks that SQLite holds on the file, and then acknowledged rows get lost.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from langchain_kv.engines.os_errors import failed
from langchain_kv.engines.sqlite.connection import Connection, Synchronous, lend
from langchain_kv.engines.sqlite.copies import give_new_mark, of_another, remove_what_is_empty, restore_command
from langchain_kv.engines.sqlite.errors import Translated, kind_of, not_ours
from langchain_kv.engines.sqlite.schema import SCHEMA_VERSION, VECTOR_FUNCTION, make_schema
from langchain_kv.engines.vectors import vector_of
from langchain_kv.errors import EngineError, EngineFileError

__all__ = [
    "APPLICATION_ID",
    "closes_safely",
    "connect",
    "connect_read_only",
    "create_file",
    "exists",
    "has_wal_reset_bug",
    "identity",
    "make_file",
    "recognise",
    "remove_empty_wal",
    "set_wait",
]

APPLICATION_ID: Final = int.from_bytes(b"lckv")
"""Marks the file as ours (``PRAGMA application_id``)."""


WAL_SIZE_KEPT_BYTES: Final = 64 * 1024 * 1024
"""A larger ``-wal`` is cut to this size when it starts again."""

PAGE_SIZE_BYTES: Final = 8192

_logger = logging.getLogger("langchain_kv")


def create_file(path: str) -> None:
    """Make an empty database at ``path``, mode 0600, whole from the first moment it can be seen. The file lock is held.

    A file of 0 bytes that is there already becomes the database, and keeps its mode: it may be a mount of its own,
    whose name nothing else can take. Does nothing where somebody else's file appears at ``path`` meanwhile.
    """
    is_there = os.path.lexists(path)
    leftover = remove_what_is_empty(path)
    # A journal beside a file of 0 bytes is what a kill leaves of the lines below; SQLite removes it.
    if leftover is not None and not (is_there and leftover.endswith("-journal")):
        raise EngineFileError(
            f"{path} is {'empty' if is_there else 'missing'}, but {leftover} is there: it belongs to a database"
            " that was moved or removed, and SQLite would mix it into a new one. Bring the database back, remove what"
            f" is left of it, or put a backup in its place: {restore_command(path)}"
        )
    if is_there:
        with Translated(path):
            lend(path, "rw", _make_tables)
    else:
        with suppress(FileExistsError):
            make_file(path, _make_tables)


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
    connection.execute("BEGIN")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    make_schema(connection)
    connection.execute("COMMIT")
    give_new_mark(connection)
    connection.execute("PRAGMA journal_mode=WAL")


def make_file(
    path: str, fill: Callable[[Connection], None], give_name: Callable[[str, str], None] | None = None
) -> None:
    """Make a new private file, which gets the name ``path`` once it is filled and closed.

    Whatever fails, nothing is left behind.

    Args:
        path: its name to be.
        fill: puts into it what it is to have.
        give_name: renames the first path to the second. Without it nothing that has that name is replaced.

    Raises:
        FileExistsError: something has that name.
        EngineError: the file cannot be made or written.
    """
    temporary = f"{path}.new-{os.getpid()}-{os.urandom(4).hex()}"

    def make(connection: Connection) -> None:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
        # With this the file comes into being, still without content.
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        with suppress(OSError):  # some file systems have no modes
            os.chmod(temporary, 0o600)
        fill(connection)

    try:
        with Translated(temporary):
            lend(temporary, "rwc", make)
        (give_name or _name)(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise failed(f"Cannot make {path}", error, "check its directory's permissions") from error
    finally:
        try:
            _remove(temporary)
        except BaseException:
            _remove(temporary)  # also where Ctrl-C came in the middle of that
            raise
    _make_name_durable(os.path.dirname(path))


def _remove(temporary: str) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            os.unlink(temporary + ending)


def _name(temporary: str, path: str) -> None:
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


def connect(path: str, synchronous: Synchronous, wait_s: float, left_s: float, opened: list[Connection]) -> Connection:
    """Open a connection to an existing database of ours, for use by one thread at a time. The file lock is held.

    Args:
        path: the file.
        synchronous: whether a commit waits for the disk.
        wait_s: seconds that a call waits in all.
        left_s: seconds of these that its statements may wait for programs other than ours.
        opened: the connection is in it as soon as it is open, for the caller to close it where this fails.

    Raises:
        EngineFileError: the file is not ours or of a newer version; it was not changed.
        EngineError: it cannot be opened, or is damaged.
    """
    recognise(path)
    with Translated(path, wait_s=wait_s):
        connection = Connection(opened, path, "rw", left_s)
        _require_ours(path, connection)  # the newest state, from the -wal
        connection.execute(f"PRAGMA synchronous={synchronous.upper()}")
        connection.execute(f"PRAGMA fullfsync={int(synchronous == 'full')}")  # macOS: down to the disk
        connection.execute(f"PRAGMA journal_size_limit={WAL_SIZE_KEPT_BYTES}")
        connection.create_function(VECTOR_FUNCTION, 1, _vector_of, deterministic=True)
        _use_wal(connection, left_s)
    return connection


def _vector_of(content: object) -> bytes:
    return vector_of(content) if isinstance(content, bytes) else b""  # another program may have put anything there


def _use_wal(connection: sqlite3.Connection, left_s: float) -> None:
    """Bring back the journal mode that another program changed, unless that program is at work: the next may do it."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    set_wait(connection, 0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if kind_of(error) != sqlite3.SQLITE_BUSY:
            raise
    set_wait(connection, left_s)


def set_wait(connection: sqlite3.Connection, wait_s: float) -> None:
    """Set how many seconds a statement waits for programs other than ours."""
    connection.execute(f"PRAGMA busy_timeout={max(int(wait_s * 1000), 0)}")


def connect_read_only(
    path: str, *, immutable: bool, wait_s: float, left_s: float, opened: list[Connection]
) -> Connection:
    """Open a connection that reads a database of ours, and makes no file beside it. Needs no lock.

    Args:
        path: the file.
        immutable: whether the file is all of the database, and does not change meanwhile. Else its ``-wal`` and
            ``-shm`` are there, and SQLite reads them, too.
        wait_s: seconds that a call waits in all.
        left_s: seconds of these that its statements may wait for others.
        opened: as of ``connect``.

    Raises:
        EngineFileError: the file is not ours or of another version.
        EngineError: it cannot be opened, or is damaged.
    """
    _require_file(path)
    mode = "ro&immutable=1" if immutable else "ro&readonly_shm=1"
    with Translated(path, wait_s=wait_s):
        try:
            connection = Connection(opened, path, mode, left_s)
            _require_ours(path, connection)
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and kind_of(error) == sqlite3.SQLITE_CANTOPEN and not immutable:
                raise EngineError(
                    f"{path} was not closed: its last changes stand in {path}-wal, which can be read only with"
                    f" {path}-shm beside it. Open the database once where it may be written, and close it"
                ) from error
            raise
    return connection


def recognise(path: str) -> None:
    """Refuse what is not a database of ours, without touching it or leaving anything beside it. Needs no lock.

    Raises:
        EngineFileError: the file is not ours or of a newer version. Nothing that others do meanwhile can make that up.
        EngineError: there is none, or it may not be looked at; this may have changed by the time the lock is held.
    """
    _require_file(path)

    def look(connection: Connection) -> None:
        # This connection takes no lock and sees no -wal: beside a checkpoint, under way or cut off, whole files look
        # damaged to it, shorter than their header says above all. What it makes of the header's marks is all that it
        # is asked; damage is for the ordinary connection to find.
        connection.execute("PRAGMA writable_schema=ON")
        _require_ours(path, connection)

    # As one that never changes, because an ordinary connection may touch a file that is not ours: it replays and
    # removes a -wal that it finds.
    with Translated(path):
        lend(path, "ro&immutable=1", look)


def remove_empty_wal(path: str, wait_s: float, left_s: float) -> None:
    """Remove an empty ``-wal`` and the ``-shm`` beside a database of ours, once nobody has it open.

    The file lock is held. Who has another database open that had the name goes on with them, though without a name.

    Args:
        path: the file.
        wait_s: seconds that a call waits in all.
        left_s: seconds of these that it may wait for programs that have the file open.

    Raises:
        EngineBusyError: a program had the file open all that time.
        EngineFileError: what stands there has changes in it.
        EngineError: it cannot be opened, or is damaged.
    """
    recognise(path)

    def remove(connection: Connection) -> str | None:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # said first, SQLite uses no -shm
        connection.execute("BEGIN EXCLUSIVE")
        return remove_what_is_empty(path)

    with Translated(path, wait_s=wait_s):
        leftover = lend(path, "rw", remove, left_s)
    if leftover is not None:
        raise of_another(path, leftover)


def closes_safely(connection: Connection, found: tuple[int, int] | None) -> bool:
    """Return whether closing a connection leaves alone what another file of its file's name has beside it.

    The last one to be closed removes the ``-wal`` by its name. SQLite makes sure before that the name still is that of
    its file, going by the number of the file alone.

    Args:
        connection: the connection.
        found: the identity of the file that has the name now, None where there is none.
    """
    own = connection.file.identity
    if found == own or own is None:
        return True
    return sqlite3.sqlite_version_info >= _LOOKS_BEFORE_REMOVING and (found is None or found[1] != own[1])


_LOOKS_BEFORE_REMOVING: Final = (3, 40, 0)  # as measured; perhaps those before it do, too


def exists(path: str) -> bool:
    """Return whether something is at the path; a file of 0 bytes is not yet anything.

    Raises:
        EngineError: its directory may not be looked into, which hides no missing file.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failed(f"Cannot look at {path}", error, "check the permissions of its directory") from None
    return found.st_size > 0 or not stat.S_ISREG(found.st_mode)


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at ``path`` from any other, None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(f"Cannot look at {path}", error, "check the permissions of its directory") from error
    return (found.st_dev, found.st_ino)


def _require_file(path: str) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise failed(f"Cannot open {path}", error, "check the path and its permissions") from error
    if not stat.S_ISREG(found.st_mode):
        raise EngineFileError(f"{path} is not a regular file; choose another path for the database")
    if found.st_size == 0:
        raise EngineFileError(not_ours(path, "it is empty"))


def _require_ours(path: str, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or version < 1:
        raise EngineFileError(not_ours(path, "it is a database of another program"))
    if version > SCHEMA_VERSION:
        raise EngineFileError(
            f"{path} has schema version {version}, and this langchain-kv reads versions up to {SCHEMA_VERSION}; the"
            " file was left untouched. Install the newer langchain-kv that wrote it, or choose another path"
        )


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Return whether this SQLite can lose rows when one program checkpoints while another commits."""
    return version < (3, 51, 3) and not ((3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0))


if has_wal_reset_bug(sqlite3.sqlite_version_info):
    _logger.debug(
        "SQLite %s can lose rows when a program that does not take the .lock file checkpoints the database during"
        " a commit; langchain-kv itself takes it. Fixed in SQLite 3.51.3.",
        sqlite3.sqlite_version,
    )
