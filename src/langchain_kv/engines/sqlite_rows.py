"""The statements on one collection's table: documents by their ids."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from langchain_kv.engines.base import DocId
from langchain_kv.limits import SQLITE_IN_MAX

__all__ = ["BODY", "bodies_of", "body_of", "delete_rows", "is_readable", "upsert"]

BODY: Final = "CAST(body AS BLOB)"
"""A body is bytes whatever another program put there: the sqlite3 command makes text of what it inserts."""

_IN_LENGTHS: Final = (1, 2, 5, 10, 20, 50, 100, 200, SQLITE_IN_MAX)
"""Statements exist for these numbers of ids; a shorter list repeats its last id, so that few need to be prepared."""


def bodies_of(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> dict[DocId, bytes]:
    """Return the bodies of those ids that exist, as of one moment."""
    if len(ids) <= SQLITE_IN_MAX or connection.in_transaction:
        return _chunks(connection, table, ids)
    try:
        connection.execute("BEGIN")
        return _chunks(connection, table, ids)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _chunks(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> dict[DocId, bytes]:
    found: dict[DocId, bytes] = {}
    for start in range(0, len(ids), SQLITE_IN_MAX):
        chunk = ids[start : start + SQLITE_IN_MAX]
        length = _IN_LENGTHS[bisect_left(_IN_LENGTHS, len(chunk))]
        marks = ",".join("?" * length)
        values = [*chunk, *[chunk[-1]] * (length - len(chunk))]
        found.update(connection.execute(f"SELECT id, {BODY} FROM docs_{table} WHERE id IN ({marks})", values))
    return found


def body_of(connection: sqlite3.Connection, table: int, doc_id: DocId) -> bytes | None:
    """Return the body of an id, None where there is none."""
    row = connection.execute(f"SELECT {BODY} FROM docs_{table} WHERE id=?", (doc_id,)).fetchone()
    return None if row is None else row[0]


def is_readable(connection: sqlite3.Connection, table: int, doc_id: DocId) -> bool:
    """Return whether an id's row stands on pages that are not damaged."""
    try:
        body_of(connection, table, doc_id)
    except sqlite3.DatabaseError:
        return False
    return True


def upsert(connection: sqlite3.Connection, table: int, documents: Sequence[tuple[DocId, bytes]]) -> None:
    """Store documents, the last of repeated ids."""
    connection.executemany(
        f"INSERT INTO docs_{table}(id, body) VALUES(?,?) ON CONFLICT(id) DO UPDATE SET body=excluded.body", documents
    )


def delete_rows(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> int:
    """Delete documents; return how many there were."""
    deleted = connection.executemany(f"DELETE FROM docs_{table} WHERE id=?", [(doc_id,) for doc_id in ids]).rowcount
    return max(deleted, 0)  # -1 where there was nothing to run
