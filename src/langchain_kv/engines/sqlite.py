"""The engine on a file: the standard library's sqlite3, shared by threads and processes."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from operator import itemgetter
from typing import Any, Final, TypeVar

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.engines.ids import prefix_end
from langchain_kv.engines.pages import cut
from langchain_kv.engines.sqlite_backup import back_up, restore
from langchain_kv.engines.sqlite_connections import ConnectionPool
from langchain_kv.engines.sqlite_copies import restore_command
from langchain_kv.engines.sqlite_file import Connection, Synchronous, Translated, gone, is_damage, missing_table
from langchain_kv.errors import EngineBusyError, EngineError, StoreClosedError, StoreError, UsageError
from langchain_kv.limits import DEFAULT_KEYSPACE, SQLITE_IN_MAX
from langchain_kv.work_queue import Bridge, Outcome, QueueBridge, run_each

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
        >>> engine.write(CollectionName("default_keyspace", "kv"), [("a", b'{"_id":"a"}')])
        >>> engine.read(CollectionName("default_keyspace", "kv"), ["a", "b"])
        [b'{"_id":"a"}', None]
        >>> engine.close()
    """

    keeps_bytes = True

    def __init__(self, path: str, *, synchronous: Synchronous = "full") -> None:
        self._pool = ConnectionPool(path, synchronous)
        self._translated = Translated(self._pool.path)
        self._bridge = QueueBridge(os.path.basename(path), run_writes=self.group, run_at_once=self._pool.read_at_once)

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | None]:
        if not ids:
            self.settings(collection)  # no statement would notice that the collection is gone
            return []
        return self._query(collection, lambda connection, table: self._read(connection, table, ids))

    def read_with_settings(
        self, collection: CollectionName, ids: Sequence[DocId]
    ) -> tuple[Settings, list[bytes | None]]:
        def query(connection: Connection, table: int) -> tuple[Settings, list[bytes | None]]:
            bodies = self._read(connection, table, ids)  # notices when the collection is gone
            settings = connection.file.settings.get(table)
            if settings is None:
                settings = _settings_of(connection, table)
                if not connection.in_transaction:
                    connection.file.settings[table] = settings
            return settings, bodies

        return self._query(collection, query) if ids else super().read_with_settings(collection, ids)

    def _read(self, connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> list[bytes | None]:
        try:
            if len(ids) == 1:
                return [_body(connection, table, ids[0])]
            found = _bodies(connection, table, ids)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._unreadable(connection, table, ids, error) from error
            raise
        return [found.get(doc_id) for doc_id in ids]

    def _unreadable(
        self, connection: sqlite3.Connection, table: int, ids: Sequence[DocId], error: sqlite3.DatabaseError
    ) -> EngineError:
        """Say of which ids the documents stand on damaged pages."""
        bad = [doc_id for doc_id in dict.fromkeys(ids) if not _is_readable(connection, table, doc_id)]
        names = ", ".join(repr(doc_id[:100]) for doc_id in bad[:5]) + (f" and {len(bad) - 5:,} more" * (len(bad) > 5))
        return EngineError(
            f"{self._pool.path}: {error}; of {len(ids):,} keys these cannot be read: {names or 'none, alone'}. The file"
            f" is damaged: restore a backup, {restore_command(self._pool.path)}; other keys can still be read without"
            " these"
        )

    def write(self, collection: CollectionName, documents: Sequence[tuple[DocId, bytes]]) -> None:
        if not documents:
            self.settings(collection)
            return
        single = len(documents) == 1
        self._change(collection, lambda connection, table: _upsert(connection, table, documents), single=single)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        self._require_file(collection, look=False)

        def store(connection: sqlite3.Connection) -> None:
            with self._translated:
                table = _row(connection, collection)[0]
            for start in range(0, len(ids), SQLITE_IN_MAX):
                chunk = ids[start : start + SQLITE_IN_MAX]
                with self._translated:
                    found: dict[DocId, bytes | None] = {**_bodies(connection, table, chunk)}
                changed: dict[DocId, bytes | None] = {}
                for doc_id in chunk:
                    new = change(doc_id, found.get(doc_id))  # what it raises is passed on as it is
                    if new is not KEEP:
                        found[doc_id] = changed[doc_id] = new
                with self._translated:
                    _upsert(connection, table, [(key, body) for key, body in changed.items() if body is not None])
                    _delete(connection, table, [key for key, body in changed.items() if body is None])

        self._pool.change(store)

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        if not ids:
            self.settings(collection)
            return 0
        single = len(ids) == 1
        return self._change(collection, lambda connection, table: _delete(connection, table, ids), single=single)

    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[tuple[DocId, bytes]]:
        return self._page(collection, "id, body", _range(after, prefix, limit), size_bytes)

    def scan_ids(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[DocId]:
        return list(map(itemgetter(0), self._page(collection, "id", _range(after, prefix, limit))))

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        def query(connection: sqlite3.Connection, table: int) -> int:
            rows = f"docs_{table}" if limit is None else f"(SELECT 1 FROM docs_{table} LIMIT {_rows(limit)})"
            counted: int = connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
            return counted

        return self._query(collection, query)

    def clear(self, collection: CollectionName) -> None:
        self._change(collection, lambda connection, table: connection.execute(f"DELETE FROM docs_{table}"))

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
                connection.execute(
                    f"CREATE TABLE docs_{made.lastrowid}(id BLOB PRIMARY KEY NOT NULL, body BLOB NOT NULL)"
                )
            in_force: Settings = json.loads(_row(connection, collection)[1])
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

    def restore_to(self, path: str, *, replace: bool = False) -> None:
        """Put a copy of this database, a backup, in the place of another one: see ``sqlite_backup.restore``."""
        if not self._has_file():
            raise EngineError(f"There is no backup at {self._pool.path}; check the path")
        source, to = self._pool.path, os.path.realpath(path)
        self._pool.read(lambda connection: restore(connection, source, to, replace=replace))

    @property
    def bridge(self) -> Bridge:
        return self._bridge

    def group(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run calls of this engine in one transaction: each whole or not at all, all stored by one commit.

        Where the whole transaction is undone, each call is run again by itself, so that only the one at fault fails.
        Returns the outcome of each call, in order.
        """
        if len(calls) <= 1 or not self._pool.has_file(look=False):
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

    def _query(self, collection: CollectionName, query: Callable[[Connection, int], T]) -> T:
        """Run ``query`` on the collection's table, which another process may drop and re-create at any moment."""
        self._require_file(collection)

        return self._pool.read(lambda connection: self._on_table(connection, collection, query))

    def _change(self, collection: CollectionName, work: Callable[[Connection, int], T], *, single: bool = False) -> T:
        """Run ``work`` on the collection's table in a write transaction. Its first statement, which is the only one
        where it is ``single``, fails where the table is gone."""
        self._require_file(collection, look=False)
        if single:
            return self._pool.change(lambda connection: self._on_table(connection, collection, work), single=True)
        return self._change_catalog(lambda connection: self._on_table(connection, collection, work))

    def _on_table(self, connection: Connection, collection: CollectionName, work: Callable[[Connection, int], T]) -> T:
        known = connection.file
        missing: int | None = None
        while True:
            table = known.tables.get(collection)
            if table is None:
                table = _row(connection, collection)[0]
                # Within a transaction nothing is remembered: a number that is undone goes to another collection.
                if not connection.in_transaction:
                    known.tables[collection] = table
            try:
                return work(connection, table)
            except sqlite3.OperationalError as error:
                if not str(error).startswith(_NO_TABLE):
                    raise
                if table == missing:
                    raise missing_table(self._pool.path, collection.name) from error
                missing = table
                known.tables.pop(collection, None)  # dropped; numbers never come back: look again
                known.settings.pop(table, None)

    def _change_catalog(self, work: Callable[[Connection], T], *, create: bool = False) -> T:
        def translated(connection: Connection) -> T:
            with self._translated:
                return work(connection)

        return self._pool.change(translated, create=create)

    def _require_file(self, collection: CollectionName, *, look: bool = True) -> None:
        if not self._pool.has_file(look=look):
            self._pool.require_open()
            if self._pool.was_lost:
                raise gone(self._pool.path)
            in_default = collection.keyspace == DEFAULT_KEYSPACE
            raise unknown_collection(collection) if in_default else unknown_keyspace(collection.keyspace)

    def _page(
        self, collection: CollectionName, columns: str, which: tuple[str, list[Any]], size_bytes: int | None = None
    ) -> list[tuple[Any, ...]]:
        def query(connection: sqlite3.Connection, table: int) -> list[tuple[Any, ...]]:
            with closing(connection.execute(f"SELECT {columns} FROM docs_{table} {which[0]}", which[1])) as rows:
                return cut(rows, size_bytes)

        return self._query(collection, query)


_NO_TABLE: Final = "no such table: docs_"


def _rows(limit: int) -> int:
    """Return the limit as SQLite takes it, for which a negative one means none at all and a huge one is an error."""
    return min(max(limit, 0), sys.maxsize)


def _range(after: DocId | None, prefix: str, limit: int) -> tuple[str, list[Any]]:
    """Return the condition on ids, their order and number, and its values."""
    bounds: dict[str, Any] = {}
    if after is not None and (isinstance(after, bytes) or after >= prefix):
        bounds["id>?"] = after
    elif prefix:
        bounds["id>=?"] = prefix
    if prefix:
        bounds["id<?"] = prefix_end(prefix) or b""  # every text sorts before the empty blob
    where = f"WHERE {' AND '.join(bounds)} " if bounds else ""
    return f"{where}ORDER BY id LIMIT ?", [*bounds.values(), _rows(limit)]


def _bodies(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> dict[DocId, bytes]:
    """Return the bodies of those ids that exist, as of one moment."""
    if len(ids) <= SQLITE_IN_MAX or connection.in_transaction:
        return _chunks_of_bodies(connection, table, ids)
    try:
        connection.execute("BEGIN")
        return _chunks_of_bodies(connection, table, ids)
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _chunks_of_bodies(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> dict[DocId, bytes]:
    found: dict[DocId, bytes] = {}
    for start in range(0, len(ids), SQLITE_IN_MAX):
        chunk = ids[start : start + SQLITE_IN_MAX]
        length = _IN_LENGTHS[bisect_left(_IN_LENGTHS, len(chunk))]
        marks = ",".join("?" * length)
        values = [*chunk, *[chunk[-1]] * (length - len(chunk))]
        found.update(connection.execute(f"SELECT id, body FROM docs_{table} WHERE id IN ({marks})", values))
    return found


def _body(connection: sqlite3.Connection, table: int, doc_id: DocId) -> bytes | None:
    row = connection.execute(f"SELECT body FROM docs_{table} WHERE id=?", (doc_id,)).fetchone()
    return None if row is None else row[0]


def _settings_of(connection: sqlite3.Connection, table: int) -> Settings:
    found = connection.execute("SELECT settings FROM collections WHERE id=?", (table,)).fetchone()
    if found is None:
        raise sqlite3.OperationalError(_NO_TABLE)  # dropped meanwhile, as a query of its documents would find
    settings: Settings = json.loads(found[0])
    return settings


def _is_readable(connection: sqlite3.Connection, table: int, doc_id: DocId) -> bool:
    try:
        _body(connection, table, doc_id)
    except sqlite3.DatabaseError:
        return False
    return True


def _upsert(connection: sqlite3.Connection, table: int, documents: Sequence[tuple[DocId, bytes]]) -> None:
    connection.executemany(
        f"INSERT INTO docs_{table}(id, body) VALUES(?,?) ON CONFLICT(id) DO UPDATE SET body=excluded.body", documents
    )


def _delete(connection: sqlite3.Connection, table: int, ids: Sequence[DocId]) -> int:
    deleted = connection.executemany(f"DELETE FROM docs_{table} WHERE id=?", [(doc_id,) for doc_id in ids]).rowcount
    return max(deleted, 0)  # -1 where there was nothing to run


def _row(connection: sqlite3.Connection, collection: CollectionName) -> tuple[int, str]:
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
