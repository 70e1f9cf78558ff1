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
from langchain_kv.errors import StoreClosedError, StoreError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.kept import kept_bytes

__all__ = ["EngineBackend"]

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

SHORT_KEYS_PAGE: Final = 500
"""The same in a coroutine, which reads them on its own loop: a fifth of a millisecond."""

ITEMS_PAGE: Final = 100
"""Documents of one page of a scan: each may have megabytes."""

_logger = logging.getLogger("langchain_kv")


class EngineBackend(Backend):
    """Keeps the values of one collection in an engine. A batch is written whole or not at all.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``setup`` makes it.
        create_keyspace: whether ``setup`` makes a missing keyspace too.
        on_close: called once, by the first ``close`` or ``aclose``.
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
        self._read_page = READ_PAGE

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
        found: list[Stored | None] = []
        while len(found) < len(keys):
            page = keys[len(found) : len(found) + self._read_page]
            bodies = await bridge.read(self._engine.read, self._collection, page)
            fitting = READ_PAGE_BYTES * len(page) // (1 + sum(map(len, filter(None, bodies))))
            self._read_page = max(LEAST_READ_PAGE, min(READ_PAGE, fitting))
            # Parsed here and not in the thread, which would hold the interpreter for milliseconds.
            for some in _split(bodies):
                found += [None if body is None else self._parse(body) for body in some]
                await asyncio.sleep(0)
        return found

    def put_many(self, records: Sequence[Record]) -> None:
        self._engine.write(self._collection, records)

    async def aput_many(self, records: Sequence[Record]) -> None:
        await self._engine.bridge.write(self._engine.write, self._collection, records)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._engine.delete(self._collection, keys)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._engine.bridge.write(self._engine.delete, self._collection, keys)

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
        scan = _Scan(self._collection, prefix, ITEMS_PAGE)
        while scan.going_on:
            yield scan.items(self._engine, self._parse)

    async def ascan_items(self, prefix: str) -> AsyncGenerator[list[tuple[str, Stored]], None]:
        scan = _Scan(self._collection, prefix, ITEMS_PAGE)
        while scan.going_on:
            yield await self._engine.bridge.read(scan.items, self._engine, self._parse)

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
        if on_close is not None:
            on_close()

    async def aclose(self) -> None:
        # Closing may wait for the calls in flight and for the disk, and ends the bridge's own threads: a thread aside.
        await asyncio.get_running_loop().run_in_executor(None, self.close)


def _parse_body(body: bytes) -> Stored:
    """Return the document of a body, or the value of bytes that it keeps as it is."""
    if body[:1] == b"{":
        return parse_document(body)
    value = kept_bytes(body)
    return parse_document(body) if value is None else value


def _split(bodies: list[bytes | None]) -> Iterator[list[bytes | None]]:
    """Yield the bodies in parts of PARSED_AT_ONCE_BYTES, about."""
    start = size = 0
    for end, body in enumerate(bodies, 1):
        size += len(body) if body else 0
        if size >= PARSED_AT_ONCE_BYTES:
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
        self._advance(ids)
        if not ids or isinstance(ids[-1], str):  # text comes first: then they all are
            return cast("list[str]", ids)
        return [doc_id for doc_id in ids if isinstance(doc_id, str)]

    def items(self, engine: Engine, parse: Callable[[bytes], Stored]) -> list[tuple[str, Stored]]:
        """As ``keys``, with the documents."""
        documents = engine.scan(**self._where)
        self._advance([doc_id for doc_id, _ in documents])
        return [(doc_id, parse(body)) for doc_id, body in documents if isinstance(doc_id, str)]

    def _advance(self, ids: Sequence[DocId]) -> None:
        if ids and isinstance(ids[-1], bytes):  # no text comes after it
            _logger.warning(
                "Collection '%s' has documents whose _id is not text, written by others: they are left out",
                self._where["collection"].name,
            )
            self.going_on = False
        elif len(ids) < self._where["limit"]:
            self.going_on = False
        else:
            self._where["after"] = ids[-1]
