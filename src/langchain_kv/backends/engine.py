"""The backend over an engine in this process: plain calls as they are, coroutines through the engine's bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from langchain_kv.backends.base import INDEXING, Backend, Record, Stored, check_settings
from langchain_kv.codecs import parse_document
from langchain_kv.engines.base import CollectionName, DocId, Engine, Settings
from langchain_kv.engines.pages import PAGE_BYTES, PAGE_DOCUMENTS, is_last
from langchain_kv.errors import StoreClosedError, StoreError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.kept import kept_bytes
from langchain_kv.slices import SLICE_BYTES, SLICE_KEYS, Steps, in_slices
from langchain_kv.work_queue import run_aside

__all__ = ["EngineBackend"]

SHORT_READ: Final = 4
"""Keys that a coroutine reads at once, on its own loop: the way through a thread takes longer than reading them."""

LONG_BATCH: Final = 2_000
"""From this number of keys on a coroutine's call is a long one: others do not wait for it."""

KEYS_PAGE: Final = 1_000
"""Keys of one page of a scan."""

SHORT_KEYS_PAGE: Final = 500
"""The same in a coroutine, which reads them on its own loop: a fifth of a millisecond."""

_MISSING_BYTES: Final = SLICE_BYTES // SLICE_KEYS
"""What a key counts for in a slice, also one that is missing."""

_logger = logging.getLogger("langchain_kv")


class EngineBackend(Backend):
    """Keeps the values of one collection in an engine. A batch is written whole or not at all.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``setup`` makes it.
        create_keyspace: whether ``setup`` makes a missing keyspace too.
        on_close: called by the first ``close`` or ``aclose``.
    """

    def __init__(
        self,
        engine: Engine,
        collection: CollectionName,
        *,
        create_keyspace: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.keyspace = collection.keyspace
        self.keeps_bytes = engine.keeps_bytes
        self._parse = _parse_body if engine.keeps_bytes else parse_document
        self._collection = collection
        self._opened_engine = engine
        self._create_keyspace = create_keyspace
        self._on_close = on_close
        self._closed = False

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise StoreClosedError(f"The store on collection '{self._collection.name}' was closed; open a new one")
        return self._opened_engine

    # -- the four verbs -------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        bodies = self._engine.read(self._collection, keys)
        parse = self._parse
        return [None if body is None else parse(body) for body in bodies]

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        bridge = self._engine.bridge
        if len(keys) <= SHORT_READ:
            values = await bridge.read_short(self.get_many, keys)
            await asyncio.sleep(0)  # a loop of such reads lets others run
            return values
        read = bridge.read if len(keys) < LONG_BATCH else bridge.read_long
        # One call, as of one moment. Parsed here and not in its thread, which would hold the interpreter.
        return await in_slices(self._parsed(await read(self._engine.read, self._collection, keys)))

    def _parsed(self, bodies: list[bytes | None]) -> Steps[list[Stored | None]]:
        parse = self._parse
        found: list[Stored | None] = []
        for some in _split(bodies):
            if found:
                yield
            found += [None if body is None else parse(body) for body in some]
        return found

    def put_many(self, records: Sequence[Record]) -> None:
        self._engine.write(self._collection, records)

    async def aput_many(self, records: Sequence[Record]) -> None:
        bridge = self._engine.bridge
        write = bridge.write if len(records) < LONG_BATCH else bridge.write_long
        await write(self._engine.write, self._collection, records)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._engine.delete(self._collection, keys)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        bridge = self._engine.bridge
        write = bridge.write if len(keys) < LONG_BATCH else bridge.write_long
        await write(self._engine.delete, self._collection, keys)

    # The colours of a scan differ in how a page is fetched; what is fetched, and when it ends, is said once, in _Scan.

    def scan_keys(self, prefix: str) -> Iterator[list[str]]:
        scan = _Scan(self._collection, prefix, KEYS_PAGE)
        while scan.going_on:
            yield scan.keys(self._engine)

    async def ascan_keys(self, prefix: str) -> AsyncGenerator[list[str], None]:
        scan = _Scan(self._collection, prefix, SHORT_KEYS_PAGE)
        while scan.going_on:
            yield await self._engine.bridge.read_short(scan.keys, self._engine)
            await asyncio.sleep(0)

    def scan_items(self, prefix: str) -> Iterator[list[tuple[str, Stored]]]:
        scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS)
        while scan.going_on:
            parse = self._parse
            yield [(key, parse(body)) for key, body in scan.documents(self._engine)]

    async def ascan_items(self, prefix: str) -> AsyncGenerator[list[tuple[str, Stored]], None]:
        scan = _Scan(self._collection, prefix, PAGE_DOCUMENTS)
        while scan.going_on:
            yield await in_slices(self._items(await self._engine.bridge.read(scan.documents, self._engine)))
            await asyncio.sleep(0)

    def _items(self, documents: list[tuple[str, bytes]]) -> Steps[list[tuple[str, Stored]]]:
        stored = yield from self._parsed([body for _, body in documents])
        return [(key, one) for (key, _), one in zip(documents, stored, strict=True) if one is not None]

    # -- life -----------------------------------------------------------------------------------------------------

    def setup(self, *, pre_delete: bool = False) -> None:
        self._check(self._open(pre_delete))

    async def asetup(self, *, pre_delete: bool = False) -> None:
        self._check(await self._engine.bridge.write(self._open, pre_delete))

    def _open(self, pre_delete: bool) -> Settings:
        engine = self._engine
        if not pre_delete:
            with suppress(UnknownCollectionError, UnknownKeyspaceError):
                return engine.settings(self._collection)  # the usual case waits for no other writer
        if self._create_keyspace:
            engine.create_keyspace(self.keyspace)
        if pre_delete:
            engine.drop_collection(self._collection)
        try:
            return engine.create_collection(self._collection, {"indexing": INDEXING})
        except StoreError as error:
            if pre_delete:
                error.applied = None  # the old one is gone, and the new one is not there
            raise

    def _check(self, in_force: Settings) -> None:
        if in_force != {"indexing": INDEXING}:
            check_settings(self._collection.name, in_force)

    def drop(self) -> None:
        self._engine.drop_collection(self._collection)

    async def adrop(self) -> None:
        await self._engine.bridge.write(self._engine.drop_collection, self._collection)

    def close(self) -> None:
        self._closed = True
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        try:
            on_close()
        except StoreError:  # of the engine, which this was the last to use: the next call tries again
            self._on_close = self._opened_engine.close
            raise

    async def aclose(self) -> None:
        # Closing may wait for the calls in flight and for the disk, and ends the bridge's own threads: a thread aside.
        await run_aside(self.close, "langchain-kv close")


def _parse_body(body: bytes) -> Stored:
    """Return the document of a body, or the value of bytes that it keeps as it is."""
    if body[:1] == b"{":
        return parse_document(body)
    value = kept_bytes(body)
    return parse_document(body) if value is None else value


def _split(bodies: list[bytes | None]) -> Iterator[list[bytes | None]]:
    """Yield the bodies in parts of SLICE_BYTES, about."""
    start = size = 0
    for end, body in enumerate(bodies, 1):
        size += len(body) + _MISSING_BYTES if body else _MISSING_BYTES
        if size >= SLICE_BYTES:
            yield bodies[start:end]
            start, size = end, 0
    if start < len(bodies):
        yield bodies[start:]


class _Scan:
    """Where a scan stands.

    Attributes:
        going_on: whether there may be more pages.
    """

    def __init__(self, collection: CollectionName, prefix: str, limit: int) -> None:
        self.going_on = True
        self._where: dict[str, Any] = {"collection": collection, "prefix": prefix, "limit": limit, "after": None}

    def keys(self, engine: Engine) -> list[str]:
        """Return the next page of text keys; the last may be empty."""
        ids = engine.scan_ids(**self._where)
        self._advance(ids[-1] if ids else None, is_last=len(ids) < self._where["limit"])
        if not ids or isinstance(ids[-1], str):  # text comes first: then they all are
            return cast("list[str]", ids)
        return [doc_id for doc_id in ids if isinstance(doc_id, str)]

    def documents(self, engine: Engine) -> list[tuple[str, bytes]]:
        """As ``keys``, with the bodies; a page ends by its bytes, too."""
        page = engine.scan(**self._where, size_bytes=PAGE_BYTES)
        last = page[-1][0] if page else None
        self._advance(last, is_last=is_last(page, self._where["limit"], PAGE_BYTES))
        if last is None or isinstance(last, str):
            return cast("list[tuple[str, bytes]]", page)
        return [(doc_id, body) for doc_id, body in page if isinstance(doc_id, str)]

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
