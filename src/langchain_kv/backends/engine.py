"""The backend over an engine in this process: plain calls as they are, coroutines through the engine's bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from langchain_kv.backends.base import Change, Found, Kind, Page, Record, Stored, SyncBackend, is_alive
from langchain_kv.backends.collections import INDEXING, check_settings
from langchain_kv.backends.documents import check_size, document_of, encoded, found_in
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Engine, Keep, Row, Settings
from langchain_kv.engines.rows import has_expired, postponed
from langchain_kv.errors import StoreClosedError, StoreError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.work_queue import Bridge

__all__ = ["EngineBackend"]

T = TypeVar("T")

READ_PAGE: Final = 1_000
"""Most keys of one call when a coroutine reads many, so that the reads of others come between."""

LEAST_READ_PAGE: Final = 50
"""Fewest keys of one; there are as many as make READ_PAGE_BYTES, going by what was read last."""

READ_PAGE_BYTES: Final = 512 * 1024
"""Bodies that are read before they are parsed: they stay in the processor's cache."""

SHORT_READ: Final = 4
"""Keys that a coroutine reads at once, on its own loop: the way through a thread takes longer than reading them."""

PARSED_AT_ONCE_BYTES: Final = 128 * 1024
"""Bodies that a coroutine parses before it lets others run: JSON of this size takes two tenths of a millisecond."""

KEYS_PAGE: Final = 1_000
"""Keys of one page of a scan."""

ITEMS_PAGE: Final = 100
"""Documents of one page of a scan: each may have megabytes."""

PURGE_PAGE: Final = 1_000
"""Expired rows that are removed in one transaction, so that other writers come between."""

PURGED_BY_WRITE: Final = 16
"""Expired rows that a write of rows that expire removes, beside as many as it writes."""

_logger = logging.getLogger("langchain_kv")


class EngineBackend(SyncBackend):
    """Keeps the values of one collection in an engine. A batch is written whole or not at all.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``open`` makes it.
        create_keyspace: whether ``open`` makes a missing keyspace too.
        on_close: called once, by the first ``close`` or ``aclose``.
    """

    can_update = True

    def __init__(
        self,
        engine: Engine,
        collection: CollectionName,
        *,
        create_keyspace: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._collection = collection
        self._opened_engine = engine
        self._keeps_raw_values = engine.keeps_raw_values
        self._create_keyspace = create_keyspace
        self._on_close = on_close
        self._closed = False
        self._read_page = READ_PAGE

    def __repr__(self) -> str:
        return f"The collection '{self._collection.name}'"

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise StoreClosedError(f"The store on collection '{self._collection.name}' was closed; open a new one")
        return self._opened_engine

    @property
    def bridge(self) -> Bridge:
        return self._engine.bridge

    # -- the verbs ------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return _found_all(self._engine.read(self._collection, keys), now_ms())

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        # Not by the bridge as it is: a thread that parses would hold the interpreter for milliseconds.
        if len(keys) <= SHORT_READ:
            values = await self.bridge.read_short(self.get_many, keys)
            await asyncio.sleep(0)  # a loop of such reads lets others run
            return values
        found: list[Stored | None] = []
        while len(found) < len(keys):
            page = keys[len(found) : len(found) + self._read_page]
            rows = await self.bridge.read(self._engine.read, self._collection, page)
            fitting = READ_PAGE_BYTES * len(page) // (1 + sum(len(row[1]) for row in rows if row))
            self._read_page = max(LEAST_READ_PAGE, min(READ_PAGE, fitting))
            for some in _split(rows):
                found += _found_all(some, now_ms())
                await asyncio.sleep(0)
        return found

    def put_many(self, records: Sequence[Record]) -> None:
        rows = self._rows(records)
        self._engine.write(self._collection, rows)
        if any(row[3] for row in rows):
            with suppress(StoreError):  # the records are stored, whatever becomes of this
                self._engine.purge(self._collection, now_ms=now_ms(), limit=len(records) + PURGED_BY_WRITE)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._engine.delete(self._collection, keys)

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        scan = _Scan(self._engine, self._collection, prefix, values)
        while scan.going_on:
            yield scan.page()

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        scan = _Scan(self._engine, self._collection, prefix, values)
        read = self.bridge.read if values else self.bridge.read_short
        while scan.going_on:
            yield await read(scan.page)
            await asyncio.sleep(0)

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        rows = {row[0]: row for row in self._rows(records)}
        added: dict[DocId, bool] = {}
        now = now_ms()

        def insert(doc_id: DocId, row: Row | None) -> Row | Keep:
            added[doc_id] = row is None or has_expired(row, now)
            return rows[doc_id] if added[doc_id] else KEEP

        self._engine.modify(self._collection, list(rows), insert)
        return [added[record.key] for record in records]

    def update(self, key: str, change: Change) -> None:
        def change_row(_: DocId, row: Row | None) -> Row | None:
            record = change(None if row is None else _found(row, now_ms()))
            return None if record is None else self._row(record)

        self._engine.modify(self._collection, [key], change_row)

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        now = now_ms()

        def postpone(_: DocId, row: Row | None) -> Row | Keep:
            if row is None or row[3] is None or not now < row[3] < expires_at_ms:
                return KEEP
            return postponed(row, expires_at_ms)

        self._engine.modify(self._collection, keys, postpone)

    def clear(self, prefix: str) -> None:
        self._engine.clear(self._collection, prefix)

    def purge(self) -> int:
        removed = 0
        while some := self._purge_page():
            removed += some
        return removed

    async def apurge(self) -> int:
        removed = 0
        while some := await self.bridge.write(self._purge_page):
            removed += some
            await asyncio.sleep(0)
        return removed

    def _purge_page(self) -> int:
        return self._engine.purge(self._collection, now_ms=now_ms(), limit=PURGE_PAGE)

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self, *, clear: bool = False) -> None:
        self._check(self._open(clear))

    async def aopen(self, *, clear: bool = False) -> None:
        self._check(await self.bridge.write(self._open, clear))  # a warning shows the caller's line, not a thread's

    def _open(self, clear: bool) -> Settings:
        engine = self._engine
        if not clear:
            with suppress(UnknownCollectionError, UnknownKeyspaceError):
                return engine.settings(self._collection)  # the usual case waits for no other writer
        if self._create_keyspace:
            engine.create_keyspace(self._collection.keyspace)
        if clear:
            engine.drop_collection(self._collection)
        try:
            return engine.create_collection(self._collection, {"indexing": INDEXING})
        except StoreError as error:
            if clear:
                error.applied = None  # the old one is gone, and the new one is not there
            raise

    def _check(self, in_force: Settings) -> None:
        if in_force != {"indexing": INDEXING}:
            check_settings(self._collection.name, in_force)

    def close(self) -> None:
        self._closed = True
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _rows(self, records: Sequence[Record]) -> list[Row]:
        if not self._keeps_raw_values or Kind.BYTES not in {record.kind for record in records}:
            return [
                (key, document, False, record.expires_at_ms)
                for record, (key, document) in zip(records, encoded(records), strict=True)
            ]
        return [self._row(record) for record in records]

    def _row(self, record: Record) -> Row:
        is_raw = self._keeps_raw_values and record.kind is Kind.BYTES
        if is_raw:
            check_size(record)  # what works here is to work behind a Data API
        return record.key, record.payload if is_raw else document_of(record), is_raw, record.expires_at_ms


def _found(row: Row, now: int) -> Stored | None:
    """Return what a row keeps; None where that has expired."""
    _, body, is_raw, expires_at_ms = row
    stored = Found(body, Kind.BYTES, expires_at_ms) if is_raw else found_in(body)
    return stored if is_alive(stored, now) else None


def _found_all(rows: Sequence[Row | None], now: int) -> list[Stored | None]:
    return [None if row is None else _found(row, now) for row in rows]


def _split(rows: list[Row | None]) -> Iterator[list[Row | None]]:
    """Yield the rows in parts of PARSED_AT_ONCE_BYTES, about."""
    start = size = 0
    for end, row in enumerate(rows, 1):
        size += len(row[1]) if row else 0
        if size >= PARSED_AT_ONCE_BYTES:
            yield rows[start:end]
            start, size = end, 0
    if start < len(rows):
        yield rows[start:]


class _Scan:
    """Where a scan stands.

    Attributes:
        going_on: whether there may be more pages.
    """

    def __init__(self, engine: Engine, collection: CollectionName, prefix: str, values: bool) -> None:
        self.going_on = True
        self._engine = engine
        self._collection = collection
        self._prefix = prefix
        self._values = values
        self._limit = ITEMS_PAGE if values else KEYS_PAGE
        self._after: DocId | None = None

    def page(self) -> Page:
        """Return the next page; the last may be empty."""
        where: dict[str, Any] = {"after": self._after, "prefix": self._prefix, "limit": self._limit}
        if self._values:
            rows = self._engine.scan(self._collection, **where)
            self._advance([row[0] for row in rows])
            found = [(row[0], _found(row, now_ms())) for row in rows]
            return [(key, stored) for key, stored in found if isinstance(key, str) and stored is not None]
        ids = self._engine.scan_ids(self._collection, **where, now_ms=now_ms())
        self._advance(ids)
        if not ids or isinstance(ids[-1], str):  # text comes first: then they all are
            return [(key, None) for key in cast("list[str]", ids)]
        return [(key, None) for key in ids if isinstance(key, str)]

    def _advance(self, ids: Sequence[DocId]) -> None:
        if ids and isinstance(ids[-1], bytes):  # no text comes after it
            _logger.warning(
                "Collection '%s' has documents whose _id is not text, written by others: they are left out",
                self._collection.name,
            )
            self.going_on = False
        elif len(ids) < self._limit:
            self.going_on = False
        else:
            self._after = ids[-1]
