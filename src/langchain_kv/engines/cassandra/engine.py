"""The engine on Apache Cassandra: the Data API's own tables, read and written by CQL."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from langchain_kv.engines.base import (
    KEEP,
    Change,
    CollectionName,
    DocId,
    Engine,
    Keep,
    NearRow,
    Row,
    Settings,
    Where,
)
from langchain_kv.engines.cassandra import tables, work
from langchain_kv.engines.cassandra.cluster import Session
from langchain_kv.engines.cassandra.nearest import nearest, similar
from langchain_kv.engines.cassandra.operation import Operation
from langchain_kv.engines.cassandra.rows import BadRow
from langchain_kv.engines.cassandra.scan import Found, Listed, Scan, count_rows, page
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.engines.cassandra.tables import Table
from langchain_kv.engines.cassandra.vectors import looked_for
from langchain_kv.engines.pages import PAGE_DOCUMENTS
from langchain_kv.engines.rows import has_expired, row_of
from langchain_kv.errors import StoreClosedError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.runtime import loop_thread
from langchain_kv.runtime.forks import keep_for_ever, renew_in_child
from langchain_kv.runtime.halfway import Halfway
from langchain_kv.runtime.work_queue import AsideBridge, Bridge, run_aside

__all__ = ["CassandraEngine"]

T = TypeVar("T")

CLEAR_PAGE: Final = 5_000
"""Rows of a prefix that are removed together."""


class CassandraEngine(Engine):
    """A cluster's keyspaces and, in them, the Data API's collections.

    A batch is not one transaction here: each document is written by one conditional statement, and a failure may leave
    part of the batch written (PartialWriteError). Documents are scanned in the order of their tokens, not of their ids.
    Bodies are JSON objects with their ``_id``; they come back with ``_id`` first and numbers as the Data API spells
    them. A row that another program wrote badly is an error that names its key.

    Operations are coroutines, on whatever event loop; plain calls run them on the loop thread, so a change that is
    given to ``modify`` runs there, too, and makes no plain calls itself.

    Args:
        settings: the cluster; nothing is connected before the first use.

    Example:
        >>> engine = CassandraEngine(ClusterSettings(("localhost",), user="cassandra", password="cassandra"))
        >>> engine.read(CollectionName("default_keyspace", "kv"), ["a", "b"])  # doctest: +SKIP
        [b'{"_id":"a","value":1}', None]
        >>> engine.close()
    """

    keeps_vectors = True
    compares_by_numpy = False
    atomic_batches = False
    ordered = False

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._closed = False
        self._bridge = AsideBridge()
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self._session: Session | None = None
        self._tables: dict[CollectionName, Table] = {}
        self._connecting = threading.Lock()
        self._changed = threading.Condition()
        self._busy: Counter[asyncio.AbstractEventLoop] = Counter()  # operations, by the loop they run on

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        return loop_thread.run(self.aread(collection, ids))

    async def aread(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        bodies = work.good_bodies(ids, await self.aread_rows(collection, ids))
        return [None if body is None else row_of(doc_id, body) for doc_id, body in zip(ids, bodies, strict=True)]

    async def aread_rows(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | BadRow | None]:
        """As ``aread``, with a BadRow for each row that is no document; whether bodies are JSON is not checked."""
        return await self._operate(collection, lambda operation: work.read_rows(operation, ids))

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        loop_thread.run(self.awrite(collection, rows))

    async def awrite(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        """As ``write``."""
        await self._operate(collection, lambda operation: work.write(operation, [row[:2] for row in rows]))

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        loop_thread.run(self.amodify(collection, ids, change))

    async def amodify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        def change_document(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
            new = change(doc_id, None if body is None else row_of(doc_id, body))
            return new[1] if isinstance(new, tuple) else new

        await self._operate(collection, lambda operation: work.modify(operation, ids, change_document))

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        return loop_thread.run(self.adelete(collection, ids))

    async def adelete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        """As ``delete``."""
        return await self._operate(collection, lambda operation: work.delete(operation, ids))

    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[Row]:
        return self._scan(collection, after=after, prefix=prefix, limit=limit, size_bytes=size_bytes)

    def scan_listed(
        self, collection: CollectionName, field: str, text: str, *, after: DocId | None, limit: int, size_bytes: int
    ) -> list[Row]:
        where = {"after": after, "prefix": "", "limit": limit, "size_bytes": size_bytes}
        return self._scan(collection, **where, listed=(field, text))

    def _scan(self, collection: CollectionName, **where: Any) -> list[Row]:
        found = self._page(collection, **where, with_bodies=True)
        ids = [doc_id for doc_id, _ in found if doc_id is not None]
        bodies = work.good_bodies(ids, [body for _, body in found])
        return [row_of(doc_id, body) for doc_id, body in zip(ids, bodies, strict=True) if body is not None]

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        found = self._page(collection, after=after, prefix=prefix, limit=limit, size_bytes=None, with_bodies=False)
        return [doc_id for doc_id, _ in found if doc_id is not None]

    def _page(self, collection: CollectionName, **where: Any) -> list[Found]:
        return loop_thread.run(self._operate(collection, lambda operation: page(operation, **where)))

    def nearest(
        self,
        collection: CollectionName,
        vector: bytes,
        *,
        limit: int,
        ids: Sequence[DocId] | None = None,
        where: Where | None = None,
    ) -> list[NearRow]:
        """As an Engine's: up to 1,000 rows by an index, which is nearly exact; see ``engines/cassandra/nearest.py``."""

        async def ask(operation: Operation) -> list[NearRow]:
            wanted = looked_for(operation.table.require_vectors(), vector)
            if ids is not None:
                return await similar(operation, wanted, ids, limit=limit, where=where)
            return await nearest(operation, wanted, limit=limit, where=where, listed=None)

        return loop_thread.run(self._operate(collection, ask))

    def nearest_listed(
        self, collection: CollectionName, vector: bytes, listed: tuple[str, str], *, limit: int, where: Where
    ) -> list[NearRow]:
        async def ask(operation: Operation) -> list[NearRow]:
            wanted = looked_for(operation.table.require_vectors(), vector)
            return await nearest(operation, wanted, limit=limit, where=where, listed=listed)

        return loop_thread.run(self._operate(collection, ask))

    async def anext_page(self, collection: CollectionName, scan: Scan) -> list[Found] | None:
        """Return what a Scan meets next; None at the end."""
        return await self._operate(collection, scan.next_page)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        return loop_thread.run(self.acount(collection, limit=limit))

    async def acount(self, collection: CollectionName, *, limit: int | None = None) -> int:
        return await self._operate(collection, lambda operation: count_rows(operation, limit))

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        loop_thread.run(self.aclear(collection, prefix))

    async def aclear(self, collection: CollectionName, prefix: str = "", listed: Listed | None = None) -> None:
        """As an Engine's, by TRUNCATE as the Data API does: every node has to be up, and no condition is checked.

        With ``listed`` (see Scan), of the rows with the prefix those that it says; no others are read.
        """
        if not prefix:
            await self._operate(collection, _truncate)
            return
        scan = Scan(prefix=prefix, with_bodies=False, limit=CLEAR_PAGE, listed=listed)
        with Halfway() as halfway:
            while (found := await self.anext_page(collection, scan)) is not None:
                await self.adelete(collection, [doc_id for doc_id, _ in found if doc_id is not None])
                halfway.has_changed = True

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        return loop_thread.run(self.apurge(collection, now_ms=now_ms, limit=limit))

    async def apurge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        """As ``purge``; rows that are no documents are left alone."""
        removed = 0

        def remove(doc_id: DocId, row: Row | None) -> Row | Keep | None:
            return None if row is not None and has_expired(row, now_ms) else KEEP

        scan = Scan(prefix="", with_bodies=True, limit=PAGE_DOCUMENTS)
        with Halfway() as halfway:
            while removed < limit and (found := await self.anext_page(collection, scan)) is not None:
                rows = [row_of(key, body) for key, body in found if key is not None and isinstance(body, bytes)]
                expired = [row[0] for row in rows if has_expired(row, now_ms)][: limit - removed]
                await self.amodify(collection, expired, remove)
                removed += len(expired)
                halfway.has_changed = removed > 0
        return removed

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        self._tables.pop(collection, None)
        return self._call(lambda session: tables.create(session, collection, settings))

    def drop_collection(self, collection: CollectionName) -> None:
        self._tables.pop(collection, None)
        self._call(lambda session: tables.drop(session, collection))

    def settings(self, collection: CollectionName) -> Settings:
        return self._call(lambda session: tables.find_settings(session, collection))

    def collections(self, keyspace: str) -> dict[str, Settings]:
        return self._call(lambda session: tables.list_settings(session, keyspace))

    def create_keyspace(self, keyspace: str) -> None:
        self._call(lambda session: tables.create_keyspace(session, keyspace))

    def drop_keyspace(self, keyspace: str) -> None:
        for collection in [known for known in self._tables if known.keyspace == keyspace]:
            self._tables.pop(collection, None)
        self._call(lambda session: tables.drop_keyspace(session, keyspace))

    def keyspaces(self) -> list[str]:
        """Return the keyspaces in the order of their names, without the cluster's own."""
        return self._call(tables.list_keyspaces)

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
            self._changed.wait_for(lambda: not self._busy.keys() - {own}, 2 * self._settings.request_timeout_s)
            session, self._session = self._session, None
        if session is not None:
            session.close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Count an operation of the running loop, so that closing waits for it."""
        loop, changed = asyncio.get_running_loop(), self._changed
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

    async def _begin(self, collection: CollectionName | None) -> Operation:
        session = self._session
        if session is None:
            session = await run_aside(self._connected, "langchain-kv cassandra")
        return Operation(session, collection)

    def _call(self, call: Callable[[Session], T]) -> T:
        """Call what blocks and may be repeated, until the deadline where it fails in passing."""

        async def operate() -> T:
            with self._noted():
                operation = await self._begin(None)
                return await operation.call(lambda: call(operation.session))

        return loop_thread.run(operate())

    async def _operate(self, collection: CollectionName, operate: Callable[[Operation], Awaitable[T]]) -> T:
        """Run an operation on the collection's table, which other programs may drop and create again at any moment."""
        with self._noted():
            operation = await self._begin(collection)
            await self._open_table(operation, collection)
            try:
                return await operate(operation)
            except (UnknownCollectionError, UnknownKeyspaceError):
                self._tables.pop(collection, None)
            await self._open_table(operation, collection)  # raises if it is gone
            return await operate(operation)

    async def _open_table(self, operation: Operation, collection: CollectionName) -> None:
        known = self._tables.get(collection)
        if known is None or not known.is_fresh:
            try:
                settings = await operation.call(lambda: tables.find_settings(operation.session, collection))
            except (UnknownCollectionError, UnknownKeyspaceError):
                self._tables.pop(collection, None)
                raise
            if known is None or not known.confirm(settings):
                known = operation.table = Table(operation.session, collection, settings)
                await operation.statement("settle")  # needed when statements fail: prepared while they do not
                self._tables[collection] = known
        operation.table = known

    def _after_fork_in_child(self) -> None:
        if self._session is not None:
            self._session.forget()
        # Whoever used or closed these would take them away from the parent, or wait for threads that do not exist.
        keep_for_ever((self._session, self._tables))
        self._start_anew()


async def _truncate(operation: Operation) -> None:
    operation.table.require_writable()
    await run_aside(operation.table.truncate, "langchain-kv cassandra")
