"""The engine on Apache Cassandra: the Data API's own tables, read and written by CQL."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Keep, Row, Settings
from langchain_kv.engines.cassandra import tables, work
from langchain_kv.engines.cassandra.cluster import Blocking, Session, Work, patiently
from langchain_kv.engines.cassandra.rows import BadRow
from langchain_kv.engines.cassandra.scan import Found, Scan, page
from langchain_kv.engines.cassandra.tables import Table
from langchain_kv.engines.rows import has_expired, row_of
from langchain_kv.errors import StoreClosedError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.places.clusters import ClusterSettings
from langchain_kv.runtime.sharing import keep_for_ever
from langchain_kv.runtime.work_queue import Bridge

__all__ = ["CassandraEngine"]

T = TypeVar("T")

_COUNT_PAGE: Final = 5_000

_OPERATIONS: Final = frozenset(
    ("read", "read_rows", "write", "modify", "delete", "scan", "scan_ids", "next_page", "count", "clear")
)
"""The methods that are operations: what coroutines call of them needs no thread."""

BLOCKING_CALLS_MAX: Final = 16
"""Calls of coroutines that are no single operation of the engine (a server's, a set-up) and run at once."""


class CassandraEngine(Engine):
    """A cluster's keyspaces and, in them, the Data API's collections.

    A batch is not one transaction here: each document is written by one conditional statement, and a failure may leave
    part of the batch written (PartialWriteError). Documents are scanned in the order of their tokens, not of their ids.
    Bodies are JSON objects with their ``_id``; they come back with ``_id`` first and numbers as the Data API spells
    them. A row that another program wrote badly is an error that names its key.

    Args:
        settings: the cluster; nothing is connected before the first use.

    Example:
        >>> engine = CassandraEngine(ClusterSettings(("localhost",), user="cassandra", password="cassandra"))
        >>> engine.read(CollectionName("default_keyspace", "kv"), ["a", "b"])  # doctest: +SKIP
        [b'{"_id":"a","value":1}', None]
        >>> engine.close()
    """

    _all: ClassVar[weakref.WeakSet[CassandraEngine]] = weakref.WeakSet()

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._closed = False
        self._start_anew()
        self._all.add(self)

    def _start_anew(self) -> None:
        self._session: Session | None = None
        self._tables: dict[CollectionName, Table] = {}
        self._connecting = threading.Lock()
        self._changed = threading.Condition()
        self._busy: Counter[asyncio.AbstractEventLoop | None] = Counter()  # operations, by the loop they run on
        self._bridge = _CassandraBridge(self)

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        return self._run(collection, self._read, ids)

    def read_rows(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | BadRow | None]:
        """As ``read``, with a BadRow for each row that is no document; whether bodies are JSON is not checked."""
        return self._run(collection, self._read_rows, ids)

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        self._run(collection, self._write, rows)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        self._run(collection, self._modify, ids, change)

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        return self._run(collection, self._delete, ids)

    def scan(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[Row]:
        return self._run(collection, self._scan, after=after, prefix=prefix, limit=limit)

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        return self._run(collection, self._scan_ids, after=after, prefix=prefix, limit=limit)

    def next_page(self, collection: CollectionName, scan: Scan) -> list[Found] | None:
        """Return what a Scan meets next; None at the end."""
        return self._run(collection, self._next_page, scan)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        return self._run(collection, self._count, limit=limit)

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        """As an Engine's, by TRUNCATE as the Data API does: every node has to be up, and no condition is checked."""
        if prefix:
            while ids := self.scan_ids(collection, prefix=prefix, limit=_COUNT_PAGE):
                self.delete(collection, ids)
        else:
            self._run(collection, self._clear)

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        removed = 0

        def remove(doc_id: DocId, row: Row | None) -> Row | Keep | None:
            return None if row is not None and has_expired(row, now_ms) else KEEP

        after: DocId | None = None
        while removed < limit and (rows := self.scan(collection, after=after, limit=_COUNT_PAGE)):
            expired = [row[0] for row in rows if has_expired(row, now_ms)][: limit - removed]
            self.modify(collection, expired, remove)
            removed += len(expired)
            after = rows[-1][0]
        return removed

    # -- the same, as operations on an opened table -------------------------------------------------------------------

    def _read(self, table: Table, ids: Sequence[DocId]) -> Work[list[Row | None]]:
        rows = yield from self._read_rows(table, ids)
        bodies = work.good_bodies(ids, rows)
        return [None if body is None else row_of(doc_id, body) for doc_id, body in zip(ids, bodies, strict=True)]

    def _read_rows(self, table: Table, ids: Sequence[DocId]) -> Work[list[bytes | BadRow | None]]:
        return work.read_rows(table, ids, self._settings.in_chunk)

    def _write(self, table: Table, rows: Sequence[Row]) -> Work[None]:
        return work.write(table, [row[:2] for row in rows])

    def _modify(self, table: Table, ids: Sequence[DocId], change: Change) -> Work[None]:
        def change_document(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
            new = change(doc_id, None if body is None else row_of(doc_id, body))
            return new[1] if isinstance(new, tuple) else new

        return work.modify(table, ids, change_document, self._settings.in_chunk)

    def _delete(self, table: Table, ids: Sequence[DocId]) -> Work[int]:
        return work.delete(table, ids)

    def _scan(self, table: Table, *, after: DocId | None = None, prefix: str = "", limit: int) -> Work[list[Row]]:
        found = yield from page(table, after=after, prefix=prefix, limit=limit, with_bodies=True)
        ids = [doc_id for doc_id, _ in found if doc_id is not None]
        bodies = work.good_bodies(ids, [body for _, body in found])
        return [row_of(doc_id, body) for doc_id, body in zip(ids, bodies, strict=True) if body is not None]

    def _scan_ids(self, table: Table, *, after: DocId | None = None, prefix: str = "", limit: int) -> Work[list[DocId]]:
        found = yield from page(table, after=after, prefix=prefix, limit=limit, with_bodies=False)
        return [doc_id for doc_id, _ in found if doc_id is not None]

    def _next_page(self, table: Table, scan: Scan) -> Work[list[Found] | None]:
        return scan.next_page(table)

    def _count(self, table: Table, *, limit: int | None = None) -> Work[int]:
        most = _COUNT_PAGE if limit is None else max(1, min(limit, _COUNT_PAGE))
        scan = Scan(prefix="", with_bodies=False, limit=most)
        counted = 0
        while limit is None or counted < limit:
            found = yield from scan.next_page(table)
            if found is None:
                return counted
            counted += len(found)
        return max(0, limit)

    def _clear(self, table: Table) -> Work[None]:
        table.require_writable()
        yield Blocking(table.truncate)

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        self._tables.pop(collection, None)
        return self._run_blocking(lambda session: tables.create(session, collection, settings))

    def drop_collection(self, collection: CollectionName) -> None:
        self._tables.pop(collection, None)
        self._run_blocking(lambda session: tables.drop(session, collection))

    def settings(self, collection: CollectionName) -> Settings:
        return self._run_blocking(lambda session: tables.find_settings(session, collection))

    def collections(self, keyspace: str) -> dict[str, Settings]:
        return self._run_blocking(lambda session: tables.list_settings(session, keyspace))

    def create_keyspace(self, keyspace: str) -> None:
        self._run_blocking(lambda session: tables.create_keyspace(session, keyspace))

    def drop_keyspace(self, keyspace: str) -> None:
        for collection in [known for known in self._tables if known.keyspace == keyspace]:
            self._tables.pop(collection, None)
        self._run_blocking(lambda session: tables.drop_keyspace(session, keyspace))

    def keyspaces(self) -> list[str]:
        """Return the keyspaces in the order of their names, without the cluster's own."""
        return self._run_blocking(tables.list_keyspaces)

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def bridge(self) -> Bridge:
        return self._bridge

    def close(self) -> None:
        """End the connections. Calls in flight end first, but for coroutines of the loop that this is called on."""
        own = asyncio._get_running_loop()
        with self._changed:
            self._closed = True
            if self._session is not None:
                self._session.is_ending = True
            # Bounded, for operations of a loop that will never run again.
            self._changed.wait_for(lambda: not self._busy.keys() - ({own} if own else ()), self._patience_s)
            session, self._session = self._session, None
        if session is not None:
            session.close()
        self._bridge.close()

    @property
    def _patience_s(self) -> float:
        return 2 * self._settings.request_timeout_s

    @contextmanager
    def _noted(self, loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
        """Count an operation, so that closing waits for it."""
        changed = self._changed
        with changed:
            if self._closed:
                raise StoreClosedError("the engine was closed; open a new one")
            self._busy[loop] += 1
        try:
            yield
        finally:
            with changed:
                self._busy[loop] -= 1
                if not self._busy[loop]:
                    del self._busy[loop]
                changed.notify_all()

    def _connected(self) -> Session:
        with self._connecting:
            if self._session is None:
                self._session = Session(self._settings)
            return self._session

    @contextmanager
    def _using(self) -> Iterator[Session]:
        with self._noted(None):
            yield self._session or self._connected()

    def _run_blocking(self, call: Callable[[Session], T]) -> T:
        """Call what blocks and may be repeated, until the deadline where it fails in passing."""
        with self._using() as session:
            return session.run(patiently(lambda: call(session)), None)

    def _run(self, collection: CollectionName, operate: Callable[..., Work[T]], *args: Any, **kwargs: Any) -> T:
        with self._using() as session:
            return session.run(self._on_table(session, collection, operate, args, kwargs), collection)

    async def arun(self, collection: CollectionName, operate: Callable[..., Work[T]], *args: Any, **kwargs: Any) -> T:
        """Run an operation without blocking the event loop: one future for each batch of statements."""
        loop = asyncio.get_running_loop()
        with self._noted(loop):
            session = self._session
            if session is None:
                session = await loop.run_in_executor(None, self._connected)
            return await session.arun(self._on_table(session, collection, operate, args, kwargs), collection)

    def _on_table(
        self,
        session: Session,
        collection: CollectionName,
        operate: Callable[..., Work[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Work[T]:
        """Run an operation on the collection's table, which other programs may drop and create again at any moment."""
        table = yield from self._open_table(session, collection)
        try:
            return (yield from operate(table, *args, **kwargs))
        except (UnknownCollectionError, UnknownKeyspaceError):
            self._tables.pop(collection, None)
        table = yield from self._open_table(session, collection)  # raises if it is gone
        return (yield from operate(table, *args, **kwargs))

    def _open_table(self, session: Session, collection: CollectionName) -> Work[Table]:
        known = self._tables.get(collection)
        if known is not None and known.is_fresh:
            return known
        try:
            settings = yield from patiently(lambda: tables.find_settings(session, collection))
        except (UnknownCollectionError, UnknownKeyspaceError):
            self._tables.pop(collection, None)
            raise
        if known is None or not known.confirm(settings):
            known = Table(session, collection, settings)
            yield from patiently(known.prepare)
            self._tables[collection] = known
        return known

    def _after_fork_in_child(self) -> None:
        if self._session is not None:
            self._session.forget()
        # Whoever used or closed these would take them away from the parent, or wait for threads that do not exist.
        keep_for_ever((self._session, self._bridge, self._tables))
        self._start_anew()


class _CassandraBridge(Bridge):
    """Runs the engine's own operations as coroutines, and any other call on one of a few threads."""

    def __init__(self, engine: CassandraEngine) -> None:
        self._engine = weakref.proxy(engine)
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    async def read(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        name = getattr(call, "__name__", "")
        if name in _OPERATIONS and getattr(call, "__self__", None) == self._engine:
            operate = getattr(self._engine, f"_{name}")
            result: T = await self._engine.arun(args[0], operate, *args[1:], **kwargs)
            return result
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(BLOCKING_CALLS_MAX, "langchain-kv cassandra")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))

    async def write(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await self.read(call, *args, **kwargs)

    def close(self) -> None:
        """End the threads, after what they are doing."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()


def _start_anew_in_child() -> None:
    for engine in list(CassandraEngine._all):
        engine._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)
