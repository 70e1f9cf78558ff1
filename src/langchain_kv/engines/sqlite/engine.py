"""The engine on a file: the standard library's sqlite3, shared by threads and processes."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Row, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.engines.ids import prefix_end
from langchain_kv.engines.sqlite.backup import back_up
from langchain_kv.engines.sqlite.connections import ConnectionPool
from langchain_kv.engines.sqlite.file import Synchronous, Translated, is_damage, missing_table
from langchain_kv.engines.sqlite.schema import COLUMNS, columns_of, make_table
from langchain_kv.errors import EngineBusyError, EngineError, StoreClosedError, StoreError, UsageError
from langchain_kv.limits import DEFAULT_KEYSPACE, SQLITE_IN_MAX
from langchain_kv.runtime.work_queue import Bridge, Outcome, QueueBridge, run_each

__all__ = ["SQLiteEngine"]

T = TypeVar("T")

_IN_LENGTHS: Final = (1, 2, 5, 10, 20, 50, 100, 200, SQLITE_IN_MAX)
"""Statements exist for these numbers of ids; a shorter list repeats its last id, so that few need to be prepared."""


class SQLiteEngine(Engine):
    """A database in one file, made by the first ``create_keyspace`` or ``create_collection``.

    Any number of threads and processes share the file, and forked children. Beside it stand ``PATH-wal`` and ``PATH-
    shm``, which are part of it while it is in use, and ``PATH.lock``. It must be on a file system of this machine.

    Args:
        path: the file; links are followed.
        synchronous: ``full``: a commit survives a power cut. ``normal``: it survives the end of the process, and
            a power cut may undo the last ones; single writes are several times faster.

    Example:
        >>> engine = SQLiteEngine("kv.db")
        >>> _ = engine.create_collection(CollectionName("default_keyspace", "kv"), {})
        >>> engine.write(CollectionName("default_keyspace", "kv"), [("a", b'{"_id":"a"}', False, None)])
        >>> engine.read(CollectionName("default_keyspace", "kv"), ["a", "b"])
        [('a', b'{"_id":"a"}', 0, None), None]
        >>> engine.close()
    """

    keeps_raw_values = True

    def __init__(self, path: str, *, synchronous: Synchronous = "full") -> None:
        path = os.path.realpath(path)
        self._pool = ConnectionPool(path, synchronous)
        self._translated = Translated(path)
        self._tables: dict[CollectionName, int] = {}  # the numbers of their tables, as once committed
        self._settings: dict[int, Settings] = {}  # by these numbers: they are as old as the table, and never change
        self._is_current = False  # whether the file is known to have the tables of this version
        self._bridge = QueueBridge(os.path.basename(path), run_writes=self.group, run_at_once=self._pool.read_at_once)

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        if not ids:
            self.settings(collection)  # no statement would notice that the collection is gone
            return []

        return self._query(collection, lambda connection, table: self._read(connection, table, ids))

    def read_with_settings(self, collection: CollectionName, ids: Sequence[DocId]) -> tuple[Settings, list[Row | None]]:
        def query(connection: sqlite3.Connection, table: int) -> tuple[Settings, list[Row | None]]:
            rows = self._read(connection, table, ids)  # notices when the collection is gone
            settings = self._settings.get(table)
            if settings is None:
                settings = _settings_of(connection, table)
                if not connection.in_transaction:
                    self._settings[table] = settings
            return settings, rows

        return self._query(collection, query) if ids else super().read_with_settings(collection, ids)

    def _read(self, connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> list[Row | None]:
        try:
            columns = self._columns(connection)
            if len(ids) == 1:
                return [_row(connection, table, ids[0], columns)]
            found = _rows(connection, table, ids, columns)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._unreadable(connection, table, ids, error) from error
            raise
        return [found.get(doc_id) for doc_id in ids]

    def _unreadable(
        self, connection: sqlite3.Connection, table: int, ids: Sequence[DocId], error: sqlite3.DatabaseError
    ) -> EngineError:
        """Say of which ids the documents stand on damaged pages."""
        columns = self._columns(connection)
        bad = [doc_id for doc_id in dict.fromkeys(ids) if not _is_readable(connection, table, doc_id, columns)]
        names = ", ".join(repr(doc_id[:100]) for doc_id in bad[:5]) + (f" and {len(bad) - 5:,} more" * (len(bad) > 5))
        return EngineError(
            f"{self._pool.path}: {error}; of {len(ids):,} keys these cannot be read: {names or 'none, alone'}. The file"
            " is damaged: restore it from a backup; other keys can still be read without these"
        )

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        if not rows:
            self.settings(collection)
            return
        single = len(rows) == 1
        self._change(collection, lambda connection, table: _upsert(connection, table, rows), single=single)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        self._require_file(collection)

        def store(connection: sqlite3.Connection) -> None:
            with self._translated:
                table = _entry(connection, collection)[0]
            for start in range(0, len(ids), SQLITE_IN_MAX):
                chunk = ids[start : start + SQLITE_IN_MAX]
                with self._translated:
                    found: dict[DocId, Row | None] = {**_rows(connection, table, chunk, COLUMNS)}
                changed: dict[DocId, Row | None] = {}
                for doc_id in chunk:
                    new = change(doc_id, found.get(doc_id))  # what it raises is passed on as it is
                    if new is not KEEP:
                        found[doc_id] = changed[doc_id] = new
                with self._translated:
                    _upsert(connection, table, [row for row in changed.values() if row is not None])
                    _delete(connection, table, [key for key, row in changed.items() if row is None])

        self._pool.change(store)

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        if not ids:
            self.settings(collection)
            return 0
        single = len(ids) == 1
        return self._change(collection, lambda connection, table: _delete(connection, table, ids), single=single)

    def scan(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[Row]:
        return self._page(collection, None, after=after, prefix=prefix, limit=limit)

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        page = self._page(collection, "id", after=after, prefix=prefix, limit=limit, now_ms=now_ms)
        return list(map(itemgetter(0), page))

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        def query(connection: sqlite3.Connection, table: int) -> int:
            rows = f"docs_{table}" if limit is None else f"(SELECT 1 FROM docs_{table} LIMIT {_bound(limit)})"
            counted: int = connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
            return counted

        return self._query(collection, query)

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        where, bounds = _range(None, prefix)

        def remove(connection: sqlite3.Connection, table: int) -> None:
            connection.execute(f"DELETE FROM docs_{table} {where}", bounds)

        self._change(collection, remove)

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        def remove(connection: sqlite3.Connection, table: int) -> int:
            expired = f"SELECT rowid FROM docs_{table} WHERE expires_at<=? LIMIT ?"
            return connection.execute(
                f"DELETE FROM docs_{table} WHERE rowid IN ({expired})", (now_ms, _bound(limit))
            ).rowcount

        return self._change(collection, remove)

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        text = json.dumps(settings)
        if not self._has_file() and collection.keyspace != DEFAULT_KEYSPACE:
            raise unknown_keyspace(collection.keyspace)

        def make(connection: sqlite3.Connection) -> Settings:
            _require_keyspace(connection, collection.keyspace)
            made = connection.execute(
                "INSERT INTO collections(keyspace, name, settings) VALUES(?,?,?) ON CONFLICT DO NOTHING",
                (*collection, text),
            )
            if made.rowcount:
                make_table(connection, made.lastrowid)
            in_force: Settings = json.loads(_entry(connection, collection)[1])
            return in_force

        return self._change_catalog(make, create=True)

    def drop_collection(self, collection: CollectionName) -> None:
        if not self._has_file():
            if collection.keyspace != DEFAULT_KEYSPACE:
                raise unknown_keyspace(collection.keyspace)
            return

        def drop(connection: sqlite3.Connection) -> None:
            _require_keyspace(connection, collection.keyspace)
            _drop(connection, "keyspace=? AND name=?", collection)

        self._change_catalog(drop)

    def settings(self, collection: CollectionName) -> Settings:
        return self._query(collection, _settings_of)

    def collections(self, keyspace: str) -> dict[str, Settings]:
        if not self._has_file():
            if keyspace != DEFAULT_KEYSPACE:
                raise unknown_keyspace(keyspace)
            return {}

        def query(connection: sqlite3.Connection) -> list[tuple[str, str]]:
            _require_keyspace(connection, keyspace)
            return connection.execute(
                "SELECT name, settings FROM collections WHERE keyspace=? ORDER BY name", (keyspace,)
            ).fetchall()

        return {name: json.loads(settings) for name, settings in self._pool.read(query)}

    def create_keyspace(self, keyspace: str) -> None:
        def make(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO keyspaces VALUES(?) ON CONFLICT DO NOTHING", (keyspace,))

        self._change_catalog(make, create=True)

    def drop_keyspace(self, keyspace: str) -> None:
        if not self._has_file():
            return

        def drop(connection: sqlite3.Connection) -> None:
            _drop(connection, "keyspace=?", (keyspace,))
            connection.execute("DELETE FROM keyspaces WHERE name=?", (keyspace,))

        self._change_catalog(drop)

    def keyspaces(self) -> list[str]:
        if not self._has_file():
            return [DEFAULT_KEYSPACE]
        names = "SELECT name FROM keyspaces ORDER BY name"
        return [name for (name,) in self._pool.read(lambda connection: connection.execute(names).fetchall())]

    # -- life -----------------------------------------------------------------------------------------------------

    def backup(self, file: str, *, replace: bool = False) -> None:
        """Copy the whole database, as of one moment, to a new file, which opens as a store. Writers go on meanwhile.

        Args:
            file: the path of the copy; it appears there, mode 0600, when it is complete and was checked.
            replace: whether to take the place of a file of that name.

        Raises:
            EngineFileError: something is there already, or may not be replaced.
            EngineError: there is no database, it is damaged, or the copy cannot be written. Nothing is left behind.
            UsageError: this thread is inside a change.
        """
        if self._pool.joined is not None:
            raise UsageError("A backup inside a change would hold up every writer: make it before or after")
        if not self._has_file():
            raise EngineError(f"There is no database at {self._pool.path} to back up; check the path")
        source, copy = self._pool.path, os.path.abspath(file)
        self._pool.read(lambda connection: back_up(connection, source, copy, replace=replace))

    @property
    def bridge(self) -> Bridge:
        return self._bridge

    def group(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run calls of this engine in one transaction: each whole or not at all, all stored by one commit.

        Where the whole transaction is undone, each call is run again by itself, so that only the one at fault fails.

        Returns:
            The outcome of each call, in order.
        """
        if len(calls) <= 1 or not self._pool.has_file():
            return run_each(calls)
        try:
            return self._pool.change(lambda connection: run_each(calls))
        except StoreError as error:
            hopeless = isinstance(error, EngineBusyError | StoreClosedError) or error.applied is not False
            return [Outcome(None, error)] * len(calls) if hopeless else run_each(calls)

    def close(self) -> None:
        self._bridge.close()
        self._pool.close()

    # -- the ways to a connection -----------------------------------------------------------------------------------

    def _has_file(self) -> bool:
        self._pool.require_open()
        return self._pool.has_file()

    def _query(self, collection: CollectionName, query: Callable[[sqlite3.Connection, int], T]) -> T:
        """Run ``query`` on the collection's table, which another process may drop and re-create at any moment."""
        self._require_file(collection)

        return self._pool.read(lambda connection: self._on_table(connection, collection, query))

    def _change(
        self, collection: CollectionName, work: Callable[[sqlite3.Connection, int], T], *, single: bool = False
    ) -> T:
        """Run ``work`` on the collection's table in a write transaction. Its first statement, which is the only one
        where it is ``single``, fails where the table is gone."""
        self._require_file(collection)
        if single:
            return self._pool.change(lambda connection: self._on_table(connection, collection, work), single=True)
        return self._change_catalog(lambda connection: self._on_table(connection, collection, work))

    def _on_table(
        self, connection: sqlite3.Connection, collection: CollectionName, work: Callable[[sqlite3.Connection, int], T]
    ) -> T:
        missing: int | None = None
        while True:
            table = self._tables.get(collection)
            if table is None:
                table = _entry(connection, collection)[0]
                # Within a transaction nothing is remembered: a number that is undone goes to another collection.
                if not connection.in_transaction:
                    self._tables[collection] = table
            try:
                return work(connection, table)
            except sqlite3.OperationalError as error:
                if not str(error).startswith(_NO_TABLE):
                    raise
                if table == missing:
                    raise missing_table(self._pool.path, collection.name) from error
                missing = table
                self._tables.pop(collection, None)  # dropped; numbers never come back: look again
                self._settings.pop(table, None)

    def _change_catalog(self, work: Callable[[sqlite3.Connection], T], *, create: bool = False) -> T:
        def translated(connection: sqlite3.Connection) -> T:
            with self._translated:
                return work(connection)

        return self._pool.change(translated, create=create)

    def _columns(self, connection: sqlite3.Connection) -> str:
        """Return how a row is selected, which a file that was not written to since this version came has otherwise."""
        if self._is_current:
            return COLUMNS
        columns = columns_of(connection)
        self._is_current = columns is COLUMNS and not connection.in_transaction
        return columns

    def _require_file(self, collection: CollectionName) -> None:
        if not self._pool.has_file():
            self._pool.require_open()
            in_default = collection.keyspace == DEFAULT_KEYSPACE
            raise unknown_collection(collection) if in_default else unknown_keyspace(collection.keyspace)

    def _page(
        self,
        collection: CollectionName,
        columns: str | None,
        *,
        after: DocId | None,
        prefix: str,
        limit: int,
        now_ms: int | None = None,
    ) -> list[Any]:
        """Return the columns of the next rows, all that a row has where none are named."""
        where, bounds = _range(after, prefix)

        def query(connection: sqlite3.Connection, table: int) -> list[Any]:
            all_columns = self._columns(connection)
            alive, values = where, list[Any](bounds)
            # What has expired is found in an index of its own: as long as nothing has, no row is looked at.
            may_expire = now_ms is not None and all_columns is COLUMNS
            if may_expire and connection.execute(_EXPIRED.format(table), (now_ms,)).fetchone() is not None:
                alive = f"{where} {'AND' if where else 'WHERE'} (expires_at IS NULL OR expires_at>?)"
                values = [*bounds, now_ms]
            selected = columns or all_columns
            return connection.execute(
                f"SELECT {selected} FROM docs_{table} {alive} ORDER BY id LIMIT ?", (*values, _bound(limit))
            ).fetchall()

        return self._query(collection, query)


_NO_TABLE: Final = "no such table: docs_"


_EXPIRED: Final = "SELECT 1 FROM docs_{} WHERE expires_at<=? LIMIT 1"


def _bound(limit: int) -> int:
    """Return the limit as SQLite takes it, for which a negative one means none at all and a huge one is an error."""
    return min(max(limit, 0), sys.maxsize)


def _range(after: DocId | None, prefix: str) -> tuple[str, list[DocId]]:
    """Return the condition on ids, and its values."""
    conditions, values = [], []
    if after is not None and (isinstance(after, bytes) or after >= prefix):
        conditions.append("id>?")
        values.append(after)
    elif prefix:
        conditions.append("id>=?")
        values.append(prefix)
    if prefix:
        conditions.append("id<?")
        values.append(prefix_end(prefix) or b"")  # every text sorts before the empty blob
    return ("WHERE " + " AND ".join(conditions) if conditions else ""), values


def _rows(connection: sqlite3.Connection, table: int, ids: Sequence[DocId], columns: str) -> dict[DocId, Row]:
    """Return the rows of those ids that exist, as of one moment."""
    if len(ids) <= SQLITE_IN_MAX or connection.in_transaction:
        return _chunks_of_rows(connection, table, ids, columns)
    try:
        connection.execute("BEGIN")
        return _chunks_of_rows(connection, table, ids, columns)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _chunks_of_rows(connection: sqlite3.Connection, table: int, ids: Sequence[DocId], columns: str) -> dict[DocId, Row]:
    found: dict[DocId, Row] = {}
    for start in range(0, len(ids), SQLITE_IN_MAX):
        chunk = ids[start : start + SQLITE_IN_MAX]
        length = _IN_LENGTHS[bisect_left(_IN_LENGTHS, len(chunk))]
        marks = ",".join("?" * length)
        values = [*chunk, *[chunk[-1]] * (length - len(chunk))]
        rows = connection.execute(f"SELECT {columns} FROM docs_{table} WHERE id IN ({marks})", values).fetchall()
        found.update(zip(map(itemgetter(0), rows), rows, strict=True))
    return found


def _row(connection: sqlite3.Connection, table: int, doc_id: DocId, columns: str) -> Row | None:
    row: Row | None = connection.execute(f"SELECT {columns} FROM docs_{table} WHERE id=?", (doc_id,)).fetchone()
    return row


def _settings_of(connection: sqlite3.Connection, table: int) -> Settings:
    found = connection.execute("SELECT settings FROM collections WHERE id=?", (table,)).fetchone()
    if found is None:
        raise sqlite3.OperationalError(_NO_TABLE)  # dropped meanwhile, as a query of its documents would find
    settings: Settings = json.loads(found[0])
    return settings


def _is_readable(connection: sqlite3.Connection, table: int, doc_id: DocId, columns: str) -> bool:
    try:
        _row(connection, table, doc_id, columns)
    except sqlite3.DatabaseError:
        return False
    return True


def _upsert(connection: sqlite3.Connection, table: int, rows: Sequence[Row]) -> None:
    connection.executemany(
        f"INSERT INTO docs_{table}({COLUMNS}) VALUES(?,?,?,?) ON CONFLICT(id) DO UPDATE"
        " SET body=excluded.body, is_raw=excluded.is_raw, expires_at=excluded.expires_at",
        rows,
    )


def _delete(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> int:
    deleted = connection.executemany(f"DELETE FROM docs_{table} WHERE id=?", [(doc_id,) for doc_id in ids]).rowcount
    return max(deleted, 0)  # -1 where there was nothing to run


def _entry(connection: sqlite3.Connection, collection: CollectionName) -> tuple[int, str]:
    """Return the number of the collection's table, and its settings as JSON text."""
    row: tuple[int, str] | None = connection.execute(
        "SELECT id, settings FROM collections WHERE keyspace=? AND name=?", collection
    ).fetchone()
    if row is None:
        _require_keyspace(connection, collection.keyspace)
        raise unknown_collection(collection)
    return row


def _require_keyspace(connection: sqlite3.Connection, keyspace: str) -> None:
    if connection.execute("SELECT 1 FROM keyspaces WHERE name=?", (keyspace,)).fetchone() is None:
        raise unknown_keyspace(keyspace)


def _drop(connection: sqlite3.Connection, where: str, names: Sequence[str]) -> None:
    for (table,) in connection.execute(f"SELECT id FROM collections WHERE {where}", names).fetchall():
        connection.execute(f"DROP TABLE docs_{table}")
        connection.execute("DELETE FROM collections WHERE id=?", (table,))
