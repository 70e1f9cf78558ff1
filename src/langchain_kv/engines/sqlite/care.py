"""What is known of a database as a whole, whether it is whole, and its unused space given back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from langchain_kv.engines.sqlite.aside import Aside
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.engines.sqlite.schema import SCHEMA_VERSION

__all__ = ["Figures", "compact", "facts", "figures", "problems"]

_PROBLEMS_MAX: Final = 100
"""Of a damaged file, so many are named."""


class Figures(NamedTuple):
    """What a collection holds.

    Attributes:
        keyspace: its keyspace.
        name: its name.
        keys: how many keys have not expired.
        expired: how many have, and take room until they are purged.
        bytes: of its bodies, those of the expired ones, too.
    """

    keyspace: str
    name: str
    keys: int
    expired: int
    bytes: int


def facts(connection: Connection, path: str) -> dict[str, Any]:
    """Return what is known of the file itself: sizes in bytes and pages, versions."""
    pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    version = _pragma(connection, "user_version")
    return {
        "file": path,
        "file_bytes": _size(path),
        "wal_bytes": _size(f"{path}-wal"),
        "pages": pages,
        "pages_free": free,
        "page_bytes": size,
        "tables_version": version,
        "is_upgraded": version == SCHEMA_VERSION,
        "sqlite_version": sqlite3.sqlite_version,
    }


def figures(connection: Connection, now_ms: int) -> list[Figures]:
    """Return what each collection holds, in the order of keyspaces and names. All rows are looked at."""
    # An older file's rows have neither moments of expiry nor that name of the body.
    is_old = _pragma(connection, "user_version") < SCHEMA_VERSION
    expired = "0" if is_old else f"count(CASE WHEN expires_at<={now_ms:d} THEN 1 END)"
    sizes = f"coalesce(sum(length(CAST({'body' if is_old else 'content'} AS BLOB))), 0)"
    found = []
    for table, keyspace, name in connection.execute(
        "SELECT id, keyspace, name FROM collections ORDER BY keyspace, name"
    ).fetchall():
        count, gone, size = connection.execute(f"SELECT count(*), {expired}, {sizes} FROM docs_{table:d}").fetchone()
        found.append(Figures(keyspace, name, count - gone, gone, size))
    return found


def problems(connection: Connection) -> Sequence[str]:
    """Return what SQLite finds wrong with the file, at most some; it reads all of it."""
    found = Aside(
        connection,
        f"SELECT group_concat(integrity_check, char(10)) FROM pragma_integrity_check({_PROBLEMS_MAX})",
    ).answer()
    lines = str(found or "").splitlines()
    return [] if lines == ["ok"] else lines


def compact(connection: Connection) -> None:
    """Write the database anew, without its free pages, and give their room back. The file lock is held.

    Readers go on meanwhile, as of before. As long as one of them is inside a read, the file itself keeps its size: it
    shrinks with a later checkpoint.
    """
    Aside(connection, "VACUUM").answer()
    Aside(connection, "PRAGMA wal_checkpoint(TRUNCATE)").answer()


def _pragma(connection: Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _size(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return 0
