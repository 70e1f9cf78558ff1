"""The engine on a file: the standard library's sqlite3, shared by threads and processes."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

from langchain_kv.engines.base import Change, CollectionName, DocId, Ending, Row, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.engines.sqlite.catalog import (
    NO_TABLE,
    collections_of,
    drop,
    keyspaces_of,
    require_keyspace,
    settings_in_force,
    settings_of,
    table_of,
)
from langchain_kv.engines.sqlite.connection import Connection, Synchronous
from langchain_kv.engines.sqlite.errors import Translated, gone, is_damage, missing_table
from langchain_kv.engines.sqlite.file_lock import LOCK_WAIT_S
from langchain_kv.engines.sqlite.looks import Looks
from langchain_kv.engines.sqlite.read_only import open_pool
from langchain_kv.engines.sqlite.rows import (
    bounded,
    delete_rows,
    has_expired,
    modify_rows,
    page_of,
    range_of,
    row_by_id,
    rows_by_id,
    unreadable,
    upsert,
    with_columns,
)
from langchain_kv.engines.sqlite.schema import COLUMNS, SCHEMA_VERSION, make_table, make_vectors
from langchain_kv.engines.vectors import vectors_of
from langchain_kv.errors import (
    EngineBusyError,
    EngineError,
    StoreClosedError,
    StoreError,
    UnknownCollectionError,
    UsageError,
)
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.runtime.forks import importing
from langchain_kv.runtime.work_queue import Bridge, Outcome, QueueBridge, run_each

__all__ = ["SQLiteEngine"]

T = TypeVar("T")

_Work = Callable[[Connection, int], T]


class SQLiteEngine(Looks):
    """A database in one file, made by the first ``create_keyspace`` or ``create_collection``.

    Any number of threads and processes share the file, and forked children. Beside it stand, while it is in use,
    ``PATH-wal`` and ``PATH-shm``, which are part of it, and ``PATH.lock``. It must be on a file system of this machine.

    Args:
        path: the file; links are followed.
        synchronous: ``full``: a commit survives a power cut. ``normal``: it survives the end of the process, and
            a power cut may undo the last ones; single writes are several times faster.
        read_only: whether nothing is changed and no file is made, as by itself where this user may not write there.
        wait_s: seconds that a call waits for other threads, processes and programs.

    Example:
        >>> engine = SQLiteEngine("kv.db")
        >>> _ = engine.create_collection(CollectionName("default_keyspace", "kv"), {})
        >>> engine.write(CollectionName("default_keyspace", "kv"), [("a", b'{"_id":"a"}', False, None)])
        >>> engine.read(CollectionName("default_keyspace", "kv"), ["a", "b"])
        [('a', b'{"_id":"a"}', 0, None), None]
        >>> engine.close()
    """

    keeps_raw_values = True
    purge_pause_s = 0.02  # whoever waits for the lock looks every few milliseconds

    def __init__(
        self, path: str, *, synchronous: Synchronous = "full", read_only: bool = False, wait_s: float = LOCK_WAIT_S
    ) -> None:
        self._pool = open_pool(path, synchronous, wait_s, read_only=read_only)
        self._translated = Translated(self._pool.path, wait_s=wait_s)
        self._bridge = QueueBridge(
            os.path.basename(path), run_reads=self._in_turn, run_writes=self.group, run_at_once=self._pool.read_at_once
        )

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        return self._pool.read_only

    def check_writable(self) -> None:
        self._pool.check_writable()

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        if not ids:
            self.settings(collection)  # no statement would notice that the collection is gone
            return []
        return self._query(collection, lambda connection, table: self._read(connection, table, ids))

    def read_with_settings(self, collection: CollectionName, ids: Sequence[DocId]) -> tuple[Settings, list[Row | None]]:
        def query(connection: Connection, table: int) -> tuple[Settings, list[Row | None]]:
            rows = self._read(connection, table, ids)  # notices when the collection is gone
            settings = connection.file.settings.get(table)
            if settings is None:
                settings = settings_of(connection, table)
                if not connection.in_transaction:
                    connection.file.settings[table] = settings
            return settings, rows

        return self._query(collection, query) if ids else super().read_with_settings(collection, ids)

    def _read(self, connection: Connection, table: int, ids: Sequence[DocId]) -> list[Row | None]:
        known = connection.file.columns
        try:
            if len(ids) == 1:
                if known is not None:  # the usual case, a microsecond sooner
                    return [row_by_id(connection, table, ids[0], known)]
                return [with_columns(connection, lambda columns: row_by_id(connection, table, ids[0], columns))]
            found = with_columns(connection, lambda columns: rows_by_id(connection, table, ids, columns))
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise unreadable(self._pool.path, connection, table, ids, error) from error
            raise
        return [found.get(doc_id) for doc_id in ids]

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        if not rows:
            self.settings(collection)
            return
        single = len(rows) == 1
        self._change(collection, lambda connection, table: upsert(connection, table, rows), single=single)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        self._modify(collection, ids, change, lambda *_: False)

    def merge(self, collection: CollectionName, rows: Sequence[Row], ending: Ending, change: Change) -> None:
        def store(connection: Connection, table: int) -> bool:
            return upsert(connection, table, rows, ending) == len(rows)

        if len(rows) != 1 or not self._change(collection, store, single=True):
            self._modify(collection, [row[0] for row in rows], change, store)

    def _modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change, first: _Work[bool]) -> None:
        """As ``modify``, unless what comes first in the transaction has done it all."""
        if not self._pool.has_file(look=False):
            raise self._without_file(collection)

        def store(connection: Connection) -> None:
            with self._translated:
                table = table_of(connection, collection)
                is_done = first(connection, table)
            if not is_done:
                modify_rows(connection, table, ids, change, self._translated)

        self._pool.change(store)

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        if not ids:
            self.settings(collection)
            return 0
        single = len(ids) == 1
        return self._change(collection, lambda connection, table: delete_rows(connection, table, ids), single=single)

    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[Row]:
        def query(connection: Connection, table: int) -> list[Row]:
            def select(columns: str) -> list[Row]:
                return page_of(connection, table, columns, range_of(after, prefix), limit=limit, size_bytes=size_bytes)

            return with_columns(connection, select)

        return self._query(collection, query)

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        def query(connection: Connection, table: int) -> list[DocId]:
            def select(columns: str) -> list[Row]:
                which: tuple[str, list[Any]] = range_of(after, prefix)
                # What has expired is found in an index of its own: as long as nothing has, no row is looked at.
                if now_ms is not None and columns is COLUMNS and has_expired(connection, table, now_ms):
                    which = f"{which[0]} AND (expires_at IS NULL OR expires_at>?)", [*which[1], now_ms]
                return page_of(connection, table, "id", which, limit=limit)

            return list(map(itemgetter(0), with_columns(connection, select)))

        return self._query(collection, query)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        def query(connection: Connection, table: int) -> int:
            rows = f"docs_{table}" if limit is None else f"(SELECT 1 FROM docs_{table} LIMIT {bounded(limit)})"
            counted: int = connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
            return counted

        return self._query(collection, query)

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        condition, bounds = range_of(None, prefix)
        # Without a condition SQLite drops whole pages, and rows whose ids are none, too.
        rows, values = (f" WHERE {condition}", bounds) if prefix else ("", [])

        def remove(connection: Connection, table: int) -> None:
            connection.execute(f"DELETE FROM docs_{table}{rows}", values)

        self._change(collection, remove)

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        def remove(connection: Connection, table: int) -> int:
            expired = f"SELECT rowid FROM docs_{table} WHERE expires_at<=? LIMIT ?"
            values = now_ms, bounded(limit)
            return connection.execute(f"DELETE FROM docs_{table} WHERE rowid IN ({expired})", values).rowcount

        return self._change(collection, remove)

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        text = json.dumps(settings)
        if not self._has_file() and collection.keyspace != DEFAULT_KEYSPACE:
            raise unknown_keyspace(collection.keyspace)
        if self._pool.read_only:
            with suppress(UnknownCollectionError):
                return self.settings(collection)

        def make(connection: Connection) -> Settings:
            require_keyspace(connection, collection.keyspace)
            made = connection.execute(
                "INSERT INTO collections(keyspace, name, settings, made_in) VALUES(?,?,?,?) ON CONFLICT DO NOTHING",
                (*collection, text, SCHEMA_VERSION),
            )
            if made.rowcount:
                make_table(connection, made.lastrowid)
                if vectors_of(settings) is not None:
                    make_vectors(connection, made.lastrowid)
            connection.file.settings.pop(table_of(connection, collection), None)  # damaged ones are replaced
            return settings_in_force(connection, collection, text)

        return self._change_catalog(make, create=True)

    def drop_collection(self, collection: CollectionName) -> None:
        if not self._has_file():
            if collection.keyspace != DEFAULT_KEYSPACE:
                raise unknown_keyspace(collection.keyspace)
            return

        def work(connection: sqlite3.Connection) -> None:
            require_keyspace(connection, collection.keyspace)
            drop(connection, "keyspace=? AND name=?", collection)

        self._change_catalog(work)

    def settings(self, collection: CollectionName) -> Settings:
        return self._query(collection, settings_of)

    def collections(self, keyspace: str) -> dict[str, Settings]:
        if not self._has_file():
            if keyspace != DEFAULT_KEYSPACE:
                raise unknown_keyspace(keyspace)
            return {}
        return self._pool.read(lambda connection: collections_of(connection, keyspace))

    def create_keyspace(self, keyspace: str) -> None:
        if self._pool.read_only and self._has_file() and keyspace in self.keyspaces():
            return

        def make(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO keyspaces VALUES(?) ON CONFLICT DO NOTHING", (keyspace,))

        self._change_catalog(make, create=True)

    def drop_keyspace(self, keyspace: str) -> None:
        if not self._has_file():
            return

        def work(connection: sqlite3.Connection) -> None:
            drop(connection, "keyspace=?", (keyspace,))
            connection.execute("DELETE FROM keyspaces WHERE name=?", (keyspace,))

        self._change_catalog(work)

    def keyspaces(self) -> list[str]:
        if not self._has_file():
            return [DEFAULT_KEYSPACE]
        return self._pool.read(keyspaces_of)

    # -- life -----------------------------------------------------------------------------------------------------

    def backup(self, file: str, *, replace: bool = False) -> None:
        """Copy the whole database, as of one moment, to a new file, while writers go on: see ``backup.back_up``."""
        if self._pool.joined is not None:
            raise UsageError("A backup inside a change would hold up every writer: make it before or after")
        self._require_database("There is no database at {} to back up; check the path")
        with importing.lock:
            from langchain_kv.engines.sqlite.backup import back_up
        self._hand_over(back_up, os.path.abspath(file), replace)

    def restore_to(self, path: str, *, replace: bool = False) -> None:
        """Put a copy of this database, a backup, in the place of another one: see ``backup.restore``."""
        self._require_database("There is no backup at {}; check the path")
        with importing.lock:
            from langchain_kv.engines.sqlite.backup import restore
        self._hand_over(restore, os.path.realpath(path), replace)

    def _hand_over(self, copying: Callable[..., None], to: str, replace: bool) -> None:
        pool = self._pool
        pool.read(lambda c: copying(c, pool.path, to, replace=replace, check=partial(pool.require_unchanged, c)))

    def look(self, query: Callable[[Connection], T]) -> T:
        """Return what a query answers about the whole database, which must be there."""
        self._require_database()
        return self._pool.read(query)

    def rewrite(self, work: Callable[[Connection], T]) -> T:
        """Run statements that stand in no transaction, while no other process of this package writes."""
        self._require_database()
        return self._pool.change(work, single=True)

    @property
    def bridge(self) -> Bridge:
        return self._bridge

    def group(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run calls of this engine in one transaction: each whole or not at all, all stored by one commit.

        Where the whole transaction is undone, each call is run again by itself, so that only the one at fault fails.
        Returns the outcome of each call, in order.
        """
        if len(calls) <= 1:
            return self._in_turn(calls)
        deadlines = [self._deadline(call) for call in calls]
        try:
            if not self._pool.has_file(look=False):
                return self._in_turn(calls)
            return self._pool.waits.run_until(
                min(deadlines), lambda: self._pool.change(lambda connection: run_each(calls))
            )
        except EngineBusyError as error:
            # Who came later may wait on.
            outcomes, now = [Outcome(None, error)] * len(calls), time.monotonic()
            later = [place for place, deadline in enumerate(deadlines) if deadline > now]
            if later and len(later) < len(calls):
                for place, outcome in zip(later, self.group([calls[place] for place in later]), strict=True):
                    outcomes[place] = outcome
            return outcomes
        except StoreError as error:
            hopeless = isinstance(error, StoreClosedError) or error.applied is not False
            return [Outcome(None, error)] * len(calls) if hopeless else self._in_turn(calls)

    def _in_turn(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run each call by itself. What it waited for its turn is a part of what it may wait."""
        return [self._pool.waits.run_until(self._deadline(call), partial(run_each, [call]))[0] for call in calls]

    def _deadline(self, call: Callable[[], Any]) -> float:
        return float(getattr(call, "asked_at", time.monotonic())) + self._pool.waits.wait_s

    def close(self) -> None:
        self._bridge.close()
        self._pool.close()

    # -- the ways to a connection -----------------------------------------------------------------------------------

    def _has_file(self) -> bool:
        self._pool.require_open()
        return self._pool.has_file()

    def _require_database(self, otherwise: str = "There is no database at {}; check the path") -> None:
        if not self._has_file():
            raise EngineError(otherwise.format(self._pool.path))

    def _query(self, collection: CollectionName, query: _Work[T]) -> T:
        """Run ``query`` on the collection's table, which another process may drop and re-create at any moment."""
        if not self._pool.has_file():
            raise self._without_file(collection)
        return self._pool.read(lambda connection: self._on_table(connection, collection, query))

    def _change(self, collection: CollectionName, work: _Work[T], *, single: bool = False) -> T:
        """Run ``work`` on the collection's table in a write transaction.

        Its first statement, which is the only one where it is ``single``, fails where the table is gone.
        """
        if not self._pool.has_file(look=False):
            raise self._without_file(collection)
        if single:
            return self._pool.change(lambda connection: self._on_table(connection, collection, work), single=True)
        return self._change_catalog(lambda connection: self._on_table(connection, collection, work))

    def _on_table(self, connection: Connection, collection: CollectionName, work: _Work[T]) -> T:
        known = connection.file
        missing: int | None = None
        while True:
            table = known.tables.get(collection)
            if table is None:
                table = table_of(connection, collection)
                # Within a transaction nothing is remembered: a number that is undone goes to another collection.
                if not connection.in_transaction:
                    known.tables[collection] = table
            try:
                return work(connection, table)
            except sqlite3.OperationalError as error:
                if not str(error).startswith(NO_TABLE):
                    raise
                if table == missing:
                    raise missing_table(self._pool.path, collection.name) from error
                missing = table
                known.matrices.pop(table, None)
                known.tables.pop(collection, None)  # dropped; numbers never come back: look again
                known.settings.pop(table, None)

    def _change_catalog(self, work: Callable[[Connection], T], *, create: bool = False) -> T:
        def translated(connection: Connection) -> T:
            with self._translated:
                return work(connection)

        return self._pool.change(translated, create=create)

    def _without_file(self, collection: CollectionName) -> StoreError:
        """Return what a call on a collection raises while there is no file. Raises that the store was closed."""
        self._pool.require_open()
        if self._pool.was_lost:
            return gone(self._pool.path)
        in_default = collection.keyspace == DEFAULT_KEYSPACE
        return unknown_collection(collection) if in_default else unknown_keyspace(collection.keyspace)
