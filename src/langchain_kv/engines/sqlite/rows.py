"""The statements on one collection's table: rows by their ids."""

from __future__ import annotations

import sqlite3
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Final, TypeVar

from langchain_kv.engines.base import KEEP, Change, DocId, Ending, Row
from langchain_kv.engines.ids import prefix_end
from langchain_kv.engines.pages import cut
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.engines.sqlite.copies import restore_command
from langchain_kv.engines.sqlite.schema import COLUMNS, columns_of
from langchain_kv.errors import EngineError
from langchain_kv.limits import SQLITE_IN_MAX
from langchain_kv.runtime.slices import parts

__all__ = [
    "bounded",
    "delete_rows",
    "has_expired",
    "in_chunks",
    "modify_rows",
    "page_of",
    "range_of",
    "row_by_id",
    "rows_by_id",
    "unreadable",
    "upsert",
    "with_columns",
]

T = TypeVar("T")


_IN_LENGTHS: Final = (1, 2, 5, 10, 20, 50, 100, 200, SQLITE_IN_MAX)
"""Statements exist for these numbers of ids; a shorter list repeats its last id, so that few need to be prepared."""


def rows_by_id(connection: sqlite3.Connection, table: int, ids: Sequence[DocId], columns: str) -> dict[DocId, Row]:
    """Return the rows of those ids that exist, as of one moment; ``columns`` is how a row is selected."""
    if len(ids) <= SQLITE_IN_MAX or connection.in_transaction:
        return _chunks(connection, table, ids, columns)
    try:
        connection.execute("BEGIN")
        return _chunks(connection, table, ids, columns)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _chunks(connection: sqlite3.Connection, table: int, ids: Sequence[DocId], columns: str) -> dict[DocId, Row]:
    found: dict[DocId, Row] = {}
    for rows in in_chunks(connection, f"SELECT {columns} FROM docs_{table}", ids):
        found.update(zip(map(itemgetter(0), rows), rows, strict=True))
    return found


def in_chunks(connection: sqlite3.Connection, select: str, ids: Sequence[DocId]) -> Iterator[list[Any]]:
    """Yield the rows of those ids that exist, some at a time; ``select`` says of which table and columns."""
    return (connection.execute(statement, values).fetchall() for statement, values in _in_chunks(select, ids))


def _in_chunks(statement: str, ids: Sequence[DocId]) -> Iterator[tuple[str, list[DocId]]]:
    """Yield a statement with a condition added, and its values, for some of the ids at a time."""
    for start in range(0, len(ids), SQLITE_IN_MAX):
        chunk = ids[start : start + SQLITE_IN_MAX]
        length = _IN_LENGTHS[bisect_left(_IN_LENGTHS, len(chunk))]
        marks = ",".join("?" * length)
        yield f"{statement} WHERE id IN ({marks})", [*chunk, *[chunk[-1]] * (length - len(chunk))]


def row_by_id(connection: sqlite3.Connection, table: int, doc_id: DocId, columns: str) -> Row | None:
    """Return the row of an id, None where there is none."""
    row: Row | None = connection.execute(f"SELECT {columns} FROM docs_{table} WHERE id=?", (doc_id,)).fetchone()
    return row


def unreadable(
    path: str, connection: sqlite3.Connection, table: int, ids: Sequence[DocId], error: sqlite3.DatabaseError
) -> EngineError:
    """Make the error that says of which ids the documents stand on damaged pages."""
    columns = columns_of(connection)
    bad = [doc_id for doc_id in dict.fromkeys(ids) if not _is_readable(connection, table, doc_id, columns)]
    names = ", ".join(repr(doc_id[:100]) for doc_id in bad[:5]) + (f" and {len(bad) - 5:,} more" * (len(bad) > 5))
    return EngineError(
        f"{path}: {error}; of {len(ids):,} keys these cannot be read: {names or 'none, alone'}. The file is damaged:"
        f" restore a backup, {restore_command(path)}; other keys can still be read without these"
    )


def _is_readable(connection: sqlite3.Connection, table: int, doc_id: DocId, columns: str) -> bool:
    try:
        row_by_id(connection, table, doc_id, columns)
    except sqlite3.DatabaseError:
        return False
    return True


_TOGETHER_BYTES: Final = 80_000
"""Bytes of a row up to which it is stored together with others by one statement: SQLite copies all of these at once."""


def _cells_alike(row: Row) -> tuple[bool, bool]:
    return row[2], row[3] is not None


def upsert(connection: sqlite3.Connection, table: int, rows: Sequence[Row], keeping: Ending | None = None) -> int:
    """Store rows, the last of repeated ids; return how many were.

    With ``keeping`` they are as ``Engine.merge`` has them, and those that it leaves to its ``change`` are not stored.
    """
    if len(rows) == 1:  # the usual case, some microseconds sooner
        ((doc_id, content, is_raw, expires_at),) = rows
        moment = () if expires_at is None else (expires_at,)
        statement = _upsert(table, 1, is_raw, expires_at is not None, keeping)
        return connection.execute(statement, (doc_id, content, *moment)).rowcount
    stored = 0
    for (is_raw, expires), alike in groupby(rows, _cells_alike):
        left = list(map(itemgetter(0, 1, 3) if expires else itemgetter(0, 1), alike))
        together = max([len(cells[1]) for cells in left]) <= _TOGETHER_BYTES
        # One statement for fifty rows takes three fifths of the time that fifty statements do.
        for count in (50, 10, len(left) % 10) if together else (1,):
            if fitting := count and len(left) // count * count:
                stored += connection.executemany(
                    _upsert(table, count, is_raw, expires, keeping),
                    [list(chain.from_iterable(some)) for some in parts(left[:fitting], count)],
                ).rowcount
                left = left[fitting:]
    return stored


@lru_cache
def _upsert(table: int, count: int, is_raw: bool, expires: bool, keeping: Ending | None) -> str:
    """Return the statement that stores so many rows: of id, content and, if they expire, when, of each."""
    # What kind they are is not given with each one: the sqlite3 module takes longer for that than SQLite does.
    row = f"(?,?,{is_raw:d},{'?' if expires else 'NULL'})"
    content, where = "excluded.content", ""
    if keeping is not None:
        end = keeping.length + keeping.after
        new = f"substr(excluded.content,1,length(excluded.content)-{end})"
        content = f"CAST({new}||substr(content,-{end}) AS BLOB)"
        has_text = f"CAST(substr(content,-{keeping.size}) AS TEXT) GLOB '{keeping.pattern}'"
        where = f" WHERE is_raw=0 AND expires_at IS NULL AND {has_text}"
    return (
        f"INSERT INTO docs_{table}(id, content, is_raw, expires_at) VALUES {','.join([row] * count)} ON CONFLICT(id)"
        f" DO UPDATE SET content={content}, is_raw={is_raw:d}, expires_at=excluded.expires_at{where}"
    )


def delete_rows(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> int:
    """Delete rows; return how many there were."""
    chunks = _in_chunks(f"DELETE FROM docs_{table}", ids)
    return sum(connection.execute(statement, values).rowcount for statement, values in chunks)


def modify_rows(
    connection: sqlite3.Connection,
    table: int,
    ids: Sequence[DocId],
    change: Change,
    translated: AbstractContextManager[object],
) -> None:
    """Apply ``change`` as ``Engine.modify`` does; within ``translated`` everything but the change itself."""
    for start in range(0, len(ids), SQLITE_IN_MAX):
        chunk = ids[start : start + SQLITE_IN_MAX]
        with translated:
            found: dict[DocId, Row | None] = {**rows_by_id(connection, table, chunk, COLUMNS)}
        changed: dict[DocId, Row | None] = {}
        for doc_id in chunk:
            new = change(doc_id, found.get(doc_id))  # what it raises is passed on as it is
            if new is not KEEP:
                found[doc_id] = changed[doc_id] = new
        with translated:
            upsert(connection, table, [row for row in changed.values() if row is not None])
            delete_rows(connection, table, [key for key, row in changed.items() if row is None])


# -- pages ---------------------------------------------------------------------------------------------------------


def with_columns(connection: Connection, query: Callable[[str], T]) -> T:
    """Run a query that is told how a row is selected, which the first write to a file of an older version changes."""
    known = connection.file.columns
    if known is not None:
        return query(known)
    begins = not connection.in_transaction
    try:
        if begins:
            connection.execute("BEGIN")
        columns = columns_of(connection)
        found = query(columns)
    finally:
        if begins and connection.in_transaction:
            connection.execute("COMMIT")
    if begins and columns is COLUMNS:
        connection.file.columns = columns
    return found


def page_of(
    connection: Connection,
    table: int,
    columns: str,
    which: tuple[str, list[Any]],
    *,
    limit: int,
    size_bytes: int | None = None,
) -> list[Any]:
    """Return the columns, of which the id is the first, of the next rows that a condition with these values holds for.

    A row whose id is text that is no UTF-8 is left out: only another program makes such.
    """
    rows = f"FROM docs_{table} WHERE {which[0]} ORDER BY id"
    try:
        found = connection.execute(f"SELECT {columns} {rows} LIMIT ?", (*which[1], bounded(limit)))
        try:  # not ``closing``, whose frame a kept traceback would keep, with the cursor
            return cut(found, size_bytes)
        finally:
            found.close()
    except sqlite3.OperationalError as error:
        if not str(error).startswith(_NO_UTF8):
            raise
    cells = f"typeof(id), CAST(id AS BLOB){columns.removeprefix('id')}"
    found = connection.execute(f"SELECT {cells} {rows}", which[1])
    try:
        return cut(islice(_decodable(found), bounded(limit)), size_bytes)
    finally:
        found.close()


def bounded(limit: int) -> int:
    """Return the limit as SQLite takes it, for which a negative one means none at all and a huge one is an error."""
    return min(max(limit, 0), sys.maxsize)


def range_of(after: DocId | None, prefix: str) -> tuple[str, list[DocId]]:
    """Return the condition on ids, and its values. No id that is a number passes: only another program makes such."""
    if after is not None and (isinstance(after, bytes) or after >= prefix):
        condition, values = "id>?", [after]
    else:
        condition, values = "id>=?", [prefix]
    if prefix:
        condition += " AND id<?"
        values.append(prefix_end(prefix) or b"")  # every text sorts before the empty blob
    return condition, values


def has_expired(connection: Connection, table: int, now_ms: int) -> bool:
    """Return whether a row has expired by then."""
    found = connection.execute(f"SELECT 1 FROM docs_{table} WHERE expires_at<=? LIMIT 1", (now_ms,)).fetchone()
    return found is not None


_NO_UTF8: Final = "Could not decode to UTF-8"


def _decodable(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield (id, ...) of (type of the id, its bytes, ...); those whose text is no UTF-8 are left out."""
    for kind, cell, *body in rows:
        with suppress(UnicodeDecodeError):
            yield cell if kind == "blob" else cell.decode(), *body
