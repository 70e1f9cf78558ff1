"""The backend over an engine in this process: plain calls as they are, coroutines through the engine's bridge."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import repeat
from typing import Any, Final, cast

from langchain_kv.backends.base import Change, Kind, Merge, Page, Record, Skimmed, Stored, SyncBackend
from langchain_kv.backends.collections import check_settings
from langchain_kv.backends.documents import in_document
from langchain_kv.backends.rows import (
    OverEngine,
    adding,
    changing,
    found_all,
    merging,
    open_collection,
    parsed,
    postponing,
    rows_in_parts,
    rows_of,
    skimmed,
    unparsed,
)
from langchain_kv.engines.base import CollectionName, DocId, Ending, Engine, Held, Row, Settings
from langchain_kv.engines.pages import PAGE_BYTES, PAGE_DOCUMENTS, is_last
from langchain_kv.errors import StoreError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.halfway import Halfway
from langchain_kv.runtime.slices import Steps, in_slices, whole
from langchain_kv.runtime.work_queue import Bridge
from langchain_kv.values.namespaces import KEY_SIGN, tree_prefixes, tree_range

__all__ = ["EngineBackend"]

SHORT_READ: Final = 4
"""Keys that a coroutine reads at once, on its own loop: the way through a thread takes longer than reading them."""

LONG_BATCH: Final = 2_000
"""From this number of keys on a coroutine's call is a long one: others do not wait for it."""

KEYS_PAGE: Final = 1_000
"""Keys of one page of a scan."""

SHORT_KEYS_PAGE: Final = 500
"""The same in a coroutine, which reads them on its own loop: a fifth of a millisecond."""

PURGE_PAGE: Final = 1_000
"""Expired rows that are removed in one transaction, so that other writers come between."""

PURGED_BY_WRITE: Final = 16
"""Expired rows that a write of rows that expire removes, beside as many as it writes."""

_logger = logging.getLogger("langchain_kv")


class EngineBackend(OverEngine[Engine], SyncBackend):
    """Keeps the values of one collection in an engine. A batch is written whole or not at all.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``open`` makes it.
        create_keyspace: whether ``open`` makes a missing keyspace too.
        on_close: called by the first ``close`` or ``aclose``.
    """

    in_key_order = True

    def __init__(
        self,
        engine: Engine,
        collection: CollectionName,
        *,
        create_keyspace: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(engine, collection, on_close=on_close)
        self._keeps_raw = engine.keeps_raw_values
        self._create_keyspace = create_keyspace

    @property
    def bridge(self) -> Bridge:
        return self._engine.bridge

    @property
    def can_update(self) -> bool:  # type: ignore[override]
        return not self._engine.read_only

    @property
    def keeps_bytes(self) -> bool:  # type: ignore[override]
        return self._keeps_raw

    # -- the verbs ------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return found_all(self._engine.read(self._collection, keys), now_ms())

    def skim_many(self, keys: Sequence[str]) -> list[Stored | bytes | None]:  # coroutines have it parsed in slices
        return unparsed(self._engine.read(self._collection, keys), now_ms())

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        import asyncio

        if len(keys) <= SHORT_READ:
            values = await self.bridge.read_short(self.get_many, keys)
            await asyncio.sleep(0)  # a loop of such reads lets others run
            return values
        read = self.bridge.read if len(keys) < LONG_BATCH else self.bridge.read_long
        # One call, as of one moment. Parsed here and not in its thread, which would hold the interpreter.
        return await in_slices(parsed(await read(self._engine.read, self._collection, keys)))

    def put_many(self, records: Sequence[Record]) -> None:
        self._write(self._rows(records))

    def check_many(self, records: Sequence[Record]) -> None:
        self._rows(records)

    def check_writable(self) -> None:
        self._engine.check_writable()

    def _rows(self, records: Sequence[Record]) -> list[Row]:
        return rows_of(records, keeps_raw=self._keeps_raw)

    async def aput_many(self, records: Sequence[Record]) -> None:
        rows = await in_slices(rows_in_parts(records, keeps_raw=self._keeps_raw))
        await self._writing(len(rows))(self._write, rows)

    def _writing(self, count: int) -> Callable[..., Awaitable[Any]]:
        """Return the way of the bridge that a call of so many keys takes."""
        return self.bridge.write if count < LONG_BATCH else self.bridge.write_long

    def _write(self, rows: Sequence[Row]) -> None:
        self._engine.write(self._collection, rows)
        self._purge_some(rows)

    def _purge_some(self, rows: Sequence[Row]) -> None:
        if any(row[3] is not None for row in rows):
            with suppress(StoreError):  # the records are stored, whatever becomes of this
                self._engine.purge(self._collection, now_ms=now_ms(), limit=len(rows) + PURGED_BY_WRITE)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._engine.delete(self._collection, keys)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._writing(len(keys))(self._engine.delete, self._collection, keys)

    # Sync and async scans differ in how a page is fetched; what is fetched, and when it ends, is said once, in _Scan.

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        if not values:
            yield from map(_without_values, self.scan_keys(prefix))
            return
        scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS)
        while scan.going_on:
            yield whole(_items(scan.rows(self._engine)))

    def scan_keys(self, prefix: str) -> Generator[list[str]]:  # no pair is made of each of a million keys
        scan = _Scan(self._collection, prefix, KEYS_PAGE)
        while scan.going_on:
            yield scan.keys(self._engine)

    async def ascan_keys(self, prefix: str) -> AsyncGenerator[list[str]]:
        import asyncio

        scan = _Scan(self._collection, prefix, SHORT_KEYS_PAGE)
        while scan.going_on:
            yield await self.bridge.read_short(scan.keys, self._engine)
            await asyncio.sleep(0)

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS, after)
        while scan.going_on:
            yield whole(_items(scan.rows(self._engine)))

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        import asyncio

        if not values:
            async with aclosing(self.ascan_keys(prefix)) as pages:
                async for keys in pages:
                    yield _without_values(keys)
            return
        scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS)
        while scan.going_on:
            yield await in_slices(_items(await self.bridge.read(scan.rows, self._engine)))
            await asyncio.sleep(0)

    def scan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> Generator[Skimmed]:
        for prefix in tree_prefixes(tree):
            scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS if values else KEYS_PAGE)
            while scan.going_on:
                yield (
                    skimmed(scan.rows(self._engine, holding), now_ms())
                    if values
                    else [*_without_values(scan.keys(self._engine))]
                )

    async def ascan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> AsyncGenerator[Skimmed]:
        import asyncio

        for prefix in tree_prefixes(tree):
            scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS if values else SHORT_KEYS_PAGE)
            while scan.going_on:
                if values:
                    yield skimmed(await self.bridge.read(scan.rows, self._engine, holding), now_ms())
                else:
                    yield [*_without_values(await self.bridge.read_short(scan.keys, self._engine))]
                await asyncio.sleep(0)

    def namespaces(self, tree: str) -> set[str]:
        look = partial(self._engine.beginnings, self._collection, end=KEY_SIGN, now_ms=now_ms())
        return {each for prefix in tree_prefixes(tree) for each in look(prefix=prefix)}

    async def anamespaces(self, tree: str) -> set[str]:
        return await self.bridge.read(self.namespaces, tree)

    def keys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        start, end = tree_range(tree)
        return self._engine.ids_by_ending(self._collection, in_document(ending), start=start, end=end, limit=limit)

    async def akeys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        return await self.bridge.read(self.keys_by_ending, tree, ending, limit)

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return self._add(self._rows(records))

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        rows = await in_slices(rows_in_parts(records, keeps_raw=self._keeps_raw))
        added: list[bool] = await self._writing(len(rows))(self._add, rows)
        return added

    def _add(self, rows: Sequence[Row]) -> list[bool]:
        added, insert = adding(rows)
        self._engine.modify(self._collection, list(added), insert)
        return [added[row[0]] for row in rows]

    def update(self, key: str, change: Change) -> None:
        self._engine.modify(self._collection, [key], changing(change, keeps_raw=self._keeps_raw))

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        self._merge(self._rows(records), records, merge)

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        rows = await in_slices(rows_in_parts(records, keeps_raw=self._keeps_raw))
        await self._writing(len(rows))(self._merge, rows, records, merge)

    def _merge(self, rows: Sequence[Row], records: Sequence[Record], merge: Merge) -> None:
        change = merging(rows, records, merge, keeps_raw=self._keeps_raw)
        usual = Kind.JSON
        if merge.ending and all(record.kind is usual and record.expires_at_ms is None for record in records):
            self._engine.merge(self._collection, rows, in_document(merge.ending), change)
            return
        self._engine.modify(self._collection, [row[0] for row in rows], change)
        self._purge_some(rows)

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._engine.modify(self._collection, keys, postponing(expires_at_ms))

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._writing(len(keys))(self.touch_many, keys, expires_at_ms)

    def clear(self, prefix: str) -> None:
        self._engine.clear(self._collection, prefix)

    def purge(self) -> int:
        removed = 0
        with Halfway() as halfway:
            while some := self._purge_page():
                removed += some
                halfway.has_changed = True
                time.sleep(self._engine.purge_pause_s)
        return removed

    async def apurge(self) -> int:
        import asyncio

        removed = 0
        with Halfway() as halfway:
            while some := await self.bridge.write(self._purge_page):
                removed += some
                halfway.has_changed = True
                await asyncio.sleep(self._engine.purge_pause_s)
        return removed

    def _purge_page(self) -> int:
        return self._engine.purge(self._collection, now_ms=now_ms(), limit=PURGE_PAGE)

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self, *, clear: bool = False) -> None:
        check_settings(self._collection.name, self._open(clear))

    async def aopen(self, *, clear: bool = False) -> None:
        settings = await self.bridge.write(self._open, clear)
        check_settings(self._collection.name, settings)  # a warning shows the caller's line, not a thread's

    def _open(self, clear: bool) -> Settings:
        return open_collection(self._engine, self._collection, clear=clear, create_keyspace=self._create_keyspace)


def _items(rows: Sequence[Row]) -> Steps[Page]:
    stored = yield from parsed(rows)
    return [(cast(str, row[0]), one) for row, one in zip(rows, stored, strict=True) if one is not None]


def _without_values(keys: Sequence[str]) -> Page:
    return list(zip(keys, repeat(None)))


class _Scan:
    """Where a scan stands.

    Attributes:
        going_on: whether there may be more pages.
    """

    def __init__(self, collection: CollectionName, prefix: str, limit: int, after: str | None = None) -> None:
        self.going_on = True
        self._where: dict[str, Any] = {"collection": collection, "prefix": prefix, "limit": limit, "after": after}

    def keys(self, engine: Engine) -> list[str]:
        """Return the next page of text keys that have not expired; the last may be empty."""
        ids = engine.scan_ids(**self._where, now_ms=now_ms())
        self._advance(ids[-1] if ids else None, is_last=len(ids) < self._where["limit"])
        if not ids or isinstance(ids[-1], str):  # text comes first: then they all are
            return cast("list[str]", ids)
        return [key for key in ids if isinstance(key, str)]

    def rows(self, engine: Engine, holding: Held | None = None) -> list[Row]:
        """As ``keys``, whole rows, also expired ones; a page ends by its bytes, too.

        With ``holding`` rows whose bodies do not hold it may be left out.
        """
        scan = partial(engine.scan_holding, held=holding) if holding else engine.scan
        page = scan(**self._where, size_bytes=PAGE_BYTES)
        last = page[-1][0] if page else None
        self._advance(last, is_last=is_last(page, self._where["limit"], PAGE_BYTES))
        if last is None or isinstance(last, str):
            return page
        return [row for row in page if isinstance(row[0], str)]

    def _advance(self, last: DocId | None, *, is_last: bool) -> None:
        if isinstance(last, bytes):  # no text comes after it
            _logger.warning(
                "Collection '%s' has documents whose _id is not text, written by others: they are left out",
                self._where["collection"].name,
            )
            self.going_on = False
        elif is_last:
            self.going_on = False
        else:
            self._where["after"] = last
